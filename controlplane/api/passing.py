"""Contents on their way to a reader, who is given up when it takes nothing for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web


async def passed_on(body: AsyncIterator[bytes], response: web.StreamResponse, idle_s: float) -> None:
    """Chunk by chunk; TimeoutError when the reader takes nothing for `idle_s`. One deadline for all of it, which counts only
    while the reader is waited for: setting one up for each chunk costs more."""
    clock = asyncio.get_running_loop().time
    async with asyncio.timeout(None) as deadline:
        async for chunk in body:
            deadline.reschedule(clock() + idle_s)
            await response.write(memoryview(chunk))  # what doesn't fit at once is cut without a copy
            deadline.reschedule(None)
