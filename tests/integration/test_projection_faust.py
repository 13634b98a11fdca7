"""Faust follows a real journal on Kafka into a real Elasticsearch, through everything that can happen to either."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import msgpack
import pytest
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from controlplane.devstack.elasticsearch import credentials
from controlplane.domain.status import KeyStatus, converged, to_wire
from controlplane.log import codec
from controlplane.log.kafka import KafkaLog, open_kafka
from controlplane.log.ports import Commit, Outgoing, Place, Stream
from controlplane.projection import faust_projector
from controlplane.projection.documents import documents
from controlplane.projection.elasticsearch import ElasticsearchStore
from controlplane.projection.elasticsearch_address import Address
from controlplane.projection.faust_projector import FaustProjector, group_of
from controlplane.projection.ports import StoreUnavailable
from controlplane.projection.projector import Pace, Retention
from controlplane.projection.queries import EventFilter, MetricFilter, StatusFilter
from controlplane.projection.rebuilding import rebuild_beside
from controlplane.telemetry.metrics import Metrics
from schemas.names import event_id, timestamp
from tests.contract.projection_stores import elasticsearch_store, forget
from tests.servers import SharedServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

SHARDS = 4
PACE = Pace(retry_initial_s=0.05, retry_cap_s=0.5, watch_s=0.2)
FOR_EVER = Retention(100_000, 100_000)
BEGUN = int(time.time()) - 7200
"""Of late, so that no retention takes it."""


@pytest.fixture
def address(elasticsearch_server: SharedServer) -> Iterator[Address]:
    address = Address(elasticsearch_server.url, f"test-{uuid.uuid4().hex[:12]}")
    yield address
    forget(elasticsearch_server, address)


@pytest.fixture
async def store(elasticsearch_server: SharedServer, address: Address) -> AsyncIterator[ElasticsearchStore]:
    store = elasticsearch_store(elasticsearch_server, address)
    yield store
    await store.close()


@pytest.fixture
async def log(kafka_broker: SharedServer) -> AsyncIterator[KafkaLog]:
    log = await open_kafka(f"{kafka_broker.url}?prefix=test-{uuid.uuid4().hex[:12]}", shards=SHARDS)
    yield log
    await log.close()


@contextlib.asynccontextmanager
async def projecting(log: KafkaLog, store: ElasticsearchStore) -> AsyncIterator[FaustProjector]:
    projector = FaustProjector(log, store, Metrics(), retention=FOR_EVER, pace=PACE)
    task = asyncio.create_task(projector.run())
    try:
        yield projector
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled(), task.exception()


async def until(condition: Callable[[], Awaitable[object]], what: str, within_s: float = 300) -> None:
    try:
        async with asyncio.timeout(within_s):
            while not await condition():
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(f"not within {within_s:g} s: {what}")


def event(number: int, **fields) -> dict:
    return {
        "id": event_id("faust", number),
        "event_type": "Converged",
        "timestamp": timestamp(BEGUN + number / 100),
        "service_name": "cache",
        "details": {"number": number, "words": f"word{number % 97}"},
        "status": "info",
        "tenant": "acme",
        "setting": "acme/cache.redis_user/app",
        **fields,
    }


def metric(number: int) -> dict:
    return {
        "id": event_id("faust-metric", number),
        "metric_type": "keys",
        "timestamp": timestamp(BEGUN + number),
        "service_name": "cache",
        "value": float(number),
        "tags": {"target": "main"},
        "tenant": "acme",
    }


def outgoing(record: dict | bytes) -> Outgoing:
    data = record if isinstance(record, bytes) else codec.encode(record)
    return Outgoing("acme/cache.redis_user/app", data, {"type": "x"})


async def commit(log: KafkaLog, *events: dict | bytes, metrics: tuple[dict, ...] = (), shard: int = 0) -> None:
    writer = await log.journal.open_shard(shard)
    await writer.commit(Commit(events=[*map(outgoing, events)], metrics=[*map(outgoing, metrics)]))
    await writer.close()


def stated(name: int | str, **fields) -> Outgoing:
    known = converged(KeyStatus(f"acme/cache.redis_user/{name}", **{"revision": 1, **fields}), BEGUN, str(name))
    return Outgoing(known.key, codec.encode(to_wire(known)))


def forgotten(name: int | str) -> Outgoing:
    return Outgoing(f"acme/cache.redis_user/{name}", None)


async def state(log: KafkaLog, *statuses: Outgoing, shard: int = 0) -> None:
    writer = await log.journal.open_shard(shard)
    await writer.commit(Commit(statuses=statuses))
    await writer.close()


async def generations(store: ElasticsearchStore) -> dict[str, int]:
    """What is found of all settings: the generation that each was observed at."""
    found: dict[str, int] = {}
    after = ""
    while True:
        page = await store.statuses(StatusFilter("acme", limit=1000, after=after))
        found |= {item["name"]: item["observed_generation"] for item in page.items}
        if page.next_cursor is None:
            return found
        after = page.next_cursor


async def observed(store: ElasticsearchStore, expected: dict[str, int]) -> None:
    async def same() -> bool:
        with contextlib.suppress(StoreUnavailable):
            return await generations(store) == expected
        return False

    await until(same, f"{len(expected)} statuses are found, each the newest")


async def numbers(store: ElasticsearchStore) -> list[int]:
    """Of all events that are found, however many."""
    found, cursor = [], None
    while True:
        page = await store.events(EventFilter("acme", limit=1000, cursor=cursor))
        found += [item["details"]["number"] for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


async def shows(store: ElasticsearchStore, *expected: int) -> None:
    async def same() -> bool:
        with contextlib.suppress(StoreUnavailable):
            return sorted(await numbers(store)) == sorted(expected)
        return False

    await until(same, f"{len(expected)} events are found, each once")


async def test_what_is_committed_is_found_and_lag_goes_back_to_nothing(log: KafkaLog, store: ElasticsearchStore):
    await commit(log, event(1), metrics=(metric(1),))
    async with projecting(log, store) as projector:
        await shows(store, 1)
        await commit(log, event(2), shard=3)
        await commit(log, event(3))
        await shows(store, 1, 2, 3)
        assert len((await store.metrics(MetricFilter("acme"))).items) == 1

        async def committed() -> bool:
            return projector.position.get(Place(Stream.EVENTS, 0), 0) >= 3 and projector.lag.records == 0

        await until(committed, "the group has committed what it projected")
        assert projector.degraded is None


async def test_markers_between_many_small_transactions_hold_up_no_commit(log: KafkaLog, store: ElasticsearchStore):
    """Faust's own commit goes no further than to the next marker, twice a second: this would take minutes."""
    writer = await log.journal.open_shard(0)
    for number in range(600):
        await writer.commit(Commit(events=[outgoing(event(number))]))
    await writer.close()
    async with projecting(log, store) as projector:

        async def nothing_is_left() -> bool:
            return projector.measured > 0 and projector.lag.records == 0

        await until(nothing_is_left, "all of it committed", within_s=60)
        assert projector.position[Place(Stream.EVENTS, 0)] >= 600
    await store.refresh()
    assert sorted(await numbers(store)) == [*range(600)]


