"""A daemon inside this process, for `serve` and `up`; and what ends it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from controlplane import app
from controlplane.cli import printing, starting
from controlplane.cli.failure import Failure
from controlplane.config import Config
from controlplane.runtime import cancelling

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Daemon:
    """`task` ends when the daemon does: by itself, or because it was told to."""

    url: str
    task: asyncio.Task[None]


async def serve(config: Config, ready: Callable[[str], None]) -> None:
    """Run the daemon until cancelled; `ready` is called with its URL. Failure when it can't start."""
    starting.check(config)
    serving = False

    def tell(url: str) -> None:
        nonlocal serving
        serving = True
        ready(url)

    try:
        await app.serve(config, ready=tell)
    except starting.TROUBLES as exc:
        if serving:
            raise
        raise starting.failure_of(exc, config) from exc


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Daemon]:
    """The daemon, ready. It is stopped in order at the end of the block."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(config, ready.set_result), name="daemon")
    try:
        waited: set[asyncio.Future[Any]] = {task, ready}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            task.result()
            msg = "the daemon ended before it was ready"
            raise Failure(msg)
        yield Daemon(ready.result(), task)
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and task.exception() is not None and ready.done():
            printing.stderr().print(f"the daemon ended with {task.exception()!r}", style="red", markup=False)


async def until_signal(work: Awaitable[None]) -> None:
    """Do the work; on the first SIGINT, SIGTERM or SIGHUP cancel it and wait for its end. Later ones change nothing."""
    cancelling.lose_none()
    task = asyncio.ensure_future(work)
    stopping = asyncio.Event()

    def stop() -> None:
        if not stopping.is_set():
            stopping.set()
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not stopping.is_set():
            raise
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
