"""The store of the embedded default: one SQLite file in WAL mode, apart from the log, rebuildable at any time.

Theory of operation. All writing happens in one thread with one connection; questions are answered by a few other threads
with read-only connections, which WAL lets read while a batch is written. The event loop never waits for the disk. Documents
and positions are one transaction, so after a crash the file is at some position with exactly the documents below it.
`synchronous=NORMAL`: a power cut may take the last transactions, positions included, and they are projected again.

The file is opened by the first call that needs it: a daemon whose projection can't be opened still drives its backends,
and says `StoreUnavailable` here until it can. A file that isn't ours, is of another version or damaged is dropped when it is
opened; damage found later makes every call raise `StoreDamaged` until `reset`.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import structlog

from controlplane.log.ports import Place, Stream
from controlplane.projection import reading, writing
from controlplane.projection.documents import Batch
from controlplane.projection.ports import DocumentRefused, StoreDamaged, StoreUnavailable, Trimmed
from controlplane.projection.queries import (
    EventFilter,
    EvidenceRows,
    MetricFilter,
    MetricType,
    Page,
    StatusFilter,
    micros,
)
from controlplane.projection.tables import APPLICATION_ID, SCHEMA, VERSION

_log = structlog.get_logger()

T = TypeVar("T")

READERS: Final = 2
MOST_WAITING: Final = 64
"""Questions under way or waiting; one more is refused."""
BUSY_TIMEOUT_S: Final = 5.0
CACHE_KIB: Final = 512
"""Pages that each connection keeps in memory; the file system has the others."""
"""Longest wait for another process that has the file (a rebuild by hand)."""
QUERY_TIMEOUT_S: Final = 10.0

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SUFFIXES: Final = ("", "-wal", "-shm")


class SqliteStore:
    """`Store` in one file. `query_timeout_s` bounds each question."""

    def __init__(self, path: Path, *, query_timeout_s: float = QUERY_TIMEOUT_S) -> None:
        self._path = path
        self._query_timeout_s = query_timeout_s
        self._writer: sqlite3.Connection | None = None
        self._series = writing.SeriesIds()
        self._damage: str | None = None
        self._epoch = 0
        """Counts the files there have been: readers of an earlier one are closed instead of used again."""
        self._idle: queue.SimpleQueue[tuple[int, sqlite3.Connection]] = queue.SimpleQueue()
        self._waiting = 0
        self._closed = False
        self._write_thread = ThreadPoolExecutor(1, "projection-write")
        self._read_threads = ThreadPoolExecutor(READERS, "projection-read")

    # --- Store ---------------------------------------------------------------------------------------------------------

    async def write(self, batch: Batch, positions: Mapping[Place, int]) -> None:
        """Documents, dead letters and positions in one transaction."""
        await self._writing(lambda connection: writing.write(connection, self._series, batch, positions))

    async def positions(self) -> Mapping[Place, int]:
        """What the documents reach."""
        rows = await self._writing(lambda c: c.execute("SELECT stream, shard, position FROM positions").fetchall())
        return {Place(Stream(stream), shard): position for stream, shard, position in rows}

    async def trim(self, events_before: float, metrics_before: float) -> Trimmed:
        """Drop what is older, in small transactions, so that new documents get in between."""
        events = metrics = 0
        while gone := await self._writing(lambda c: writing.trim_events(c, micros(events_before))):
            events += gone
        for one in await self._writing(writing.all_series):
            metrics += await self._writing(lambda c, one=one: writing.trim_points(c, one, micros(metrics_before)))  # type: ignore[misc]
        await self._writing(lambda c: writing.trim_series(c, self._series))
        await self._writing(writing.trim_tombstones)
        return Trimmed(events, metrics)

    async def reset(self) -> None:
        """Drop the file and begin a new one."""
        await self._in_thread(self._write_thread, self._drop)

    async def close(self) -> None:
        """Finish what was begun; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._shut)

    # --- Queries -------------------------------------------------------------------------------------------------------

    async def events(self, wanted: EventFilter) -> Page:
        """Events, newest first."""
        return await self._reading(lambda connection: reading.events(connection, wanted))

    async def statuses(self, wanted: StatusFilter) -> Page:
        """The newest of each setting, by keys."""
        return await self._reading(lambda connection: reading.statuses(connection, wanted))

    async def metrics(self, wanted: MetricFilter) -> Page:
        """Points, newest first, or series."""
        answer = reading.points if wanted.interval_s is None else reading.series
        return await self._reading(lambda connection: answer(connection, wanted))

    async def metric_types(self, tenant: str, service_name: str | None = None) -> Sequence[MetricType]:
        """Which metrics there are."""
        return await self._reading(lambda connection: reading.metric_types(connection, tenant, service_name))

    async def evidence(self, tenant: str, service_name: str, since: float, until: float) -> EvidenceRows:
        """Events and metrics of one service for its analysis."""
        return await self._reading(lambda connection: reading.evidence(connection, tenant, service_name, since, until))

    async def dead_letters(self, limit: int = 100) -> Sequence[dict[str, Any]]:
        """Records that can't be projected."""
        return await self._reading(lambda connection: reading.dead_letters(connection, limit))

    # --- threads -------------------------------------------------------------------------------------------------------

    async def _writing(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._in_thread(self._write_thread, lambda: work(self._open_writer()))

    async def _reading(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._waiting >= MOST_WAITING:
            msg = f"{self._waiting} questions are waiting already"
            raise StoreUnavailable(msg)
        self._waiting += 1
        try:
            if self._writer is None:
                await self._in_thread(self._write_thread, self._open_writer)
            return await self._in_thread(self._read_threads, lambda: self._with_reader(work))
        finally:
            self._waiting -= 1

    async def _in_thread(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if self._closed:
            msg = "the projection is closed"
            raise StoreUnavailable(msg)
        return await asyncio.get_running_loop().run_in_executor(threads, self._translated, work)

    def _translated(self, work: Callable[[], T]) -> T:
        """Errors of SQLite in the words of the port."""
        try:
            return work()
        except sqlite3.Error as exc:
            self._raise(exc)
        except (OverflowError, UnicodeEncodeError) as exc:
            raise DocumentRefused(str(exc)) from exc

    def _raise(self, exc: sqlite3.Error) -> NoReturn:
        code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _DAMAGED:
            self._damage = str(exc)
            raise StoreDamaged(self._damage) from exc
        if isinstance(exc, sqlite3.DataError | sqlite3.IntegrityError | sqlite3.InterfaceError):
            raise DocumentRefused(str(exc)) from exc
        if code == sqlite3.SQLITE_INTERRUPT:
            msg = f"no answer within {self._query_timeout_s:g} s: ask for less, for example with `since`"
            raise StoreUnavailable(msg) from exc
        if isinstance(exc, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR:
            raise StoreUnavailable(f"{self._path}: {exc}") from exc
        raise exc

    # --- in the writer's thread ----------------------------------------------------------------------------------------

    def _open_writer(self) -> sqlite3.Connection:
        if self._damage is not None:
            raise StoreDamaged(self._damage)
        if self._writer is None:
            self._writer = self._opened()
        return self._writer

    def _opened(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StoreUnavailable(f"{self._path.parent}: {exc}") from exc
        reason = self._unfit()
        if reason is not None:
            _log.warning("projection dropped, to be rebuilt from the journal", path=str(self._path), reason=reason)
            self._unlink()
        connection = _connect(self._path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            _create(connection)
        return connection

    def _unfit(self) -> str | None:
        """Why the file that is there can't be used; None when it can or there is none."""
        if not self._path.exists() or self._path.stat().st_size == 0:
            return None
        connection = _connect(self._path)
        try:
            owner = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if (owner, version) != (APPLICATION_ID, VERSION):
                return f"schema version {version}, not {VERSION}"
            connection.execute("SELECT count(*) FROM positions").fetchone()
        except sqlite3.DatabaseError as exc:
            if getattr(exc, "sqlite_errorcode", 0) & 0xFF not in {*_DAMAGED, sqlite3.SQLITE_ERROR}:
                raise
            return str(exc)
        finally:
            connection.close()
        return None

    def _drop(self) -> None:
        self._epoch += 1
        self._damage = None
        self._series.clear()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._unlink()
        self._open_writer()

    def _unlink(self) -> None:
        for suffix in _SUFFIXES:
            try:
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            except OSError as exc:
                raise StoreUnavailable(f"{self._path}: {exc}") from exc

    # --- in a reader's thread ------------------------------------------------------------------------------------------

    def _with_reader(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._damage is not None:
            raise StoreDamaged(self._damage)
        epoch, connection = self._reader()
        deadline = time.monotonic() + self._query_timeout_s
        connection.set_progress_handler(lambda: self._closed or time.monotonic() > deadline, 10_000)
        try:
            connection.execute("BEGIN")  # one snapshot for all the SELECTs of one answer
            return work(connection)
        finally:
            connection.set_progress_handler(None, 0)
            if connection.in_transaction:
                connection.rollback()
            self._idle.put((epoch, connection))

    def _reader(self) -> tuple[int, sqlite3.Connection]:
        with suppress(queue.Empty):
            while True:
                epoch, connection = self._idle.get_nowait()
                if epoch == self._epoch:
                    return epoch, connection
                connection.close()
        epoch = self._epoch
        return epoch, _connect(self._path, "?mode=ro")

    def _shut(self) -> None:
        self._read_threads.shutdown()
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait()[1].close()
        self._write_thread.shutdown()
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _connect(path: Path, parameters: str = "") -> sqlite3.Connection:
    """Transactions are written out (`isolation_level=None`); a connection goes from thread to thread, one at a time."""
    uri = path.absolute().as_uri() + parameters
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB:d}")
    return connection


def _create(connection: sqlite3.Connection) -> None:
    with writing.transaction(connection):
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")
        connection.execute(f"PRAGMA user_version = {VERSION:d}")
