"""The event stream as a cache sees it: what was invalidated, how far we have come, and whether we may trust ourselves.

Theory of operation. The stream hands out every event after a cursor exactly once over all its reconnections, so a
process that was away replays what it missed. Until the first connection stands nothing is known: the memory isn't used.
While a connection is away, the memory is used for `max_disconnected_s` more. When the place in the stream is gone
(retention), something may have been missed: `lost` is called, and the memory emptied.

A connection that stands again isn't trusted at once: the replay is still to come. `connected` is called, the cache asks
the authority which revision was completed last, and says `caught_up` when that has arrived here, or when it has emptied
the memory because it didn't arrive.

Revisions: an invalidation has the revision of its OperationStarted. Several may run at once and end in another order,
so a revision is reached when its end was seen, or a later one's and no earlier one is known to be still running.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from controlplane.client.errors import ClientError, Gone
from controlplane.client.stream import StreamEvent, Watcher

_log = structlog.get_logger()

REMEMBERED = 1_000
"""Running and ended revisions that are kept; older ones count as ended."""
PAUSE_CAP_S = 10.0

ENDS = frozenset({"OperationSucceeded", "OperationFailed", "OperationUnknown"})
CHANGES = frozenset({"SettingAccepted", "SettingRetired", "SettingForgotten"})


class CacheTransport(Protocol):
    """What a cache needs of the daemon; `CoreplaneClient` is one."""

    async def get_setting(self, setting_type: str, name: str) -> dict[str, Any]:
        """The setting as the API answers it; ApiError 404 when there is none."""

    async def operate(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Run an operation → `{operation_id, result}`."""

    def stream(self, *, service_name: str, last_event_id: str | None, watcher: Watcher) -> AsyncIterator[StreamEvent]:
        """Events after the cursor (from now when None), over every reconnection; `watcher` is told when connections
        come and break; raises Gone.
        """


@dataclass(frozen=True, slots=True)
class Invalidation:
    """Exactly one of the four says what."""

    revision: int
    keys: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    prefix: str | None = None
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told. None of the calls may block or raise."""

    invalidated: Callable[[Invalidation], None]
    changed: Callable[[], None]
    """The namespace's setting (or one of its targets') may have changed."""
    lost: Callable[[], None]
    """Events may have been missed."""
    connected: Callable[[], None]
    """A connection stands (again)."""


class Feed:
    """One namespace's view of the stream."""

    def __init__(
        self, transport: CacheTransport, namespace: str, listener: Listener, max_disconnected_s: float
    ) -> None:
        self.cursor: str | None = None
        self.base = 0
        """Revision up to which nothing that is kept here can be older."""
        self._transport = transport
        self._namespace = namespace
        self._listener = listener
        self._max_disconnected_s = max_disconnected_s
        self._connected = False
        self._caught_up = False
        self._trusted_until: float | None = None
        self._ever_connected = False
        self._failures = 0
        self._running: OrderedDict[int, None] = OrderedDict()
        self._ended: OrderedDict[int, None] = OrderedDict()
        self._moved = asyncio.Event()

    def trusted(self) -> bool:
        """True while nothing, or little enough, can have been missed."""
        if self._connected and self._caught_up:
            return True
        return self._trusted_until is not None and asyncio.get_running_loop().time() < self._trusted_until

    def caught_up(self) -> None:
        """What was missed while disconnected has been replayed, or nothing is kept that it could concern."""
        self._caught_up = self._connected

    @property
    def newest(self) -> int:
        """Highest revision known to have ended."""
        return max(self.base, max(self._ended, default=0))

    def reached(self, revision: int) -> bool:
        """True once everything up to the revision has been applied here."""
        if revision in self._ended or revision <= self.base:
            return True
        return self.newest > revision and not any(running <= revision for running in self._running)

    async def moved(self, timeout_s: float) -> None:
        """Return when something arrived, or after the time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._moved.wait()

    async def run(self) -> None:
        """Follow the stream until cancelled."""
        while True:
            try:
                async for event in self._transport.stream(
                    service_name="cache", last_event_id=self.cursor, watcher=self._watch
                ):
                    self._failures = 0
                    self.take(event)
            except Gone:
                _log.warning("cache missed events", namespace=self._namespace, cursor=self.cursor)
                self.cursor = None
                self._lose()
            except ClientError as exc:
                _log.warning("cache has no event stream", namespace=self._namespace, error=str(exc))
            finally:
                self._watch(connected=False)
            await self._pause()

    def take(self, event: StreamEvent) -> None:
        """Apply one event."""
        self.cursor = event.id or self.cursor
        if event.event in CHANGES:
            self._take_change(str(event.data.get("setting") or ""))
        details = event.data.get("details") or {}
        request = details.get("request") or {}
        ours = details.get("operation") == "cache.invalidate" and request.get("namespace") == self._namespace
        revision = event.data.get("revision") or (details.get("result") or {}).get("revision")
        if ours and isinstance(revision, int):
            self._take_operation(event.event, revision, request)
        self._moved.set()
        self._moved = asyncio.Event()

    def _take_change(self, setting: str) -> None:
        _, _, reference = setting.partition("/")
        if reference == f"cache.namespace/{self._namespace}" or reference.startswith("cache.target/"):
            self._listener.changed()

    def _take_operation(self, event_type: str, revision: int, request: Mapping[str, Any]) -> None:
        if event_type == "OperationStarted":
            _remember(self._running, revision)
        elif event_type in ENDS:
            # One that failed may have emptied some layers: what lies here isn't known to be right any more either.
            self._listener.invalidated(invalidation(revision, request))
            self._running.pop(revision, None)
            _remember(self._ended, revision)

    def _watch(self, connected: bool) -> None:  # noqa: FBT001 - the stream's callback is positional
        if connected and self._ever_connected and self.cursor is None:
            self._listener.changed()
        if self._caught_up and not connected:
            self._trusted_until = asyncio.get_running_loop().time() + self._max_disconnected_s
        self._connected, self._caught_up = connected, False
        if connected:
            self._ever_connected = True
            self._listener.connected()

    def _lose(self) -> None:
        self._running.clear()
        self._listener.lost()
        self._listener.changed()

    async def _pause(self) -> None:
        self._failures = min(self._failures + 1, 10)
        bound = min(PAUSE_CAP_S, 0.1 * 2.0**self._failures)
        await asyncio.sleep(random.uniform(bound / 2, bound))  # noqa: S311 - spreading reconnections


def _remember(revisions: OrderedDict[int, None], revision: int) -> None:
    revisions[revision] = None
    while len(revisions) > REMEMBERED:
        revisions.popitem(last=False)


def invalidation(revision: int, request: Mapping[str, Any]) -> Invalidation:
    """From the request of a `cache.invalidate`; what can't be understood invalidates everything."""
    keys, tags, prefix = request.get("keys"), request.get("tags"), request.get("prefix")
    if keys:
        return Invalidation(revision, keys=tuple(map(str, keys)))
    if tags:
        return Invalidation(revision, tags=tuple(map(str, tags)))
    if prefix is not None:
        return Invalidation(revision, prefix=str(prefix))
    return Invalidation(revision, everything=True)
