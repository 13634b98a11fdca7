"""The Kafka log on a real broker: topics, fences, and what aiokafka would do to us."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import aiokafka
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.producer import sender

from controlplane.config import Config
from controlplane.log import kafka, kafka_clients
from controlplane.log.choice import open_log
from controlplane.log.kafka import KafkaLog, examine, mend, open_kafka
from controlplane.log.kafka_address import parse
from controlplane.log.kafka_clients import Clients, stop_producer
from controlplane.log.kafka_reading import Health
from controlplane.log.kafka_settings import KafkaSettingsLog
from controlplane.log.kafka_topics import Retention
from controlplane.log.ports import Commit, Fenced, Indeterminate, LogCorrupt, LogUnavailable, Outgoing, Place, Stream
from tests.servers import SharedServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

SHARDS = 2


@pytest.fixture
def url(kafka_broker: SharedServer) -> str:
    return f"{kafka_broker.url}?prefix=t{uuid.uuid4().hex}"


@pytest.fixture
async def log(url: str) -> AsyncIterator[KafkaLog]:
    log = await open_kafka(url, shards=SHARDS)
    yield log
    await log.close()


@pytest.fixture
async def admin(kafka_broker: SharedServer) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_broker.url.removeprefix("kafka://"))
    await admin.start()
    yield admin
    await admin.close()


def prefix_of(url: str) -> str:
    return parse(url, {}).prefix


# --- topics --------------------------------------------------------------------------------------------------------------


async def test_the_topics_are_made_as_they_must_be(log: KafkaLog, url: str):
    assert await kafka.examine(url, shards=SHARDS) == []


async def test_before_the_first_start_the_doctor_tells_what_will_be_made(url: str):
    faults = await kafka.examine(url, shards=SHARDS)
    assert {fault.topic.rpartition(".")[2] for fault in faults} == {
        "settings",
        "events",
        "status",
        "metrics",
        "deadletters",
    }
    assert not any(fault.refused for fault in faults)


async def test_replicas_that_start_together_make_the_topics_once(url: str):
    logs = await asyncio.gather(*(open_kafka(url, shards=SHARDS) for _ in range(3)))
    await logs[0].settings.append(b"1")
    assert [record.data for record in await logs[2].settings.read(0)] == [b"1"]
    await asyncio.gather(*(log.close() for log in logs))


@pytest.mark.parametrize(
    ("name", "partitions", "config", "mends"),
    [
        ("settings", 1, {"cleanup.policy": "compact"}, "cleanup.policy=delete"),
        ("settings", 1, {"retention.ms": "1000"}, "retention.ms=-1"),
        ("settings", 3, {}, "another prefix"),
        ("status", SHARDS, {"cleanup.policy": "delete"}, "cleanup.policy=compact"),
        ("events", SHARDS + 1, {}, f"log.shards to {SHARDS + 1}"),
    ],
)
async def test_topics_that_would_lose_data_are_refused_with_what_mends_them(
    url: str, admin: AIOKafkaAdminClient, name: str, partitions: int, config: dict[str, str], mends: str
):
    log = await open_kafka(url, shards=SHARDS)
    await log.close()
    topic = f"{prefix_of(url)}.{name}"
    await admin.delete_topics([topic])
    await made(admin, NewTopic(topic, partitions, 1, topic_configs=config))
    with pytest.raises(LogUnavailable, match=mends):
        await open_kafka(url, shards=SHARDS)


async def test_what_is_wrong_with_the_configuration_of_topics_is_mended_and_the_rest_stays(
    url: str, admin: AIOKafkaAdminClient
):
    log = await open_kafka(url, shards=SHARDS)
    await log.settings.append(b"kept")
    await log.close()
    prefix = prefix_of(url)
    wrong = {"cleanup.policy": "compact", "min.insync.replicas": "2", "segment.ms": "123456"}
    changed = {f"{prefix}.settings": wrong, f"{prefix}.status": {"max.message.bytes": "1000"}}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, *topic) for topic in changed.items()])
    with pytest.raises(LogUnavailable, match="takes no writes"):
        await open_kafka(url, shards=SHARDS)
    mended = await mend(url, shards=SHARDS)
    assert {(fault.topic, name) for fault in mended for name in fault.config} >= {
        (f"{prefix}.settings", "cleanup.policy"),
        (f"{prefix}.settings", "min.insync.replicas"),
        (f"{prefix}.status", "max.message.bytes"),
    }
    assert await examine(url, shards=SHARDS) == []
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, f"{prefix}.settings")])
    assert {entry[0]: entry[1] for entry in answer.resources[0][4]}["segment.ms"] == "123456"
    log = await open_kafka(url, shards=SHARDS)
    assert [record.data for record in await log.settings.read(0)] == [b"kept"]
    await log.close()


async def test_what_takes_more_than_configuration_is_left_to_people(url: str, admin: AIOKafkaAdminClient):
    await made(admin, NewTopic(f"{prefix_of(url)}.events", SHARDS + 1, 1))
    faults = await mend(url, shards=SHARDS)
    assert not any("partitions" in fault.message for fault in faults)
    assert any("partitions" in fault.message for fault in await examine(url, shards=SHARDS))


async def made(admin: AIOKafkaAdminClient, topic: NewTopic) -> None:
    """A topic that was deleted a moment ago may still be there; one that was made isn't told of at once."""
    async with asyncio.timeout(60):
        while any(code for _, code, _ in (await admin.create_topics([topic])).topic_errors):
            await asyncio.sleep(0.05)
        while any(one["error_code"] for one in await admin.describe_topics([topic.name])):
            await asyncio.sleep(0.05)


