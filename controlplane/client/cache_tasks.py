"""Background tasks of a cache: nobody's fault stays unheard, none outlives the cache.

Note [A cancellation that is lost]. Up to Python 3.11 `asyncio.wait_for`, which redis-py calls with every command, returns the
result when it is cancelled in the moment in which the result has come. So a task that goes on is cancelled again.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import structlog

from controlplane.client.cache_batch import NotLoaded

_log = structlog.get_logger()

T = TypeVar("T")
AGAIN_S: Final = 1.0


class Tasks:
    """The tasks of one cache. `errors` counts the crashes of those that run for ever."""

    def __init__(self, namespace: str, errors: Counter[str]) -> None:
        self._namespace = namespace
        self._errors = errors
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run it until it ends or the cache is closed."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def forever(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run it again whenever it crashes."""
        self.spawn(self._supervise(name, run))

    async def close(self) -> None:
        """Cancel all, and wait for their ends. Note [A cancellation that is lost]."""
        left = set(self._tasks)
        while left:
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=AGAIN_S)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        fault = task.exception()
        if fault is not None and not isinstance(fault, NotLoaded):
            # Who waits for a load gets its fault as well; of a refresh nobody else would hear.
            _log.info("cache load failed", namespace=self._namespace, error=repr(fault))

    async def _supervise(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await run()
            except Exception as exc:  # noqa: BLE001 - a supervisor: logged, counted, started again
                self._errors[name] += 1
                _log.exception("cache task crashed", task=name, namespace=self._namespace, error=repr(exc))
                await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311 - spreading restarts
