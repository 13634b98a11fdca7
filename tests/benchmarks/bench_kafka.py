"""The log on Kafka, beside bare aiokafka on the same broker; and three replicas on it. Run by `all.py`.

One broker of the devstack means no replication. Broker, replicas, Redis and clients share the machine, so what is measured in
times depends on its load; ratios and CPU do so less.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgpack
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from controlplane.devstack.guardian import Guardian
from controlplane.devstack.kafka import KAFKA
from controlplane.domain.fold import State, fold
from controlplane.domain.requests import read
from controlplane.log.kafka import KafkaLog, open_kafka
from controlplane.log.ports import Commit, Outgoing, Stream
from controlplane.runtime.clock import SystemClock
from controlplane.runtime.replica import Replica
from controlplane.telemetry.metrics import Metrics
from tests.benchmarks import bench_replicas
from tests.benchmarks.bench_log import record
from tests.benchmarks.figures import Figures, median, percentile
from tests.servers import program_of, started

SHARDS = 16
WRITERS = 20
REPLICAS = 3
ALONE = 300
"""Writes of one writer."""
TOGETHER = 4_000
"""Writes of all writers."""
COMMITS = 300
RECORDS = 30_000
ROUNDS = 3
WITHIN_MS = 50.0


async def run(figures: Figures) -> None:
    with TemporaryDirectory() as name, Guardian() as guardian:
        broker = await started(KAFKA, Path(name), await program_of(KAFKA), guardian)
        try:
            figures.group(f"log on Kafka, one broker, records of {len(record(1))} bytes")
            await _writes(figures, broker.url)
            await _visible(figures, broker.url)
            await _replays(figures, broker.url)
            await bench_replicas.run(figures, broker.url, Path(name), guardian)
        finally:
            await broker.stop()


async def opened(url: str, prefix: str = "") -> KafkaLog:
    return await open_kafka(f"{url}?prefix={prefix or f'bench{uuid.uuid4().hex[:8]}'}", shards=SHARDS)


# --- writes ------------------------------------------------------------------------------------------------------------


async def _writes(figures: Figures, url: str) -> None:
    for writers, count, replicas in ((1, ALONE, 1), (WRITERS, TOGETHER, REPLICAS)):
        bare, bare_s = await _bare_writes(url, count, writers, replicas)
        times, took_s = await _folded_writes(url, count, writers, replicas)
        what = f"write → own fold, {writers} writers over {replicas} replicas" if writers > 1 else "write → own fold"
        note = "bare: idempotent send, then seen by a tail"
        p50 = {"bare": percentile(bare, 50) * 1000, "most_ratio": 3.0, "note": note}
        figures.add(f"{what}, p50", percentile(times, 50) * 1000, "ms", **p50)
        p99 = {"bare": percentile(bare, 99) * 1000, "most": 100.0 if writers > 1 else None}
        figures.add(f"{what}, p99", percentile(times, 99) * 1000, "ms", **p99)
        if writers > 1:
            figures.add(f"{what}, rate", count / took_s, "/s", bare=count / bare_s, least=1_000)


Times = tuple[list[float], float]
"""Each write, and all of them together, seconds."""


async def _bare_writes(url: str, count: int, writers: int, replicas: int) -> Times:
    """Each replica has a producer and a consumer, as ours have."""
    log = await opened(url)  # makes the topic
    servers, place = log.address.servers, TopicPartition(log.address.topic("settings"), 0)
    await log.close()

    async def replica(stack: AsyncExitStack) -> tuple[Send, Tail]:
        producer = await stack.enter_async_context(
            AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True, acks="all")
        )
        consumer = await stack.enter_async_context(_consumer(servers, place))

        async def tail(seen: Callable[[str], None]) -> None:
            while True:
                for one in (await consumer.getmany(timeout_ms=1000)).get(place, ()):
                    seen(msgpack.unpackb(one.value)["request_id"])

        async def send(number: int) -> None:
            await producer.send_and_wait(place.topic, record(number), partition=0)

        return send, tail

    async with AsyncExitStack() as stack:
        return await _measured([await replica(stack) for _ in range(replicas)], count, writers)


async def _folded_writes(url: str, count: int, writers: int, replicas: int) -> Times:
    """Each writer waits for the fold of its own replica."""
    prefix = f"bench{uuid.uuid4().hex[:8]}"
    logs = [await opened(url, prefix) for _ in range(replicas)]

    def replica(log: KafkaLog) -> tuple[Send, Tail]:
        async def tail(seen: Callable[[str], None]) -> None:
            state = State()
            async for records in log.settings.tail(0):
                for offset, data in records:
                    seen(fold(state, offset, read(offset, data)).request_id)

        async def send(number: int) -> None:
            await log.settings.append(record(number))

        return send, tail

    try:
        return await _measured([replica(log) for log in logs], count, writers)
    finally:
        await asyncio.gather(*(log.close() for log in logs))


Send = Callable[[int], Awaitable[None]]
Tail = Callable[[Callable[[str], None]], Awaitable[None]]


async def _measured(places: Sequence[tuple[Send, Tail]], count: int, writers: int) -> Times:
    """Writers spread over the places; each sends, and waits until the tail of its place has seen it."""
    waiting: list[dict[str, asyncio.Future[None]]] = [{} for _ in places]
    times: list[float] = []

    async def write(writer: int) -> None:
        at = writer % len(places)
        for number in range(writer * count, writer * count + count // writers):
            seen = waiting[at][f"request-{number:012d}"] = asyncio.get_running_loop().create_future()
            began = time.perf_counter()
            await places[at][0](number)
            await seen
            times.append(time.perf_counter() - began)

    def teller(at: int) -> Callable[[str], None]:
        def seen(request_id: str) -> None:
            future = waiting[at].pop(request_id, None)
            if future is not None:
                future.set_result(None)

        return seen

    tails = [asyncio.ensure_future(tail(teller(at))) for at, (_, tail) in enumerate(places)]
    begun = time.perf_counter()
    await asyncio.gather(*map(write, range(writers)))
    took = time.perf_counter() - begun
    for task in tails:
        task.cancel()
    await asyncio.wait(tails)
    return times, took


# --- events ------------------------------------------------------------------------------------------------------------


async def _visible(figures: Figures, url: str) -> None:
    """From the call that commits an event and a status, until a consumer of somebody else has the event."""
    log = await opened(url)
    servers, topics = log.address.servers, [log.address.topic(stream) for stream in (Stream.EVENTS, Stream.STATUS)]
    writer = await log.journal.open_shard(0)

    async def commit(number: int) -> None:
        key = str(number)
        await writer.commit(Commit([Outgoing(key, record(number))], [Outgoing(key, record(number))]))

    ours = await _until_seen(servers, TopicPartition(topics[0], 0), commit)
    await log.close()
    async with AIOKafkaProducer(bootstrap_servers=servers, transactional_id=uuid.uuid4().hex) as producer:

        async def bare_commit(number: int) -> None:
            async with producer.transaction():
                for topic in topics:
                    await producer.send(topic, record(number), key=str(number).encode(), partition=1)

        bare = await _until_seen(servers, TopicPartition(topics[0], 1), bare_commit)
    what = "commit of an effect's end → its event at a consumer"
    for percent in (50, 99):
        more = {"bare": percentile(bare, percent) * 1000, "most": WITHIN_MS, "note": "bare: a transaction of the same"}
        figures.add(f"{what}, p{percent}", percentile(ours, percent) * 1000, "ms", **more)


async def _until_seen(servers: Sequence[str], place: TopicPartition, commit: Send) -> list[float]:
    times = []
    async with _consumer(servers, place, isolation_level="read_committed") as consumer:
        for number in range(COMMITS):
            began = time.perf_counter()
            committing = asyncio.ensure_future(commit(number))
            while not (await consumer.getmany(timeout_ms=1000)).get(place):
                pass
            times.append(time.perf_counter() - began)
            await committing
    return times


# --- replay ------------------------------------------------------------------------------------------------------------


async def _replays(figures: Figures, url: str) -> None:
    log = await opened(url)
    for first in range(0, RECORDS, 1000):
        await asyncio.gather(*(log.settings.append(record(n)) for n in range(first, first + 1000)))
    bare, ours = [], []
    for _ in range(ROUNDS):
        bare.append(await _bare_replay(log))
        replica, cpu = Replica(log.settings, SystemClock(), Metrics()), time.process_time()
        await replica.catch_up()
        ours.append(time.process_time() - cpu)
    await log.close()
    note = f"µs of CPU a record, {RECORDS:,} records; bare: fetch, msgpack, dict"
    figures.add(
        "replay", median(ours) / RECORDS * 1e6, "µs", bare=median(bare) / RECORDS * 1e6, most_ratio=1.5, note=note
    )


async def _bare_replay(log: KafkaLog) -> float:
    place, settings, done = TopicPartition(log.address.topic("settings"), 0), dict[str, Any](), 0
    async with _consumer(log.address.servers, place) as consumer:
        cpu = time.process_time()
        while done < RECORDS:
            for one in (await consumer.getmany(timeout_ms=1000)).get(place, ()):
                for change in msgpack.unpackb(one.value)["changes"]:
                    settings[change["key"]] = (one.offset, change["body"])
                done += 1
        return time.process_time() - cpu


@asynccontextmanager
async def _consumer(servers: Sequence[str], place: TopicPartition, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """A bare consumer of one partition from its beginning."""
    options |= {"group_id": None, "enable_auto_commit": False, "auto_offset_reset": "earliest"}
    async with AIOKafkaConsumer(bootstrap_servers=servers, **options) as consumer:
        consumer.assign([place])
        yield consumer