async def test_what_was_never_committed_is_never_found(log: KafkaLog, store: ElasticsearchStore):
    producer = AIOKafkaProducer(bootstrap_servers=list(log.address.servers), transactional_id=str(uuid.uuid4()))
    await producer.start()
    await producer.begin_transaction()
    await producer.send_and_wait(log.address.topic("events"), codec.encode(event(666)), b"k", partition=0)
    async with projecting(log, store):
        await commit(log, event(1), shard=1)
        await shows(store, 1)
        await producer.abort_transaction()
        await producer.stop()
        await commit(log, event(2))
        await shows(store, 1, 2)


async def test_the_newest_status_of_each_setting_is_found_until_it_is_gone(log: KafkaLog, store: ElasticsearchStore):
    mark = Outgoing("#settings", codec.encode({"settings_position": 3}))
    await state(log, *(stated("app", observed_generation=n) for n in range(5)), mark, stated("old"))
    async with projecting(log, store) as projector:
        await observed(store, {"app": 4, "old": 0})
        await state(log, stated("app", observed_generation=7), forgotten("old"), stated("new"))
        await observed(store, {"app": 7, "new": 0})
        await state(log, stated("app", observed_generation=8, revision=2), shard=1)  # its target was changed
        await observed(store, {"app": 8, "new": 0})
        await state(log, forgotten("app"), stated("new", observed_generation=1))
        await observed(store, {"app": 8, "new": 1})

        async def committed() -> bool:
            return projector.position.get(Place(Stream.STATUS, 0), 0) >= 12 and projector.lag.records == 0

        await until(committed, "the group has committed what it projected")
    assert await store.dead_letters() == []


