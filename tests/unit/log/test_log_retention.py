"""What a trim drops, by the times at which records were stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.log.memory import MemoryLog
from controlplane.log.ports import Commit, Outgoing, Place, Stream
from controlplane.log.sqlite import TOMBSTONES_KEPT_S, open_sqlite
from schemas.names import timestamp
from tests.contract.log_suites import all_entries

T0 = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.time = T0

    def now(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
async def log(request, tmp_path: Path, clock: Clock):
    if request.param == "memory":
        log = MemoryLog(shards=2, now=clock.now)
    else:
        log = await open_sqlite(tmp_path / "log.db", shards=2, now=clock.now)
    yield log
    await log.close()


async def kept(log, stream: Stream = Stream.EVENTS) -> list[str]:
    return [entry.key for entry in await all_entries(log.journal, Place(stream, 0))]


async def store(log, clock: Clock, ages: list[float]) -> None:
    writer = await log.journal.open_shard(0)
    for age in ages:
        clock.time = T0 - age
        await writer.commit(Commit([Outgoing(f"{age:g}", b"")]))


async def test_exactly_the_older_ones_go(log, clock):
    await store(log, clock, [50, 40, 30, 20])
    assert await log.journal.trim(Stream.EVENTS, timestamp(T0 - 30)) == 2
    assert await kept(log) == ["30", "20"]
    assert (await log.journal.start_offsets(Stream.EVENTS))[0] == 2


async def test_when_the_clock_jumped_back_what_is_kept_has_no_holes(log, clock):
    await store(log, clock, [50, 10, 45, 5])
    assert await log.journal.trim(Stream.EVENTS, timestamp(T0 - 30)) == 1
    assert await kept(log) == ["10", "45", "5"]


async def test_old_tombstones_go_and_young_ones_and_statuses_stay(log, clock):
    writer = await log.journal.open_shard(0)
    for age, key, data in [(50, "status", b"1"), (50, "old", None), (20, "young", None), (10, "last", b"1")]:
        clock.time = T0 - age
        await writer.commit(Commit(statuses=[Outgoing(key, data)]))
    assert await log.journal.trim(Stream.STATUS, timestamp(T0 - 30)) == 1
    assert await kept(log, Stream.STATUS) == ["status", "young", "last"]


async def test_opening_lets_old_tombstones_go(tmp_path: Path, clock: Clock):
    path = tmp_path / "log.db"
    log = await open_sqlite(path, shards=2, now=clock.now)
    writer = await log.journal.open_shard(0)
    await writer.commit(Commit(statuses=[Outgoing("gone", None), Outgoing("there", b"1")]))
    await log.close()
    for age, expected in [(TOMBSTONES_KEPT_S / 2, ["gone", "there"]), (TOMBSTONES_KEPT_S * 2, ["there"])]:
        clock.time = T0 + age
        log = await open_sqlite(path, shards=2, now=clock.now)
        assert await kept(log, Stream.STATUS) == expected
        await log.close()
