"""What is sampled of a real cluster, and what the analysis makes of it."""

from __future__ import annotations

import asyncio
import gc

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from reconcilers.contract import BackendError, Evidence
from reconcilers.queue.analysis import analyse
from reconcilers.queue.kafka_groups import described as described_groups
from schemas.names import timestamp
from tests.integration.queue_world import by_hand, plain, unique, world
from tests.integration.test_queue_cluster import OPEN, described, patient
from tests.integration.test_queue_topics import orders

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
HOUR_S = 3600.0


def sampled(found, metric, **tags):
    """The value of one metric; None when it isn't there."""
    return next((one.value for one in found if one.metric_type == metric and tags.items() <= one.tags.items()), None)


async def until(one, holds):
    """Sample until it is so; the sample. While a broker goes or comes the client may ask one that isn't there."""
    latest: object = None
    try:
        async with asyncio.timeout(90):
            while True:
                try:
                    if holds(found := await one.backend.sample()):
                        return found
                    latest = [(row.metric_type, row.value) for row in found if not row.tags]
                except BackendError as exc:
                    latest = exc
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(f"isn't so after 90 s: {latest!r}")


async def fill(servers, topic, count, partition=0):
    """So many messages of 2 kB."""
    producer = AIOKafkaProducer(bootstrap_servers=servers)
    await producer.start()
    for _ in range(count):
        await producer.send(topic, bytes(2_000), partition=partition)
    await producer.stop()


async def test_what_is_sampled_tells_of_cluster_topics_and_groups(kafka_broker):
    name, group = unique("orders"), unique("readers")
    async with world(kafka_broker, canary=True) as one:
        config = {"retention.bytes": 1_000_000, "segment.bytes": 2_000_000}
        await one.converge("queue.topic", orders(name, config=config))
        begun = AIOKafkaConsumer(name, bootstrap_servers=plain(kafka_broker), group_id=group)
        await begun.start()
        places = [TopicPartition(name, number) for number in (0, 1)]
        await begun.commit(dict.fromkeys(places, 0))
        found = await one.backend.sample()
        assert sampled(found, "rebalances_total", group=group) == 0
        assert sampled(found, "group_members", group=group) == 1
        assert sampled(found, "group_settled", group=group) == 1
        await begun.stop()
        await fill(plain(kafka_broker), name, 50)
        found = await until(one, lambda found: sampled(found, "lag_messages", group=group) == 50)
        assert sampled(found, "brokers") == 1
        assert sampled(found, "topics") >= 1
        assert sampled(found, "partitions") >= 2
        assert sampled(found, "offline_partitions") == sampled(found, "under_replicated_partitions") == 0
        assert sampled(found, "isr_changes_total") == 0
        assert sampled(found, "stored_bytes") >= sampled(found, "topic_bytes", topic=name) >= 100_000
        assert sampled(found, "disk_usable_bytes", broker="1") > 0
        assert sampled(found, "produced_total", topic=name) == 50
        assert sampled(found, "topic_limit_bytes", topic=name) == 2_000_000
        assert sampled(found, "topic_skew_ratio", topic=name) == 2.0
        assert sampled(found, "consumed_total", group=group, topic=name) == 0
        assert sampled(found, "rebalances_total", group=group) == 1
        assert sampled(found, "group_members", group=group) == 0
        assert sampled(found, "lag_s", group=group, topic=name) > 0
        first, second = ({"group": group, "topic": name, "partition": number} for number in "01")
        assert sampled(found, "partition_lag_messages", **first) == 50
        waited_s = sampled(found, "lag_s", group=group, topic=name)
        assert sampled(found, "partition_lag_s", **first) == pytest.approx(waited_s, abs=0.5)
        assert sampled(found, "partition_lag_messages", **second) == sampled(found, "partition_lag_s", **second) == 0
        assert sampled(await until(one, lambda found: sampled(found, "delivery_s")), "delivery_s") > 0


def rows(found, at):
    """As the journal keeps them, from this time."""
    return [
        {
            "timestamp": timestamp(at),
            "metric_type": one.metric_type,
            "value": one.value,
            "tags": {"target": "main", **one.tags},
        }
        for one in found
    ]


