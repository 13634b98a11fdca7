"""The event stream: server-sent events of one tenant, from all shards, resumable.

Theory of operation. Every connection follows the journal by itself from its own positions; the journal is the buffer, so a
reader that is slow for a while just reads later what others read now. Each event carries the cursor that resumes after it:
from there on every later event comes once, in the order of its shard. A reader that takes nothing for `stall_s` is dropped,
with its resume point as the last thing it finds when it reads on; without that, dead connections would hold their places
for ever. Heartbeats keep proxies from closing a quiet stream and carry cursors too, so that a filter that matches seldom
doesn't leave its reader below retention.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiohttp import web

from controlplane.api import admission, cursors, parameters
from controlplane.api.call import CORRELATION, Call
from controlplane.domain.errors import Reason, Refused
from controlplane.log import codec
from controlplane.log.ports import Entry, Journal, LogCorrupt, LogUnavailable, Place, Stream

_log = structlog.get_logger()

_CHUNK_BYTES = 32 * 1024


class Stalled(Exception):
    """The reader takes nothing any more."""


@dataclass(slots=True)
class Streams:
    """The open streams of this process."""

    heartbeat_s: float = 15.0
    stall_s: float = 15.0
    """Longest time a reader may take nothing while there is something for it."""
    open: int = 0
    closing: asyncio.Event = field(default_factory=asyncio.Event)


STREAMS: web.AppKey[Streams] = web.AppKey("streams", Streams)


async def follow(call: Call[parameters.Follow]) -> web.StreamResponse:
    """Events as they come, from a cursor on."""
    streams = call.request.app[STREAMS]
    if streams.open >= call.parts.config.http.max_streams:
        raise Refused(Reason.TOO_MANY_REQUESTS, "too many open streams", retry_after_s=5.0)
    with admission.hold_stream(call):
        streams.open += 1
        call.parts.metrics.streams_open(streams.open)
        try:
            positions = await _start(call)
            return await _Reader(call, streams, positions).run()
        finally:
            streams.open -= 1
            call.parts.metrics.streams_open(streams.open)


class _Reader:
    """One connection."""

    def __init__(self, call: Call[parameters.Follow], streams: Streams, positions: dict[int, int]) -> None:
        self._call = call
        self._streams = streams
        self._positions = positions
        self._wanted = _wanted(call)
        self._services = call.services
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", CORRELATION: call.request_id}
        self._response = web.StreamResponse(headers=headers)
        self._response.content_type = "text/event-stream"
        self._response.charset = "utf-8"
        self._response.force_close()

    async def run(self) -> web.StreamResponse:
        """Until the reader leaves, stalls, or the daemon stops."""
        await self._response.prepare(self._call.request)
        tail = self._call.parts.journal.tail({Place(Stream.EVENTS, s): p for s, p in self._positions.items()})
        try:
            await self._write(b"retry: 2000\n" + cursors.heartbeat(self._cursor))
            await self._pump(tail)
            await self._response.write_eof()
        except Stalled:
            await self._drop()
        except Refused as exc:
            _log.info("event stream ended", reason=str(exc.reason), correlation_id=self._call.request_id)
            await self._write(cursors.frame("refused", self._cursor, {"reason": str(exc.reason), "detail": exc.detail}))
            await self._response.write_eof()
        except (LogUnavailable, LogCorrupt) as exc:
            _log.error("event stream failed", error=str(exc), correlation_id=self._call.request_id)
            await self._write(cursors.frame("failed", self._cursor, {"detail": str(exc)}))
        except ConnectionError:
            _log.debug("event stream closed by its reader", correlation_id=self._call.request_id)
        return self._response

    @property
    def _cursor(self) -> str:
        return cursors.encoded(self._positions)

    async def _pump(self, tail: AsyncIterator[Sequence[Entry]]) -> None:
        # Neither is cancelled by a heartbeat: cancelling `anext` would end the tail.
        batch = _task(anext(tail))
        closing = _task(self._streams.closing.wait())
        directory = self._call.parts.directory
        access = _task(directory.changed())
        try:
            while not closing.done():
                timeout_s = min(self._streams.heartbeat_s, self._call.valid_s())
                done, _ = await asyncio.wait(
                    {batch, closing, access}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
                )
                if access in done or self._call.valid_s() <= 0:
                    access = _task(directory.changed())  # before looking: what changes meanwhile is looked at next
                    self._services = self._call.again().services
                if batch in done:
                    await self._deliver(batch.result())
                    batch = _task(anext(tail))
                elif not done:
                    await self._write(cursors.heartbeat(self._cursor))
        except StopAsyncIteration:
            return
        finally:
            await _cancelled(batch, closing, access)

    async def _deliver(self, entries: Sequence[Entry]) -> None:
        frames: list[bytes] = []
        size = 0
        for entry in entries:
            self._positions[entry.shard] = entry.offset + 1
            made = self._frame(entry)
            if made is None:
                continue
            frames.append(made)
            size += len(made)
            if size > _CHUNK_BYTES:
                await self._write(b"".join(frames))
                frames, size = [], 0
        if frames:
            await self._write(b"".join(frames))

    def _frame(self, entry: Entry) -> bytes | None:
        # The key begins with the tenant, which spares decoding what belongs to others.
        if entry.data is None or not entry.key.startswith(f"{self._call.tenant}/"):
            return None
        event = codec.decode(entry.data)
        if self._services is not None and event.get("service_name") not in self._services:
            return None
        if not cursors.matches(event, self._call.tenant, self._wanted):
            return None
        return cursors.frame(event["event_type"], self._cursor, event)

    async def _write(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(self._streams.stall_s):
                await self._response.write(data)
        except TimeoutError:
            raise Stalled from None

    async def _drop(self) -> None:
        """Leave the resume point in the send buffer, give the reader one more moment, then cut the connection.

        The reader may have got only part of what is counted as delivered: it goes on from the last id it has read, and
        `dropped` tells it so when it still reads to the end.
        """
        self._call.parts.metrics.stream_dropped()
        _log.warning("event stream dropped", cursor=self._cursor, correlation_id=self._call.request_id)
        transport = self._call.request.transport
        last = cursors.frame("dropped", self._cursor, {"reason": "SlowReader", "resume": self._cursor})
        try:
            async with asyncio.timeout(self._streams.stall_s):
                await self._response.write(last)
                await self._response.write_eof()
        except (TimeoutError, ConnectionError):
            if transport is not None:
                transport.abort()


async def _start(call: Call[parameters.Follow]) -> dict[int, int]:
    journal = call.parts.journal
    # A reader that reconnects repeats its first URL, so where it was by then outranks where it began.
    start = call.request.headers.get("Last-Event-ID") or call.query.from_ or "latest"
    if start == "latest":
        return cursors.complete(await journal.end_offsets(Stream.EVENTS), journal.shards)
    oldest, end = await _kept(journal)
    if start == "earliest":
        return oldest
    return cursors.resumed(cursors.decoded(start, journal.shards), oldest, end)


async def _kept(journal: Journal) -> tuple[dict[int, int], dict[int, int]]:
    oldest = cursors.complete(await journal.start_offsets(Stream.EVENTS), journal.shards)
    return oldest, cursors.complete(await journal.end_offsets(Stream.EVENTS), journal.shards)


def _wanted(call: Call[parameters.Follow]) -> list[tuple[str, str]]:
    query = call.query
    fields = {
        "service_name": parameters.known_service(query.service_name),
        "event_type": query.event_type,
        "status": query.status,
        "setting": parameters.setting_key(query.setting, call.tenant),
    }
    return [(name, str(value)) for name, value in fields.items() if value is not None]


def _task(awaitable: Awaitable[Any]) -> asyncio.Future[Any]:
    return asyncio.ensure_future(awaitable)


async def _cancelled(*futures: asyncio.Future[Any]) -> None:
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)