async def test_a_status_that_comes_again_after_a_newer_one_changes_nothing(log: KafkaLog, store: ElasticsearchStore):
    """As from a projector that lost its partitions while Elasticsearch took its batch."""
    await state(log, stated("app", observed_generation=1), stated("old"))
    late = await log.journal.read(Place(Stream.STATUS, 0), 0)
    await state(log, stated("app", observed_generation=2), forgotten("old"))
    async with projecting(log, store):
        await observed(store, {"app": 2})
        assert await store.put(documents(late)) == []
        await store.refresh()
        assert await generations(store) == {"app": 2}


async def test_a_status_that_is_none_is_put_aside_and_what_was_known_stays(log: KafkaLog, store: ElasticsearchStore):
    await state(log, stated("app", observed_generation=1))
    async with projecting(log, store):
        await observed(store, {"app": 1})
        strange = codec.encode({**codec.decode(stated("odd").data or b""), "observed_generation": "many"})
        await state(log, Outgoing("acme/cache.redis_user/app", b"\xc1"), Outgoing("acme/cache.redis_user/odd", strange))
        await state(log, stated("new"))
        await observed(store, {"app": 1, "new": 0})

        async def both() -> bool:
            return len(await store.dead_letters()) == 2

        await until(both, "both dead letters are noted")
    letters = await store.dead_letters()
    assert sorted((letter["stream"], letter["key"][-3:]) for letter in letters) == [
        ("status", "app"),
        ("status", "odd"),
    ]


async def test_poison_is_put_aside_where_all_can_see_it_and_the_rest_goes_on(log: KafkaLog, store: ElasticsearchStore):
    refused = event(2, setting="x" * 40_000)
    await commit(log, event(1), b"\xc1 not msgpack", refused, event(3, details={"number": "no number"}), event(4))
    async with projecting(log, store) as projector:

        async def both() -> bool:
            return len(await store.dead_letters()) == 2

        await until(both, "both dead letters are noted")
        await until(lambda: lag_gone(projector), "the rest is projected")
    assert sorted(map(str, await numbers(store))) == ["1", "4", "no number"]
    letters = sorted(await store.dead_letters(), key=lambda letter: letter["offset"])
    assert [letter["offset"] for letter in letters] == [1, 2]
    assert "refused by the store" in letters[1]["reason"]
    consumer = AIOKafkaConsumer(
        log.address.topic("deadletters"), bootstrap_servers=list(log.address.servers), auto_offset_reset="earliest"
    )
    await consumer.start()
    records = [await consumer.getone() for _ in range(2)]
    await consumer.stop()
    told = [msgpack.unpackb(record.value) for record in records]
    assert {one["offset"]: one["data"] for one in told} == {1: b"\xc1 not msgpack", 2: codec.encode(refused)}


async def lag_gone(projector: FaustProjector) -> bool:
    return projector.lag.records == 0 and bool(projector.position)


async def test_an_outage_of_the_store_loses_nothing_also_when_the_projector_ends_in_it(
    log: KafkaLog, store: ElasticsearchStore, elasticsearch_server: SharedServer
):
    await commit(log, event(0))
    group = group_of(log, await store.generations.identity((await store.generations.current()).generation))
    async with projecting(log, store) as projector:
        await shows(store, 0)
        await until(lambda: lag_gone(projector), "the first event is committed")
        await elasticsearch_server.stop()
        try:
            for shard in range(SHARDS):
                await commit(log, *(event(1 + shard * 50 + n) for n in range(50)), shard=shard)

            async def degraded() -> bool:
                return projector.degraded is not None

            await until(degraded, "the outage is noticed")
            before = await log.groups.committed(group)
        except BaseException:
            await elasticsearch_server.start()
            raise
    try:
        assert await log.groups.committed(group) == before, "nothing is acknowledged that isn't stored"
    finally:
        await elasticsearch_server.start()
    async with projecting(log, store) as projector:
        await shows(store, *range(1 + SHARDS * 50))
        await until(lambda: lag_gone(projector), "all is committed")


