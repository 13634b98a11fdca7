"""Operations on a real broker: published, looked at, offsets planned and reset, purged, sent back; and the guard."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from reconcilers.contract import TerminalError
from reconcilers.queue.data import publish
from reconcilers.queue.operations import OPERATIONS
from reconcilers.queue.routing import dead_letter, router_group, table_topic
from schemas.queue_operations import Outgoing
from tests.integration.backend_world import DictSecrets
from tests.integration.queue_world import by_hand, plain, unique, world
from tests.integration.test_queue_topics import orders

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


class Context:
    """What an operation may use, on one backend."""

    tenant, revision = "default", 1

    def __init__(self, backend):
        self._backend = backend

    async def backend(self, _target):
        return self._backend

    def setting(self, setting_type, name):
        raise AssertionError


async def operate(one, name, **request):
    """One operation, as the daemon runs it."""
    found = next(operation for operation in OPERATIONS if operation.name == name)
    model = found.request.model_validate({"target": "main", **request})
    assert "secret" not in repr(found.announce(model))
    return await found.run(Context(one.backend), model)


async def a_topic(one, **more):
    name = unique("orders")
    await one.converge("queue.topic", orders(name, **more), name)
    return name


async def test_what_is_published_is_found_by_place_time_and_key(kafka_broker):
    async with world(kafka_broker) as one:
        topic = await a_topic(one)
        first = {"key": "a", "value": {"n": 1}, "headers": {"trace": "secret"}, "partition": 0}
        told = await operate(
            one, "publish", topic=topic, messages=[first, {"key": "b", "value": "text", "partition": 0}]
        )
        assert told == {"messages": [{"partition": 0, "offset": 0}, {"partition": 0, "offset": 1}]}
        middle_ms = int(time.time() * 1000) + 1
        await asyncio.sleep(0.01)
        await operate(one, "publish", topic=topic, messages=[{"key": "a", "value": None, "partition": 1}])
        found = (await operate(one, "peek", topic=topic))["messages"]
        assert [(m["partition"], m["offset"], m["key"], m["value"]) for m in found] == [
            (0, 0, "a", {"n": 1}),
            (0, 1, "b", "text"),
            (1, 0, "a", None),
        ]
        assert found[0]["headers"] == {"trace": "secret"}
        by_key = (await operate(one, "peek", topic=topic, key="a"))["messages"]
        assert [m["partition"] for m in by_key] == [0, 1]
        later = (await operate(one, "peek", topic=topic, start={"time_ms": middle_ms}))["messages"]
        assert [(m["partition"], m["offset"]) for m in later] == [(1, 0)]
        placed = await operate(one, "peek", topic=topic, partition=0, start={"offset": 1}, max_bytes=2)
        assert [(m["value"], m["size_bytes"]) for m in placed["messages"]] == [("te", 4)]


async def test_what_is_neither_json_nor_text_is_shown_in_hex(kafka_broker):
    async with world(kafka_broker) as one:
        topic = await a_topic(one, partitions=1)
        producer = AIOKafkaProducer(bootstrap_servers=plain(kafka_broker))
        await producer.start()
        await producer.send_and_wait(topic, b"\x00\xff\x80", b"\xff", headers=[("trace", b"\xfe")])
        await producer.send_and_wait(topic, "für".encode())
        await producer.stop()
        binary, text = (await operate(one, "peek", topic=topic))["messages"]
        assert (binary["format"], binary["value"], binary["size_bytes"]) == ("hex", "00ff80", 3)
        assert (binary["key"], binary["headers"]) == ("\ufffd", {"trace": "\ufffd"})
        assert (text["format"], text["value"]) == ("text", "für")
        binary, text = (await operate(one, "peek", topic=topic, max_bytes=2))["messages"]
        assert (binary["value"], binary["size_bytes"]) == ("00ff", 3)
        assert (text["format"], text["value"], text["size_bytes"]) == ("text", "f", 4), "cut within a letter"


async def read_some(broker, topic, group, count):
    """Read and commit; the consumer stays in its group until it is stopped."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=plain(broker), group_id=group, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    async with asyncio.timeout(60):
        for _ in range(count):
            await consumer.getone()
    await consumer.commit()
    return consumer


