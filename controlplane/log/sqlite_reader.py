"""Reading the SQLite log: a thread and a connection of its own, and every row verified.

Rows are believed only when their checksum is right and when they are where they belong: the settings log, the events and the
metrics have no holes. What isn't so raises `LogCorrupt` with table and offset; nothing is skipped. The status stream has
holes, because a key's older rows are taken away.

Note [A reader beside a trim]. Rows and the start of their place are two looks; between them a trim may take both along. A
first look that seems to have a hole is therefore repeated inside one read transaction before anything is called corrupt.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar
from zlib import crc32

from controlplane.log.feed import BATCH
from controlplane.log.ports import Entry, LogCorrupt, LogUnavailable, Place, Record, Stream, Take
from controlplane.log.sqlite_file import SETTINGS, SHARD_SPAN, connect_reader, corrupt, entry_crc, meaning, settings_crc

ResultT = TypeVar("ResultT")
_Row = tuple[Any, ...]

_SETTINGS_QUERY: Final = "SELECT id, data, crc FROM settings WHERE id >= ? ORDER BY id LIMIT ?"
_QUERIES: Final = {
    stream: f"SELECT id, key, data, crc FROM {stream} WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"  # noqa: S608
    for stream in Stream
}

_make = tuple.__new__
"""Makes a named tuple at half the price of calling its class; a replay makes very many."""


class Reader:
    """The reading side of one open log. `end` tells where the settings log ends, as the writer counts it."""

    def __init__(self, path: Path, end: Callable[[], int]) -> None:
        self._path = path
        self._end = end
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="coreplane-log-reader")
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    async def settings(self, start: int, limit: int) -> Sequence[Record]:
        """Records from an offset on."""
        return await self._run(lambda connection: self._settings(connection, start, limit))

    async def scan(self, start: int, stop: int, take: Take) -> None:
        """Hand records to `take` in the reader's thread; see the port."""
        given_up = threading.Event()

        def handed_over(connection: sqlite3.Connection) -> None:
            position = start
            while position < stop and not given_up.is_set():
                records = self._settings(connection, position, min(BATCH, stop - position))
                if not records or not take(records):
                    return
                position = records[-1].offset + 1

        under_way = asyncio.ensure_future(self._run(handed_over))
        try:
            await asyncio.shield(under_way)
        except asyncio.CancelledError:
            given_up.set()
            await asyncio.wait({under_way})
            raise

    async def entries(self, positions: Mapping[Place, int], limit: int) -> Sequence[Entry]:
        """Entries of the first of the places that has any from its position on; empty when none has."""
        wanted = list(positions.items())
        return await self._run(lambda connection: self._entries(connection, wanted, limit))

    async def close(self) -> None:
        """Let reads under way finish, then release the connection. Safe to call twice."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
            self._thread.shutdown(wait=False)

    async def _run(self, read: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        if self._closed:
            msg = "the log is closed"
            raise LogUnavailable(msg)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._translated, read)

    # --- in the thread -------------------------------------------------------------------------------------------------

    def _translated(self, read: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        try:
            if self._connection is None:
                self._connection = connect_reader(self._path)
            return read(self._connection)
        except sqlite3.Error as exc:
            raise meaning(self._path, exc) from exc

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _settings(self, connection: sqlite3.Connection, start: int, limit: int) -> list[Record]:
        end = self._end()  # before the look: later records may only be added to it
        rows = connection.execute(_SETTINGS_QUERY, (start, limit)).fetchall()
        try:
            records = [_make(Record, (offset, data)) for offset, data, crc in rows if crc32(data, offset) == crc]
        except TypeError:
            records = []
        expected = min(limit, end - start)
        whole = len(records) == len(rows) >= expected and (not rows or rows[-1][0] == start + len(rows) - 1)
        if whole or start < 0:
            return records
        raise self._damage(SETTINGS, 0, start, [(offset, b"", data, crc) for offset, data, crc in rows])

    def _entries(
        self, connection: sqlite3.Connection, positions: Sequence[tuple[Place, int]], limit: int
    ) -> list[Entry]:
        for place, start in positions:
            if found := self._place(connection, place, start, limit):
                return found
        return []

    def _place(self, connection: sqlite3.Connection, place: Place, start: int, limit: int) -> list[Entry]:
        stream, shard = place
        low = shard * SHARD_SPAN
        rows = connection.execute(_QUERIES[stream], (low + start, low + SHARD_SPAN, limit)).fetchall()
        if stream is not Stream.STATUS and rows and not _contiguous(rows, low + start):
            rows = self._looked_again(connection, place, start, limit)
        try:
            return [
                _make(Entry, (stream, shard, row_id - low, key.decode(), data))
                for row_id, key, data, _ in map(_verified, rows)
            ]
        except (TypeError, AttributeError, ValueError) as exc:
            raise self._damage(stream, shard, start, rows) from exc

    def _looked_again(self, connection: sqlite3.Connection, place: Place, start: int, limit: int) -> list[_Row]:
        """Note [A reader beside a trim]."""
        stream, shard = place
        low = shard * SHARD_SPAN
        connection.execute("BEGIN")
        try:
            query = "SELECT start FROM places WHERE stream = ? AND shard = ?"
            (oldest,) = connection.execute(query, (str(stream), shard)).fetchone()
            rows = connection.execute(_QUERIES[stream], (low + start, low + SHARD_SPAN, limit)).fetchall()
        finally:
            connection.execute("COMMIT")
        first = max(start, oldest)
        if rows and not _contiguous(rows, low + first):
            raise self._damage(stream, shard, first, rows)
        return rows

    def _damage(self, table: str, shard: int, start: int, rows: Sequence[_Row]) -> LogCorrupt:
        """The first thing that is wrong with the rows, which should begin at offset `start` and have no holes."""
        low = shard * SHARD_SPAN
        name = table if table == SETTINGS else f"{table}, shard {shard}"
        expected = start
        for row in rows:
            offset = row[0] - low
            if offset != expected and table != Stream.STATUS:
                break
            if not _sound(table, row):
                return corrupt(self._path, f"{name}, offset {offset}", "the checksum doesn't match what is stored")
            expected = offset + 1
        return corrupt(self._path, f"{name}, offset {expected}", "the record is missing")


class _Unsound(ValueError):
    """The checksum of a row doesn't match."""


def _verified(row: _Row) -> _Row:
    row_id, key, data, crc = row
    if entry_crc(row_id, key, data) != crc:
        raise _Unsound
    return row


def _sound(table: str, row: _Row) -> bool:
    row_id, key, data, crc = row
    try:
        if table == SETTINGS:
            return bool(settings_crc(row_id, data) == crc)
        return bool(entry_crc(row_id, key, data) == crc)
    except TypeError:
        return False


def _contiguous(rows: Sequence[_Row], first: int) -> bool:
    return bool(rows[0][0] == first and rows[-1][0] == first + len(rows) - 1)
