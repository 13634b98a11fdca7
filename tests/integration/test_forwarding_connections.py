"""Requests are handed on to a replica whose connections are all taken: the caller is told, and doesn't wait for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from controlplane.api import forwarding
from controlplane.api.forwarding import Forwarding
from controlplane.domain.errors import Elsewhere

CONNECTIONS = 100
"""As many as aiohttp has for one session."""


@asynccontextmanager
async def replicas(let_go: asyncio.Event) -> AsyncIterator[str]:
    """The URL of one that hands everything on to another, which begins each answer and ends it when it is let."""

    async def hold(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        await let_go.wait()
        await response.write_eof()
        return response

    async def hand_on(request: web.Request) -> web.StreamResponse:
        try:
            return await handing.stream(request, "default/one", Elsewhere(0, "default/storage.target/main"))
        except Elsewhere as exc:
            return web.Response(status=503, text=str(exc))

    async with AsyncExitStack() as stack:
        owner, front = (web.Application() for _ in range(2))
        owner.router.add_get("/{path:.*}", hold)
        front.router.add_get("/{path:.*}", hand_on)
        owning = await stack.enter_async_context(TestServer(owner))

        async def address(_: int) -> str:
            return str(owning.make_url("")).rstrip("/")

        handing = Forwarding(address)
        stack.push_async_callback(handing.close)
        fronting = await stack.enter_async_context(TestServer(front))
        stack.callback(let_go.set)
        yield str(fronting.make_url("/contents"))


async def test_who_finds_all_connections_taken_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = asyncio.Event()
    async with (
        asyncio.timeout(60),
        replicas(let_go) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        taken = await asyncio.gather(*(session.get(url) for _ in range(CONNECTIONS)))
        assert {answer.status for answer in taken} == {200}
        monkeypatch.setattr(forwarding, "FREE_S", 0.5)
        async with session.get(url) as refused:
            assert refused.status == 503
            assert "try again in a moment" in await refused.text()
        monkeypatch.undo()
        let_go.set()
        assert {await answer.read() for answer in taken} == {b"begun"}
        async with session.get(url) as answered:
            assert (answered.status, await answered.read()) == (200, b"begun")
