"""The replica's writes that hang, the view of statuses that move, tasks that end."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.domain.status import KeyStatus, to_wire
from controlplane.log import codec
from controlplane.log.memory import MemoryLog
from controlplane.log.ports import Entry, Indeterminate, Stream
from controlplane.runtime.clock import SystemClock
from controlplane.runtime.replica import Replica
from controlplane.runtime.statuses import StatusView
from controlplane.runtime.supervisor import Supervisor
from controlplane.telemetry.metrics import Metrics

CHANGE = {"op": "declare", "key": "default/mesh.item/a", "body": {"value": {"size": 1}}}


class ForgetfulLog:
    """A settings log that says "perhaps" so many times and then stores."""

    def __init__(self, log, perhaps):
        self._log = log
        self.perhaps = perhaps
        self.appended = 0

    async def append(self, data, about):
        if self.perhaps:
            self.perhaps -= 1
            raise Indeterminate
        self.appended += 1
        await self._log.append(data)

    def __getattr__(self, name):
        return getattr(self._log, name)


class StoppedLog:
    """A settings log of a replica that stands still before it appends."""

    def __init__(self, log):
        self._log = log
        self.reached = asyncio.Event()
        self.goes_on = asyncio.Event()

    async def append(self, data, about):
        self.reached.set()
        await self.goes_on.wait()
        return await self._log.append(data, about)

    def __getattr__(self, name):
        return getattr(self._log, name)


@pytest.fixture
async def log():
    log = MemoryLog(shards=1)
    yield log
    await log.close()


async def following(log, **options):
    replica, supervisor = Replica(log, SystemClock(), Metrics(), **options), Supervisor(Metrics())
    supervisor.start("replica", replica.run)
    return replica, supervisor


async def test_a_write_that_never_landed_is_appended_again_when_it_is_repeated(log):
    forgetful = ForgetfulLog(log.settings, 1)
    replica, supervisor = await following(forgetful)
    with pytest.raises(Indeterminate):
        await replica.submit([CHANGE], actor="user", request_id="r", timeout_s=0.01)
    assert replica._pending == {}
    verdict = await replica.submit([CHANGE], actor="user", request_id="r", timeout_s=5)
    assert verdict.accepted
    await supervisor.stop()


async def test_writes_without_an_answer_do_not_use_up_the_places(log):
    forgetful = ForgetfulLog(log.settings, 10_000)
    replica, supervisor = await following(forgetful)
    writes = (replica.submit([CHANGE], actor="u", request_id=f"r{number}", timeout_s=0.01) for number in range(50))
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert {type(answer) for answer in answers} == {Indeterminate}
    assert replica._pending == {}
    await supervisor.stop()


async def test_a_repetition_while_the_append_is_under_way_appends_nothing(log):
    counting = ForgetfulLog(log.settings, 0)
    replica, supervisor = await following(counting)
    verdicts = await asyncio.gather(
        *(replica.submit([CHANGE], actor="user", request_id="r", timeout_s=5) for _ in range(10))
    )
    assert counting.appended == 1
    assert len({verdict.offset for verdict in verdicts}) == 1
    await supervisor.stop()


async def test_a_replica_that_is_behind_refuses_nothing_that_the_log_would_accept(log):
    ahead, supervisor = await following(log.settings)
    created = await ahead.submit([CHANGE], actor="user", request_id="first")
    behind = Replica(log.settings, SystemClock(), Metrics())
    update = {**CHANGE, "expected": created.outcomes[0].revision, "body": {"value": {"size": 2}}}
    writes = [
        asyncio.create_task(behind.submit([update], actor="user", request_id="second")),
        asyncio.create_task(
            behind.submit([{"op": "retire", "key": CHANGE["key"], "expected": 0}], actor="u", request_id="first")
        ),
    ]
    await asyncio.sleep(0)
    supervisor.start("behind", behind.run)
    updated, repeated = await asyncio.gather(*writes)
    assert updated.accepted
    assert repeated == created
    await supervisor.stop()


@pytest.mark.parametrize("remember", [True, False])
async def test_a_request_that_was_answered_elsewhere_with_nothing_to_do_does_nothing_later_either(log, remember):
    """Not to remember is for who says that it was never sent before."""
    stopped = StoppedLog(log.settings)
    slow, slow_supervisor = await following(stopped, shared=True)
    quick, supervisor = await following(log.settings, shared=True)

    async def resized(replica, size, request_id):
        change = {**CHANGE, "body": {"value": {"size": size}}}
        return await replica.submit([change], actor="user", request_id=request_id, remember=remember)

    first = asyncio.create_task(resized(slow, 1, "a"))
    await stopped.reached.wait()
    await resized(quick, 1, "b")
    repeated = await resized(quick, 1, "a")
    assert [outcome.outcome for outcome in repeated.outcomes] == ["unchanged"]
    await resized(quick, 2, "c")
    stopped.goes_on.set()
    told = await first
    await quick.newest(5)
    size = quick.state.entries[CHANGE["key"]].body["value"]["size"]
    assert (size, told == repeated) == ((2, True) if remember else (1, False))
    await slow_supervisor.stop()
    await supervisor.stop()


def record(shard, revision):
    key = "default/mesh.item/a"
    data = None if revision is None else codec.encode(to_wire(KeyStatus(key, revision=revision)))
    return Entry(Stream.STATUS, shard, 0, key, data)


@pytest.mark.parametrize(
    ("records", "revision"),
    [
        ([(0, 1), (1, 2)], 2),
        ([(1, 2), (0, 1)], 2),
        ([(0, 1), (1, 2), (0, None)], 2),
        ([(0, 1), (0, None), (1, 2)], 2),
        ([(1, 2), (0, 1), (0, None)], 2),
        ([(0, 1), (0, None)], None),
        ([(0, 3), (0, 3), (0, 2)], 2),
    ],
)
def test_of_two_shards_that_hold_a_key_the_newer_revision_counts(records, revision):
    view = StatusView(MemoryLog(shards=2).journal)
    for shard, number in records:
        view._take(record(shard, number))
    status = view.get("default/mesh.item/a")
    assert (None if status is None else status.revision) == revision


async def test_tasks_that_ended_are_not_remembered():
    supervisor = Supervisor(Metrics())
    ended = asyncio.Event()

    async def short() -> None:
        ended.set()

    for number in range(5):
        supervisor.start(f"task-{number}", short)
    await ended.wait()
    await asyncio.wait(list(supervisor._tasks.values()))
    await asyncio.sleep(0)
    assert supervisor._tasks == {}
