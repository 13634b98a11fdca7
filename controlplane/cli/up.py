"""`coreplane up`: backends, daemon and example on this machine, by one command.

Theory of operation. One process holds everything: it starts the backends (each a child of ours), then the daemon inside
itself, declares one target for each backend, applies the example where there is nothing yet, and records itself in
`<data>/up.json`, by which the other verbs find it. A signal unwinds the same in reverse: record, daemon, backends. What
was declared stays in the data directory, so that the next `up` goes on where this one ended.

With --detach a second process does all that, in a session of its own and with its output in `<data>/up.log`; the first
one waits for the record.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from controlplane.cli import applying, configuration, daemon, detached, documents, printing, tables, upfile, waiting
from controlplane.cli.failure import Failure
from controlplane.cli.rows import Facts
from controlplane.cli.session import DEFAULT_DATA, Data, actor
from controlplane.cli.steps import Steps
from controlplane.client.errors import ClientError
from controlplane.client.http import CoreplaneClient
from controlplane.config import Config
from controlplane.devstack import elasticsearch, ports, shop
from controlplane.devstack.elasticsearch import ELASTICSEARCH
from controlplane.devstack.kafka import KAFKA
from controlplane.devstack.progress import DevstackError
from controlplane.devstack.stack import Stack
from controlplane.telemetry import logs

Json = dict[str, Any]

PORT = 8470
CONVERGE_S = 60.0
IDLE_S = 20.0
"""When nothing has changed for so long, the person is told how it stands instead of being kept waiting. Elasticsearch may
take that long to start."""
LATE_ATTEMPTS = 20
"""The daemon may still be taking over its shards when the first of those that come later is there."""
LOG_NAME = "coreplane.log"
NEXT = (
    ("coreplane get", "what is declared, and whether it is so"),
    ("coreplane events -f", "what happens"),
    ("coreplane describe TYPE NAME", "one setting in full"),
    ("coreplane apply -f FILE", "change it"),
)


@dataclass(frozen=True, slots=True)
class Wishes:
    """The options of `up`."""

    data: Path
    port: int | None = None
    services: tuple[str, ...] = ()
    example: bool = True
    log: str | None = None
    projection: str | None = None

    def arguments(self) -> list[str]:
        """As they are typed."""
        found = ["--data", str(self.data)]
        found += ["--port", str(self.port)] if self.port is not None else []
        found += ["--services", ",".join(self.services)] if self.services else []
        found += [] if self.example else ["--no-example"]
        found += ["--log", self.log] if self.log else []
        return found + (["--projection", self.projection] if self.projection else [])


def up(
    *,
    data: Data = DEFAULT_DATA,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", metavar="PORT", min=0, max=65_535, help=f"The daemon's; without it {PORT}, or a free one."
        ),
    ] = None,
    services: Annotated[
        str | None, typer.Option("--services", metavar="A,B", help="Start the backends of these services only.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is ready; `coreplane down` stops it.")
    ] = False,
    no_example: Annotated[bool, typer.Option("--no-example", help="Declare the targets, but not the example.")] = False,
    log: Annotated[
        str | None,
        typer.Option(
            "--log",
            metavar="URL",
            help="kafka://HOST:PORT, or `kafka` to start one here; without it a file in the data directory.",
        ),
    ] = None,
    projection: Annotated[
        str | None,
        typer.Option(
            "--projection",
            metavar="URL",
            help="http://HOST:PORT of an Elasticsearch, or `elasticsearch` to start one here; without it a file.",
        ),
    ] = None,
) -> None:
    """Start backends and daemon on this machine and apply an example. Ctrl-C stops it all; what was declared stays.

    Backends are found on PATH, or installed, or downloaded when that takes root. The next `up` on the same data directory
    goes on where this one ended; two of them with different directories get along.

    $ coreplane up

    $ coreplane up --detach --data /var/tmp/shop --port 8480

    $ coreplane up --log kafka

    $ coreplane up --log kafka --projection elasticsearch
    """
    data = data.resolve()
    running = upfile.alive(data)
    if running is not None:
        msg = f"coreplane is up on {data} already: {running.url} (pid {running.pid})"
        raise Failure(msg, hint=f"coreplane down --data {data}")
    _make(data)
    named = tuple(part.strip() for part in (services or "").split(",") if part.strip())
    wishes = Wishes(data, port, named, not no_example, log, projection)
    if detach:
        url = detached.start(data, wishes.arguments())
        asyncio.run(_greet(url, data, f"coreplane down --data {data} stops it"))
        return
    try:
        # Into a file: the terminal belongs to the progress and the tables.
        with (data / LOG_NAME).open("a", encoding="utf-8") as sink:
            logs.configure("console", stream=sink)
            asyncio.run(daemon.until_signal(stay_up(wishes)))
    except DevstackError as exc:
        raise Failure(exc.message, hint=exc.hint) from exc
    printing.stderr().print("coreplane is down")


async def stay_up(wishes: Wishes) -> None:
    """Everything, until cancelled or until the daemon ends."""
    steps = Steps()
    wanted = ((KAFKA, wishes.log), (ELASTICSEARCH, wishes.projection))
    infrastructure = [backend for backend, wish in wanted if wish == backend.name]
    async with Stack(wishes.data, wishes.services, steps, infrastructure=infrastructure) as stack:
        log_url = stack.url(KAFKA.name) if KAFKA in infrastructure else wishes.log
        projection = (
            elasticsearch.login(stack.url(ELASTICSEARCH.name), given=stack.is_given(ELASTICSEARCH.name))
            if ELASTICSEARCH in infrastructure
            else {"url": wishes.projection}
        )
        parts: Json = {"log": {"url": log_url}, "projection": projection}
        config = _config(wishes, parts)
        steps("daemon", "starting")
        async with daemon.running(config) as running:
            steps("daemon", f"ready at {running.url}", done=True)
            async with CoreplaneClient(running.url, actor=actor()) as client:
                await _declare(client, stack, example=wishes.example)
            record = partial(_record, stack, running.url, wishes.data, parts)
            record()
            latecomers = asyncio.create_task(_welcome(stack, running.url, record, steps), name="latecomers")
            try:
                await _attend(running, wishes.data)
            finally:
                latecomers.cancel()
                await asyncio.wait({latecomers})
                upfile.remove(wishes.data)


def _make(data: Path) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as exc:
        msg = f"can't make the data directory {data}: {exc.strerror}"
        raise Failure(msg, hint="name another one with --data") from exc


def _config(wishes: Wishes, parts: Json) -> Config:
    port = wishes.port if wishes.port is not None else PORT if ports.is_free(PORT) else 0
    content = {
        "data_dir": str(wishes.data),
        "http": {"port": port},
        **parts,
    }
    return configuration.checked(configuration.merged({}, content), "the command line")


async def _attend(running: daemon.Daemon, data: Path) -> None:
    """Greet, then wait for the daemon's end."""
    greeting = asyncio.create_task(_greet(running.url, data, "Ctrl-C stops it"), name="greeting")
    try:
        await asyncio.wait({greeting, running.task}, return_when=asyncio.FIRST_COMPLETED)
        if greeting.done():
            greeting.result()
        await running.task
    finally:
        greeting.cancel()
        await asyncio.wait({greeting})