async def test_a_log_without_its_settings_topic_is_not_begun_anew(url: str, admin: AIOKafkaAdminClient):
    log = await open_kafka(url, shards=SHARDS)
    await log.close()
    await admin.delete_topics([f"{prefix_of(url)}.settings"])
    with pytest.raises(LogUnavailable, match="settings is gone"):
        await open_kafka(url, shards=SHARDS)


async def test_a_settings_topic_that_lost_its_beginning_is_not_read(url: str, admin: AIOKafkaAdminClient):
    log = await open_kafka(url, shards=SHARDS)
    await log.settings.append(b"1")
    await log.settings.append(b"2")
    await log.close()
    partition = aiokafka.TopicPartition(f"{prefix_of(url)}.settings", 0)
    await admin.delete_records({partition: aiokafka.admin.RecordsToDelete(1)})
    with pytest.raises(LogCorrupt, match="begins at offset 1"):
        await open_kafka(url, shards=SHARDS)


async def test_retention_of_the_configuration_becomes_that_of_the_topics(url: str):
    log = await open_kafka(url, shards=SHARDS, retention=Retention(1, 1))
    await log.close()
    told = [fault.message for fault in await kafka.examine(url, shards=SHARDS, retention=Retention(2, 1))]
    assert any("forgets after 86400000 ms" in message for message in told)


async def test_a_broker_that_is_not_there_is_told_at_once():
    with pytest.raises(LogUnavailable, match="doesn't answer"):
        await open_kafka("kafka://127.0.0.1:9", shards=SHARDS)


async def test_a_data_directory_is_of_one_daemon_whatever_its_log(url: str, tmp_path: Path):
    config = Config(data_dir=tmp_path, log={"url": url, "shards": SHARDS})
    first = await open_log(config)
    with pytest.raises(LogUnavailable, match=f"in use by process {os.getpid()}"):
        await open_log(config)
    with pytest.raises(LogUnavailable, match="in use by process"):
        await open_log(Config(data_dir=tmp_path))
    await first.close()
    again = await open_log(config)
    await again.close()


# --- the log -------------------------------------------------------------------------------------------------------------


async def test_two_replicas_see_the_same_records_at_the_same_offsets(log: KafkaLog, url: str):
    other = await open_kafka(url, shards=SHARDS)
    await asyncio.gather(*(one.settings.append(b"%d" % n) for n in range(20) for one in (log, other)))
    assert await log.settings.read(0) == await other.settings.read(0)
    await other.close()


async def test_another_process_that_takes_a_shard_fences_us_and_sees_what_we_committed(log: KafkaLog, url: str):
    ours = await log.journal.open_shard(0)
    await ours.commit(Commit([Outgoing("ours", b"1")]))
    other = await open_kafka(url, shards=SHARDS)
    theirs = await other.journal.open_shard(0)
    assert [entry.key for entry in await other.journal.read(Place(Stream.EVENTS, 0), 0)] == ["ours"]
    with pytest.raises(Fenced):
        await ours.commit(Commit([Outgoing("zombie", b"1")]))
    await theirs.commit(Commit([Outgoing("theirs", b"1")]))
    tail = log.journal.tail({Place(Stream.EVENTS, 0): 0})
    keys: list[str] = []
    async with asyncio.timeout(20):
        while len(keys) < 2:
            keys += [entry.key for entry in await anext(tail)]
    assert keys == ["ours", "theirs"]
    await tail.aclose()
    await other.close()