@contextlib.asynccontextmanager
async def project_process(log: KafkaLog, store_config: dict, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`coreplane project`, killed at the end."""
    config = folder / "coreplane.yaml"
    log_config = {"url": str(log.address), "shards": SHARDS}
    config.write_text(yaml.safe_dump({"data_dir": str(folder), "log": log_config, "projection": store_config}))
    with (folder / "project.log").open("ab") as sink:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "controlplane", "project", "--config", str(config), stdout=sink, stderr=sink
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_projector_that_is_killed_again_and_again_loses_nothing_and_writes_nothing_twice(
    log: KafkaLog, store: ElasticsearchStore, elasticsearch_server: SharedServer, address: Address, tmp_path: Path
):
    (tmp_path / "password").write_text(credentials(elasticsearch_server.place)[1])
    url = f"{address.url}?prefix={address.prefix}"
    config = {"url": url, "username": "coreplane", "password": {"from_file": "password"}, "member": "one"}
    total = 0
    newest: dict[str, int] = {}
    for begun in range(3):
        async with project_process(log, config, tmp_path) as process:
            seen = len(await numbers(store))
            for shard in range(SHARDS):
                await commit(log, *(event(total + n) for n in range(1500)), shard=shard)
                total += 1500
                await state(
                    log, *(stated(f"{shard}-{n % 300}", observed_generation=total + n) for n in range(900)), shard=shard
                )
                await state(log, *(forgotten(f"{shard}-{n}") for n in range(begun * 10)), shard=shard)
                newest |= {f"{shard}-{n}": total + 600 + n for n in range(300)}
                newest = {name: at for name, at in newest.items() if int(name.split("-")[1]) >= begun * 10}

            async def some(seen: int = seen) -> bool:
                assert process.returncode is None, (tmp_path / "project.log").read_text()[-3000:]
                with contextlib.suppress(StoreUnavailable):
                    return len(await numbers(store)) > seen
                return False

            await until(some, f"the projector of round {begun} writes")
    async with project_process(log, config, tmp_path) as process:
        await shows(store, *range(total))
        await observed(store, newest)
        process.terminate()
        assert await process.wait() == 0, (tmp_path / "project.log").read_text()[-3000:]


async def test_a_rebuild_beside_the_writing_loses_nothing_and_is_never_seen_half(
    log: KafkaLog, store: ElasticsearchStore, elasticsearch_server: SharedServer, address: Address
):
    def opened(generation: int | None) -> ElasticsearchStore:
        return elasticsearch_store(elasticsearch_server, address, generation=generation)

    await commit(log, *(event(n) for n in range(3000)))
    async with projecting(log, store):
        await shows(store, *range(3000))
        await state(log, stated("app"), stated("old"), forgotten("old"))
        await observed(store, {"app": 0})
        rebuilding = asyncio.create_task(rebuild_beside(log, opened, retention=FOR_EVER, pace=PACE))
        counts = []
        number = 3000
        while not rebuilding.done():
            await commit(log, *(event(number + n) for n in range(20)), shard=number % SHARDS)
            number += 20
            counts.append(len(await numbers(store)))
            assert set(await generations(store)) == {"app"}
        assert await rebuilding == 2
        assert min(counts) >= 3000
        assert await store.generations.live() == 2
        await shows(store, *range(number))
        await state(log, stated("app", observed_generation=5))
        await observed(store, {"app": 5})
        await commit(log, event(number))
        await shows(store, *range(number + 1))
        assert set((await store.generations.there()).values()) == {2}


async def test_a_reader_that_stands_still_without_a_reason_is_replaced(
    log: KafkaLog, store: ElasticsearchStore, monkeypatch: pytest.MonkeyPatch
):
    """As Faust does after an exception in its agent: the process lives, and the group commits nothing more."""
    apps = []

    class FirstOneDeaf(faust_projector.FaustApp):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.deaf = not apps
            apps.append(self)

        async def _project(self, stream):
            if self.deaf:
                async for _ in stream.noack_take(1, within=0.1):
                    await asyncio.Event().wait()
            await super()._project(stream)

    monkeypatch.setattr(faust_projector, "FaustApp", FirstOneDeaf)
    monkeypatch.setattr(faust_projector, "STALLED_S", 5.0)
    await commit(log, event(1))
    async with projecting(log, store):
        await shows(store, 1)
    assert len(apps) > 1


async def test_two_share_the_work_and_one_goes_on_alone(log: KafkaLog, store: ElasticsearchStore):
    async with projecting(log, store):
        async with projecting(log, store):
            for shard in range(SHARDS):
                await commit(log, event(shard), shard=shard)
            await shows(store, *range(SHARDS))
        for shard in range(SHARDS):
            await commit(log, event(10 + shard), shard=shard)
        await shows(store, *range(SHARDS), *range(10, 10 + SHARDS))
