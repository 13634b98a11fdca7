"""Clusters that are reached by TLS, with and without a login, and by SASL PLAIN; and what is said when they let nobody in."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError

from controlplane.devstack import kafka
from controlplane.devstack.ports import LOOPBACK
from reconcilers.contract import BackendError, TerminalError, Unreachable
from tests.integration.backend_world import DictSecrets
from tests.integration.queue_world import ADMIN_PASSWORD, admin_password, sasl, unique, world
from tests.integration.test_queue_daemon import put
from tests.integration.test_queue_operations import a_topic, operate
from tests.integration.test_queue_routes import producing, topics, until_there
from tests.secured_servers import CLERK_PASSWORD, SecuredKafka
from tests.servers import DaemonProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture
def secured(secured_kafka: SecuredKafka) -> SecuredKafka:
    return secured_kafka


SCRAM = {"protocol": "SASL_SSL", "username": kafka.ADMIN, "password": {"from_env": ADMIN_PASSWORD}}
CLERK = {"mechanism": "PLAIN", "username": "clerk", "password": {"from_env": "PW"}}
WAYS = {
    "SCRAM-SHA-512 over TLS": lambda one: one.target(**SCRAM),
    "SCRAM-SHA-256 over TLS": lambda one: one.target(**SCRAM, mechanism="SCRAM-SHA-256"),
    "PLAIN over TLS": lambda one: one.target(**CLERK, protocol="SASL_SSL"),
    "TLS without a login": lambda one: one.target(protocol="SSL"),
    "PLAIN without TLS": lambda one: {
        "bootstrap_servers": sasl(one.server),
        "security": {**CLERK, "protocol": "SASL_PLAINTEXT"},
    },
}


def secrets() -> DictSecrets:
    return DictSecrets(PW=CLERK_PASSWORD)


@pytest.mark.parametrize("way", WAYS)
async def test_everything_works_whichever_way_one_comes_in(secured, way):
    """Administration, messages there and back, and the canary: each has clients of its own."""
    name = unique("alice")
    async with world(secured.server, secrets(), canary=True, **WAYS[way](secured)) as one:
        topic = await a_topic(one)
        acls = [{"resource": "topic", "name": topic, "operations": ["write", "describe"]}]
        user = {"username": name, "password": {"from_env": "PW"}, "acls": acls}
        assert await one.converge("queue.user", user) == ["SetCredential", "ChangeAcls"]
        assert await one.converge("queue.user", user) == []
        await operate(one, "publish", topic=topic, messages=[{"key": "k", "value": "hello"}])
        found = (await operate(one, "peek", topic=topic))["messages"]
        assert [message["value"] for message in found] == ["hello"]
        async with asyncio.timeout(30):
            while "canary_lost" not in (told := {row.metric_type: row.value for row in await one.backend.sample()}):
                await asyncio.sleep(0.1)
        assert told["canary_lost"] == 0
        assert told["delivery_s"] > 0


@pytest.mark.parametrize("way", ["SCRAM-SHA-512 over TLS", "PLAIN over TLS"])
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_messages_are_routed_whichever_way_the_routers_come_in(secured, way, delivery, tmp_path):
    source, copy = await topics(secured.server, source=1, copy=1)
    target = WAYS[way](secured)
    password = CLERK_PASSWORD if target["security"]["username"] == "clerk" else admin_password(secured.server)
    (tmp_path / "password").write_text(password)
    target["security"] |= {"password": {"from_file": str(tmp_path / "password")}}
    process = DaemonProcess(tmp_path / "coreplane", {"runtime": {"sweep_s": 1.0}})
    await process.start()
    try:
        async with process.client() as client, producing(secured.server) as producer:
            place = unique("main")
            await put(client, "queue.target", place, target)
            await put(
                client, "queue.route", "copy", {"target": place, "source": source, "to": [copy], "delivery": delivery}
            )
            for number in range(100):
                await producer.send(source, str(number).encode())
            assert sorted(await until_there(secured.server, copy, 100)) == list(range(100))
    finally:
        await process.clean_up()


async def test_a_declared_user_comes_in_by_tls_and_may_do_what_was_granted(secured):
    name = unique("alice")
    async with world(secured.server, secrets(), **secured.target(**SCRAM)) as one:
        mine, other = await a_topic(one), await a_topic(one)
        acls = [{"resource": "topic", "name": mine, "operations": ["write", "describe"]}]
        await one.converge("queue.user", {"username": name, "password": {"from_env": "PW"}, "acls": acls})
    options = {
        "bootstrap_servers": secured.sasl_tls,
        "security_protocol": "SASL_SSL",
        "ssl_context": ssl.create_default_context(cafile=secured.ca_file),
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": name,
    }
    async with AIOKafkaProducer(**options, sasl_plain_password=CLERK_PASSWORD) as producer:
        await producer.send_and_wait(mine, b"in")
        with pytest.raises(TopicAuthorizationFailedError):
            await producer.send_and_wait(other, b"in")
    refused = AIOKafkaProducer(**options, sasl_plain_password="wrong")
    with pytest.raises(KafkaConnectionError):
        await refused.start()
    await refused.stop()


def _other_authority(folder: Path) -> str:
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    return str(folder / "other.pem")


REFUSED = {
    "another authority": (
        lambda one, folder: one.target(**SCRAM) | {"security": {**SCRAM, "ca_file": _other_authority(folder)}},
        "CertificateNotTrusted",
        "security.ca_file",
    ),
    "the system's authorities": (
        lambda one, _: one.target() | {"security": {"protocol": "SSL"}},
        "CertificateNotTrusted",
        "security.ca_file",
    ),
    "a name that the certificate isn't of": (
        lambda one, _: one.target(protocol="SSL") | {"bootstrap_servers": one.tls.replace(LOOPBACK, "localhost")},
        "CertificateNotTrusted",
        "localhost",
    ),
    "a file that isn't there": (
        lambda one, folder: one.target(protocol="SSL") | {"security": {"protocol": "SSL", "ca_file": f"{folder}/none"}},
        "InvalidCaFile",
        "none",
    ),
    "TLS where there is none": (
        lambda one, _: one.target(**SCRAM) | {"bootstrap_servers": sasl(one.server)},
        "NoTls",
        "a listener without",
    ),
    "no TLS where there is some": (
        lambda one, _: {"bootstrap_servers": one.tls, "security": {"protocol": "PLAINTEXT"}},
        "TlsExpected",
        "must be SSL",
    ),
    "a login without TLS where there is some": (
        lambda one, _: {"bootstrap_servers": one.sasl_tls, "security": {**SCRAM, "protocol": "SASL_PLAINTEXT"}},
        "TlsExpected",
        "must be SASL_SSL",
    ),
    "another password by SCRAM": (
        lambda one, _: one.target(**SCRAM | {"password": {"from_env": "WRONG"}}),
        "AuthenticationFailed",
        kafka.ADMIN,
    ),
    "another password by PLAIN": (
        lambda one, _: one.target(**CLERK | {"password": {"from_env": "WRONG"}}, protocol="SASL_SSL"),
        "AuthenticationFailed",
        "clerk",
    ),
    "a login where nobody is asked for one": (
        lambda one, _: one.target(**SCRAM) | {"bootstrap_servers": one.tls},
        "LoginNotExpected",
        "with protocol SSL",
    ),
    "a mechanism that isn't enabled": (
        lambda one, _: {
            "bootstrap_servers": sasl(one.server),
            "security": {**SCRAM, "protocol": "SASL_PLAINTEXT", "mechanism": "SCRAM-SHA-256"},
        },
        "MechanismNotEnabled",
        "security.mechanism",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
async def test_who_does_not_get_in_is_told_why(secured, why, tmp_path):
    target, reason, words = REFUSED[why]
    known = DictSecrets(WRONG="not this one", PW=CLERK_PASSWORD)
    with pytest.raises(BackendError) as refused:
        async with world(secured.server, known, **target(secured, tmp_path)):
            """It doesn't come so far."""
    assert refused.value.reason == reason, refused.value
    assert isinstance(refused.value, Unreachable if reason == "NoTls" else TerminalError)
    assert words in refused.value.message
    assert "not this one" not in refused.value.message