async def _declare(client: CoreplaneClient, stack: Stack, *, example: bool) -> None:
    """The targets always, since their ports may have changed; the example only where there is nothing else, and of it what
    concerns the services that run."""
    await client.apply(stack.targets(), reason="coreplane up")
    if not example:
        return
    others = [s async for s in client.list_settings() if not s["setting_type"].endswith(".target")]
    if not others:
        found = documents.load([str(path) for path in shop.EXAMPLES])
        mine = [item for item in found if item.declaration["type"].partition(".")[0] in stack.services]
        await applying.declare(client, mine, reason="the example of coreplane up")


def _record(stack: Stack, url: str, data: Path, parts: Json) -> None:
    """By what the other verbs find us."""
    upfile.write(data, upfile.this_process(url, stack.backends(), parts))


async def _welcome(stack: Stack, url: str, record: Callable[[], None], steps: Steps) -> None:
    """Declare the target of each backend that comes later again once it is there, and have it looked at now."""
    async with CoreplaneClient(url, actor=actor(), attempts=LATE_ATTEMPTS) as client:
        async for name in stack.arrivals():
            record()
            try:
                await client.apply(stack.targets(), reason=f"coreplane up: {name} is there")
                for target in stack.targets_of(name):
                    await client.reconcile(*target.split("/"))
            except ClientError as exc:
                # It is looked at again with every sweep all the same.
                steps(name, f"its target could not be declared again: {exc}")


async def _greet(url: str, data: Path, ending: str) -> None:
    """Watch everything declared converge, then say where it is and what to do next."""
    async with CoreplaneClient(url, actor=actor()) as client:
        declared = [setting async for setting in client.list_settings()]
        watch = waiting.Watch({f"{s['setting_type']}/{s['name']}": s["generation"] for s in declared})
        with waiting.Progress() as progress:
            in_time = await waiting.settle(client, watch, CONVERGE_S, progress, idle_s=IDLE_S)
        final = [setting async for setting in client.list_settings()]
    printing.show(tables.settings_table(final, time.time()), "")
    if not _nothing_but_awaited(watch, data):
        try:
            waiting.conclude(watch, in_time=in_time, wait_s=IDLE_S)
        except Failure as exc:
            printing.complain(exc)  # the daemon is up all the same, and keeps trying
    facts: list[tuple[str, str | Text]] = [("API", url), ("Dashboard", f"{url}/"), ("Data", str(data))]
    printing.show(Facts([*facts, ("Log", str(data / LOG_NAME))]), "")
    printing.show(Facts(NEXT), "", Text(ending, "dim"))


def _nothing_but_awaited(watch: waiting.Watch, data: Path) -> bool:
    """Whether something isn't done, and all of it waits for backends that still come; they are named then."""
    running = upfile.alive(data)
    awaited = {s: one["name"] for one in (running.backends if running else ()) for s in one.get("awaited_by", ())}
    late = watch.having("waiting")
    services = {reference.partition(".")[0] for reference in late}
    if watch.having("stuck") or not services or not services <= awaited.keys():
        return False
    names = ", ".join(sorted({awaited[service] for service in services}))
    what = f"{', '.join(sorted(services))} converges when it is there ({len(late)} not Ready yet)"
    printing.stderr().print(f"{names} is still on the way; {what}", "")
    return True
