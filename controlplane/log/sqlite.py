"""Settings log and journal in one SQLite file: the embedded default. Acknowledged means committed and fsynced.

    sqlite_guards    lock and mark beside the file
    sqlite_file      the file: tables, opening, examination
    sqlite_batch     one transaction under construction
    sqlite_writer    the one writer: group commit
    sqlite_reader    reading, every row verified
    sqlite_settings  the port of the settings log
    sqlite_journal   the port of the journal

A log belongs to one process, and there to one event loop. Whoever can't open it gets `LogUnavailable` with the reason;
what was damaged or lost is `LogCorrupt`, and nothing goes on over it silently.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, Literal, NamedTuple

import structlog

from controlplane.log.ports import LogUnavailable, Stream
from controlplane.log.sqlite_file import SETTINGS, OpenFile, Slot, examine, open_file, translated
from controlplane.log.sqlite_guards import FileLock, Mark
from controlplane.log.sqlite_journal import SqliteJournal
from controlplane.log.sqlite_reader import Reader
from controlplane.log.sqlite_settings import SqliteSettingsLog
from controlplane.log.sqlite_writer import Writer
from schemas.names import timestamp

_log = structlog.get_logger()

TOMBSTONES_KEPT_S: Final = 86_400.0
"""Older ones go when the log is opened."""

Synchronous = Literal["FULL", "NORMAL"]


class SqliteLog:
    """Both ports of one open file."""

    def __init__(self, file: OpenFile, now: Callable[[], float]) -> None:
        self._file = file
        self._writer = Writer(file, now)
        self._reader = Reader(file.path, lambda: file.counters.nexts[Slot(SETTINGS, 0)])
        self.settings = SqliteSettingsLog(self._writer, self._reader)
        self.journal = SqliteJournal(self._writer, self._reader)
        self._closing: asyncio.Task[None] | None = None

    @property
    def membership(self) -> None:
        """One process alone."""

    @property
    def put_aside(self) -> None:
        """See the port: there is no place for them."""

    @property
    def trouble(self) -> None:
        """Never any: whoever reads is told what is wrong."""

    async def close(self) -> None:
        """Commit what was accepted, end the tails, release the file. Safe to call twice, and to be cancelled in."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._writer.finish()  # ends the tails, so nobody reads any more
        await self._reader.close()
        await asyncio.to_thread(self._writer.disconnect)  # the last one to go, because it can write
        self._file.mark.close()
        self._file.lock.release()


async def open_sqlite(
    path: Path, *, shards: int, synchronous: Synchronous = "FULL", now: Callable[[], float] = time.time
) -> SqliteLog:
    """Open the log, or make an empty one. `now`: Unix seconds, the times of records that `trim` compares.

    `synchronous` NORMAL doesn't wait for the disk: a power cut may lose the last commits, and then the log must be
    consented to (`accept_loss`). Raises `LogUnavailable` (held by another process, made with another number of shards, no
    access) or `LogCorrupt`.
    """
    log = SqliteLog(await asyncio.to_thread(open_file, path, shards=shards, synchronous=synchronous), now)
    try:
        await log.journal.trim(Stream.STATUS, timestamp(now() - TOMBSTONES_KEPT_S))
    except LogUnavailable as exc:
        _log.warning("old tombstones not dropped", path=str(path), error=str(exc))
    return log


class Loss(NamedTuple):
    """What was given up: the commits after `kept` up to `acknowledged`."""

    kept: int
    acknowledged: int


def accept_loss(path: Path) -> Loss:
    """Consent to a log that ends before what was acknowledged, so that it opens again. Blocks; the daemon must be stopped.

    What was lost is gone from revisions, events and statuses, and its offsets will be given anew: rebuild the projection
    afterwards. Raises `LogUnavailable` when the log is in use or there is none, `LogCorrupt` when it can't be read at all.
    """
    if not path.parent.is_dir():
        msg = f"there is no log {path}"
        raise LogUnavailable(msg)
    with translated(path), closing(Mark(path)) as mark:
        lock = FileLock(path)
        try:
            found = examine(path, acknowledged=0)
            kept = 0 if found is None else found.commits
            loss = Loss(kept, mark.read())
            mark.write(kept)
            mark.sync()
        finally:
            lock.release()
    return loss
