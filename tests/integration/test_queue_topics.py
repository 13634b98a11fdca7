"""Topics on a real broker: made, changed, repaired, adopted, deleted; what a broker doesn't show yet is waited for."""

from __future__ import annotations

import asyncio

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from reconcilers.contract import Result, TerminalError, TransientError
from tests.integration.backend_world import ClosedFence
from tests.integration.queue_world import by_hand, unique, world

pytestmark = pytest.mark.integration
TOPIC = "queue.topic"


def orders(name, **more):
    return {"topic": name, "partitions": 2, "replication_factor": 1, "config": {"retention.ms": 3_600_000}, **more}


async def overrides(hand, name):
    found = await hand(lambda admin: admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)]))
    rows = found["topic"][name]
    return {key: row["value"] for key, row in rows.items() if row["config_source"] == "DYNAMIC_TOPIC_CONFIG"}


async def alter(hand, name, **config):
    resource = ConfigResource(ConfigResourceType.TOPIC, name, config)
    await hand(lambda admin: admin.alter_configs([resource], raise_on_unknown=False))


async def test_a_topic_is_made_once_and_is_then_as_declared(kafka_broker):
    name = unique("orders")
    async with world(kafka_broker) as one, by_hand(kafka_broker) as hand:
        assert await one.converge(TOPIC, orders(name)) == ["CreateTopic"]
        (shown,) = await hand(lambda admin: admin.describe_topics([name]))
        assert len(shown["partitions"]) == 2
        assert await overrides(hand, name) == {"retention.ms": "3600000"}
        assert await one.converge(TOPIC, orders(name)) == []


async def test_values_in_other_spellings_are_the_same(kafka_broker):
    name = unique("orders")
    value = orders(
        name,
        config={
            "retention.ms": " 0005000 ",
            "cleanup.policy": ["compact", "delete"],
            "min.cleanable.dirty.ratio": "0.50",
            "preallocate": "TRUE",
            "flush.messages": 7,
        },
    )
    async with world(kafka_broker) as one:
        assert await one.converge(TOPIC, value) == ["CreateTopic"]
        spelt = {"retention.ms": 5000, "cleanup.policy": "compact, delete", "min.cleanable.dirty.ratio": 0.5}
        assert (
            await one.converge(TOPIC, orders(name, config={**spelt, "preallocate": True, "flush.messages": "7"})) == []
        )


async def test_only_the_declared_configurations_are_owned_and_one_that_is_no_longer_declared_goes_back(kafka_broker):
    name = unique("orders")
    async with world(kafka_broker) as one, by_hand(kafka_broker) as hand:
        await one.converge(TOPIC, orders(name, config={"retention.ms": 1000, "segment.ms": 90_000}))
        await alter(hand, name, **{"max.message.bytes": "2000000"})
        assert await one.converge(TOPIC, orders(name, config={"retention.ms": 2000})) == ["ChangeConfig"]
        async with asyncio.timeout(30):
            while await overrides(hand, name) != {"retention.ms": "2000", "max.message.bytes": "2000000"}:
                await asyncio.sleep(0.1)


async def test_what_is_changed_by_hand_is_a_difference_and_is_repaired(kafka_broker):
    name = unique("orders")
    async with world(kafka_broker) as one, by_hand(kafka_broker) as hand:
        await one.converge(TOPIC, orders(name))
        await alter(hand, name, **{"retention.ms": "1"})
        async with asyncio.timeout(30):
            while (plan := await one.look(TOPIC, orders(name))).converged:
                await asyncio.sleep(0.1)
        assert plan.differences == (("/config/retention.ms", "3600000", "1"),)
        assert [step.name for step in plan.steps] == ["ChangeConfig"]
        await one.converge(TOPIC, orders(name))
        assert await overrides(hand, name) == {"retention.ms": "3600000"}


async def test_partitions_become_more_and_never_fewer(kafka_broker):
    name = unique("orders")
    async with world(kafka_broker) as one:
        await one.converge(TOPIC, orders(name))
        (step,) = (await one.look(TOPIC, orders(name, partitions=5))).steps
        assert "keys move to other partitions" in step.summary()
        assert await one.converge(TOPIC, orders(name, partitions=5)) == ["RaisePartitions"]
        plan = await one.look(TOPIC, orders(name, partitions=3))
        assert plan.steps == ()
        assert plan.blocked is not None
        assert plan.blocked.reason == "PartitionsCannotShrink"
        assert "declare partitions: 5" in plan.blocked.message


