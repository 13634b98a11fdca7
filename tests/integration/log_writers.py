"""Writers of a log on Kafka while its brokers go away and come back, and what must be so afterwards."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable

from controlplane.domain.errors import Refused
from controlplane.log.kafka import KafkaLog
from controlplane.log.ports import Commit, Fenced, Indeterminate, LogUnavailable, Outgoing, Place, Stream
from controlplane.runtime.clock import SystemClock
from controlplane.runtime.replica import Replica
from controlplane.telemetry.metrics import Metrics
from tests.contract.log_suites import all_entries

SHARDS = 2
DEADLINE_S = 90.0
Outage = Callable[[], Awaitable[None]]
"""It has passed when this returns."""


async def nothing_is_lost_or_there_twice(log: KafkaLog, outage: Outage) -> None:
    """What was acknowledged is in the log once, and tails and readers see the same."""
    done, counts = asyncio.Event(), Counter({f"a{n}": 0 for n in range(5)} | {"shard-0": 0, "shard-1": 0})
    appended: list[bytes] = []
    committed: list[list[str]] = [[], []]
    tailed: list[bytes] = []

    async def follow() -> None:
        async for records in log.settings.tail(0):
            tailed.extend(record.data for record in records)

    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(follow())
        for number in range(5):
            tasks.create_task(appender(log, f"a{number}", done, counts, appended))
        for shard in range(SHARDS):
            tasks.create_task(committer(log, shard, done, counts, committed[shard]))
        await until(asyncio.Event(), counts, 20)
        await outage()
        await until(done, counts, 20)
        await log.settings.append(b"the end")
        async with asyncio.timeout(DEADLINE_S):
            while b"the end" not in tailed[-1:]:
                await asyncio.sleep(0.02)
        following.cancel()
    kept = await everything(log)
    assert tailed == kept, "the tail gave every record once, in order"
    assert max(Counter(kept).values()) == 1
    assert set(appended) <= set(kept)
    for shard in range(SHARDS):
        found = await all_entries(log.journal, Place(Stream.EVENTS, shard))
        keys = [entry.key for entry in found]
        print(f"shard {shard}:", *(f"{entry.offset}={entry.key}" for entry in found))
        assert max(Counter(keys).values()) == 1
        assert set(committed[shard]) <= set(keys), [(entry.offset, entry.key) for entry in found]
        assert [key for key in keys if key in set(committed[shard])] == committed[shard]


async def each_write_counts_once(log: KafkaLog, outage: Outage) -> None:
    """Writes of a replica, which are asked for again until there is a verdict."""
    replica = Replica(log.settings, SystemClock(), Metrics())
    following = asyncio.create_task(replica.run())
    done, counts = asyncio.Event(), Counter({f"w{n}": 0 for n in range(4)})

    async def writer(name: str) -> None:
        """Raises a counter by compare-and-set; asks again under the same id until it gets a verdict."""
        key = f"default/cache.namespace/{name}"
        while not done.is_set():
            entry = replica.state.entries.get(key)
            count = entry.body["value"]["n"] if entry else 0
            change = {"op": "declare", "key": key, "expected": entry.revision if entry else 0}
            request = uuid.uuid4().hex
            if await accepted({**change, "body": {"value": {"n": count + 1}}}, request):
                counts[name] += 1

    async def accepted(change: dict, request: str) -> bool:
        while True:
            try:
                verdict = await replica.submit([change], actor="test", request_id=request, timeout_s=1.0)
            except (Indeterminate, LogUnavailable, Refused):
                await asyncio.sleep(0.1)
            else:
                return verdict.accepted

    async with asyncio.TaskGroup() as tasks:
        for name in list(counts):
            tasks.create_task(writer(name))
        await until(asyncio.Event(), counts, 3)
        await outage()
        await until(done, counts, 3)
    fresh = Replica(log.settings, SystemClock(), Metrics())
    await fresh.catch_up()
    assert {
        name: fresh.state.entries[f"default/cache.namespace/{name}"].body["value"]["n"] for name in counts
    } == counts
    following.cancel()
    await asyncio.wait({following})


async def until(done: asyncio.Event, counts: Counter[str], wanted: int) -> None:
    """Let everybody write on until each has so many more acknowledged, then stop them."""
    before = dict(counts)
    async with asyncio.timeout(DEADLINE_S):
        while any(counts[name] < before[name] + wanted for name in before):
            await asyncio.sleep(0.02)
    done.set()


async def appender(log: KafkaLog, name: str, done: asyncio.Event, counts: Counter[str], acked: list[bytes]) -> None:
    number = 0
    while not done.is_set():
        number += 1
        data = f"{name}-{number}".encode()
        try:
            await log.settings.append(data)
        except (Indeterminate, LogUnavailable):
            await asyncio.sleep(0.1)
        else:
            acked.append(data)
            counts[name] += 1


async def committer(log: KafkaLog, shard: int, done: asyncio.Event, counts: Counter[str], acked: list[str]) -> None:
    """Commits one event after the other; a writer that failed is replaced, as the controller does."""
    name, number, writer = f"shard-{shard}", 0, await log.journal.open_shard(shard)
    while not done.is_set():
        number += 1
        key = f"{name}-{number}"
        try:
            await writer.commit(Commit([Outgoing(key, b"e")], [Outgoing("last", key.encode())]))
        except (Indeterminate, Fenced, LogUnavailable):
            writer = await replaced(log, shard)
        else:
            acked.append(key)
            counts[name] += 1


async def replaced(log: KafkaLog, shard: int):
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await log.journal.open_shard(shard)
            except LogUnavailable:
                await asyncio.sleep(0.2)


async def everything(log: KafkaLog) -> list[bytes]:
    found: list[bytes] = []
    start = 0
    while records := await log.settings.read(start):
        found += [record.data for record in records]
        start = records[-1].offset + 1
    return found
