"""A TCP proxy that can be slow, cut, or silent."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self
from urllib.parse import urlsplit

CHUNK = 64 * 1024


class SlowNetwork:
    """Between clients and one server. What is set counts for what comes from then on."""

    def __init__(self, url: str, port: int = 0) -> None:
        """`port`: where to listen; 0: on a free one."""
        parts = urlsplit(url)
        self._scheme = parts.scheme
        self._server = (parts.hostname or "127.0.0.1", parts.port or 0)
        self._port = port
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.delay_s = 0.0
        self.open = asyncio.Event()
        """Cleared: nothing passes, in either direction, and nobody is told."""
        self.open.set()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()

    async def listen(self) -> None:
        """Let clients in; again after `refuse`, where it was."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """End every connection, and take no other."""
        assert self._listener is not None
        self._listener.close()
        await self.cut()
        await self._listener.wait_closed()

    @property
    def url(self) -> str:
        """Where clients go instead."""
        return f"{self._scheme}://127.0.0.1:{self._port}"

    async def cut(self) -> None:
        """End every connection."""
        connections = set(self._connections)
        for connection in connections:
            connection.cancel()
        if connections:
            await asyncio.wait(connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._join(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._server)
        try:
            ways = [asyncio.ensure_future(self._pass(reader, back)), asyncio.ensure_future(self._pass(there, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            back.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self.open.wait()
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            writer.write(data)
            await writer.drain()
