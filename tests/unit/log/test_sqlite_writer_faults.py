"""What the writer answers when a commit fails, by whether it is certain that nothing is stored."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest

from controlplane.log.ports import Commit, Indeterminate, LogUnavailable, Outgoing, Place, Stream
from controlplane.log.sqlite import SqliteLog
from controlplane.log.sqlite_file import open_file
from tests.contract.log_suites import DEADLINE_S, all_records, gathered


class FailingConnection(sqlite3.Connection):
    """SQLite whose next COMMIT fails: `stored` says whether it took place all the same."""

    failure: str | None = None
    stored = False
    broken = False

    def execute(self, statement: str, *arguments):
        if self.broken and statement == "ROLLBACK":
            raise failed("SQLITE_IOERR")
        if statement != "COMMIT" or self.failure is None:
            return super().execute(statement, *arguments)
        failure, self.failure = self.failure, None
        if self.stored:
            super().execute("COMMIT")
        raise failed(failure)


def failed(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = name
    return error


@pytest.fixture
async def opened(tmp_path: Path):
    file = await asyncio.to_thread(open_file, tmp_path / "log.db", shards=2, synchronous="FULL")
    await asyncio.to_thread(file.connection.close)
    connection = sqlite3.connect(
        tmp_path / "log.db", isolation_level=None, check_same_thread=False, factory=FailingConnection
    )
    log = SqliteLog(file._replace(connection=connection), time.time)
    await log.settings.append(b"before")
    yield log, connection
    await log.close()


async def test_a_write_that_failed_is_certainly_not_stored(opened):
    log, connection = opened
    connection.failure = "SQLITE_IOERR_WRITE"
    with pytest.raises(LogUnavailable, match="nothing was stored"):
        await log.settings.append(b"refused")
    await log.settings.append(b"after")
    assert [(record.offset, record.data) for record in await all_records(log.settings)] == [
        (0, b"before"),
        (1, b"after"),
    ]


async def test_an_fsync_that_failed_leaves_it_open_and_the_writer_goes_on(opened):
    log, connection = opened
    connection.failure = "SQLITE_IOERR_FSYNC"
    with pytest.raises(Indeterminate):
        await log.settings.append(b"unknown")
    await log.settings.append(b"after")
    assert [record.data for record in await all_records(log.settings)] == [b"before", b"after"]


async def test_a_commit_that_took_place_though_it_failed_is_found_and_reaches_the_tails(opened):
    log, connection = opened
    tail = log.settings.tail(0)
    assert [record.data for record in await gathered(tail, 1)] == [b"before"]
    waiting = asyncio.ensure_future(gathered(tail, 2))
    connection.failure, connection.stored = "SQLITE_IOERR_FSYNC", True
    with pytest.raises(Indeterminate):
        await log.settings.append(b"stored after all")
    await log.settings.append(b"after")
    assert [(record.offset, record.data) for record in await asyncio.wait_for(waiting, DEADLINE_S)] == [
        (1, b"stored after all"),
        (2, b"after"),
    ]


async def test_a_commit_of_the_journal_that_took_place_counts_its_offsets(opened):
    log, connection = opened
    writer = await log.journal.open_shard(0)
    connection.failure, connection.stored = "SQLITE_IOERR", True
    with pytest.raises(Indeterminate):
        await writer.commit(Commit(events=[Outgoing("a", b"1")], statuses=[Outgoing("a", b"1")]))
    committed = await writer.commit(Commit(events=[Outgoing("b", b"2")]))
    assert list(committed.events) == [1]
    assert [e.key for e in await log.journal.read(Place(Stream.EVENTS, 0), 0)] == ["a", "b"]


async def test_a_connection_that_cannot_even_roll_back_is_replaced(opened):
    log, connection = opened
    connection.failure, connection.broken = "SQLITE_IOERR_WRITE", True
    with pytest.raises(LogUnavailable):
        await log.settings.append(b"refused")
    await log.settings.append(b"after")
    assert [record.data for record in await all_records(log.settings)] == [b"before", b"after"]


async def test_every_write_of_the_failed_group_hears_of_it(opened):
    log, connection = opened
    connection.failure = "SQLITE_FULL"
    answers = await asyncio.gather(*(log.settings.append(b"%d" % n) for n in range(40)), return_exceptions=True)
    refused = [answer for answer in answers if answer is not None]
    assert refused
    assert all(isinstance(answer, LogUnavailable) for answer in refused)
    assert len(await all_records(log.settings)) == 1 + len(answers) - len(refused)
