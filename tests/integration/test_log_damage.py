"""A damaged log is found out and said; what it still says is what was written."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.log.ports import Commit, LogCorrupt, LogUnavailable, Outgoing, Place, Record, Stream
from controlplane.log.sqlite import accept_loss, open_sqlite
from tests.contract.log_suites import all_entries, all_records

PAGE = 4096
RECORDS = 150

Contents = dict[str, list]


async def fill(path: Path) -> None:
    log = await open_sqlite(path, shards=2)
    writer = await log.journal.open_shard(0)
    for number in range(RECORDS):
        await log.settings.append(b"record %d " % number * 20)
        outgoing = Outgoing(f"key-{number % 7}", b"data %d " % number * 20)
        await writer.commit(Commit([outgoing], [outgoing], [outgoing]))
    await log.close()


async def contents(path: Path) -> Contents:
    """All there is to read. Raises what an owner of the log would see."""
    log = await open_sqlite(path, shards=2)
    try:
        found: Contents = {"settings": await all_records(log.settings)}
        for stream in Stream:
            found[stream] = await all_entries(log.journal, Place(stream, 0))
        return found
    finally:
        await log.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "log.db"
    asyncio.run(fill(path))
    return path


FILL_AND_DIE = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.integration.test_log_damage import fill_only_settings

asyncio.run(fill_only_settings(Path(sys.argv[1])))
os.kill(os.getpid(), signal.SIGKILL)
"""


async def fill_only_settings(path: Path) -> None:
    """Everything stays in the write-ahead log: it isn't closed."""
    log = await open_sqlite(path, shards=2)
    for number in range(RECORDS):
        await log.settings.append(b"record %d " % number * 20)


def filled_by_a_killed_process(path: Path) -> Path:
    done = subprocess.run([sys.executable, "-c", FILL_AND_DIE, str(path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    return path.with_name(f"{path.name}-wal")


def flip(path: Path, position: int, mask: int = 0xFF) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ mask]))


def test_whatever_bytes_of_the_last_pages_change_it_is_said_or_the_contents_are_the_same(path: Path):
    rng = random.Random(7)
    expected, original, size = asyncio.run(contents(path)), path.read_bytes(), path.stat().st_size
    said = 0
    for _ in range(60):
        for _ in range(rng.choice([1, 1, 1, 8, 64])):
            flip(path, rng.randrange(size - 12 * PAGE, size), rng.randrange(1, 256))
        try:
            found = asyncio.run(contents(path))
        except LogCorrupt:
            said += 1
        else:
            assert found == expected
        path.write_bytes(original)
    assert said > 30


@pytest.mark.parametrize("table", ["settings", "events", "status", "metrics"])
def test_one_flipped_bit_in_a_record_is_named_by_table_and_offset(path: Path, table: str):
    expected = asyncio.run(contents(path))
    victim = expected[table][-3]
    flip(path, position_of(path, table, victim.offset), 0x01)
    with pytest.raises(LogCorrupt, match=rf"{table}.*offset {victim.offset}\b.*checksum"):
        asyncio.run(contents(path))


def position_of(path: Path, table: str, offset: int) -> int:
    """Where in the file the data of a row of shard 0 stands: found by writing a needle over it in a copy."""
    needle = b"needle" * 30
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    script = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1])\n"
        f"n = c.execute('SELECT length(data) FROM {table} WHERE id = {offset}').fetchone()[0]\n"
        f"c.execute('UPDATE {table} SET data = ? WHERE id = {offset}', (({needle!r} * 9)[:n],))\n"
        "c.commit()\n"
        "c.execute('PRAGMA journal_mode=DELETE')\n"
        "c.close()\n"
    )
    subprocess.run([sys.executable, "-c", script, str(copy)], check=True, timeout=30)
    return copy.read_bytes().index(needle)


def test_a_record_that_is_missing_is_named(path: Path):
    deleted(path, "DELETE FROM settings WHERE id = 77")
    with pytest.raises(LogCorrupt, match=r"settings, offset 77: the record is missing"):
        asyncio.run(contents(path))


def test_an_event_that_is_missing_is_named(path: Path):
    deleted(path, "DELETE FROM events WHERE id = 33")
    with pytest.raises(LogCorrupt, match=r"events, shard 0, offset 33: the record is missing"):
        asyncio.run(contents(path))


