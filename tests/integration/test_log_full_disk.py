"""A full disk refuses writes and loses none; when there is room again the log goes on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.log.ports import Commit, LogUnavailable, Outgoing, Place, Stream
from controlplane.log.sqlite import open_sqlite
from tests.contract.log_suites import all_entries, all_records

DATA = b"x" * 3000

UNDER_A_LIMIT = """
import asyncio, resource, sys
from pathlib import Path
from controlplane.log.ports import LogUnavailable
from controlplane.log.sqlite import open_sqlite


async def main(path):
    log = await open_sqlite(path, shards=2)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))
    stored = refused = 0
    for number in range(400):
        try:
            await log.settings.append(b"%d " % number + b"x" * 3000)
            stored += 1
        except LogUnavailable:
            refused += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await log.settings.append(b"room again")
    print(stored + 1, refused, await log.settings.end_offset())
    await log.close()


asyncio.run(main(Path(sys.argv[1])))
"""


async def test_writes_the_file_system_refuses_are_answered_so_and_the_log_goes_on(tmp_path: Path):
    path = tmp_path / "log.db"
    command = [sys.executable, "-c", UNDER_A_LIMIT, str(path)]
    done = await asyncio.to_thread(subprocess.run, command, check=True, timeout=60, stdout=subprocess.PIPE)
    stored, refused, end = map(int, done.stdout.decode().splitlines()[-1].split())
    assert refused > 0
    assert stored == end
    log = await open_sqlite(path, shards=2)
    records = await all_records(log.settings)
    assert len(records) == stored
    assert records[-1].data == b"room again"
    await log.close()


async def test_a_commit_without_room_stores_nothing_of_it_and_what_was_stored_stays(tmp_path: Path):
    log = await open_sqlite(tmp_path / "log.db", shards=2)
    writer = await log.journal.open_shard(0)
    await limit(log, 40)
    stored = 0

    async def commit_until_refused() -> None:
        nonlocal stored
        while stored < 1000:
            outgoing = Outgoing(f"{stored}", DATA)
            await writer.commit(Commit([outgoing], [outgoing]))
            stored += 1

    with pytest.raises(LogUnavailable, match="nothing was stored"):
        await commit_until_refused()
    events = await all_entries(log.journal, Place(Stream.EVENTS, 0))
    statuses = await all_entries(log.journal, Place(Stream.STATUS, 0))
    assert [entry.key for entry in events] == [entry.key for entry in statuses] == [str(n) for n in range(stored)]
    await limit(log, 100_000)
    committed = await writer.commit(Commit([Outgoing("room again", DATA)]))
    assert list(committed.events) == [stored]
    await log.close()


async def limit(log, more_pages: int) -> None:
    """Let the database grow by so many pages: what a full disk is to SQLite."""

    def stage(batch) -> None:
        (pages,) = batch.connection.execute("PRAGMA page_count").fetchone()
        batch.connection.execute(f"PRAGMA max_page_count={pages + more_pages}")

    await log._writer.submit(stage)
