"""`coreplane project`: fill a projection that several daemons share, and rebuild it while they use it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.status import Status
from rich.text import Text

from controlplane.app import secrets_of
from controlplane.cli import configuration, daemon, printing, starting
from controlplane.cli.failure import Failure
from controlplane.cli.session import DEFAULT_DATA, Data
from controlplane.config import Config
from controlplane.log.ports import LogUnavailable
from controlplane.projection import choice, shared
from controlplane.projection.ports import StoreUnavailable
from controlplane.telemetry import logs
from controlplane.telemetry.metrics import Metrics


def project(
    *,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Fill new indices from the beginning of the log, then move to them at once; then end."
        ),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="Of the daemons; else that of the `coreplane up` on --data.",
        ),
    ] = None,
    log: Annotated[str | None, typer.Option("--log", metavar="URL", help="Overrides log.url.")] = None,
    projection: Annotated[
        str | None, typer.Option("--projection", metavar="URL", help="Overrides projection.url.")
    ] = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Fill the projection in Elasticsearch from the log on Kafka, beside the daemons or instead of them.

    Any number of these share the work. With `projection.embedded: false` the daemons leave it to them.

    $ coreplane project --config coreplane.yaml

    $ coreplane project --config coreplane.yaml --rebuild

    $ coreplane project --rebuild   # what `coreplane up` runs here
    """
    checked = configuration.of_running(config, data, {"log": {"url": log}, "projection": {"url": projection}})
    starting.check(checked)
    if not choice.is_shared(checked):
        msg = "only a projection in Elasticsearch, of a log on Kafka, is filled by `coreplane project`"
        raise Failure(msg, hint="the daemon fills its own; `coreplane doctor --rebuild-projection` makes it anew")
    logs.configure(checked.telemetry.log_format, checked.telemetry.log_level)
    try:
        if rebuild:
            _rebuild(checked)
        else:
            asyncio.run(daemon.until_signal(shared.project(checked, Metrics(), secrets_of(checked), ready=_announce)))
    except LogUnavailable as exc:
        raise Failure(str(exc)) from exc


def _announce() -> None:
    printing.stderr().print("coreplane projects")


def _rebuild(config: Config) -> None:
    begun = time.monotonic()
    try:
        with printing.stderr().status("filling new indices from the log") as status:
            generation = asyncio.run(shared.rebuild(config, secrets_of(config), _shown(status)))
    except StoreUnavailable as exc:
        raise Failure(str(exc), hint="see projection.url; what was there is still there") from exc
    printing.show(Text(f"generation {generation} is live ({time.monotonic() - begun:.1f} s)"))


def _shown(status: Status) -> Callable[[int], Awaitable[None]]:
    async def show(left: int) -> None:
        status.update(f"filling new indices from the log: {left} records to come")

    return show