async def test_offsets_are_planned_then_reset_and_neither_while_somebody_reads(kafka_broker):
    group = unique("readers")
    async with world(kafka_broker) as one, by_hand(kafka_broker) as hand:
        topic = await a_topic(one, partitions=1)
        await operate(one, "publish", topic=topic, messages=[{"value": str(n)} for n in range(10)])
        consumer = await read_some(kafka_broker, topic, group, 10)
        with pytest.raises(TerminalError) as refused:
            await operate(one, "plan_reset_offsets", group=group, to={"at": "earliest"})
        assert refused.value.reason == "GroupActive"
        for name, more in (("reset_offsets", {"to": {"at": "earliest"}, "plan": "any"}), ("delete_group", {})):
            with pytest.raises(TerminalError) as refused:
                await operate(one, name, group=group, **more)
            assert refused.value.reason == "GroupActive"
        await consumer.stop()
        plan = await operate(one, "plan_reset_offsets", group=group, to={"shift": -3})
        assert plan["moves"] == [{"topic": topic, "partition": 0, "from": 10, "to": 7}]
        with pytest.raises(TerminalError) as stale:
            await operate(one, "reset_offsets", group=group, to={"shift": -4}, plan=plan["plan"])
        assert stale.value.reason == "PlanStale"
        await operate(one, "reset_offsets", group=group, to={"shift": -3}, plan=plan["plan"])
        offsets = (await hand(lambda admin: admin.list_group_offsets({group: None})))[group]
        assert [row.offset for row in offsets.values()] == [7]
        again = await operate(one, "plan_reset_offsets", group=group, to={"offset": 7})
        assert again["moves"] == []
        await operate(one, "delete_group", group=group)
        assert group not in [row["group_id"] for row in await hand(lambda admin: admin.list_groups())]


async def test_offsets_go_to_a_time_and_to_the_ends(kafka_broker):
    """Of each partition by itself: one whose messages are all older ends up at its end."""
    group = unique("readers")
    async with world(kafka_broker) as one, by_hand(kafka_broker) as hand:
        topic = await a_topic(one)
        told = [{"value": str(n), "partition": n % 2} for n in range(6)]
        await operate(one, "publish", topic=topic, messages=told)
        await asyncio.sleep(0.01)
        middle_ms = int(time.time() * 1000)
        await operate(one, "publish", topic=topic, messages=[{"value": "late", "partition": 1}] * 2)
        await (await read_some(kafka_broker, topic, group, 1)).stop()

        async def gone(**to):
            plan = await operate(one, "plan_reset_offsets", group=group, topics=[topic], to=to)
            await operate(one, "reset_offsets", group=group, topics=[topic], to=to, plan=plan["plan"])
            rows = (await hand(lambda admin: admin.list_group_offsets({group: None})))[group]
            return {place.partition: row.offset for place, row in rows.items()}

        assert await gone(at="latest") == {0: 3, 1: 5}
        assert await gone(time_ms=middle_ms) == {0: 3, 1: 3}
        assert await gone(time_ms=0) == {0: 0, 1: 0}
        assert await gone(time_ms=middle_ms + 3_600_000) == {0: 3, 1: 5}
        assert await gone(at="earliest") == {0: 0, 1: 0}
        await operate(one, "purge", topic=topic, partition=0, before={"offset": 2})
        assert await gone(offset=1) == {0: 2, 1: 1}, "nothing is before the first message that is left"
        assert await gone(shift=100) == {0: 3, 1: 5}


async def test_a_group_that_lags_too_far_is_said_to(kafka_broker):
    group = unique("readers")
    async with world(kafka_broker) as one:
        topic = await a_topic(one, partitions=1)
        assert (await one.look("queue.group", {"group": group})).wait_reason is not None
        await operate(one, "publish", topic=topic, messages=[{"value": str(n)} for n in range(10)])
        await (await read_some(kafka_broker, topic, group, 1)).stop()
        plan = await operate(one, "plan_reset_offsets", group=group, to={"offset": 2})
        await operate(one, "reset_offsets", group=group, to={"offset": 2}, plan=plan["plan"])
        assert (await one.look("queue.group", {"group": group, "max_lag": 8})).converged
        late = await one.look("queue.group", {"group": group, "max_lag": 7})
        assert late.blocked is not None
        assert late.blocked.reason == "LagTooHigh"
        assert "8 messages" in late.blocked.message
        assert (await one.look("queue.group", {"group": group, "max_lag_s": 3600})).converged
        async with asyncio.timeout(30):
            while (plan := await one.look("queue.group", {"group": group, "max_lag_s": 0.05})).blocked is None:
                await asyncio.sleep(0.1)
        assert plan.blocked is not None
        assert f"{topic}-0" in plan.blocked.message


