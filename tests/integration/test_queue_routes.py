"""Routes on a real broker, through the whole daemon: nothing is lost while they change, nothing is there twice that must not."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from reconcilers.contract import Connection
from reconcilers.queue.backend import connect
from schemas.queue import Target
from tests.integration.backend_world import DictSecrets
from tests.integration.queue_world import ADMIN_PASSWORD, admin_password, by_hand, plain, target_value, unique
from tests.integration.test_queue_daemon import phase, put
from tests.servers import DaemonProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
ROUTE = "queue.route"


@pytest.fixture
async def routing_daemon(tmp_path, kafka_broker):
    """A daemon with the broker as a target that no other test has: its table of routes is its own."""
    process = DaemonProcess(tmp_path / "coreplane", {"runtime": {"backoff_cap_s": 1.0, "sweep_s": 1.0}})
    process.target = unique("main")
    await process.start(**{ADMIN_PASSWORD: admin_password(kafka_broker)})
    async with process.client() as client:
        await put(client, "queue.target", process.target, target_value(kafka_broker))
    yield process
    await process.clean_up()


async def topics(broker, **partitions):
    """Make topics with names of their own; the names, in the order."""
    names = {what: unique(what) for what in partitions}
    rows = {names[what]: {"num_partitions": count} for what, count in partitions.items()}
    async with by_hand(broker) as hand:
        await hand(lambda admin: admin.create_topics(rows, wait_for_metadata=True))
    return list(names.values())


@asynccontextmanager
async def producing(broker):
    producer = AIOKafkaProducer(bootstrap_servers=plain(broker), linger_ms=5)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def messages(broker, topic):
    """All committed messages of a topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=plain(broker), isolation_level="read_committed")
    await consumer.start()
    try:
        partitions = await consumer._client._wait_on_metadata(topic) and consumer.partitions_for_topic(topic)
        places = [TopicPartition(topic, number) for number in partitions or ()]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        found = []
        for place in places:
            while await consumer.position(place) < ends[place]:
                for records in (await consumer.getmany(place, timeout_ms=200)).values():
                    found += records
        return found
    finally:
        await consumer.stop()


async def values(broker, topic):
    return [int(record.value) for record in await messages(broker, topic)]


async def until_there(broker, topic, count):
    """Wait until so many different messages are there; all of them."""
    async with asyncio.timeout(120):
        while len(set(found := await values(broker, topic))) < count:
            await asyncio.sleep(0.2)
    return found


async def test_messages_go_where_their_content_says(routing_daemon, kafka_broker):
    source, german, dear, dead = await topics(kafka_broker, source=2, german=1, dear=1, dead=1)
    target = routing_daemon.target
    async with routing_daemon.client() as client, producing(kafka_broker) as producer:
        to_german = {"target": target, "source": source, "to": [german], "when": {"json": {"order.country": "DE"}}}
        to_dear = {"target": target, "source": source, "to": [dear], "on_error": {"dead_letter": dead}}
        to_dear["when"] = {"json": {"/order/total": {"gte": 100}}, "headers": {"kind": {"in": ["new", "paid"]}}}
        await put(client, ROUTE, "german", to_german)
        await put(client, ROUTE, "dear", to_dear)
        for country, total, kind in (("DE", 10, "new"), ("DE", 100, "new"), ("FR", 500, "paid"), ("FR", 500, "old")):
            document = json.dumps({"order": {"country": country, "total": total}}).encode()
            await producer.send_and_wait(source, document, headers=[("kind", kind.encode())])
        await producer.send_and_wait(source, b"no json", b"the key", headers=[("kind", b"new"), ("trace", b"1")])
        async with asyncio.timeout(60):
            while len(await messages(kafka_broker, dead)) < 1 or len(await messages(kafka_broker, german)) < 2:
                await asyncio.sleep(0.1)
            while len(await messages(kafka_broker, dear)) < 2:
                await asyncio.sleep(0.1)
        assert len(await messages(kafka_broker, german)) == 2
        assert len(await messages(kafka_broker, dear)) == 2
        (letter,) = await messages(kafka_broker, dead)
        headers = {name: value.decode() for name, value in letter.headers}
        assert (letter.key, letter.value) == (b"the key", b"no json")
        assert headers["trace"] == "1"
        assert headers["coreplane.dead.route"] == "dear"
        assert headers["coreplane.dead.topic"] == source
        assert headers["coreplane.dead.cause"] == "the message isn't JSON"
        assert int(headers["coreplane.dead.offset"]) >= 0


