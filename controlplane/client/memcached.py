"""A connection to Memcached that speaks the meta commands, for many callers at once.

Requests of all callers go down one connection in order, and the replies come back in order: each request is one line
(plus a block) that is answered by exactly one line (plus a block after `VA`), so a queue of futures is all there is to
it. Quiet mode is never used. A request that isn't answered in time means that the connection is broken: it is closed,
all that wait fail, and the next request connects anew. Memcached 1.6 needs no more than one connection a process: the
server handles a pipeline at a time, and so does the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_WAITING = 10_000
"""Requests under way; more are refused, so that a stuck server can't fill the memory."""
DEFAULT_PORT = 11211


class MemcachedError(Exception):
    """No usable answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """`VA 5 s5 c9` + block → code VA, flags {s: 5, c: 9}, value; `HD`, `EN`, `NF`, `EX`, `NS` have no value."""

    code: str
    flags: dict[str, str]
    value: bytes | None = None


class _Replies(asyncio.Protocol):
    """Cuts the bytes into replies and hands each to who waits for it."""

    def __init__(self) -> None:
        self.waiting: deque[asyncio.Future[Reply]] = deque()
        self.transport: asyncio.Transport | None = None
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - narrows the type asyncio gives
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self.waiting:
            cut = parse(self._buffer)
            if cut is None:
                return
            reply, end = cut
            del self._buffer[:end]
            future = self.waiting.popleft()
            if not future.done():
                future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        fault = MemcachedError(f"connection lost: {exc or 'closed by the server'}")
        while self.waiting:
            future = self.waiting.popleft()
            if not future.done():
                future.set_exception(fault)


def parse(buffer: bytearray | bytes) -> tuple[Reply, int] | None:
    """The first reply in the buffer and where it ends; None when it isn't complete."""
    line_end = buffer.find(b"\r\n")
    if line_end < 0:
        return None
    words = bytes(buffer[:line_end]).decode("utf-8", "replace").split(" ")
    if words[0] != "VA":
        return Reply(words[0], _flags(words[1:])), line_end + 2
    end = line_end + 2 + int(words[1]) + 2
    if len(buffer) < end:
        return None
    return Reply("VA", _flags(words[2:]), bytes(buffer[line_end + 2 : end - 2])), end


def _flags(words: list[str]) -> dict[str, str]:
    return {word[0]: word[1:] for word in words if word}


class MemcachedClient:
    """One server. Connects on first use and again after a failure."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self.host = host
        self.port = port
        self._timeout_s = timeout_s
        self._protocol: _Replies | None = None
        self._connecting = asyncio.Lock()

    async def request(self, *requests: bytes) -> list[Reply]:
        """Send complete requests (with their CRLFs) in one write; their replies in order. MemcachedError otherwise."""
        try:
            async with asyncio.timeout(self._timeout_s):
                protocol = await self._connected()
                futures = self._send(protocol, requests)
                return [await future for future in futures]
        except TimeoutError as exc:
            self._abort()
            msg = f"no answer from {self.host}:{self.port} in {self._timeout_s} s"
            raise MemcachedError(msg) from exc
        except OSError as exc:
            msg = f"no connection to {self.host}:{self.port}: {exc}"
            raise MemcachedError(msg) from exc

    async def close(self) -> None:
        """Close the connection; a later request opens another."""
        self._abort()

    def _send(self, protocol: _Replies, requests: tuple[bytes, ...]) -> list[asyncio.Future[Reply]]:
        if protocol.transport is None or len(protocol.waiting) > MAX_WAITING:
            msg = f"{self.host}:{self.port}: connection lost or too many requests under way"
            raise MemcachedError(msg)
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in requests]
        for future in futures:
            # A caller that gave up leaves its future behind: its fault is nobody's any more.
            future.add_done_callback(_retrieved)
        protocol.waiting.extend(futures)
        protocol.transport.write(b"".join(requests))
        return futures

    async def _connected(self) -> _Replies:
        protocol = self._protocol
        if protocol is not None and protocol.transport is not None:
            return protocol
        async with self._connecting:
            if self._protocol is None or self._protocol.transport is None:
                loop = asyncio.get_running_loop()
                _, self._protocol = await loop.create_connection(_Replies, self.host, self.port)
            return self._protocol

    def _abort(self) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None and protocol.transport is not None:
            protocol.transport.abort()


def _retrieved(future: asyncio.Future[Reply]) -> None:
    if not future.cancelled():
        future.exception()


def address(url: str) -> tuple[str, int]:
    """Host and port of `memcached://host:port`, `tcp://…` or `host:port`."""
    parts = urlsplit(url if "://" in url else f"memcached://{url}")
    if not parts.hostname:
        msg = f"{url!r} names no host: expected memcached://host:port"
        raise ValueError(msg)
    return parts.hostname, parts.port or DEFAULT_PORT
