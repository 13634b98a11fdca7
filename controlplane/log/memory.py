"""Both ports in memory: for simulations, unit tests and `memory:`. Nothing outlives the process.

No threads and no clock but the one that is handed in, so it runs under a virtual-time event loop. It keeps the rules of
the durable logs, compaction and fencing included; the same contract suites say so. It never fails by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.log.feed import BATCH, Feed, follow, scan
from controlplane.log.ports import (
    NOTHING,
    About,
    Commit,
    Committed,
    Entry,
    Fenced,
    LogUnavailable,
    Outgoing,
    Place,
    Record,
    Stream,
    Take,
)
from controlplane.log.tailing import JournalPositions, SettingsPosition, check_commit, check_place, check_shard
from schemas.names import parse_timestamp


class MemoryLog:
    """Settings log and journal. `now`: Unix seconds, the times of records that `trim` compares."""

    def __init__(self, *, shards: int = 16, now: Callable[[], float] = time.time) -> None:
        self.settings = MemorySettingsLog()
        self.journal = MemoryJournal(shards, now)

    @property
    def membership(self) -> None:
        """One process alone."""

    @property
    def put_aside(self) -> None:
        """See the port: there is no place for them."""

    @property
    def trouble(self) -> None:
        """Never any."""

    async def close(self) -> None:
        """End the tails and refuse further writes. Reading goes on working."""
        self.settings.close()
        self.journal.close()


class MemorySettingsLog:
    """`SettingsLog` in a list."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._feed: Feed[Record] = Feed()

    async def append(self, data: bytes, about: About = NOTHING) -> None:
        """See the port."""
        del about
        await asyncio.sleep(0)
        _refuse_closed(self._feed)
        record = Record(len(self._records), data)
        self._records.append(record)
        self._feed.publish([record])

    async def read(self, start: int, limit: int = BATCH) -> Sequence[Record]:
        """See the port."""
        return self._records[start : start + limit]

    async def scan(self, start: int, stop: int, take: Take) -> None:
        """See the port."""
        await scan(self.read, start, stop, take)

    def tail(self, start: int) -> AsyncGenerator[Sequence[Record], None]:
        """See the port."""
        position = SettingsPosition(start)

        async def stored() -> Sequence[Record]:
            return await self.read(position.offset)

        return follow(self._feed, stored, position.admit)

    async def end_offset(self) -> int:
        """See the port."""
        return len(self._records)

    def close(self) -> None:
        """End the tails."""
        self._feed.close()


@dataclass(slots=True)
class _Kept:
    """What one place holds: entries and their times in lists; for the status stream in a dict, in order of offset."""

    start: int = 0
    end: int = 0
    entries: list[Entry] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    by_key: dict[str, tuple[Entry, float]] = field(default_factory=dict)

    def add(self, entry: Entry, now: float) -> None:
        self.end = entry.offset + 1
        if entry.stream is not Stream.STATUS:
            self.entries.append(entry)
            self.times.append(now)
            return
        self.by_key.pop(entry.key, None)  # so that the dict's order is that of the offsets
        self.by_key[entry.key] = entry, now

    def read(self, place: Place, start: int, limit: int) -> list[Entry]:
        if place.stream is not Stream.STATUS:
            first = max(0, start - self.start)
            return self.entries[first : first + limit]
        found: list[Entry] = []
        for entry, _ in reversed(self.by_key.values()):
            if entry.offset < start:
                break
            found.append(entry)
        found.reverse()
        return found[:limit]

    def drop_before(self, instant: float) -> int:
        """Drop the entries before the first that isn't older: what is kept has no holes, even when clocks jumped."""
        if self.by_key:
            return self._drop_tombstones_before(instant)
        gone = next((i for i, at in enumerate(self.times) if at >= instant), len(self.times))
        del self.entries[:gone], self.times[:gone]
        self.start += gone
        return gone

    def _drop_tombstones_before(self, instant: float) -> int:
        old = [key for key, (entry, at) in self.by_key.items() if entry.data is None and at < instant]
        for key in old:
            del self.by_key[key]
        return len(old)


