"""The event stream, as one endless iterator over many connections.

Theory of operation. Every event carries a cursor as its `id`. When a connection breaks, falls silent for longer than
the daemon's heartbeats allow, or is ended by the daemon (slow reader, restart), the stream connects again with
`Last-Event-ID` and goes on right after the last event it handed out: nothing is lost, nothing comes twice. Pauses
between tries double up to a bound and start anew once something arrived. Two things end it: a refusal (ApiError: wrong
filter, no access) and `Gone`, when retention has dropped what would come next; the reader then has to look at the state
itself and start from the oldest or from now.

Nothing is buffered here: while the reader is busy, the socket fills, and TCP holds the daemon back.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple

import aiohttp

from controlplane.client.errors import ApiError, StreamBroken
from controlplane.client.sse import ServerSentEvent, SseParser
from controlplane.client.transport import Transport, parsed, problem_from, query_items

PAUSE_INITIAL_S = 0.2
PAUSE_CAP_S = 10.0
SILENCE_S = 60.0
"""The daemon sends a comment at least every 15 s; a connection silent for this long is dead."""
ENDINGS = frozenset({"dropped", "failed", "refused"})
"""What the daemon says last before it ends a connection itself; no events, but their ids are places to resume from."""
READ_BYTES = 64 * 1024

Watcher = Callable[[bool], None]
"""Told True when a connection stands, False when it broke."""


class StreamEvent(NamedTuple):
    """`id`: cursor to resume after this event; `event`: the event type; `data`: the InfrastructureEvent."""

    id: str
    event: str
    data: dict[str, Any]


class EventStream:
    """A place in the stream and how to get on from there. `last_event_id` may be kept and given to a later one."""

    def __init__(
        self,
        transport: Transport,
        path: str,
        query: Mapping[str, Any],
        *,
        last_event_id: str | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.last_event_id = last_event_id
        self._transport = transport
        self._path = path
        self._query = dict(query)
        self._watcher = watcher
        self._connected = False
        self._failures = 0
        self._retry_s: float | None = None

    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        """Every event from here on; ends with ApiError or Gone, or when the reader stops."""
        while True:
            try:
                async with aclosing(self._connection()) as connection:
                    async for event in connection:
                        yield event
            except ApiError as exc:
                if exc.status not in {429, 502, 503, 504}:
                    raise
                self._retry_s = exc.retry_after_s
            except (aiohttp.ClientError, TimeoutError):
                self._retry_s = None
            self._tell(connected=False)
            await self._pause()

    async def _connection(self) -> AsyncGenerator[StreamEvent, None]:
        """What one connection delivers."""
        headers = {"Accept": "text/event-stream"}
        query = dict(self._query)
        if self.last_event_id is not None:
            headers["Last-Event-ID"] = self.last_event_id
            query.pop("from", None)
        patience_s = self._transport.timeout_s
        timeout = aiohttp.ClientTimeout(total=None, connect=patience_s, sock_connect=patience_s, sock_read=SILENCE_S)
        async with self._transport.session().get(
            self._transport.url + self._path, params=query_items(query), headers=headers, timeout=timeout
        ) as response:
            if response.status != 200:
                body = parsed(await response.text(errors="replace"), response.content_type)
                raise problem_from(response.status, body, response.headers.get("Retry-After"))
            parser = SseParser(self.last_event_id or "")
            while chunk := await response.content.read(READ_BYTES):
                # Not before: the first chunk says where we are, and without that a break now would lose events.
                self._tell(connected=True)
                for event in map(self._place, parser.feed(chunk)):
                    if event.data and event.event not in ENDINGS:
                        yield _event(event)
                # An id without data moves the place too: it says where we are before the first event.
                self.last_event_id = parser.last_id or self.last_event_id
                self._retry_s = parser.retry_s
                self._failures = 0

    def _place(self, event: ServerSentEvent) -> ServerSentEvent:
        """The event, after which we are at its id."""
        self.last_event_id = event.id or self.last_event_id
        return event

    async def _pause(self) -> None:
        bound = min(PAUSE_CAP_S, PAUSE_INITIAL_S * 2.0**self._failures)
        self._failures = min(self._failures + 1, 16)
        wished_s = min(self._retry_s or 0.0, PAUSE_CAP_S)
        await asyncio.sleep(max(wished_s, random.uniform(bound / 2, bound)))  # noqa: S311 - spreading reconnections

    def _tell(self, *, connected: bool) -> None:
        if self._watcher is not None and connected != self._connected:
            self._watcher(connected)
        self._connected = connected


def _event(event: ServerSentEvent) -> StreamEvent:
    try:
        data = json.loads(event.data)
    except ValueError as exc:
        msg = f"event {event.id!r} isn't JSON"
        raise StreamBroken(msg) from exc
    if not isinstance(data, dict):
        msg = f"event {event.id!r} isn't an object"
        raise StreamBroken(msg)
    return StreamEvent(event.id, event.event, data)
