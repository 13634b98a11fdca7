"""One transaction of the SQLite log under construction: what stages add to it, and how that becomes rows.

Lives in the writer's thread. Offsets come from the counters, which move only when the transaction is committed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from controlplane.log.ports import Entry, Outgoing, Place, Record, Stream
from controlplane.log.sqlite_file import SETTINGS, SHARD_SPAN, Counters, Slot, entry_crc, settings_crc

_INSERTS: Final = {
    Stream.EVENTS: "INSERT INTO events (id, at_ms, key, crc, data) VALUES (?, ?, ?, ?, ?)",
    Stream.METRICS: "INSERT INTO metrics (id, at_ms, key, crc, data) VALUES (?, ?, ?, ?, ?)",
    # REPLACE takes the key's older row away: one row a key, at a risen offset.
    Stream.STATUS: "REPLACE INTO status (id, at_ms, key, crc, data, shard) VALUES (?, ?, ?, ?, ?, ?)",
}


class Batch:
    """One transaction."""

    def __init__(self, connection: sqlite3.Connection, counters: Counters, now: float) -> None:
        self.connection = connection
        """For stages that must look or delete; inside the transaction."""
        self.records: list[Record] = []
        self.entries: list[Entry] = []
        self.starts: dict[Slot, int] = {}
        """Places that are trimmed, and up to where."""
        self.changed = False
        """Set by stages that changed something through the connection."""
        self._counters = counters
        self._at_ms = int(now * 1000)
        self._nexts: dict[Slot, int] = {}
        self._epochs: dict[int, int] = {}
        self._settings: list[tuple[int, int, bytes]] = []
        self._rows: dict[Stream, list[tuple[Any, ...]]] = {stream: [] for stream in Stream}

    def append(self, data: bytes) -> None:
        """One record of the settings log."""
        (offset,) = self._offsets(Slot(SETTINGS, 0), 1)
        self._settings.append((offset, settings_crc(offset, data), data))
        self.records.append(Record(offset, data))

    def add(self, place: Place, outgoing: Sequence[Outgoing]) -> tuple[int, ...]:
        """Records of the journal; their offsets."""
        stream, shard = place
        offsets = self._offsets(Slot(stream, shard), len(outgoing))
        rows = self._rows[stream]
        for offset, (key, data, _) in zip(offsets, outgoing, strict=True):
            row_id = shard * SHARD_SPAN + offset
            row = (row_id, self._at_ms, key, entry_crc(row_id, key.encode(), data), data)
            rows.append((*row, shard) if stream is Stream.STATUS else row)
            self.entries.append(Entry(stream, shard, offset, key, data))
        return tuple(offsets)

    def epoch(self, shard: int) -> int:
        """The epoch whose writer holds the shard."""
        return self._epochs.get(shard, self._counters.epochs[shard])

    def take(self, shard: int) -> int:
        """A new epoch: older writers are fenced."""
        self._epochs[shard] = epoch = self.epoch(shard) + 1
        return epoch

    def start(self, slot: Slot) -> int:
        """Oldest offset that is kept."""
        return self.starts.get(slot, self._counters.starts[slot])

    def committed_end(self, slot: Slot) -> int:
        """One past the last offset of earlier transactions."""
        return self._counters.nexts[slot]

    def write(self) -> bool:
        """Everything that was added, into the transaction; False when there is nothing to commit."""
        execute = self.connection.executemany
        if self._settings:
            execute("INSERT INTO settings (id, crc, data) VALUES (?, ?, ?)", self._settings)
        for stream, rows in self._rows.items():
            if rows:
                execute(_INSERTS[stream], rows)
        if self._nexts:
            moved = [(following, *slot) for slot, following in self._nexts.items()]
            execute("UPDATE places SET next = ? WHERE stream = ? AND shard = ?", moved)
        if self.starts:
            moved = [(start, *slot) for slot, start in self.starts.items()]
            execute("UPDATE places SET start = ? WHERE stream = ? AND shard = ?", moved)
        if self._epochs:
            execute("UPDATE shards SET epoch = ? WHERE shard = ?", [(e, shard) for shard, e in self._epochs.items()])
        return bool(self._nexts or self.starts or self._epochs or self.changed)

    def count(self) -> None:
        """Move the counters, after the commit."""
        self._counters.nexts.update(self._nexts)
        self._counters.starts.update(self.starts)
        self._counters.epochs.update(self._epochs)

    def _offsets(self, slot: Slot, count: int) -> range:
        first = self._nexts.get(slot, self._counters.nexts[slot])
        if count:
            self._nexts[slot] = first + count
        return range(first, first + count)