async def test_a_takeover_in_the_middle_of_a_transaction_leaves_none_of_it(log: KafkaLog):
    clients = Clients(log.address)
    zombie = await clients.transactional(1, [log.address.topic("events")])
    await zombie.begin_transaction()
    await (await zombie.send(log.address.topic("events"), b"half", key=b"half", partition=1))
    taken = await log.journal.open_shard(1)
    await taken.commit(Commit([Outgoing("whole", b"1")]))
    with pytest.raises(aiokafka.errors.ProducerFenced):
        await zombie.commit_transaction()
    await stop_producer(zombie)
    assert [entry.key for entry in await log.journal.read(Place(Stream.EVENTS, 1), 0)] == ["whole"]


async def test_commits_called_at_once_share_transactions(log: KafkaLog):
    writer = await log.journal.open_shard(0)
    committed = await asyncio.gather(*(writer.commit(Commit([Outgoing(f"{n}", b"1")])) for n in range(100)))
    offsets = [one.events[0] for one in committed]
    markers = offsets[-1] - offsets[0] + 1 - len(offsets)
    assert markers < 5, "each transaction leaves one marker"


# --- traps ---------------------------------------------------------------------------------------------------------------


async def test_t1_after_a_failed_send_a_new_producer_takes_over(kafka_broker: SharedServer, url: str):
    """A partition without a leader for longer than the request timeout poisons a producer for ever."""
    whole = await open_kafka(url, shards=SHARDS)
    await whole.close()
    clients = Clients(parse(url, {}), request_ms=1000)
    log = KafkaSettingsLog(clients, clients.address.topic("settings"), Health(), send_timeout_s=15.0)
    await log.open()
    poisoned = log._sender._producer
    outcomes: list[str] = []
    stopping = asyncio.create_task(kafka_broker.stop())
    while not (stopping.done() and outcomes[-1:] == ["failed"]):  # while it stops, a partition is without leader
        outcomes.append(await outcome_of(log.append(b"during")))
    await kafka_broker.start()
    assert "failed" in outcomes
    assert log._sender._producer is not poisoned
    for number in range(5):
        await log.append(b"after %d" % number)
    kept = [record.data for record in await log.read(0)]
    assert kept[-5:] == [b"after %d" % number for number in range(5)]
    assert kept.count(b"during") >= outcomes.count("stored")
    await log.close()
    await clients.ended()


async def outcome_of(append: Awaitable[None]) -> str:
    try:
        await append
    except (Indeterminate, LogUnavailable) as exc:
        print(exc)
        return "failed"
    return "stored"


async def test_t4_a_consumer_that_is_stopped_as_soon_as_it_has_started_leaves_nothing_behind(log: KafkaLog):
    clients = Clients(log.address)
    consumer = await clients.consumer(kafka_clients.READ_COMMITTED)
    await kafka_clients.stop_consumer(consumer)


async def test_t7_a_log_that_was_made_a_moment_ago_answers_every_question(url: str):
    log = await open_kafka(url, shards=SHARDS)
    for stream in Stream:
        assert dict(await log.journal.end_offsets(stream)) == {0: 0, 1: 0}
    assert await log.settings.end_offset() == 0
    await log.close()


def test_t8_without_asserts_nothing_is_opened():
    program = "import asyncio; from controlplane.log.kafka import open_kafka; asyncio.run(open_kafka('kafka://x:1', shards=1))"
    ran = subprocess.run([sys.executable, "-O", "-c", program], capture_output=True, text=True, check=False)
    assert "LogUnavailable: python -O" in ran.stderr


async def test_t8_after_a_fence_every_further_commit_is_refused_and_the_log_closes(log: KafkaLog):
    old = await log.journal.open_shard(0)
    await log.journal.open_shard(0)
    for _ in range(3):
        with pytest.raises(Fenced):
            await old.commit(Commit([Outgoing("k", b"1")]))


def test_the_private_parts_of_aiokafka_that_we_lean_on_are_those_of_the_version_we_know():
    kafka_clients.check()
    assert aiokafka.__version__.startswith(kafka_clients.KNOWN_VERSION)
    assert sender.BACKOFF_OVERRIDE == kafka_clients.PAUSE_BETWEEN_TRANSACTIONS_S