async def test_a_route_from_the_earliest_takes_what_was_there_before_it_and_one_from_the_latest_does_not(
    routing_daemon, kafka_broker
):
    source, new, all_of_it, other = await topics(kafka_broker, source=2, new=1, all=1, other=2)
    target = routing_daemon.target
    async with routing_daemon.client() as client, producing(kafka_broker) as producer:
        for topic in (source, other):
            for number in range(50):
                await producer.send(topic, str(number).encode(), partition=number % 2)
        await producer.flush()
        await put(client, ROUTE, "new", {"target": target, "source": source, "to": [new]})
        await put(client, ROUTE, "all", {"target": target, "source": other, "to": [all_of_it], "start": "earliest"})
        for topic in (source, other):
            for number in range(50, 60):
                await producer.send(topic, str(number).encode(), partition=number % 2)
        await producer.flush()
        assert sorted(await until_there(kafka_broker, all_of_it, 60)) == list(range(60))
        assert sorted(await until_there(kafka_broker, new, 10)) == list(range(50, 60))


async def test_of_the_routes_that_match_those_with_the_highest_priority_take_a_message(routing_daemon, kafka_broker):
    source, vip, rest = await topics(kafka_broker, source=1, vip=1, rest=1)
    target = routing_daemon.target
    async with routing_daemon.client() as client, producing(kafka_broker) as producer:
        when = {"headers": {"vip": "true"}}
        await put(client, ROUTE, "vip", {"target": target, "source": source, "to": [vip], "priority": 10, "when": when})
        await put(client, ROUTE, "rest", {"target": target, "source": source, "to": [rest]})
        await producer.send_and_wait(source, b"1", headers=[("vip", b"true")])
        await producer.send_and_wait(source, b"2")
        assert await until_there(kafka_broker, rest, 1) == [2]
        assert await until_there(kafka_broker, vip, 1) == [1]


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_routes_come_change_and_go_while_messages_flow_and_nothing_is_lost(
    routing_daemon, kafka_broker, delivery
):
    source, everything, some, other, second = await topics(
        kafka_broker, source=3, everything=1, some=1, other=1, second=1
    )
    base = {"target": routing_daemon.target, "source": source, "delivery": delivery}
    sent, stopping = 0, asyncio.Event()

    async def flow(producer):
        nonlocal sent
        while not stopping.is_set():  # some 1,000 a second
            for _ in range(20):
                await producer.send(source, str(sent).encode(), str(sent).encode())
                sent += 1
            await asyncio.sleep(0.02)
        await producer.flush()

    async with routing_daemon.client() as client, producing(kafka_broker) as producer:
        await put(client, ROUTE, "everything", {**base, "to": [everything]})
        flowing = asyncio.create_task(flow(producer))
        try:
            await put(client, ROUTE, "some", {**base, "to": [some]})
            since = sent
            await put(client, ROUTE, "some", {**base, "to": [other]})
            until = sent
            await put(client, ROUTE, "elsewhere", {**base, "source": second, "to": [some]})
            await client.delete_setting(ROUTE, "some", wait="Gone", wait_s=60)
            await client.delete_setting(ROUTE, "elsewhere", wait="Gone", wait_s=60)
        finally:
            stopping.set()
            await flowing
        found = await until_there(kafka_broker, everything, sent)
        assert sorted(found) == list(range(sent))
        between = await values(kafka_broker, some)
        assert len(between) == len(set(between))
        after = await values(kafka_broker, other)
        assert set(between) | set(after) >= set(range(since, until))
        assert max(between) < max(after)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_a_killed_router_loses_nothing_and_repeats_only_what_it_may(routing_daemon, kafka_broker, delivery):
    source, everything = await topics(kafka_broker, source=2, everything=1)
    value = {"target": routing_daemon.target, "source": source, "to": [everything], "delivery": delivery}
    count = 12_000
    async with producing(kafka_broker) as producer:
        async with routing_daemon.client() as client:
            await put(client, ROUTE, "everything", value)
        for number in range(count):
            await producer.send(source, str(number).encode(), str(number).encode())
        await producer.flush()
        for _ in range(2):
            before = len(await values(kafka_broker, everything))
            async with asyncio.timeout(60):
                while before < count and len(await values(kafka_broker, everything)) == before:
                    await asyncio.sleep(0.02)
            await routing_daemon.kill()
            await routing_daemon.start(**{ADMIN_PASSWORD: admin_password(kafka_broker)})
        found = await until_there(kafka_broker, everything, count)
    assert set(found) == set(range(count))
    repeated = await told(routing_daemon, kafka_broker, "repeated_total")
    assert len(found) - count <= repeated
    if delivery == "exactly_once":
        assert len(found) == count
        assert repeated == 0
    async with routing_daemon.client() as client:
        await phase(client, ROUTE, "everything", "Ready")


