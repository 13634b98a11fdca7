"""Ports of the log: the settings log (one sequence, kept whole) and the journal (sharded, written under a fence).

Offsets start at 0 and rise; they may have holes. A *position* is the next offset a reader wants. "Caught up" is
`position >= end_offset()`, never "saw the last record": the last offsets may hold no record.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, Protocol


class LogUnavailable(Exception):
    """The log can't be reached or written; certainly nothing was stored."""


class Indeterminate(Exception):
    """The write may or may not be stored. Retrying with the same request_id is safe and tells."""


class Fenced(Exception):
    """Another incarnation took the shard: this writer can never commit again."""


class LogCorrupt(Exception):
    """What was stored can't be read back. Nothing is skipped: the reader stops and says where."""


class Record(NamedTuple):
    """One record of the settings log."""

    offset: int
    data: bytes


class About(NamedTuple):
    """What lets consumers pick records of the settings log without decoding. A log with no consumers keeps none of it."""

    key: str = ""
    headers: Mapping[str, str] = {}


NOTHING: Final = About()

Take = Callable[[Sequence[Record]], bool]
"""Given a batch of records, says whether to go on."""


class SettingsLog(Protocol):
    """The one sequence of change requests. Keeps everything."""

    async def append(self, data: bytes, about: About = NOTHING) -> None:
        """Store one record; returns when it is durable. Raises `LogUnavailable` or `Indeterminate`.

        The caller learns the verdict from its own fold, by request_id, not from here: an acknowledgement may be lost
        for a record that is stored. A caller that is cancelled doesn't take the record back: it may land all the same.
        """

    async def read(self, start: int, limit: int = 500) -> Sequence[Record]:
        """Up to `limit` records from offset `start` on, in order; empty at the end. Raises `LogCorrupt`."""

    async def scan(self, start: int, stop: int, take: Take) -> None:
        """Hand the records of [start, stop) to `take`, in order and in batches, until it says no. Raises `LogCorrupt`.

        For those who read much: `take` is called where the records are read, perhaps in another thread, since handing
        them over costs more than reading them. One call at a time, and none after this has ended, also when cancelled.
        """

    def tail(self, start: int) -> AsyncIterator[Sequence[Record]]:
        """Batches (≤ 500) from `start` on, then waits for more; ends only when the log is closed. Raises `LogCorrupt`."""

    async def end_offset(self) -> int:
        """One past the last stored offset."""


class Stream(StrEnum):
    """The streams of the journal; on Kafka each is a topic with one partition a shard."""

    EVENTS = "events"
    STATUS = "status"
    METRICS = "metrics"


class Entry(NamedTuple):
    """One record of the journal. `data` None: a tombstone in the status stream."""

    stream: Stream
    shard: int
    offset: int
    key: str
    data: bytes | None


class Outgoing(NamedTuple):
    """One record to be written. `headers` let consumers filter without decoding."""

    key: str
    data: bytes | None
    headers: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Commit:
    """What is committed together: all of it or none."""

    events: Sequence[Outgoing] = ()
    statuses: Sequence[Outgoing] = ()
    metrics: Sequence[Outgoing] = ()


class Place(NamedTuple):
    """A partition of the journal."""

    stream: Stream
    shard: int


class PutAside(NamedTuple):
    """A record that a reader can't take: where it stands, why, and its bytes."""

    place: Place
    offset: int
    key: str
    reason: str
    data: bytes


KeepAside = Callable[[Sequence[PutAside]], Awaitable[None]]
"""Keeps such records where people find them; may be done again. Raises `LogUnavailable`."""


@dataclass(frozen=True, slots=True)
class Committed:
    """Offsets given to the records of one commit, in their order."""

    events: Sequence[int] = ()
    statuses: Sequence[int] = field(default=())


class ShardWriter(Protocol):
    """The right to write one shard. Opening another for the same shard fences this one."""

    async def commit(self, commit: Commit) -> Committed:
        """Atomic over the three streams; durable on return. Concurrent commits may share one transaction.

        A caller that is cancelled doesn't take the commit back: it may land all the same. Commits of one writer land in
        the order they were called. Raises `Fenced`, `LogUnavailable` (nothing stored) or `Indeterminate` (this writer
        must be given up and the shard's state read again).
        """

    async def close(self) -> None:
        """Give up the right; safe to call twice."""


class Journal(Protocol):
    """Events, statuses and metrics by shard."""

    @property
    def shards(self) -> int:
        """Number of shards; fixed when the journal was created."""

    async def open_shard(self, shard: int) -> ShardWriter:
        """Take the shard: whoever held it before is fenced from now on."""

    async def read(self, place: Place, start: int, limit: int = 500) -> Sequence[Entry]:
        """Up to `limit` entries from offset `start` on, in order. Empty means: none up to the end. Raises `LogCorrupt`.

        The status stream keeps the last entry of each key; older ones may still come before it."""

    def tail(self, positions: Mapping[Place, int]) -> AsyncIterator[Sequence[Entry]]:
        """Batches (≤ 500) from all the given places from their positions on, in offset order within each place; then
        waits for more, and ends only when the log is closed. Raises `LogCorrupt`.

        A status tail gives the last entry of each key, tombstones of late included, and every later one while it keeps
        up; one that falls behind gets the last of each key again.
        """

    async def start_offsets(self, stream: Stream) -> Mapping[int, int]:
        """Per shard the oldest offset that is still kept."""

    async def end_offsets(self, stream: Stream) -> Mapping[int, int]:
        """Per shard one past the last committed offset."""

    async def trim(self, stream: Stream, before: str) -> int:
        """Drop events or metrics stored before the RFC 3339 time `before`; how many offsets went. Of the status stream
        only tombstones go: give their readers a day to see them. A position in what is gone reads on from the oldest kept."""


class Membership(Protocol):
    """Among the replicas of one log: which shards this one is to own. It tells; the fence of the writers decides."""

    async def follow(self, revoked: Callable[[], Awaitable[None]], assigned: Callable[[frozenset[int]], None]) -> None:
        """Be a member until cancelled, then leave, so that others take over at once. Outages are outlived.

        Nobody is given a shard before every member has come back from `revoked`; it should take a few seconds at most.
        `assigned` gets all shards that are to be ours now, and returns at once.
        """

    async def owns(self, shard: int) -> bool:
        """Whether the group has settled and the shard is ours. Raises `LogUnavailable`."""

    def announce(self, address: str) -> None:
        """Where others reach us; to be said before `follow`."""

    async def address_of(self, shard: int) -> str | None:
        """Where the shard's owner is reached; None while the group hasn't settled. Raises `LogUnavailable`."""


class Log(Protocol):
    """Both ports of one store, opened and closed together."""

    @property
    def settings(self) -> SettingsLog:
        """The settings log."""

    @property
    def journal(self) -> Journal:
        """The journal."""

    @property
    def membership(self) -> Membership | None:
        """Among the replicas of this log; None when there can be only one."""

    @property
    def put_aside(self) -> KeepAside | None:
        """For records of the journal that can't be read; None where the log has no place for them."""

    @property
    def trouble(self) -> str | None:
        """What keeps the log from being followed, for people; None while all is well."""

    async def close(self) -> None:
        """Finish what was accepted, then release the store; tails end."""