class MemoryJournal:
    """`Journal` in lists and dicts."""

    def __init__(self, shards: int, now: Callable[[], float]) -> None:
        self._now = now
        self._shards = shards
        self._places = {Place(stream, shard): _Kept() for stream in Stream for shard in range(shards)}
        self._epochs = [0] * shards
        self._feed: Feed[Entry] = Feed()

    @property
    def shards(self) -> int:
        """See the port."""
        return self._shards

    async def open_shard(self, shard: int) -> MemoryShardWriter:
        """See the port."""
        check_shard(shard, self._shards)
        await asyncio.sleep(0)
        _refuse_closed(self._feed)
        self._epochs[shard] += 1
        return MemoryShardWriter(self, shard, self._epochs[shard])

    async def read(self, place: Place, start: int, limit: int = BATCH) -> Sequence[Entry]:
        """See the port."""
        check_place(place, self._shards)
        return self._places[place].read(place, start, limit)

    def tail(self, positions: Mapping[Place, int]) -> AsyncGenerator[Sequence[Entry], None]:
        """See the port."""
        for place in positions:
            check_place(place, self._shards)
        tailed = JournalPositions(positions)

        async def stored() -> Sequence[Entry]:
            for place, start in tailed.offsets.items():
                if found := self._places[place].read(place, start, BATCH):
                    return found
            return ()

        return follow(self._feed, stored, tailed.admit)

    async def start_offsets(self, stream: Stream) -> Mapping[int, int]:
        """See the port."""
        return {shard: self._places[Place(stream, shard)].start for shard in range(self._shards)}

    async def end_offsets(self, stream: Stream) -> Mapping[int, int]:
        """See the port."""
        return {shard: self._places[Place(stream, shard)].end for shard in range(self._shards)}

    async def trim(self, stream: Stream, before: str) -> int:
        """See the port."""
        instant = parse_timestamp(before)
        return sum(self._places[Place(stream, shard)].drop_before(instant) for shard in range(self._shards))

    def close(self) -> None:
        """End the tails."""
        self._feed.close()

    def commit(self, shard: int, epoch: int, commit: Commit) -> Committed:
        """Store all of it at once. Raises `Fenced`."""
        _refuse_closed(self._feed)
        if epoch != self._epochs[shard]:
            msg = f"shard {shard} was taken by another writer (epoch {self._epochs[shard]}, ours {epoch})"
            raise Fenced(msg)
        now = self._now()
        stored: list[Entry] = []
        events = self._store(Place(Stream.EVENTS, shard), commit.events, now, stored)
        statuses = self._store(Place(Stream.STATUS, shard), commit.statuses, now, stored)
        self._store(Place(Stream.METRICS, shard), commit.metrics, now, stored)
        self._feed.publish(stored)
        return Committed(events, statuses)

    def _store(self, place: Place, outgoing: Sequence[Outgoing], now: float, stored: list[Entry]) -> tuple[int, ...]:
        kept = self._places[place]
        offsets = tuple(range(kept.end, kept.end + len(outgoing)))
        for offset, one in zip(offsets, outgoing, strict=True):
            entry = Entry(place.stream, place.shard, offset, one.key, one.data)
            kept.add(entry, now)
            stored.append(entry)
        return offsets


class MemoryShardWriter:
    """`ShardWriter` of the journal in memory."""

    def __init__(self, journal: MemoryJournal, shard: int, epoch: int) -> None:
        self._journal = journal
        self._shard = shard
        self._epoch = epoch
        self._closed = False

    async def commit(self, commit: Commit) -> Committed:
        """See the port."""
        check_commit(commit)
        await asyncio.sleep(0)
        if self._closed:
            msg = f"this writer of shard {self._shard} was closed"
            raise Fenced(msg)
        return self._journal.commit(self._shard, self._epoch, commit)

    async def close(self) -> None:
        """See the port."""
        self._closed = True


def _refuse_closed(feed: Feed[Record] | Feed[Entry]) -> None:
    if feed.is_closed():
        msg = "the log is closed"
        raise LogUnavailable(msg)
