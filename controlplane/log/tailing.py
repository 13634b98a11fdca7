"""Where a tail stands, and what may be asked of a log: the same for every implementation. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final

from controlplane.log.ports import Commit, Entry, Place, Record, Stream

_STORABLE: Final = (bytes, type(None))


class SettingsPosition:
    """The next offset a tail of the settings log wants."""

    def __init__(self, start: int) -> None:
        self.offset = start

    def admit(self, records: Sequence[Record]) -> Sequence[Record]:
        """The records from the position on, in order; the position moves behind them."""
        if records and records[0].offset < self.offset:
            records = [record for record in records if record.offset >= self.offset]
        if records:
            self.offset = records[-1].offset + 1
        return records


class JournalPositions:
    """The next offset a tail of the journal wants, by place."""

    def __init__(self, positions: Mapping[Place, int]) -> None:
        self.offsets = dict(positions)

    def admit(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """The entries of the places, from their positions on; the positions move behind them."""
        wanted: list[Entry] = []
        for entry in entries:
            place = Place(entry.stream, entry.shard)
            position = self.offsets.get(place)
            if position is not None and entry.offset >= position:
                self.offsets[place] = entry.offset + 1
                wanted.append(entry)
        return wanted


def check_shard(shard: int, shards: int) -> None:
    """ValueError for a shard that doesn't exist."""
    if not 0 <= shard < shards:
        msg = f"shard {shard} doesn't exist: the journal has {shards}"
        raise ValueError(msg)


def check_place(place: Place, shards: int) -> None:
    """ValueError for a place that doesn't exist."""
    Stream(place.stream)
    check_shard(place.shard, shards)


def check_commit(commit: Commit) -> None:
    """TypeError or ValueError for what can't be stored: found before it is grouped with the commits of others."""
    for outgoing in chain(commit.events, commit.metrics, commit.statuses):
        outgoing.key.encode()
        if outgoing.data.__class__ not in _STORABLE:
            msg = f"{outgoing.key}: data is {type(outgoing.data).__name__}, not bytes"
            raise TypeError(msg)
    for outgoing in chain(commit.events, commit.metrics):
        if outgoing.data is None:
            msg = f"{outgoing.key}: only the status stream has tombstones"
            raise ValueError(msg)
