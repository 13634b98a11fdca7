"""The past is what the fold said then, whatever was asked before, and no question costs more than a stretch of the log."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.log import codec
from controlplane.log.memory import MemoryLog
from controlplane.runtime.clock import SystemClock
from controlplane.runtime.past import FEWEST, Past
from controlplane.runtime.replica import Replica
from controlplane.telemetry.metrics import Metrics
from schemas.names import parse_timestamp
from tests.unit.domain.test_rollback_laws import LOGS, Log


async def replica_of(records: list[dict[str, Any]]) -> tuple[Replica, MemoryLog]:
    log = MemoryLog(shards=1)
    for record in records:
        await log.settings.append(codec.encode(record))
    replica = Replica(log.settings, SystemClock(), Metrics())
    await replica.catch_up()
    return replica, log


@settings(max_examples=60, deadline=None)
@given(drawn=LOGS, asked=st.lists(st.integers(0, 40), min_size=1, max_size=6), closest=st.sampled_from([1, 2, 8]))
def test_every_place_is_as_the_fold_left_it(drawn, asked, closest):
    written = Log(drawn)

    async def check() -> None:
        replica, log = await replica_of([record for _, record in written.records])
        past = Past(replica, closest=closest)
        for revision in asked:
            expected = written.past[min(revision, len(written.past) - 1)]
            assert dict(await past.entries(revision)) == expected
        await log.close()

    asyncio.run(check())


def declare(number: int, at: str | None = None) -> dict[str, Any]:
    change = {"op": "declare", "key": f"t/cache.namespace/k{number % 7}", "expected": None}
    body = {"value": {"n": number}, "labels": {}, "depends_on": [], "policy": {}}
    moment = at or f"2026-01-31T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}.000000Z"
    return {
        "v": 1,
        "request_id": f"r{number}",
        "actor": "a",
        "at": moment,
        "reason": "",
        "changes": [change | {"body": body}],
    }


async def test_a_second_question_costs_no_more_than_a_stretch():
    replica, log = await replica_of([declare(n) for n in range(3000)])
    past = Past(replica, closest=64)
    await past.entries(2900)
    first = past.offsets_replayed
    assert first == 2900
    for revision in (100, 1000, 2000, 2899, 2901):
        before = past.offsets_replayed
        await past.entries(revision)
        assert past.offsets_replayed - before <= past.spacing
    before = past.offsets_replayed
    await past.entries(2901)
    assert past.offsets_replayed == before
    await log.close()


async def test_checkpoints_stay_few_however_long_the_log(monkeypatch):
    monkeypatch.setattr("controlplane.runtime.past.MOST_KEPT", 0)
    replica, log = await replica_of([declare(n) for n in range(1000)])
    past = Past(replica, closest=8)
    await past.entries(999)
    assert past.spacing == 128
    assert len(past._checkpoints) <= FEWEST + 1
    await log.close()


async def test_now_needs_no_replay():
    replica, log = await replica_of([declare(n) for n in range(10)])
    past = Past(replica)
    assert await past.entries(10) is replica.state.entries
    assert await past.entries(10_000) is replica.state.entries
    assert past.offsets_replayed == 0
    await log.close()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 64, 100])
async def test_a_time_means_the_log_up_to_its_last_record_that_isnt_later(count):
    replica, log = await replica_of([declare(n) for n in range(count)])
    past = Past(replica)
    start = parse_timestamp("2026-01-31T00:00:00Z")
    for number in range(-1, count + 1):
        assert await past.revision(start + number) == min(max(0, number + 1), count)
        assert await past.revision(start + number + 0.5) == min(max(0, number + 1), count)
    await log.close()


async def test_the_same_time_means_the_same_place_when_the_log_has_grown_and_clocks_disagree():
    moments = ["10", "30", "20", "40", "25", "50"]
    replica, log = await replica_of([declare(n, f"2026-01-31T00:00:{s}Z") for n, s in enumerate(moments)])
    past = Past(replica)
    asked = [parse_timestamp(f"2026-01-31T00:00:{s}Z") for s in moments]
    before = [await past.revision(instant) for instant in asked]
    for number in range(6, 40):
        await log.settings.append(codec.encode(declare(number, f"2026-01-31T00:10:{number:02}Z")))
    await replica.catch_up()
    assert [await past.revision(instant) for instant in asked] == before
    await log.close()
