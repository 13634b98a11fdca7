"""One call of a loader for many keys that are missed at about the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

ManyLoader = Callable[[Sequence[str]], Awaitable[Mapping[str, Any]]]

WINDOW_S: Final = 0.002
"""How long the first key waits for others."""


class NotLoaded(Exception):
    """The loader has no value for the key."""


class Batch:
    """Collects the keys that turn out to be missing. The first one to come makes the call for all."""

    def __init__(self, loader: ManyLoader) -> None:
        self._loader = loader
        self._waiting: dict[str, asyncio.Future[Any]] = {}

    def one(self, key: str) -> Callable[[], Awaitable[Any]]:
        """The loader of a single key; raises NotLoaded when there is no value for it."""

        async def load() -> Any:
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            first = not self._waiting
            self._waiting[key] = future
            if first:
                await self._lead()
            return await future

        return load

    async def _lead(self) -> None:
        try:
            await asyncio.sleep(WINDOW_S)
            waiting, self._waiting = self._waiting, {}
        except asyncio.CancelledError:
            waiting, self._waiting = self._waiting, {}
            _fail(waiting, NotLoaded("the call was cancelled"))
            raise
        try:
            values = await self._loader(list(waiting))
        except BaseException as exc:
            _fail(waiting, exc if isinstance(exc, Exception) else NotLoaded("the call was cancelled"))
            raise
        for key, future in waiting.items():
            if future.done():
                continue
            if key in values:
                future.set_result(values[key])
            else:
                future.set_exception(NotLoaded(key))


def _fail(waiting: Mapping[str, asyncio.Future[Any]], fault: Exception) -> None:
    for future in waiting.values():
        if not future.done():
            future.set_exception(fault)
            future.exception()
