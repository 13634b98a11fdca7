"""Events from Kafka into Elasticsearch by the projector, beside a bare consumer that bulks the same ones. Run by `all.py`.

Broker, Elasticsearch and reader share the machine. Findable means found by a search: Elasticsearch refreshes once a second.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import msgpack
from aiokafka import AIOKafkaConsumer, TopicPartition

from controlplane.devstack.elasticsearch import ELASTICSEARCH, credentials
from controlplane.devstack.guardian import Guardian
from controlplane.devstack.kafka import KAFKA
from controlplane.domain.status import KeyStatus, LastAction, converged, to_wire
from controlplane.log import codec
from controlplane.log.kafka import KafkaLog, open_kafka
from controlplane.log.ports import Commit, Outgoing, ShardWriter, Stream
from controlplane.projection.elasticsearch import ElasticsearchStore
from controlplane.projection.elasticsearch_address import Address
from controlplane.projection.faust_projector import FaustProjector
from controlplane.projection.queries import EventFilter
from controlplane.telemetry.metrics import Metrics
from schemas.names import event_id, timestamp
from tests.benchmarks.figures import Figures, percentile
from tests.servers import program_of, started

EVENTS = 20_000
BATCH = 500
PER_S = 500
FOR_S = 15
SHARDS = 4
SETTINGS = 1_000
WITHIN_S = 300
LOOK_S = 0.5
"""A refresh costs the server something."""


async def run(figures: Figures) -> None:
    with TemporaryDirectory() as name, Guardian() as guardian:
        folder = Path(name)
        broker = await started(KAFKA, folder, await program_of(KAFKA), guardian)
        server = await started(ELASTICSEARCH, folder, await program_of(ELASTICSEARCH), guardian)
        login = credentials(server.place)
        log, store = await _pair(broker.url, server.url, login, "bench")
        stated, beside = await _pair(broker.url, server.url, login, "stated")
        try:
            figures.group("events from Kafka into Elasticsearch, one node each")
            writers = [await log.journal.open_shard(shard) for shard in range(SHARDS)]
            await _filled(writers)
            await _filled([await stated.journal.open_shard(shard) for shard in range(SHARDS)], each_with_status=True)
            bare_s = await _bare(log, server.url, aiohttp.BasicAuth(*login))
            async with _projecting(log, store):
                per_s = await _caught_up(server.url, aiohttp.BasicAuth(*login), "bench")
                more = {"bare": EVENTS / bare_s, "least": 3_000, "note": f"{EVENTS:,}; bare: consumer and _bulk"}
                figures.add("projected from the beginning", per_s, "/s", **more)
                late = await _followed(writers[:1], store)
            async with _projecting(stated, beside):
                per_s = await _caught_up(server.url, aiohttp.BasicAuth(*login), "stated")
                note = f"{EVENTS:,} and as many statuses, of {SETTINGS:,} settings"
                figures.add("the same, each with a status", per_s, "/s", least=3_000, note=note)
            for percent in (50, 100):
                more = {"most": 2_000.0, "note": "its commit → findable; Elasticsearch shows new ones each second"}
                value = (max(late) if percent == 100 else percentile(late, percent)) * 1000
                figures.add(f"newest of {PER_S} events/s, {'p50' if percent == 50 else 'worst'}", value, "ms", **more)
        finally:
            for one in (store, beside, log, stated):
                await one.close()
            await server.stop()
            await broker.stop()


async def _pair(log_url: str, url: str, login: tuple[str, str], prefix: str) -> tuple[KafkaLog, ElasticsearchStore]:
    log = await open_kafka(f"{log_url}?prefix={prefix}", shards=SHARDS)
    return log, ElasticsearchStore(Address(url, prefix), login=lambda: login)


def _event(number: int) -> dict[str, Any]:
    return {
        "id": event_id("bench", number),
        "event_type": "Converged",
        "timestamp": timestamp(time.time()),
        "service_name": "cache",
        "details": {"number": number, "step": "SetUser", "external": f"user-{number % SETTINGS}"},
        "status": "info",
        "tenant": "bench",
        "setting": f"bench/cache.redis_user/user-{number % SETTINGS}",
        "revision": number + 1,
    }


def _status(number: int) -> Outgoing:
    key = f"bench/cache.redis_user/user-{number % SETTINGS}"
    known = KeyStatus(
        key, revision=number + 1, last_action=LastAction("SetUser", "succeeded", timestamp(time.time()), 1)
    )
    return Outgoing(key, codec.encode(to_wire(converged(known, time.time(), key))))


async def _committed(writers: list[ShardWriter], numbers: range, *, each_with_status: bool = False) -> None:
    writer = writers[numbers.start // len(numbers) % len(writers)]
    events = [Outgoing("k", codec.encode(_event(n)), {"type": "Converged"}) for n in numbers]
    await writer.commit(Commit(events, list(map(_status, numbers)) if each_with_status else ()))


async def _filled(writers: list[ShardWriter], *, each_with_status: bool = False) -> None:
    for first in range(0, EVENTS, BATCH):
        await _committed(writers, range(first, first + BATCH), each_with_status=each_with_status)


async def _bare(log: KafkaLog, url: str, auth: aiohttp.BasicAuth) -> float:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=log.address.servers, group_id=None, isolation_level="read_committed", enable_auto_commit=False
    )
    begun, done = time.perf_counter(), 0
    async with consumer, aiohttp.ClientSession(auth=auth, headers={"Content-Type": "application/x-ndjson"}) as session:
        partitions = [TopicPartition(log.address.topic(Stream.EVENTS), shard) for shard in range(SHARDS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while done < EVENTS:
            for records in (await consumer.getmany(timeout_ms=1000, max_records=BATCH)).values():
                events = [msgpack.unpackb(record.value) for record in records]
                lines = [text for one in events for text in ({"create": {"_id": one["id"]}}, one)]
                body = "".join(json.dumps(line) + "\n" for line in lines)
                async with session.post(f"{url}/bare/_bulk", data=body) as answer:
                    assert not (await answer.json())["errors"]
                done += len(events)
    return time.perf_counter() - begun


@asynccontextmanager
async def _projecting(log: KafkaLog, store: ElasticsearchStore) -> AsyncIterator[FaustProjector]:
    projector = FaustProjector(log, store, Metrics())
    task = asyncio.create_task(projector.run())
    try:
        yield projector
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _caught_up(url: str, auth: aiohttp.BasicAuth, prefix: str) -> float:
    """Events a second from when the first are found until all are: without the start of the reader."""
    begun, first, found = 0.0, 0, 0
    async with asyncio.timeout(WITHIN_S), aiohttp.ClientSession(auth=auth) as session:
        while found < EVENTS:
            await asyncio.sleep(LOOK_S)
            async with session.post(f"{url}/{prefix}-events/_refresh") as answer:
                if answer.status != 200:
                    continue
            async with session.get(f"{url}/{prefix}-events/_count") as answer:
                found = (await answer.json())["count"]
            if found and not first:
                begun, first = time.perf_counter(), found
    return (EVENTS - first) / (time.perf_counter() - begun)


async def _newest(store: ElasticsearchStore) -> int:
    """The number of the newest event that is found."""
    page = await store.events(EventFilter("bench", limit=1))
    return int(page.items[0]["details"]["number"])


async def _followed(writers: list[ShardWriter], store: ElasticsearchStore) -> list[float]:
    """For how long the oldest event that isn't found yet has been committed; looked at all the while. Of one shard: there
    they are found in order."""
    committed: dict[int, float] = {}
    late: list[float] = []
    each = PER_S // 10

    async def feed() -> None:
        begun = time.perf_counter()
        for turn in range(FOR_S * 10):
            first = EVENTS + turn * each
            await _committed(writers, range(first, first + each))
            committed[first + each - 1] = time.perf_counter()
            await asyncio.sleep(max(0.0, begun + (turn + 1) / 10 - time.perf_counter()))

    feeding = asyncio.create_task(feed())
    while not feeding.done():
        newest, now = await _newest(store), time.perf_counter()
        missing = [at for number, at in committed.items() if number > newest]
        late.append(now - min(missing) if missing else 0.0)
        await asyncio.sleep(0.05)
    await feeding
    return late
