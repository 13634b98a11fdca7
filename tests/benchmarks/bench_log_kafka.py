"""What the Kafka log costs, beside the bare client: `python tests/benchmarks/bench_log_kafka.py [--url kafka://HOST:PORT]`.

Without a URL it starts a broker of its own. One broker means no replication; broker, clients and replicas share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import msgpack
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

sys.path.insert(0, str(Path(__file__).parents[2]))

from controlplane.devstack.guardian import Guardian
from controlplane.devstack.kafka import KAFKA
from controlplane.domain.fold import State, fold
from controlplane.domain.requests import read
from controlplane.log.kafka import KafkaLog, open_kafka
from tests.benchmarks.bench_log import appenders, commits, line, percentiles, record
from tests.servers import program_of, started

SHARDS = 16
WRITERS = 20


async def opened(url: str, prefix: str | None = None) -> KafkaLog:
    return await open_kafka(f"{url}?prefix={prefix or f'bench{uuid.uuid4().hex[:8]}'}", shards=SHARDS)


async def bare_sends(url: str, count: int, writers: int) -> None:
    """An idempotent producer and a consumer that tails, with nothing around them."""
    log = await opened(url)  # makes the topic
    servers, topic = log.address.servers, log.address.topic("settings")
    await log.close()
    producer = AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True, acks="all")
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=None, enable_auto_commit=False)
    await producer.start()
    await consumer.start()
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek(TopicPartition(topic, 0), 0)
    seen: dict[str, asyncio.Future[None]] = {}
    acknowledged: list[float] = []
    tailed: list[float] = []

    async def follow() -> None:
        while len(tailed) < count // writers * writers:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                for one in records:
                    seen[msgpack.unpackb(one.value)["request_id"]].set_result(None)

    async def write(first: int) -> None:
        for number in range(first, first + count // writers):
            future = seen[f"request-{number:012d}"] = asyncio.get_running_loop().create_future()
            began = time.perf_counter()
            await producer.send_and_wait(topic, record(number), partition=0)
            acknowledged.append(time.perf_counter() - began)
            await future
            tailed.append(time.perf_counter() - began)

    following = asyncio.create_task(follow())
    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(write(index * count) for index in range(writers)))
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    line(f"bare idempotent send, {writers} at once", f"{count / took:8,.0f}/s  {percentiles(acknowledged)}")
    line("  → own tail", f"{cpu / count * 1e6:6.1f} µs CPU  {percentiles(tailed)}")
    await following
    await producer.stop()
    await consumer.stop()


async def over_replicas(url: str, count: int, replicas: int) -> None:
    """Writers spread over replicas of one log; each waits for the fold of its own replica."""
    prefix = f"bench{uuid.uuid4().hex[:8]}"
    logs = [await opened(url, prefix) for _ in range(replicas)]
    folded: list[dict[str, asyncio.Future[None]]] = [{} for _ in logs]
    times: list[float] = []

    async def follow(index: int) -> None:
        state = State()
        async for records in logs[index].settings.tail(0):
            for offset, data in records:
                verdict = fold(state, offset, read(offset, data))
                waiting = folded[index].get(verdict.request_id)
                if waiting is not None:
                    waiting.set_result(None)

    async def write(writer: int) -> None:
        index = writer % replicas
        for number in range(writer * count, writer * count + count // WRITERS):
            waiting = folded[index][f"request-{number:012d}"] = asyncio.get_running_loop().create_future()
            began = time.perf_counter()
            await logs[index].settings.append(record(number))
            await waiting
            times.append(time.perf_counter() - began)

    tails = [asyncio.create_task(follow(index)) for index in range(replicas)]
    begun = time.perf_counter()
    await asyncio.gather(*map(write, range(WRITERS)))
    took = time.perf_counter() - begun
    line(f"append → own fold, {WRITERS} writers, {replicas} replicas", f"{count / took:8,.0f}/s  {percentiles(times)}")
    await asyncio.gather(*(log.close() for log in logs))
    await asyncio.gather(*tails)


async def replays(url: str, count: int) -> None:
    log = await opened(url)
    for first in range(0, count, 1000):
        await asyncio.gather(*(log.settings.append(record(n)) for n in range(first, min(count, first + 1000))))
    bare = await bare_replay(log, count)
    line("bare fetch + msgpack + dict", f"{bare:5.2f} µs CPU")
    state, position, cpu = State(), 0, time.process_time()
    tail = log.settings.tail(0)
    while position < count:
        for offset, data in await anext(tail):
            fold(state, offset, read(offset, data))
            position = offset + 1
        await asyncio.sleep(0)
    ours = (time.process_time() - cpu) / count * 1e6
    line("tail + decode + fold", f"{ours:5.2f} µs CPU  {ours / bare:4.2f} x bare")
    await tail.aclose()
    await log.close()


async def bare_replay(log: KafkaLog, count: int) -> float:
    place = TopicPartition(log.address.topic("settings"), 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=log.address.servers, group_id=None, enable_auto_commit=False)
    await consumer.start()
    consumer.assign([place])
    consumer.seek(place, 0)
    settings: dict[str, Any] = {}
    done, cpu = 0, time.process_time()
    while done < count:
        for one in (await consumer.getmany(timeout_ms=1000)).get(place, []):
            for change in msgpack.unpackb(one.value)["changes"]:
                settings[change["key"]] = (one.offset, change["body"])
            done += 1
    cost = (time.process_time() - cpu) / count * 1e6
    await consumer.stop()
    return cost


async def measured(url: str, count: int, records: int) -> None:
    print(f"write, records of {len(record(1))} bytes, load {os.getloadavg()[0]:.1f}")
    for writers in (1, WRITERS):
        await bare_sends(url, count // (1 if writers > 1 else 10), writers)
        await appenders(await opened(url), count // (1 if writers > 1 else 10), writers)
    await over_replicas(url, count, 3)
    for writers in (1, 50):
        await commits(await opened(url), count // (1 if writers > 1 else 10), writers)
    print(f"replay of {records:,} records")
    await replays(url, records)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="of a broker that runs already")
    parser.add_argument("--appends", type=int, default=10_000)
    parser.add_argument("--records", type=int, default=50_000)
    options = parser.parse_args()
    if options.url:
        await measured(options.url, options.appends, options.records)
        return
    with tempfile.TemporaryDirectory() as name, Guardian() as guardian:
        broker = await started(KAFKA, Path(name), await program_of(KAFKA), guardian)
        try:
            await measured(broker.url, options.appends, options.records)
        finally:
            await broker.stop()


if __name__ == "__main__":
    asyncio.run(main())
