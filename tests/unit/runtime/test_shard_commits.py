"""A commit that its caller doesn't wait for, and what this incarnation knows of it."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.domain.status import Intent, KeyStatus
from controlplane.log.memory import MemoryLog
from controlplane.log.ports import Place, Stream
from controlplane.runtime.clock import SystemClock
from controlplane.runtime.shards import Shard
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
    assert [entry.key for entry in stored] == [KEY]
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
