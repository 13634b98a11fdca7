"""`coreplane serve`: the daemon alone, in the foreground."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli import configuration, daemon, printing
from controlplane.telemetry import logs


def serve(
    *,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="YAML; see controlplane/config.py for all.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", envvar="COREPLANE_DATA", help="Overrides data_dir.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Overrides http.host.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65_535, help="Overrides http.port.")] = None,
    advertise: Annotated[
        str | None,
        typer.Option("--advertise", metavar="URL", envvar="COREPLANE_ADVERTISE", help="Overrides http.advertise."),
    ] = None,
    member: Annotated[
        str | None,
        typer.Option("--member", metavar="NAME", envvar="COREPLANE_MEMBER", help="Overrides projection.member."),
    ] = None,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C, without backends and example of its own.

    $ coreplane serve --config /etc/coreplane.yaml
    """
    overrides = {
        "data_dir": None if data is None else str(data),
        "http": {"host": host, "port": port, "advertise": advertise},
        "projection": {"member": member},
    }
    checked = configuration.load(config, overrides)
    logs.configure(checked.telemetry.log_format, checked.telemetry.log_level)
    asyncio.run(daemon.until_signal(daemon.serve(checked, announce)))


def announce(url: str) -> None:
    """Tell the person where the daemon listens."""
    printing.stderr().print(f"coreplane is ready at {url}")