@pytest.mark.parametrize("table", ["settings", "events", "status", "metrics"])
def test_a_last_record_that_is_missing_is_found_when_the_log_is_opened(path: Path, table: str):
    deleted(path, f"DELETE FROM {table} WHERE id = (SELECT max(id) FROM {table})")
    with pytest.raises(LogCorrupt, match=rf"{table}, shard 0: ends at offset \d+ instead of {RECORDS}"):
        asyncio.run(contents(path))


def deleted(path: Path, statement: str) -> None:
    script = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\nc.execute(sys.argv[2])\nc.commit()\nc.close()\n"
    subprocess.run([sys.executable, "-c", script, str(path), statement], check=True, timeout=30)


def test_a_tail_stops_at_the_damage_and_gives_nothing_behind_it(path: Path):
    deleted(path, "UPDATE settings SET data = x'00' WHERE id = 77")
    given: list[Record] = []

    async def follow() -> None:
        log = await open_sqlite(path, shards=2)
        try:
            async for records in log.settings.tail(0):
                given.extend(records)
        finally:
            await log.close()

    with pytest.raises(LogCorrupt, match="offset 77"):
        asyncio.run(follow())
    assert all(record.offset < 77 for record in given)


@pytest.mark.parametrize("pages", [1, 3, 10])
def test_a_truncated_file_is_said(path: Path, pages: int):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - pages * PAGE)
    with pytest.raises(LogCorrupt):
        asyncio.run(contents(path))


def test_a_file_that_is_something_else_is_said(path: Path):
    path.write_bytes(b"not a database " * 1000)
    with pytest.raises(LogCorrupt):
        asyncio.run(contents(path))


def test_a_log_that_was_deleted_is_not_begun_anew_in_silence(path: Path):
    path.unlink()
    with pytest.raises(LogCorrupt, match=r"ends at commit 0, but \d+ was acknowledged"):
        asyncio.run(contents(path))
    assert not path.exists()


def last_frames(wal: Path) -> list[Callable[[], None]]:
    """Ways for the end of a write-ahead log to rot; each is applied to the whole one."""
    size = wal.stat().st_size

    def truncate(to: int) -> None:
        with wal.open("r+b") as file:
            file.truncate(to)

    frame = PAGE + 24
    return [
        lambda: flip(wal, size - 100),
        lambda: flip(wal, size - frame + 9),
        lambda: truncate(size - frame // 2),
        lambda: truncate(size - 20 * frame),
        lambda: flip(wal, size // 2),
    ]


def test_acknowledged_commits_that_rot_in_the_write_ahead_log_are_missed(tmp_path: Path):
    path = tmp_path / "log.db"
    wal = filled_by_a_killed_process(path)
    kept = {file: file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("-shm")}
    for number in range(len(last_frames(wal))):
        for file, data in kept.items():
            file.write_bytes(data)
        path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
        last_frames(wal)[number]()
        rotten = wal.read_bytes()
        with pytest.raises(LogCorrupt, match=rf"ends at commit \d+, but {RECORDS} was acknowledged"):
            asyncio.run(contents(path))
        assert wal.read_bytes() == rotten, "what is left must stay as it is, for whoever can make something of it"


def test_the_same_log_without_the_damage_is_whole(tmp_path: Path):
    path = tmp_path / "log.db"
    filled_by_a_killed_process(path)
    assert len((asyncio.run(contents(path)))["settings"]) == RECORDS


def test_a_loss_that_is_accepted_is_counted_and_the_log_opens_again(tmp_path: Path):
    path = tmp_path / "log.db"
    wal = filled_by_a_killed_process(path)
    flip(wal, wal.stat().st_size - 100)
    loss = accept_loss(path)
    assert loss == (RECORDS - 1, RECORDS)

    async def go_on() -> None:
        log = await open_sqlite(path, shards=2)
        assert await log.settings.end_offset() == RECORDS - 1
        await log.settings.append(b"and on")
        await log.close()

    asyncio.run(go_on())
    assert len((asyncio.run(contents(path)))["settings"]) == RECORDS


def test_accepting_the_loss_of_a_deleted_log_begins_a_new_one(path: Path):
    path.unlink()
    loss = accept_loss(path)
    assert loss.kept == 0
    assert loss.acknowledged > 0
    assert (asyncio.run(contents(path)))["settings"] == []


def test_a_loss_is_not_accepted_while_the_log_is_in_use(path: Path):
    async def while_open() -> None:
        log = await open_sqlite(path, shards=2)
        with pytest.raises(LogUnavailable, match="in use"):
            await asyncio.to_thread(accept_loss, path)
        await log.close()

    asyncio.run(while_open())
