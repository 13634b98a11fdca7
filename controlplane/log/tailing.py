"""Where a tail stands, and what may be asked of a journal: the same for every implementation. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controlplane.log.ports import Entry, Place, Record, Stream


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


def check_trim(stream: Stream) -> None:
    """ValueError for the status stream: it is compacted, and its oldest entry may be the only one of its key."""
    if stream is Stream.STATUS:
        msg = "the status stream is compacted by key and isn't trimmed by time"
        raise ValueError(msg)
