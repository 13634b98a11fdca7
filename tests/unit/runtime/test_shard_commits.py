"""A commit that its caller doesn't wait for, and what this incarnation knows of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from controlplane.domain.status import Intent, KeyStatus, to_wire
from controlplane.log import codec
from controlplane.log.memory import MemoryLog
from controlplane.log.ports import Commit, Outgoing, Place, PutAside, Stream
from controlplane.runtime.clock import SystemClock
from controlplane.runtime.shards import MARK, OPERATION, Shard
from controlplane.telemetry.metrics import Metrics

KEY = "default/mesh.item/a"


async def test_an_intent_whose_commit_was_cancelled_is_known_and_ended():
    log = MemoryLog(shards=1)
    shard = Shard(log.journal, 0, SystemClock(), Metrics(), commit_timeout_s=5)
    await shard.take()
    begun = KeyStatus(KEY, intent=Intent("Make", 1, "plan", "then", "id-of-start"))
    caller = asyncio.create_task(shard.commit((), [begun]))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await asyncio.gather(*shard._commits)
    stored = await log.journal.read(Place(Stream.STATUS, 0), 0)
    assert [entry.key for entry in stored if entry.data is not None] == [KEY]
    assert shard.statuses[KEY].intent == begun.intent
    await shard.settle([KEY])
    assert shard.statuses[KEY].intent is None
    assert shard.statuses[KEY].unknown_since is not None
    await shard.close()
    await log.close()


async def test_numbers_of_batches_and_ids_of_effects_rise_and_differ_between_shards():
    log = MemoryLog(shards=2)
    shards = [Shard(log.journal, index, SystemClock(), Metrics(), commit_timeout_s=5) for index in range(2)]
    for shard in shards:
        await shard.take()
    assert shards[0].token == shards[1].token
    assert [shards[0].next_batch() for _ in range(3)] == [1, 2, 3]
    assert len({shard.effect_id(KEY, number) for shard in shards for number in range(3)}) == 6
    await log.close()


@pytest.mark.parametrize("data", [b"\xc1", codec.encode({"key": KEY}), codec.encode(to_wire(KeyStatus("another")))])
async def test_a_status_that_is_not_understood_is_put_aside_and_its_key_held(data: bytes):
    log, letters = MemoryLog(shards=1), list[PutAside]()
    before = await log.journal.open_shard(0)
    other = codec.encode(to_wire(KeyStatus("default/mesh.item/b")))
    records = [("default/mesh.item/b", b"?"), ("default/mesh.item/b", other), (KEY, data)]
    records += [(MARK, b"?"), (OPERATION + "1", codec.encode({}))]
    await before.commit(Commit(statuses=[Outgoing(key, value) for key, value in records]))

    async def put_aside(some: Sequence[PutAside]) -> None:
        letters.extend(some)

    shard = Shard(log.journal, 0, SystemClock(), Metrics(), commit_timeout_s=5, put_aside=put_aside)
    await shard.take()
    assert {(letter.key, letter.data) for letter in letters} == {
        (KEY, data),
        (MARK, b"?"),
        (OPERATION + "1", codec.encode({})),
    }
    assert shard.statuses[KEY].unknown_since is not None
    assert shard.statuses["default/mesh.item/b"].unknown_since is None
    assert not shard.operations
    await shard.close()
    await log.close()
