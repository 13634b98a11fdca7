"""Cancellations that arrive.

Note [A cancellation that is lost]. Up to Python 3.11 `asyncio.wait_for` returns the result when it is cancelled in the moment
in which the result has come, and the cancellation is gone: a loop that called it, in redis-py for every command, goes on for
ever, and so the daemon never ends. From Python 3.12 on it is made of `asyncio.timeout`, which loses none; this is the same for
the versions before.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import TypeVar

_T = TypeVar("_T")


def lose_none() -> None:
    """Let this process, its libraries included, use the later `wait_for`."""
    if sys.version_info < (3, 12):
        asyncio.wait_for = wait_for  # type: ignore[assignment]


async def wait_for(fut: Awaitable[_T], timeout: float | None) -> _T:
    """As `asyncio.wait_for` of Python 3.12. Raises TimeoutError."""
    if timeout is not None and timeout <= 0:
        future = asyncio.ensure_future(fut)
        if not future.done():
            future.cancel()
            await asyncio.wait({future})
            if future.cancelled():
                raise TimeoutError
        return future.result()
    async with asyncio.timeout(timeout):
        return await fut
