"""Clusters that are reached by TLS, with and without a login, and by SASL PLAIN; and what is said when they let nobody in."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError
from cryptography.hazmat.primitives import serialization

from controlplane.devstack import kafka
from controlplane.devstack.backend import Place
from controlplane.devstack.guardian import Guardian
from controlplane.devstack.ports import LOOPBACK, any_free
from controlplane.devstack.process import Server
from reconcilers.contract import BackendError, TerminalError, Unreachable
from tests.integration.backend_world import DictSecrets
from tests.integration.queue_world import ADMIN_PASSWORD, admin_password, sasl, unique, world
from tests.integration.test_queue_daemon import put
from tests.integration.test_queue_operations import a_topic, operate
from tests.integration.test_queue_routes import producing, topics, until_there
from tests.servers import DaemonProcess, SharedServer, program_of, started

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
KEYSTORE = "broker.pem"
PASSWORD = "open sesame"
PLAIN = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_clerk="{PASSWORD}";'


@dataclass(frozen=True)
class Secured:
    """A broker with TLS listeners beside those of the devstack's."""

    server: SharedServer
    ca_file: Path
    tls: str
    """host:port of the listener with TLS that lets everybody in."""
    sasl_tls: str
    """host:port of the one that asks who one is, by SCRAM or PLAIN."""

    def target(self, **security: Any) -> dict[str, Any]:
        """By TLS with the right authority; how else is said by `security`."""
        server = self.sasl_tls if security.get("protocol") == "SASL_SSL" else self.tls
        return {"bootstrap_servers": server, "security": {"ca_file": str(self.ca_file), **security}}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, guardian: Guardian) -> Iterator[Secured]:
    folder, authority = tmp_path_factory.mktemp("secured"), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    ports = any_free(), any_free()

    def prepare(place: Place) -> None:
        kafka.prepare(place)
        _issue(authority, place.home / KEYSTORE)
        path = place.home / kafka.PROPERTIES
        path.write_text(_with_tls(path.read_text(), place.home / KEYSTORE, *ports))

    async def start() -> Server:
        backend = replace(kafka.KAFKA, prepare=prepare)
        return await started(backend, folder, await program_of(kafka.KAFKA), guardian)

    server = SharedServer(start)
    yield Secured(server, folder / "ca.pem", *(f"{LOOPBACK}:{port}" for port in ports))
    server.end()


def _issue(authority: trustme.CA, path: Path) -> None:
    """A certificate of 127.0.0.1 with its key, in the one form of a key that Kafka reads."""
    made = authority.issue_cert(LOOPBACK)
    key = serialization.load_pem_private_key(made.private_key_pem.bytes(), None)
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    for pem in made.cert_chain_pems:
        pem.write_to_path(path, append=True)


def _with_tls(properties: str, keystore: Path, tls: int, sasl_tls: int) -> str:
    more = f"SSL://{LOOPBACK}:{tls},SASL_SSL://{LOOPBACK}:{sasl_tls},"
    text = re.sub(r"^((?:advertised\.)?listeners=)", rf"\1{more}", properties, flags=re.M)
    text = re.sub(r"^(listener\.security\.protocol\.map=.*)$", r"\1,SSL:SSL,SASL_SSL:SASL_SSL", text, flags=re.M)
    text = re.sub(r"^(sasl\.enabled\.mechanisms=.*)$", r"\1,PLAIN", text, flags=re.M)
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    return (
        text
        + f"""\
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
listener.name.sasl_plaintext.plain.sasl.jaas.config={PLAIN}
listener.name.sasl_ssl.plain.sasl.jaas.config={PLAIN}
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={scram}
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={scram}
super.users=User:ANONYMOUS;User:{kafka.ADMIN};User:clerk
"""
    )


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
    return DictSecrets(PW=PASSWORD)


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
    password = PASSWORD if target["security"]["username"] == "clerk" else admin_password(secured.server)
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
    async with AIOKafkaProducer(**options, sasl_plain_password=PASSWORD) as producer:
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
}


@pytest.mark.parametrize("why", REFUSED)
async def test_who_does_not_get_in_is_told_why(secured, why, tmp_path):
    target, reason, words = REFUSED[why]
    known = DictSecrets(WRONG="not this one", PW=PASSWORD)
    with pytest.raises(BackendError) as refused:
        async with world(secured.server, known, **target(secured, tmp_path)):
            """It doesn't come so far."""
    assert refused.value.reason == reason, refused.value
    assert isinstance(refused.value, Unreachable if reason == "NoTls" else TerminalError)
    assert words in refused.value.message
    assert "not this one" not in refused.value.message
