"""Users, permissions and quotas on a real broker: they aren't only stored, they hold."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupAuthorizationFailedError, KafkaConnectionError, TopicAuthorizationFailedError
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from controlplane.devstack import kafka
from reconcilers.contract import TerminalError
from reconcilers.queue.data import publish
from schemas.queue_operations import Outgoing
from tests.integration.backend_world import DictSecrets
from tests.integration.queue_world import ADMIN_PASSWORD, by_hand, plain, sasl, unique, world
from tests.integration.test_queue_topics import orders

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
PASSWORD = "open sesame"
USER, ACLS, QUOTA, TOPIC = "queue.user", "queue.acl", "queue.quota", "queue.topic"


def secrets():
    return DictSecrets(PW=PASSWORD, NEXT="sesame, open")


def shop_user(**more):
    return {"password": {"from_env": "PW"}, **more}


def login(broker, name, password, mechanism="SCRAM-SHA-512"):
    return {
        "bootstrap_servers": sasl(broker),
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": name,
        "sasl_plain_password": password,
        "request_timeout_ms": 15_000,
    }


@asynccontextmanager
async def producing(*args, **more):
    """A producer that is logged in as the user."""
    producer = AIOKafkaProducer(**login(*args), **more)
    try:
        await producer.start()
        yield producer
    finally:
        await producer.stop()


async def gets_in(*args):
    try:
        async with producing(*args):
            return True
    except KafkaConnectionError:
        return False


async def test_a_declared_user_gets_in_with_its_password_and_no_other(kafka_broker):
    name = unique("alice")
    async with world(kafka_broker, secrets()) as one:
        assert await one.converge(USER, shop_user(username=name)) == ["SetCredential"]
        assert await one.converge(USER, shop_user(username=name)) == []
        assert await gets_in(kafka_broker, name, PASSWORD)
        assert not await gets_in(kafka_broker, name, "wrong")
        rotated = shop_user(username=name) | {"password": {"from_env": "NEXT"}}
        assert await one.converge(USER, rotated) == ["SetCredential"]
        assert await gets_in(kafka_broker, name, "sesame, open")
        assert not await gets_in(kafka_broker, name, PASSWORD)


async def test_the_secret_behind_a_reference_changed_and_is_written_again(kafka_broker):
    name, known = unique("alice"), secrets()
    async with world(kafka_broker, known) as one:
        await one.converge(USER, shop_user(username=name))
        known.known["PW"] = "a new one"
        plan = await one.look(USER, shop_user(username=name))
        assert [difference.path for difference in plan.differences] == ["/password"]
        assert "a new one" not in repr(plan)
        assert PASSWORD not in repr(plan) + repr(one.remembered)
        await one.converge(USER, shop_user(username=name))
        assert await gets_in(kafka_broker, name, "a new one")


async def test_another_mechanism_is_another_way_in_and_is_closed(kafka_broker):
    name = unique("alice")
    async with world(kafka_broker, secrets()) as one:
        await one.converge(USER, shop_user(username=name, mechanism="SCRAM-SHA-256"))
        assert await gets_in(kafka_broker, name, PASSWORD, "SCRAM-SHA-256")
        steps = await one.converge(USER, shop_user(username=name, mechanism="SCRAM-SHA-512"))
        assert steps == ["SetCredential", "DropCredential"]
        assert not await gets_in(kafka_broker, name, PASSWORD, "SCRAM-SHA-256")
        assert await gets_in(kafka_broker, name, PASSWORD)


async def test_what_is_granted_works_and_what_is_not_is_refused(kafka_broker):
    name, mine, other = unique("alice"), unique("mine"), unique("other")
    acls = [{"resource": "topic", "name": "mine-", "pattern": "prefixed", "operations": ["write", "describe"]}]
    async with world(kafka_broker, secrets()) as one:
        for topic in (mine, other):
            await one.converge(TOPIC, orders(topic), topic)
        await one.converge(USER, shop_user(username=name, acls=acls))
        async with producing(kafka_broker, name, PASSWORD) as producer:
            await producer.send_and_wait(mine, b"in")
            with pytest.raises(TopicAuthorizationFailedError):
                await producer.send_and_wait(other, b"in")
        assert await one.converge(USER, shop_user(username=name, acls=[])) == ["ChangeAcls"]
        async with producing(kafka_broker, name, PASSWORD) as producer:
            with pytest.raises(TopicAuthorizationFailedError):
                await producer.send_and_wait(mine, b"in")


async def test_what_is_denied_is_refused_although_more_is_granted(kafka_broker):
    name, mine, secret = unique("alice"), unique("mine"), unique("mine-secret")
    write = {"resource": "topic", "operations": ["write", "describe"]}
    acls = [
        {**write, "name": "mine-", "pattern": "prefixed"},
        {**write, "name": secret, "permission": "deny", "host": "127.0.0.1"},
        {**write, "name": mine, "permission": "deny", "host": "10.1.2.3"},
        {"resource": "transactional_id", "name": "mine-", "pattern": "prefixed", "operations": ["write", "describe"]},
    ]
    async with world(kafka_broker, secrets()) as one:
        for topic in (mine, secret):
            await one.converge(TOPIC, orders(topic), topic)
        await one.converge(USER, shop_user(username=name, acls=acls))
        assert await one.converge(USER, shop_user(username=name, acls=acls)) == []
        async with (
            producing(kafka_broker, name, PASSWORD, transactional_id="mine-1") as producer,
            producer.transaction(),
        ):
            await producer.send_and_wait(mine, b"in")
        async with producing(kafka_broker, name, PASSWORD) as producer:
            with pytest.raises(TopicAuthorizationFailedError):
                await producer.send_and_wait(secret, b"in")


async def test_a_permission_that_somebody_gave_by_hand_is_taken_away_and_one_that_is_missing_given(kafka_broker):
    name = unique("alice")
    acls = [{"resource": "topic", "name": "news", "operations": ["read", "describe"]}]
    acls += [
        {"resource": "group", "name": "*", "operations": ["read"]},
        {"resource": "cluster", "operations": ["create"]},
    ]
    async with world(kafka_broker, secrets()) as one, by_hand(kafka_broker) as hand:
        await one.converge(USER, shop_user(username=name, acls=acls))
        pattern = ResourcePattern(ResourceType.TOPIC, "*")
        everything = ACL(f"User:{name}", "*", ACLOperation.ALL, ACLPermissionType.ALLOW, pattern)
        await hand(lambda admin: admin.create_acls([everything]))
        async with asyncio.timeout(30):
            while (plan := await one.look(USER, shop_user(username=name, acls=acls))).converged:
                await asyncio.sleep(0.1)
        assert plan.differences == (("/acls", [], ["allow all topic * (literal, *)"]),)
        assert await one.converge(USER, shop_user(username=name, acls=acls)) == ["ChangeAcls"]


async def test_permissions_and_quotas_that_are_not_declared_are_somebody_else_s(kafka_broker):
    name = unique("alice")
    async with world(kafka_broker, secrets()) as one:
        await one.converge(USER, shop_user(username=name))
        mine = [{"resource": "topic", "name": "news", "operations": ["read"]}]
        principal = {"principal": f"User:{name}", "acls": mine}
        assert await one.converge(ACLS, principal) == ["ChangeAcls"]
        limits = {"user": name, "quotas": {"request_percentage": 50}}
        assert await one.converge(QUOTA, limits) == ["SetQuotas"]
        assert await one.converge(USER, shop_user(username=name)) == []
        assert await one.converge(USER, shop_user(username=name), retiring=True) == ["DropCredential"]
        assert await one.converge(ACLS, principal) == []
        assert await one.converge(QUOTA, limits) == []
        assert await one.converge(ACLS, principal, retiring=True) == ["ChangeAcls"]
        assert await one.converge(QUOTA, limits, retiring=True) == ["SetQuotas"]


async def test_a_retired_user_takes_its_permissions_and_quotas_with_it(kafka_broker):
    name = unique("alice")
    acls = [{"resource": "topic", "name": "news", "operations": ["read"]}]
    value = shop_user(username=name, acls=acls, quotas={"producer_byte_rate": 5000})
    async with world(kafka_broker, secrets()) as one:
        assert await one.converge(USER, value) == ["SetCredential", "ChangeAcls", "SetQuotas"]
        assert await one.converge(USER, value, retiring=True) == ["SetQuotas", "ChangeAcls", "DropCredential"]
        assert not await gets_in(kafka_broker, name, PASSWORD)
        assert (await one.look(ACLS, {"principal": f"User:{name}", "acls": acls}, retiring=True)).converged
        assert (await one.look(QUOTA, {"user": name, "quotas": {}}, retiring=True)).converged


async def written_s(broker, name, topic):
    """Seconds for 240 kB in twelve requests."""
    async with producing(broker, name, PASSWORD) as producer:
        begun = time.monotonic()
        for _ in range(12):
            await producer.send_and_wait(topic, bytes(20_000))
        return time.monotonic() - begun


async def read_s(broker, name, topic):
    """Seconds for reading the first 240 kB, a message at a time."""
    consumer = AIOKafkaConsumer(
        **login(broker, name, PASSWORD), auto_offset_reset="earliest", max_partition_fetch_bytes=20_000
    )
    try:
        await consumer.start()
        consumer.assign([TopicPartition(topic, 0)])
        begun = time.monotonic()
        for _ in range(12):
            await consumer.getone()
        return time.monotonic() - begun
    finally:
        await consumer.stop()


SLOW = {
    "producer_byte_rate": (10_000, written_s),  # what exceeds it over the last 10 s is paid for with silence
    "consumer_byte_rate": (10_000, read_s),
    "request_percentage": (0.01, written_s),  # a tenth of a millisecond a second
}


@pytest.mark.parametrize("limit", SLOW)
async def test_a_quota_slows_its_user_down(kafka_broker, limit):
    name, topic, (rate, work_s) = unique("alice"), unique("mine"), SLOW[limit]
    acls = [{"resource": "topic", "name": topic, "operations": ["read", "write", "describe"]}]
    async with world(kafka_broker, secrets()) as one:
        await one.converge(TOPIC, orders(topic, partitions=1), topic)
        value = shop_user(username=name, acls=acls)
        await one.converge(USER, value)
        await publish(one.backend.client_options, topic, [Outgoing(value="x" * 20_000)] * 12)
        assert await one.converge(USER, value | {"quotas": {limit: rate}}) == ["SetQuotas"]
        throttled_s = await work_s(kafka_broker, name, topic)
        assert await one.converge(USER, value | {"quotas": {}}) == ["SetQuotas"]
        assert throttled_s > 3 * await work_s(kafka_broker, name, topic)


async def test_quotas_of_defaults_clients_and_addresses(kafka_broker):
    name = unique("app")
    async with world(kafka_broker, secrets()) as one:
        for value in (
            {"user": name, "client_id": "batch", "quotas": {"consumer_byte_rate": 1e6}},
            {"user": name, "client_id": "<default>", "quotas": {"consumer_byte_rate": 2e6}},
            {"client_id": name, "quotas": {"producer_byte_rate": 3e6, "controller_mutation_rate": 10}},
            {"ip": "10.1.2.3", "connection_creation_rate": 5},
        ):
            assert await one.converge(QUOTA, value) == ["SetQuotas"]
            assert await one.converge(QUOTA, value) == []
            assert await one.converge(QUOTA, value, retiring=True) == ["SetQuotas"]


async def test_the_daemon_does_not_lock_itself_out(kafka_broker):
    async with world(kafka_broker, secrets()) as one:
        own = {"username": kafka.ADMIN, "mechanism": "SCRAM-SHA-512", "iterations": 4096}
        for value, words in (
            ({**own, "password": {"from_env": "PW"}}, "another password"),
            ({**own, "mechanism": "SCRAM-SHA-256", "password": {"from_env": ADMIN_PASSWORD}}, "logs in by"),
            (
                {
                    **own,
                    "password": {"from_env": ADMIN_PASSWORD},
                    "acls": [{"resource": "cluster", "operations": ["alter"], "permission": "deny"}],
                },
                "lose permissions",
            ),
        ):
            plan = await one.look(USER, value)
            assert plan.steps == ()
            assert plan.blocked is not None
            assert plan.blocked.reason == "SelfLockout"
            assert words in plan.blocked.message
        denied = [{"resource": "topic", "name": "*", "operations": ["describe"], "permission": "deny"}]
        with pytest.raises(TerminalError) as refused:
            await one.look(ACLS, {"principal": f"User:{kafka.ADMIN}", "acls": denied})
        assert refused.value.reason == "SelfLockout"
        plan = await one.look(USER, {**own, "password": {"from_env": ADMIN_PASSWORD}}, retiring=True)
        assert plan.blocked is not None
        assert plan.blocked.reason == "SelfLockout"


async def test_no_limit_holds_the_daemon_up(kafka_broker):
    """Not its own, nor one for everybody or every client, unless it has one of its own that leaves it room."""
    slow, room = {"producer_byte_rate": 1000}, {"producer_byte_rate": 1e9}
    own = {"username": kafka.ADMIN, "password": {"from_env": ADMIN_PASSWORD}, "quotas": slow}
    everybody = {"user": "<default>", "quotas": slow}
    async with world(kafka_broker, secrets()) as one:
        for setting_type, value in (
            (USER, own),
            (QUOTA, {"user": kafka.ADMIN, "quotas": slow}),
            (QUOTA, everybody),
            (QUOTA, {"client_id": "<default>", "quotas": slow}),
            (QUOTA, {"client_id": "coreplane", "quotas": slow}),
            (QUOTA, {"ip": "127.0.0.1", "connection_creation_rate": 1}),
        ):
            with pytest.raises(TerminalError) as refused:
                await one.look(setting_type, value)
            assert refused.value.reason == "SelfThrottled"
        mine = {"user": kafka.ADMIN, "quotas": room}
        assert await one.converge(QUOTA, mine) == ["SetQuotas"]
        try:
            assert await one.converge(QUOTA, everybody) == ["SetQuotas"]
            with pytest.raises(TerminalError, match="give user admin"):
                await one.look(QUOTA, mine, retiring=True)
            topic = unique("mine")
            await one.converge(TOPIC, orders(topic), topic)
            begun = time.monotonic()
            await publish(one.backend.client_options, topic, [Outgoing(value="x" * 20_000)] * 12)
            assert time.monotonic() - begun < 60, "at 1 kB/s it would take minutes"
        finally:
            assert await one.converge(QUOTA, everybody, retiring=True) == ["SetQuotas"]
        assert await one.converge(QUOTA, mine, retiring=True) == ["SetQuotas"]


async def test_a_login_that_is_not_scram_is_guarded_too(kafka_broker):
    """Whoever comes in without a login is ANONYMOUS, who may be given and denied as everybody."""
    server = {"bootstrap_servers": plain(kafka_broker), "security": {"protocol": "PLAINTEXT"}}
    denied = [{"resource": "topic", "name": "*", "operations": ["describe"], "permission": "deny"}]
    async with world(kafka_broker, secrets(), **server) as one:
        for principal in ("User:ANONYMOUS", "User:*"):
            with pytest.raises(TerminalError) as refused:
                await one.look(ACLS, {"principal": principal, "acls": denied})
            assert refused.value.reason == "SelfLockout"
        with pytest.raises(TerminalError) as refused:
            await one.look(QUOTA, {"user": "ANONYMOUS", "quotas": {"request_percentage": 1}})
        assert refused.value.reason == "SelfThrottled"


async def test_a_consumer_of_a_granted_group_reads_and_another_group_is_refused(kafka_broker):
    name, topic = unique("alice"), unique("mine")
    acls = [
        {"resource": "topic", "name": topic, "operations": ["read", "write", "describe"]},
        {"resource": "group", "name": "mine", "operations": ["read"]},
    ]
    async with world(kafka_broker, secrets()) as one:
        await one.converge(TOPIC, orders(topic), topic)
        await one.converge(USER, shop_user(username=name, acls=acls))
        async with producing(kafka_broker, name, PASSWORD) as producer:
            await producer.send_and_wait(topic, b"read me")
        options = login(kafka_broker, name, PASSWORD)
        message = await first_of(AIOKafkaConsumer(topic, group_id="mine", auto_offset_reset="earliest", **options))
        assert message.value == b"read me"
        with pytest.raises(GroupAuthorizationFailedError):
            await first_of(AIOKafkaConsumer(topic, group_id="theirs", auto_offset_reset="earliest", **options))


async def test_who_may_create_topics_in_the_cluster_does_and_nobody_else(kafka_broker):
    name, topic = unique("alice"), unique("made")
    may = [{"resource": "cluster", "operations": ["create"]}]
    async with world(kafka_broker, secrets()) as one:
        for acls, result in ((may, 0), ([], 29)):
            await one.converge(USER, shop_user(username=name, acls=acls))
            admin = AIOKafkaAdminClient(**login(kafka_broker, name, PASSWORD))
            try:
                await admin.start()
                made = await admin.create_topics([NewTopic(f"{topic}-{result}", 1, 1)])
                assert [error[1] for error in made.topic_errors] == [result]
            finally:
                await admin.close()


async def first_of(consumer):
    """The first message of its topic."""
    try:
        await consumer.start()
        async with asyncio.timeout(60):
            return await consumer.getone()
    finally:
        await consumer.stop()
