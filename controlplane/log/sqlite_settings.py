"""`SettingsLog` on the SQLite file. Offsets have no holes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from controlplane.log.feed import BATCH, follow
from controlplane.log.ports import NOTHING, About, Record, Take
from controlplane.log.sqlite_file import SETTINGS, Slot
from controlplane.log.sqlite_reader import Reader
from controlplane.log.sqlite_writer import Writer
from controlplane.log.tailing import SettingsPosition

_SLOT = Slot(SETTINGS, 0)


class SqliteSettingsLog:
    """See the port."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def append(self, data: bytes, about: About = NOTHING) -> None:
        """See the port. A caller that is cancelled doesn't take the record back."""
        del about
        stored = bytes(data)
        await self._writer.submit(lambda batch: batch.append(stored))

    async def read(self, start: int, limit: int = BATCH) -> Sequence[Record]:
        """See the port."""
        return await self._reader.settings(start, limit)

    async def scan(self, start: int, stop: int, take: Take) -> None:
        """See the port."""
        await self._reader.scan(start, stop, take)

    def tail(self, start: int) -> AsyncGenerator[Sequence[Record], None]:
        """See the port."""
        position = SettingsPosition(start)

        async def stored() -> Sequence[Record]:
            return await self._reader.settings(position.offset, BATCH)

        return follow(self._writer.records, stored, position.admit)

    async def end_offset(self) -> int:
        """See the port."""
        return self._writer.counters.nexts[_SLOT]