async def test_deleting_is_by_id_so_that_what_was_made_anew_meanwhile_stays(kafka_broker):
    name = unique("orders")
    async with world(kafka_broker) as one, by_hand(kafka_broker) as hand:
        await one.converge(TOPIC, orders(name))
        plan = await one.look(TOPIC, orders(name), retiring=True)
        await hand(lambda admin: admin.delete_topics([name]))
        await hand(lambda admin: admin.create_topics({name: {"num_partitions": 1}}, wait_for_metadata=True))
        assert [outcome.result for outcome in await one.take(plan)] == [Result.SUCCEEDED]
        assert name in await hand(lambda admin: admin.list_topics())


async def test_a_deleted_topic_is_gone_at_once_and_can_be_made_again_at_once(kafka_broker):
    name = unique("orders")
    async with world(kafka_broker) as one:
        await one.converge(TOPIC, orders(name))
        plan = await one.look(TOPIC, orders(name), retiring=True)
        await one.take(plan)
        assert (await one.look(TOPIC, orders(name), retiring=True)).converged
        assert await one.converge(TOPIC, orders(name)) == ["CreateTopic"]


async def test_what_was_just_made_is_waited_for_and_not_made_a_second_time(kafka_broker):
    names = [unique("settling") for _ in range(30)]
    async with world(kafka_broker) as one:
        plans = [await one.look(TOPIC, orders(name)) for name in names]
        outcomes = await one.backend.apply([plan.steps[0] for plan in plans], one.fence)
        assert {outcome.result for outcome in outcomes} == {Result.SUCCEEDED}
        for name in names:
            assert (await one.look(TOPIC, orders(name))).steps == ()
        for name in names:
            assert await one.converge(TOPIC, orders(name)) == []


async def test_a_topic_that_somebody_deleted_and_made_anew_is_noticed(kafka_broker):
    name = unique("orders")
    async with world(kafka_broker) as one, by_hand(kafka_broker) as hand:
        await one.converge(TOPIC, orders(name))
        await hand(lambda admin: admin.delete_topics([name]))
        config = {"num_partitions": 2, "configs": {"retention.ms": "3600000"}}
        async with asyncio.timeout(30):
            while name in await hand(lambda admin: admin.list_topics()):
                await asyncio.sleep(0.1)
        await hand(lambda admin: admin.create_topics({name: config}, wait_for_metadata=True))
        async with asyncio.timeout(30):
            while not (plan := await one.look(TOPIC, orders(name))).differences:
                await asyncio.sleep(0.1)
        assert [path for path, _, _ in plan.differences] == ["/topic_id"]
        assert await one.converge(TOPIC, orders(name)) == ["AcceptRecreated"]


async def test_each_topic_of_a_request_fails_by_itself(kafka_broker):
    good, bad, lone = unique("good"), unique("bad"), unique("lone")
    async with world(kafka_broker) as one:
        values = [orders(good), orders(bad, config={"retention.ms": "soon"}), orders(lone, replication_factor=3)]
        steps = [(await one.look(TOPIC, value)).steps[0] for value in values]
        made, refused, few = await one.backend.apply(steps, one.fence)
        assert made.result is Result.SUCCEEDED
        assert refused.result is few.result is Result.FAILED
        assert isinstance(refused.error, TerminalError)
        assert refused.error.reason == "InvalidConfiguration"
        assert "retention.ms" in refused.error.message
        assert isinstance(few.error, TerminalError)
        assert few.error.reason == "InvalidReplicationFactor"
        (again,) = await one.backend.apply(steps[:1], one.fence)
        assert isinstance(again.error, TransientError)
        assert again.error.reason == "TopicAlreadyExists"


async def test_nothing_is_sent_once_the_fence_is_closed(kafka_broker):
    name = unique("orders")
    async with world(kafka_broker) as one, by_hand(kafka_broker) as hand:
        plan = await one.look(TOPIC, orders(name))
        one.fence = ClosedFence()
        assert [outcome.result for outcome in await one.take(plan)] == [Result.NOT_SENT]
        assert name not in await hand(lambda admin: admin.list_topics())


async def test_what_exists_is_found_and_converges_as_it_is(kafka_broker):
    name = unique("existed")
    async with world(kafka_broker) as one, by_hand(kafka_broker) as hand:
        config = {"num_partitions": 3, "replication_factor": 1, "configs": {"cleanup.policy": "compact"}}
        await hand(lambda admin: admin.create_topics({name: config}, wait_for_metadata=True))
        (found,) = await one.backend.discover(TOPIC, "existed-*")
        assert found.value == {"partitions": 3, "replication_factor": 1, "config": {"cleanup.policy": "compact"}}
        assert await one.converge(TOPIC, found.value, found.name) == []
        assert await one.backend.discover(TOPIC, "__consumer*") == []
