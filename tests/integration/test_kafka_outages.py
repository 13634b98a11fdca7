"""The Kafka log while its broker goes away and comes back: nothing acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from controlplane.devstack.guardian import Guardian
from controlplane.log.kafka import KafkaLog, open_kafka
from controlplane.log.ports import Commit, Fenced, Indeterminate, LogUnavailable, Outgoing, Place, Stream
from tests.contract.log_suites import all_entries
from tests.integration.log_writers import (
    DEADLINE_S,
    SHARDS,
    committer,
    each_write_counts_once,
    everything,
    nothing_is_lost_or_there_twice,
    replaced,
    until,
)
from tests.servers import SharedServer, frozen, kafka_in

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

CROWD = 300


@pytest.fixture(scope="module")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory, guardian: Guardian) -> Iterator[SharedServer]:
    """A broker of its own, to be stopped and killed: one that holds the topics of a whole run takes long to come back."""
    server = kafka_in(tmp_path_factory.mktemp("kafka"), guardian)
    yield server
    server.end()


@pytest.fixture(scope="module")
def crowded_broker(tmp_path_factory: pytest.TempPathFactory, guardian: Guardian) -> Iterator[SharedServer]:
    """One that withdraws from its partitions when it shuts down, as brokers do by default, and takes its time for it: it has
    many."""
    folder = tmp_path_factory.mktemp("crowded")
    server = kafka_in(folder, guardian, "--override", "controlled.shutdown.enable=true")
    asyncio.run(crowd(server.url.removeprefix("kafka://")))
    yield server
    server.end()


async def crowd(servers: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers, request_timeout_ms=60_000)
    await admin.start()
    for start in range(0, CROWD, 50):
        await admin.create_topics([NewTopic(f"other{number}", 4, 1) for number in range(start, start + 50)])
    await admin.close()


@pytest.fixture
async def log(kafka_broker: SharedServer) -> AsyncIterator[KafkaLog]:
    log = await open_kafka(f"{kafka_broker.url}?prefix=t{uuid.uuid4().hex}", shards=SHARDS)
    yield log
    await log.close()


async def outage(broker: SharedServer, how: str) -> None:
    await (broker.stop() if how == "SIGTERM" else broker.kill())
    await broker.start()


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
async def test_no_acknowledged_record_is_lost_or_there_twice_when_the_broker_restarts(
    kafka_broker: SharedServer, log: KafkaLog, how: str
):
    await nothing_is_lost_or_there_twice(log, lambda: outage(kafka_broker, how))


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
async def test_writes_of_a_replica_go_on_across_the_outage_and_each_counts_once(
    kafka_broker: SharedServer, log: KafkaLog, how: str
):
    await each_write_counts_once(log, lambda: outage(kafka_broker, how))


async def test_what_a_broker_says_is_committed_while_it_withdraws_is_answered_when_it_is_shown(
    crowded_broker: SharedServer,
):
    """Without waiting for that, one outage in three loses acknowledged commits."""
    log = await open_kafka(f"{crowded_broker.url}?prefix=t{uuid.uuid4().hex}", shards=SHARDS)
    done, counts = asyncio.Event(), Counter({"shard-0": 0, "shard-1": 0})
    committed: list[list[str]] = [[], []]
    async with asyncio.TaskGroup() as tasks:
        for shard in range(SHARDS):
            tasks.create_task(committer(log, shard, done, counts, committed[shard]))
        await until(asyncio.Event(), counts, 20)
        await outage(crowded_broker, "SIGTERM")
        await until(done, counts, 10)
    for shard in range(SHARDS):
        keys = [entry.key for entry in await all_entries(log.journal, Place(Stream.EVENTS, shard))]
        assert [key for key in keys if key in set(committed[shard])] == committed[shard]
    await log.close()


async def test_a_log_can_be_opened_while_its_broker_is_coming_up(kafka_broker: SharedServer, log: KafkaLog):
    await kafka_broker.kill()
    starting = asyncio.create_task(kafka_broker.start())
    async with asyncio.timeout(DEADLINE_S):
        while (opened := await opened_or_refused(str(log.address))) is None:
            await asyncio.sleep(0.05)
    await starting
    await opened.settings.append(b"1")
    assert [record.data for record in await opened.settings.read(0)] == [b"1"]
    await opened.close()


async def opened_or_refused(url: str) -> KafkaLog | None:
    """None while nobody listens, or while the broker has taken longer to come up than opening a log waits."""
    try:
        return await open_kafka(url, shards=SHARDS)
    except LogUnavailable:
        return None


# --- a broker that doesn't answer ---------------------------------------------------------------------------------------


@pytest.fixture
async def hasty(kafka_broker: SharedServer) -> AsyncIterator[KafkaLog]:
    """A log that gives up soon."""
    url = f"{kafka_broker.url}?prefix=t{uuid.uuid4().hex}"
    log = await open_kafka(url, shards=SHARDS, send_timeout_s=1.0, commit_timeout_s=1.0)
    yield log
    await log.close()


async def test_t2_a_send_and_a_commit_without_an_answer_end_in_an_unknown_outcome(
    kafka_broker: SharedServer, hasty: KafkaLog
):
    writer = await hasty.journal.open_shard(0)
    commit = Commit([Outgoing("lost?", b"1")])
    async with frozen(kafka_broker):
        append, committing = (
            asyncio.create_task(hasty.settings.append(b"lost?")),
            asyncio.create_task(writer.commit(commit)),
        )
        with pytest.raises(Indeterminate):
            await asyncio.wait_for(append, 5)
        with pytest.raises(Indeterminate):
            await asyncio.wait_for(committing, 5)
        with pytest.raises(Fenced):
            await writer.commit(commit)
    await hasty.settings.append(b"after")
    assert (await everything(hasty)).count(b"after") == 1
    assert (await everything(hasty)).count(b"lost?") <= 1
    again = await replaced(hasty, 0)
    await again.commit(Commit([Outgoing("after", b"1")]))
    keys = [entry.key for entry in await hasty.journal.read(Place(Stream.EVENTS, 0), 0)]
    assert keys in (["after"], ["lost?", "after"])


async def test_a_commit_that_committed_readers_dont_see_has_an_unknown_outcome(
    kafka_broker: SharedServer, hasty: KafkaLog
):
    writer = await hasty.journal.open_shard(0)
    await writer.commit(Commit([Outgoing("seen", b"1")]))
    servers = kafka_broker.url.removeprefix("kafka://")
    other = AIOKafkaProducer(bootstrap_servers=servers, transactional_id=uuid.uuid4().hex)
    async with other, other.transaction():  # before it is decided nobody is shown what comes after it
        await other.send_and_wait(hasty.address.topic(Stream.EVENTS), b"1", key=b"other", partition=0)
        with pytest.raises(Indeterminate):
            await writer.commit(Commit([Outgoing("not shown", b"1")]))
    again = await replaced(hasty, 0)
    await again.commit(Commit([Outgoing("after", b"1")]))
    keys = [entry.key for entry in await all_entries(hasty.journal, Place(Stream.EVENTS, 0))]
    assert keys == ["seen", "other", "not shown", "after"]


async def test_t3_a_send_whose_caller_gave_up_is_stored_once(kafka_broker: SharedServer, log: KafkaLog):
    async with frozen(kafka_broker):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(log.settings.append(b"given up"), 0.5)
    await log.settings.append(b"next")
    assert await everything(log) == [b"given up", b"next"]


async def test_t5_a_log_with_a_commit_under_way_closes_without_its_broker(kafka_broker: SharedServer, log: KafkaLog):
    writer = await log.journal.open_shard(0)
    async with frozen(kafka_broker):
        committing = asyncio.create_task(writer.commit(Commit([Outgoing("k", b"1")])))
        appending = asyncio.create_task(log.settings.append(b"1"))
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await log.close()
        for outcome in await asyncio.gather(committing, appending, return_exceptions=True):
            assert isinstance(outcome, Indeterminate)


async def test_t4_and_t6_tails_tell_of_an_outage_end_in_it_and_leave_nothing_behind(
    kafka_broker: SharedServer, log: KafkaLog
):
    tail = asyncio.create_task(anext(log.settings.tail(0)))
    await log.settings.end_offset()
    assert log.trouble is None
    await kafka_broker.kill()
    try:
        async with asyncio.timeout(DEADLINE_S):
            while log.trouble is None:
                await asyncio.sleep(0.05)
        async with asyncio.timeout(60):
            await log.close()
        with pytest.raises(StopAsyncIteration):
            await tail
    finally:
        await kafka_broker.start()


async def test_t6_a_tail_that_was_in_trouble_goes_on_and_says_so(kafka_broker: SharedServer, log: KafkaLog):
    tail = log.settings.tail(0)
    await log.settings.append(b"before")
    assert [record.data for record in await anext(tail)] == [b"before"]
    waiting = asyncio.create_task(anext(tail))
    async with frozen(kafka_broker):
        async with asyncio.timeout(DEADLINE_S):
            while log.trouble is None:
                await asyncio.sleep(0.05)
    await log.settings.append(b"after")
    assert [record.data for record in await asyncio.wait_for(waiting, DEADLINE_S)] == [b"after"]
    assert log.trouble is None


async def test_t6_a_consumer_that_stands_still_is_replaced(log: KafkaLog):
    tail = log.settings.tail(0)
    await log.settings.append(b"before")
    await anext(tail)
    (consumer,) = log.settings._tails._running
    consumer.pause(*consumer.assignment())  # it keeps on running and gives nothing
    await log.settings.append(b"after")
    assert [record.data for record in await asyncio.wait_for(anext(tail), DEADLINE_S)] == [b"after"]
    assert consumer not in log.settings._tails._running
