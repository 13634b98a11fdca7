"""Users, permissions and quotas on a real broker: they aren't only stored, they hold."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import GroupAuthorizationFailedError, KafkaConnectionError, TopicAuthorizationFailedError
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from controlplane.devstack import kafka
from reconcilers.contract import TerminalError
from tests.integration.backend_world import DictSecrets
from tests.integration.queue_world import ADMIN_PASSWORD, by_hand, sasl, unique, world
from tests.integration.test_queue_topics import orders

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
USER, ACLS, QUOTA, TOPIC = "queue.user", "queue.acl", "queue.quota", "queue.topic"


def secrets():
    return DictSecrets(PW="open sesame", NEXT="sesame, open")


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
        assert await gets_in(kafka_broker, name, "open sesame")
        assert not await gets_in(kafka_broker, name, "wrong")
        rotated = shop_user(username=name) | {"password": {"from_env": "NEXT"}}
        assert await one.converge(USER, rotated) == ["SetCredential"]
        assert await gets_in(kafka_broker, name, "sesame, open")
        assert not await gets_in(kafka_broker, name, "open sesame")


async def test_the_secret_behind_a_reference_changed_and_is_written_again(kafka_broker):
    name, known = unique("alice"), secrets()
    async with world(kafka_broker, known) as one:
        await one.converge(USER, shop_user(username=name))
        known.known["PW"] = "a new one"
        plan = await one.look(USER, shop_user(username=name))
        assert [difference.path for difference in plan.differences] == ["/password"]
        assert "a new one" not in repr(plan)
        assert "open sesame" not in repr(plan) + repr(one.remembered)
        await one.converge(USER, shop_user(username=name))
        assert await gets_in(kafka_broker, name, "a new one")


async def test_another_mechanism_is_another_way_in_and_is_closed(kafka_broker):
    name = unique("alice")
    async with world(kafka_broker, secrets()) as one:
        await one.converge(USER, shop_user(username=name, mechanism="SCRAM-SHA-256"))
        assert await gets_in(kafka_broker, name, "open sesame", "SCRAM-SHA-256")
        steps = await one.converge(USER, shop_user(username=name, mechanism="SCRAM-SHA-512"))
        assert steps == ["SetCredential", "DropCredential"]
        assert not await gets_in(kafka_broker, name, "open sesame", "SCRAM-SHA-256")
        assert await gets_in(kafka_broker, name, "open sesame")


async def test_what_is_granted_works_and_what_is_not_is_refused(kafka_broker):
    name, mine, other = unique("alice"), unique("mine"), unique("other")
    acls = [{"resource": "topic", "name": "mine-", "pattern": "prefixed", "operations": ["write", "describe"]}]
    async with world(kafka_broker, secrets()) as one:
        for topic in (mine, other):
            await one.converge(TOPIC, orders(topic), topic)
        await one.converge(USER, shop_user(username=name, acls=acls))
        async with producing(kafka_broker, name, "open sesame") as producer:
            await producer.send_and_wait(mine, b"in")
            with pytest.raises(TopicAuthorizationFailedError):
                await producer.send_and_wait(other, b"in")
        assert await one.converge(USER, shop_user(username=name, acls=[])) == ["ChangeAcls"]
        async with producing(kafka_broker, name, "open sesame") as producer:
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
            producing(kafka_broker, name, "open sesame", transactional_id="mine-1") as producer,
            producer.transaction(),
        ):
            await producer.send_and_wait(mine, b"in")
        async with producing(kafka_broker, name, "open sesame") as producer:
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
        assert not await gets_in(kafka_broker, name, "open sesame")
        assert (await one.look(ACLS, {"principal": f"User:{name}", "acls": acls}, retiring=True)).converged
        assert (await one.look(QUOTA, {"user": name, "quotas": {}}, retiring=True)).converged


async def test_a_quota_slows_its_user_down(kafka_broker):
    name, topic = unique("alice"), unique("mine")
    acls = [{"resource": "topic", "name": topic, "operations": ["write", "describe"]}]
    async with world(kafka_broker, secrets()) as one:
        await one.converge(TOPIC, orders(topic), topic)
        value = shop_user(username=name, acls=acls, quotas={"producer_byte_rate": 10_000})
        await one.converge(USER, value)
        async with producing(kafka_broker, name, "open sesame") as producer:
            begun = time.monotonic()
            for _ in range(12):  # 240 kB: what exceeds 10 kB/s over the last 10 s is paid for with silence
                await producer.send_and_wait(topic, bytes(20_000))
        throttled_s = time.monotonic() - begun
        assert await one.converge(USER, value | {"quotas": {}}) == ["SetQuotas"]
        async with producing(kafka_broker, name, "open sesame") as producer:
            begun = time.monotonic()
            for _ in range(12):
                await producer.send_and_wait(topic, bytes(20_000))
        assert throttled_s > 3 * (time.monotonic() - begun)


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


async def test_a_consumer_of_a_granted_group_reads_and_another_group_is_refused(kafka_broker):
    name, topic = unique("alice"), unique("mine")
    acls = [
        {"resource": "topic", "name": topic, "operations": ["read", "write", "describe"]},
        {"resource": "group", "name": "mine", "operations": ["read"]},
    ]
    async with world(kafka_broker, secrets()) as one:
        await one.converge(TOPIC, orders(topic), topic)
        await one.converge(USER, shop_user(username=name, acls=acls))
        async with producing(kafka_broker, name, "open sesame") as producer:
            await producer.send_and_wait(topic, b"read me")
        options = login(kafka_broker, name, "open sesame")
        message = await first_of(AIOKafkaConsumer(topic, group_id="mine", auto_offset_reset="earliest", **options))
        assert message.value == b"read me"
        with pytest.raises(GroupAuthorizationFailedError):
            await first_of(AIOKafkaConsumer(topic, group_id="theirs", auto_offset_reset="earliest", **options))


async def first_of(consumer):
    """The first message of its topic."""
    try:
        await consumer.start()
        async with asyncio.timeout(60):
            return await consumer.getone()
    finally:
        await consumer.stop()