async def test_messages_before_a_place_are_purged(kafka_broker):
    async with world(kafka_broker) as one:
        topic = await a_topic(one)
        await operate(one, "publish", topic=topic, messages=[{"value": str(n), "partition": n % 2} for n in range(10)])
        told = await operate(one, "purge", topic=topic, partition=0, before={"offset": 3})
        assert told == {"partitions": {"0": 3}}
        await operate(one, "purge", topic=topic, before={"at": "latest"})
        assert (await operate(one, "peek", topic=topic))["messages"] == []


async def test_dead_letters_go_back_once_each_and_those_that_are_not_meant_stay(kafka_broker):
    async with world(kafka_broker) as one:
        source, dead = await a_topic(one), await a_topic(one)
        letters = []
        for number in range(6):
            cause = "too large" if number % 2 else "no json"
            told = dead_letter([("trace", b"1")], "n", cause, (source, 0, number), 5)
            letters.append(Outgoing(value=str(number), key="k", headers={name: text.decode() for name, text in told}))
        await publish(one.backend.client_options, dead, letters)
        assert await operate(one, "redrive", dead_letter=dead, cause="large") == {"redriven": 3, "kept": 3}
        back = (await operate(one, "peek", topic=source))["messages"]
        assert sorted(m["value"] for m in back) == [1, 3, 5]
        assert back[0]["headers"] == {"trace": "1"}
        assert await operate(one, "redrive", dead_letter=dead, route="other") == {"redriven": 0, "kept": 3}
        assert await operate(one, "redrive", dead_letter=dead, limit=2) == {"redriven": 2, "kept": 0}
        assert await operate(one, "redrive", dead_letter=dead) == {"redriven": 1, "kept": 0}
        assert await operate(one, "redrive", dead_letter=dead) == {"redriven": 0, "kept": 0}
        assert sorted(m["value"] for m in (await operate(one, "peek", topic=source))["messages"]) == list(range(6))


async def test_the_control_plane_leaves_its_own_records_alone(kafka_broker):
    known = DictSecrets(PW="x")
    own = frozenset({"coreplane.settings", "User:coreplane"})
    async with world(kafka_broker, known, own) as one:
        with pytest.raises(TerminalError) as topic:
            await one.look("queue.topic", {"topic": "coreplane.settings"}, retiring=True)
        assert topic.value.reason == "OwnTopic"
        for kind, value in (
            ("queue.user", {"username": "coreplane", "password": {"from_env": "PW"}}),
            ("queue.acl", {"principal": "User:coreplane", "acls": []}),
        ):
            with pytest.raises(TerminalError) as user:
                await one.look(kind, value)
            assert user.value.reason == "OwnUser"
        with pytest.raises(TerminalError) as limit:
            await one.look("queue.quota", {"user": "coreplane", "quotas": {"request_percentage": 0.01}})
        assert limit.value.reason == "SelfThrottled"
        for name, request in (
            ("delete_group", {}),
            ("reset_offsets", {"to": {"at": "earliest"}, "plan": "any"}),
        ):
            with pytest.raises(TerminalError) as refused:
                await operate(one, name, group=router_group("default", "another"), **request)
            assert refused.value.reason == "OwnGroup"
        for topic in ("coreplane.settings", table_topic("default", "main"), table_topic("acme", "another")):
            for name, request in (
                ("purge", {"topic": topic, "before": {"at": "latest"}}),
                ("publish", {"topic": topic, "messages": [{"value": "x"}]}),
                ("redrive", {"dead_letter": topic}),
            ):
                with pytest.raises(TerminalError) as refused:
                    await operate(one, name, **request)
                assert refused.value.reason == "OwnTopic"


async def test_a_letter_that_says_it_came_from_the_control_plane_s_records_stays(kafka_broker):
    own = unique("settings")
    async with world(kafka_broker, None, frozenset({own})) as one, by_hand(kafka_broker) as hand:
        await hand(lambda admin: admin.create_topics({own: {"num_partitions": 1}}, wait_for_metadata=True))
        dead = await a_topic(one)
        forged = {name: text.decode() for name, text in dead_letter([], "n", "why", (own, 0, 0), 5)}
        await publish(one.backend.client_options, dead, [Outgoing(value="x", headers=forged)])
        assert await operate(one, "redrive", dead_letter=dead) == {"redriven": 0, "kept": 1}
        assert (await operate(one, "peek", topic=own))["messages"] == []
