"""A backend of the cache service without the daemon: declare, converge, look again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from reconcilers.cache.backend import connect
from reconcilers.contract import Connection, Hint
from schemas.cache import Target
from tests.integration.backend_world import BackendWorld, DictSecrets

DEADLINE_S = 15.0


@asynccontextmanager
async def world(*urls: str, secrets: DictSecrets | None = None, **target: Any) -> AsyncIterator[BackendWorld]:
    """Open the servers at the URLs as one target."""
    kind = urls[0].partition(":")[0]
    where = {"url": urls[0]} if len(urls) == 1 else {"nodes": urls}
    secrets = secrets or DictSecrets()
    value = Target.model_validate({"kind": kind, **where, **target})
    backend = await connect(Connection("default", "main", value, secrets))
    try:
        yield BackendWorld(backend, secrets)
    finally:
        await backend.close()


@asynccontextmanager
async def hinted(backend: Any) -> AsyncIterator[Callable[[], Any]]:
    """Collect hints; the function waits for the next one."""
    hints: asyncio.Queue[Hint] = asyncio.Queue()

    async def collect() -> None:
        async for hint in backend.hints():
            hints.put_nowait(hint)

    async def following() -> Hint:
        async with asyncio.timeout(DEADLINE_S):
            return await hints.get()

    task = asyncio.create_task(collect())
    try:
        yield following
    finally:
        task.cancel()
        await asyncio.wait([task])
