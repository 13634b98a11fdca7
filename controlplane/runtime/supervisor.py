"""Background tasks that are watched: a crash is counted, logged and answered by a restart with a growing pause.

Nothing in the daemon starts a task that nobody awaits: long-lived ones run here, short ones in a task group.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from controlplane.runtime.backoff import Backoff
from controlplane.telemetry.metrics import Metrics

_log = structlog.get_logger()

STEADY_S = 60.0
"""A task that ran this long before it crashed starts its pauses anew."""


class Supervisor:
    """A set of named tasks with one life."""

    def __init__(self, metrics: Metrics, backoff: Backoff | None = None) -> None:
        self._metrics = metrics
        self._backoff = backoff or Backoff(0.1, 10.0)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run `run` until it returns; when it raises, run it again. One task a name."""
        if name in self._tasks and not self._tasks[name].done():
            msg = f"task {name} is running already"
            raise RuntimeError(msg)
        task = self._tasks[name] = asyncio.create_task(self._watch(name, run), name=name)
        task.add_done_callback(lambda task: self._drop(name, task))

    def running(self, name: str) -> bool:
        """True while the named task is neither done nor stopped."""
        return name in self._tasks and not self._tasks[name].done()

    async def stop_one(self, name: str) -> None:
        """Cancel one task and wait for its end."""
        await _ended([task] if (task := self._tasks.pop(name, None)) else [])

    async def stop(self) -> None:
        """Cancel all tasks, newest first, and wait for their ends."""
        tasks = list(reversed(self._tasks.values()))
        self._tasks.clear()
        await _ended(tasks)

    def _drop(self, name: str, task: asyncio.Task[None]) -> None:
        """Names are as many as targets ever were; what has ended isn't remembered."""
        if self._tasks.get(name) is task:
            del self._tasks[name]

    async def _watch(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                await run()
            except asyncio.CancelledError:
                raise
            except Exception as exc:  # noqa: BLE001 - counted, logged, restarted
                failures = 1 if loop.time() - started > STEADY_S else failures + 1
                pause_s = self._backoff.pause_s(failures, random.random())  # noqa: S311 - spreading restarts
                self._metrics.bug(name)
                _log.exception("task crashed", task=name, error=repr(exc), restart_s=round(pause_s, 2))
                await asyncio.sleep(pause_s)
            else:
                return


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
