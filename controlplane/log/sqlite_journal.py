"""`Journal` on the SQLite file.

Fencing: the epoch of each shard stands in the file and rises whenever the shard is opened; a commit is compared with it
inside the transaction that would store it. Headers aren't kept: nobody filters this journal from outside.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from itertools import takewhile
from typing import Final

from controlplane.log.feed import BATCH, follow
from controlplane.log.ports import Commit, Committed, Entry, Fenced, Place, Stream
from controlplane.log.sqlite_batch import Batch
from controlplane.log.sqlite_file import SHARD_SPAN, Slot
from controlplane.log.sqlite_reader import Reader
from controlplane.log.sqlite_writer import Writer
from controlplane.log.tailing import JournalPositions, check_commit, check_place, check_shard
from schemas.names import parse_timestamp

_SLICE: Final = 500
"""Most rows one transaction drops, so that a trim doesn't hold up the writers."""


class SqliteJournal:
    """See the port."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    @property
    def shards(self) -> int:
        """See the port."""
        return self._writer.counters.shards

    async def open_shard(self, shard: int) -> SqliteShardWriter:
        """See the port."""
        check_shard(shard, self.shards)
        return SqliteShardWriter(self._writer, shard, await self._writer.submit(lambda batch: batch.take(shard)))

    async def read(self, place: Place, start: int, limit: int = BATCH) -> Sequence[Entry]:
        """See the port."""
        check_place(place, self.shards)
        return await self._reader.entries({place: start}, limit)

    def tail(self, positions: Mapping[Place, int]) -> AsyncGenerator[Sequence[Entry], None]:
        """See the port."""
        for place in positions:
            check_place(place, self.shards)
        tailed = JournalPositions(positions)

        async def stored() -> Sequence[Entry]:
            return await self._reader.entries(tailed.offsets, BATCH)

        return follow(self._writer.entries, stored, tailed.admit)

    async def start_offsets(self, stream: Stream) -> Mapping[int, int]:
        """See the port."""
        return {shard: self._writer.counters.starts[Slot(stream, shard)] for shard in range(self.shards)}

    async def end_offsets(self, stream: Stream) -> Mapping[int, int]:
        """See the port."""
        return {shard: self._writer.counters.nexts[Slot(stream, shard)] for shard in range(self.shards)}

    async def trim(self, stream: Stream, before: str) -> int:
        """See the port."""
        before_ms = int(parse_timestamp(before) * 1000)
        gone = 0
        for shard in range(self.shards):
            dropped = _SLICE
            while dropped == _SLICE:
                dropped = await self._writer.submit(_dropping(Slot(stream, shard), before_ms))
                gone += dropped
        return gone


class SqliteShardWriter:
    """See the port."""

    def __init__(self, writer: Writer, shard: int, epoch: int) -> None:
        self._writer = writer
        self._shard = shard
        self._epoch = epoch
        self._closed = False

    async def commit(self, commit: Commit) -> Committed:
        """See the port. A caller that is cancelled doesn't take the commit back."""
        check_commit(commit)
        if self._closed:
            msg = f"this writer of shard {self._shard} was closed"
            raise Fenced(msg)
        return await self._writer.submit(lambda batch: self._stage(batch, commit))

    async def close(self) -> None:
        """See the port."""
        self._closed = True

    def _stage(self, batch: Batch, commit: Commit) -> Committed:
        epoch = batch.epoch(self._shard)
        if epoch != self._epoch:
            msg = f"shard {self._shard} was taken by another writer (epoch {epoch}, ours {self._epoch})"
            raise Fenced(msg)
        events = batch.add(Place(Stream.EVENTS, self._shard), commit.events)
        statuses = batch.add(Place(Stream.STATUS, self._shard), commit.statuses)
        batch.add(Place(Stream.METRICS, self._shard), commit.metrics)
        return Committed(events, statuses)


def _dropping(slot: Slot, before_ms: int) -> Callable[[Batch], int]:
    """The stage that drops up to a slice of old rows of one place, and says how many."""
    return lambda batch: (_drop_tombstones if slot.stream == Stream.STATUS else _drop_oldest)(batch, slot, before_ms)


def _drop_oldest(batch: Batch, slot: Slot, before_ms: int) -> int:
    """Rows before the first one that isn't older: what is kept has no holes, even when clocks jumped."""
    low = slot.shard * SHARD_SPAN
    first = low + batch.start(slot)
    query = f"SELECT at_ms FROM {slot.stream} WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"  # noqa: S608 - our own names
    times = batch.connection.execute(query, (first, low + SHARD_SPAN, _SLICE)).fetchall()
    gone = sum(1 for _ in takewhile(lambda row: row[0] < before_ms, times))
    if gone:
        delete = f"DELETE FROM {slot.stream} WHERE id >= ? AND id < ?"  # noqa: S608 - our own names
        batch.connection.execute(delete, (first, first + gone))
        batch.starts[slot] = first - low + gone
    return gone


def _drop_tombstones(batch: Batch, slot: Slot, before_ms: int) -> int:
    """All but one at the end of the place: the place must be seen to end where it is counted to."""
    low = slot.shard * SHARD_SPAN
    query = "SELECT id FROM status WHERE data IS NULL AND at_ms < ? AND shard = ? AND id < ? LIMIT ?"
    last = low + batch.committed_end(slot) - 1
    rows = batch.connection.execute(query, (before_ms, slot.shard, last, _SLICE)).fetchall()
    if rows:
        batch.connection.executemany("DELETE FROM status WHERE id = ?", rows)
        batch.changed = True
    return len(rows)