async def test_the_analysis_of_what_was_sampled_names_who_is_busy_idle_skewed_full_and_behind(kafka_broker):
    """Real samples of two moments, told as if hours lay between them."""
    busy, idle, group = unique("busy"), unique("idle"), unique("readers")
    servers = plain(kafka_broker)
    async with world(kafka_broker, canary=True) as one:
        bound = {"retention.bytes": 12_000_000, "segment.bytes": 16_000_000}
        await one.converge("queue.topic", orders(busy, partitions=4, config=bound), busy)
        await one.converge("queue.topic", orders(idle), idle)
        await fill(servers, idle, 10)
        await fill(servers, busy, 10)
        consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False)
        await consumer.start()
        consumer.assign([TopicPartition(busy, 0)])
        await consumer.commit({TopicPartition(busy, 0): 5})
        before = await until(one, lambda found: sampled(found, "lag_messages", group=group) == 5)
        await fill(servers, busy, 5_200)
        await consumer.commit({TopicPartition(busy, 0): 205})
        after = await until(one, lambda found: sampled(found, "lag_messages", group=group) == 5_005)
        after = await until(one, lambda found: sampled(found, "topic_bytes", topic=busy) > 10_400_000)
        await consumer.stop()
    metrics = [row for found, hour in ((before, 0), (after, 2)) for row in rows(found, hour * HOUR_S)]
    found = analyse(Evidence(0, 2 * HOUR_S, metrics, (), ()))
    told = found["targets"]["main"]
    topic = told["topics"][0]
    assert topic["topic"] == busy
    assert topic["produced_per_s"] == pytest.approx(5_200 / 7_200)
    assert topic["growth_bytes_per_day"] > 12 * 10_000_000
    assert 0 <= topic["days_until_retention"] < 1
    assert topic["skew_ratio"] == 4.0
    assert busy in told["skewed_topics"]
    assert idle in told["idle_topics"]
    assert busy not in told["idle_topics"]
    mine = next(one for one in told["groups"] if one["group"] == group)
    assert (mine["topic"], mine["lag_messages"]) == (busy, 5_005)
    assert mine["consumed_per_s"] == pytest.approx(200 / 7_200)
    assert mine["falling_behind_since"] == timestamp(0)
    assert told["delivery"]["messages"] > 0
    assert told["delivery"]["lost"] == 0
    assert 0 < told["delivery"]["p50_s"] <= told["delivery"]["p95_s"] <= told["delivery"]["p99_s"]
    said = "\n".join(found["findings"])
    assert f"group {group} falls behind on {busy}" in said
    assert f"topic {busy} reaches its retention.bytes" in said
    assert f"topic {busy}: its biggest partition is 4.0 times" in said


async def test_a_group_that_is_not_there_is_dead_whatever_its_name(kafka_broker):
    name = unique("Coordinator")
    async with by_hand(kafka_broker) as hand:
        assert (await patient(hand)(lambda admin: described_groups(admin, [name])))[name].state == "Dead"


# kafka-python 3.0 doesn't close the socket of a connection that was refused: here, and not in some later test.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
async def test_replicas_that_lack_partitions_without_a_leader_and_changes_of_who_is_in_sync_are_counted(kafka_cluster):
    safe, alone = unique("safe"), unique("alone")
    async with world(kafka_cluster, bootstrap_servers=kafka_cluster.bootstrap, security=OPEN) as one:
        # A broker that hasn't come back yet would be given replicas, but lead nothing.
        await until(one, lambda found: sampled(found, "brokers") == 3)
        await one.converge("queue.topic", orders(safe, partitions=1, replication_factor=3), safe)
        await one.converge("queue.topic", orders(alone, partitions=3), alone)
        found = await until(
            one,
            lambda found: sampled(found, "under_replicated_partitions") == sampled(found, "offline_partitions") == 0,
        )
        changes = sampled(found, "isr_changes_total")
        async with by_hand(kafka_cluster) as hand:
            leader = (await described(hand, alone))["partitions"][0]["leader_id"]
        await kafka_cluster.kill_node(leader)
        try:
            found = await until(
                one,
                lambda found: (
                    sampled(found, "offline_partitions") >= 1 and sampled(found, "under_replicated_partitions") >= 2
                ),
            )
            assert sampled(found, "brokers") == 2
            assert sampled(found, "isr_changes_total") > changes
            told = analyse(Evidence(0, HOUR_S, rows(found, 0), (), ()))
            assert any("no leader" in text for text in told["findings"])
            assert any("lack replicas" in text for text in told["findings"])
        finally:
            await kafka_cluster.start_node(leader)
        await until(one, lambda found: sampled(found, "under_replicated_partitions") == 0)
    gc.collect()


# See above.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
async def test_a_group_is_asked_of_the_broker_that_has_it_when_the_one_before_is_gone(kafka_cluster):
    """The client that samples has asked the one that is killed."""
    name, group = unique("orders"), unique("readers")
    async with world(kafka_cluster, bootstrap_servers=kafka_cluster.bootstrap, security=OPEN) as one:
        await until(one, lambda found: sampled(found, "brokers") == 3)
        await one.converge("queue.topic", orders(name, partitions=1, replication_factor=3), name)
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka_cluster.bootstrap, group_id=group, enable_auto_commit=False)
        await consumer.start()
        consumer.assign([TopicPartition(name, 0)])
        await consumer.commit({TopicPartition(name, 0): 0})
        await consumer.stop()
        await fill(kafka_cluster.bootstrap, name, 3)
        await until(one, lambda found: sampled(found, "lag_messages", group=group) == 3)
        async with by_hand(kafka_cluster) as hand:
            has_it = await hand(lambda admin: admin._manager.run(admin._find_coordinator_id, group))
        await kafka_cluster.kill_node(has_it)
        try:
            found = await until(one, lambda found: sampled(found, "brokers") == 2)
            assert sampled(found, "lag_messages", group=group) == 3
        finally:
            await kafka_cluster.start_node(has_it)
        await until(one, lambda found: sampled(found, "under_replicated_partitions") == 0)
    gc.collect()