async def told(process, broker, metric):
    """What the routers of the daemon's target counted, as it is sampled."""
    known = DictSecrets(**{ADMIN_PASSWORD: admin_password(broker)})
    value = Target.model_validate(target_value(broker))
    backend = await connect(Connection("default", process.target, value, known))
    try:
        return sum(one.value for one in await backend.sample() if one.metric_type == metric)
    finally:
        await backend.close()


async def test_a_router_that_is_stopped_in_order_repeats_nothing(routing_daemon, kafka_broker):
    source, everything = await topics(kafka_broker, source=2, everything=1)
    value = {"target": routing_daemon.target, "source": source, "to": [everything]}
    sent, stopped = 0, asyncio.Event()

    async def flow(producer):
        nonlocal sent
        while not stopped.is_set():
            for _ in range(50):
                await producer.send(source, str(sent).encode(), str(sent).encode())
                sent += 1
            await asyncio.sleep(0.01)
        await producer.flush()

    async with producing(kafka_broker) as producer:
        async with routing_daemon.client() as client:
            await put(client, ROUTE, "everything", value)
        flowing = asyncio.create_task(flow(producer))
        try:
            for _ in range(2):
                before = sent
                async with asyncio.timeout(60):
                    while await told(routing_daemon, kafka_broker, "routed_total") <= before:
                        await asyncio.sleep(0.02)
                await routing_daemon.stop()
                await routing_daemon.start(**{ADMIN_PASSWORD: admin_password(kafka_broker)})
        finally:
            stopped.set()
            await flowing
        found = await until_there(kafka_broker, everything, sent)
    assert sorted(found) == list(range(sent))
    async with asyncio.timeout(60):  # the last batch is there before it is committed
        while await told(routing_daemon, kafka_broker, "routed_total") != sent:
            await asyncio.sleep(0.1)
    assert await told(routing_daemon, kafka_broker, "repeated_total") == 0


async def test_a_message_that_a_destination_refuses_is_buried_and_the_others_go_on(routing_daemon, kafka_broker):
    source, small, dead = await topics(kafka_broker, source=1, small=1, dead=1)
    async with by_hand(kafka_broker) as hand:
        await hand(lambda admin: admin.alter_configs([_limit(small)], raise_on_unknown=False))
    value = {"target": routing_daemon.target, "source": source, "to": [small]}
    async with routing_daemon.client() as client, producing(kafka_broker) as producer:
        await put(client, ROUTE, "small", {**value, "on_error": {"dead_letter": dead, "retries": 1}})
        for number, size in enumerate((1, 1, 90_000, 1, 1)):
            await producer.send_and_wait(source, str(number).zfill(size).encode(), b"key")
        assert sorted(await until_there(kafka_broker, small, 4)) == [0, 1, 3, 4]
        async with asyncio.timeout(60):
            while not (letters := await messages(kafka_broker, dead)):
                await asyncio.sleep(0.1)
        headers = {name: value.decode() for name, value in letters[0].headers}
        assert headers["coreplane.dead.offset"] == "2"
        assert "MessageSizeTooLarge" in headers["coreplane.dead.cause"]
        assert letters[0].value.lstrip(b"0") == b"2"
        assert await told(routing_daemon, kafka_broker, "routed_total") == 4
        assert await told(routing_daemon, kafka_broker, "dead_lettered_total") == 1
        assert await told(routing_daemon, kafka_broker, "failed_total") == 2, "the first try of it alone, and one more"


async def test_a_destination_that_is_missing_holds_up_its_own_route_alone_and_loses_nothing(
    routing_daemon, kafka_broker
):
    first, second, there = await topics(kafka_broker, first=1, second=1, there=1)
    missing = unique("missing")
    target = routing_daemon.target
    async with routing_daemon.client() as client, producing(kafka_broker) as producer:
        await put(client, ROUTE, "stuck", {"target": target, "source": first, "to": [missing]})
        await put(client, ROUTE, "fine", {"target": target, "source": second, "to": [there]})
        for number in range(20):
            await producer.send_and_wait(first, str(number).encode())
            await producer.send_and_wait(second, str(number).encode())
        assert sorted(await until_there(kafka_broker, there, 20)) == list(range(20))
        async with asyncio.timeout(60):
            while await told(routing_daemon, kafka_broker, "failed_total") < 5:
                await asyncio.sleep(0.1)
        async with by_hand(kafka_broker) as hand:
            await hand(lambda admin: admin.create_topics({missing: {"num_partitions": 1}}, wait_for_metadata=True))
        assert sorted(await until_there(kafka_broker, missing, 20)) == list(range(20))


def _limit(topic):
    from kafka.admin import ConfigResource, ConfigResourceType

    return ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "20000"})
