"""The one writer of the SQLite log: a thread that commits in groups.

Theory of operation. Whoever writes hands over a *stage*: a function that says, in the writer's thread, what the write adds
to the transaction under construction. While one transaction is being fsynced the next stages gather in the queue; the
thread then takes them all into one transaction, so fifty writers pay for one fsync together. Offsets are given by the
writer, from counters that move only once the transaction is committed. The order is: commit → mark → publish to the tails
→ answer the writers, so nobody sees what could still be lost.

A stage refuses by raising before it adds anything; that fails it alone. Anything else that goes wrong fails the whole group:
as `LogUnavailable` when it is certain that nothing is stored, as `Indeterminate` else; the writer goes on with the next one.

Note [A commit that failed]. A write of a frame that fails (disk full, quota) comes before the frame that makes the commit
valid: nothing is stored. A failed fsync comes after it: this process goes on as if nothing were stored, but after a crash
SQLite may find the commit whole and take it. So only the former is certain.

A caller that is cancelled doesn't take its write back: it lands all the same.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, NamedTuple, TypeVar

import structlog

from controlplane.log.feed import Feed
from controlplane.log.ports import Entry, Fenced, Indeterminate, LogCorrupt, LogUnavailable, Record
from controlplane.log.sqlite_batch import Batch
from controlplane.log.sqlite_file import OpenFile, error_name, meaning, read_counters

_log = structlog.get_logger()

MOST_WAITING: Final = 1024
"""Writes handed over and not answered; further ones wait."""
_MOST_TOGETHER: Final = 512
_CERTAIN: Final = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_BUSY")
"""Errors of COMMIT after which certainly nothing is stored."""

ResultT = TypeVar("ResultT")


class _Job(NamedTuple, Generic[ResultT]):
    stage: Callable[[Batch], ResultT]
    answer: asyncio.Future[ResultT]


class _Answer(NamedTuple):
    job: _Job[Any]
    result: Any
    error: Exception | None


class Writer:
    """Owns the writing connection, the mark and the counters. Lives in one event loop and one thread."""

    def __init__(self, file: OpenFile, now: Callable[[], float]) -> None:
        self.records: Feed[Record] = Feed()
        self.entries: Feed[Entry] = Feed()
        self.counters = file.counters
        self._path = file.path
        self._connect = file.connect
        self._connection = file.connection
        self._mark = file.mark
        self._now = now
        self._queue: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._room = asyncio.Semaphore(MOST_WAITING)
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="coreplane-log-writer", daemon=True)
        self._thread.start()

    async def submit(self, stage: Callable[[Batch], ResultT]) -> ResultT:
        """Carry out the stage in a transaction; returns what it returned, once that is durable.

        Raises what the stage raised, `LogUnavailable` (nothing stored) or `Indeterminate`.
        """
        self._refuse_closed()
        await self._room.acquire()
        if self._closing:
            self._room.release()
            self._refuse_closed()
        answer: asyncio.Future[ResultT] = self._loop.create_future()
        self._queue.put(_Job(stage, answer))
        return await answer

    async def finish(self) -> None:
        """Commit what was handed over, end the tails and the thread. The connection stays, see `disconnect`."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        await self._ended.wait()
        self.records.close()
        self.entries.close()

    def disconnect(self) -> None:
        """Close the connection; blocks. Once no other is left, this folds the write-ahead log into the database."""
        try:
            self._connection.close()
        except sqlite3.Error as exc:
            _log.warning("log file not closed cleanly", path=str(self._path), error=str(exc))

    def _refuse_closed(self) -> None:
        if self._closing:
            msg = "the log is closed"
            raise LogUnavailable(msg)

    # --- in the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        last = False
        while not last:
            jobs, last = self._gather()
            if jobs and not self._tell(self._settle, *self._commit(jobs)):
                self.disconnect()
                return
        self._tell(self._ended.set)

    def _gather(self) -> tuple[list[_Job[Any]], bool]:
        """Wait for one job, take all that are there; True when no more will come."""
        job = self._queue.get()
        jobs: list[_Job[Any]] = []
        while job is not None:
            jobs.append(job)
            if len(jobs) == _MOST_TOGETHER:
                return jobs, False
            try:
                job = self._queue.get_nowait()
            except Empty:
                return jobs, False
        return jobs, True

    def _commit(self, jobs: Sequence[_Job[Any]]) -> tuple[list[_Answer], Sequence[Record], Sequence[Entry], bool]:
        """Answers, what is to be published, and whether the tails must look into the store instead."""
        batch = Batch(self._connection, self.counters, self._now())
        committing = False
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            answers = [_staged(job, batch) for job in jobs]
            if batch.write():
                following = self.counters.commits + 1
                self._connection.execute("UPDATE log SET commits = ?", (following,))
                committing = True
                self._connection.execute("COMMIT")
                batch.count()
                self._acknowledge(following)
            else:
                self._connection.execute("ROLLBACK")
        except Exception as exc:  # noqa: BLE001 - whatever it is, the writers must hear of it
            kind, message, stored = self._failed(exc, committing=committing)
            return [_Answer(job, None, kind(message)) for job in jobs], (), (), stored
        return answers, batch.records, batch.entries, False

    def _acknowledge(self, commits: int) -> None:
        self.counters.commits = commits
        try:
            self._mark.write(commits)
        except OSError as exc:
            # The commit is durable; only a later loss of it would go unseen.
            _log.warning("log mark not written", path=str(self._path), error=str(exc))

    def _failed(self, exc: Exception, *, committing: bool) -> tuple[type[Exception], str, bool]:
        """The error for the writers, and whether something was stored after all; see Note [A commit that failed]."""
        _log.error("log commit failed", path=str(self._path), error=str(exc), committing=committing)
        certain = not committing or (isinstance(exc, sqlite3.Error) and error_name(exc).startswith(_CERTAIN))
        commits = self.counters.commits
        try:
            self._recover()
        except (sqlite3.Error, LogCorrupt, LogUnavailable) as again:
            _log.error("log file not usable", path=str(self._path), error=str(again))
        stored = self.counters.commits != commits
        if not certain or stored:
            return Indeterminate, f"{self._path}: the commit may be stored: {exc}", stored
        reason = meaning(self._path, exc) if isinstance(exc, sqlite3.Error) else repr(exc)
        return LogUnavailable, f"nothing was stored: {reason}", stored

    def _recover(self) -> None:
        """Roll back, on a new connection if need be, and believe the file about what is stored."""
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            counters = read_counters(self._path, self._connection)
        except sqlite3.Error:
            self._connection.close()
            self._connection = self._connect()
            counters = read_counters(self._path, self._connection)
        if counters.commits == self.counters.commits:
            return
        self.counters.nexts.update(counters.nexts)
        self.counters.starts.update(counters.starts)
        self.counters.epochs.update(counters.epochs)
        self._acknowledge(counters.commits)

    def _tell(self, function: Callable[..., object], *arguments: Any) -> bool:
        """Call a function in the event loop; False when that is gone, and nobody waits any more."""
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError as exc:
            _log.warning("log closed by the end of its event loop", path=str(self._path), error=str(exc))
            return False
        return True

    # --- back in the event loop ----------------------------------------------------------------------------------------

    def _settle(
        self,
        answers: Sequence[_Answer],
        records: Sequence[Record],
        entries: Sequence[Entry],
        stored: bool,  # noqa: FBT001 - goes through call_soon_threadsafe, by position
    ) -> None:
        if records:
            self.records.publish(records)
        if entries:
            self.entries.publish(entries)
        if stored:
            self.records.skip()
            self.entries.skip()
        for (_, answer), result, error in answers:
            self._room.release()
            if answer.cancelled():
                continue  # its caller gave up
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)


def _staged(job: _Job[Any], batch: Batch) -> _Answer:
    try:
        return _Answer(job, job.stage(batch), None)
    except Fenced as exc:
        return _Answer(job, None, exc)
