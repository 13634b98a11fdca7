"""A Kafka log that is reached by TLS, SCRAM or PLAIN, with a login that may do no more than it must; and who isn't let in."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from controlplane.devstack import kafka
from controlplane.devstack.elasticsearch import credentials
from controlplane.devstack.ports import LOOPBACK
from controlplane.log.kafka import KafkaLog, mend, open_kafka
from controlplane.log.kafka_address import PASSWORD_VARIABLE, PERMISSIONS
from controlplane.log.ports import Commit, LogUnavailable, Outgoing, Place, Stream
from schemas.names import timestamp
from tests.integration.backend_world import DictSecrets
from tests.integration.queue_world import admin_password, plain, sasl, unique, world
from tests.secured_servers import CLERK_PASSWORD, SecuredElasticsearch, SecuredKafka
from tests.servers import DaemonProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

SHARDS = 2
EVERY_PASSWORD = {kafka.ADMIN: admin_password, "clerk": lambda _: CLERK_PASSWORD}
PASSWORD, WRONG = "let me in please", "not this one"


@pytest.fixture
def prefix() -> str:
    return f"t{uuid.uuid4().hex[:12]}"


def environment(secured: SecuredKafka, url: str) -> dict[str, str]:
    """With the password of the user that the URL names."""
    user = url.removeprefix("kafka://").rpartition("@")[0]
    return {PASSWORD_VARIABLE: EVERY_PASSWORD[user](secured.server)} if user else {}


async def opened(secured: SecuredKafka, url: str) -> KafkaLog:
    return await open_kafka(url, shards=SHARDS, environment=environment(secured, url))


WAYS = {
    "TLS without a login": lambda one: f"kafka://{one.tls}?tls=true&ca_file={one.ca_file}",
    "SCRAM-SHA-512 over TLS": lambda one: f"kafka://admin@{one.sasl_tls}?tls=true&ca_file={one.ca_file}",
    "SCRAM-SHA-256 over TLS": lambda one: (
        f"kafka://admin@{one.sasl_tls}?tls=true&ca_file={one.ca_file}&mechanism=SCRAM-SHA-256"
    ),
    "PLAIN over TLS": lambda one: f"kafka://clerk@{one.sasl_tls}?tls=true&ca_file={one.ca_file}&mechanism=PLAIN",
    "SCRAM without TLS": lambda one: f"kafka://admin@{sasl(one.server)}?tls=false",
}


@pytest.mark.parametrize("way", WAYS)
async def test_everything_works_whichever_way_one_comes_in(secured_kafka: SecuredKafka, prefix: str, way: str):
    """Topics, settings, transactions, tails, the group of the replicas, and mending: each has clients of its own."""
    url = f"{WAYS[way](secured_kafka)}&prefix={prefix}"
    log = await opened(secured_kafka, url)
    try:
        await log.settings.append(b"1")
        assert [record.data for record in await log.settings.read(0)] == [b"1"]
        writer = await log.journal.open_shard(0)
        await writer.commit(Commit([Outgoing("key", b"event")]))
        tail = log.journal.tail({Place(Stream.EVENTS, 0): 0})
        async with asyncio.timeout(20):
            assert [entry.key for entry in await anext(tail)] == ["key"]
        await tail.aclose()
        assert await owned(log) == {0, 1}
    finally:
        await log.close()
    await spoil(secured_kafka, f"{prefix}.settings")
    with pytest.raises(LogUnavailable, match=r"retention\.ms=-1"):
        await opened(secured_kafka, url)
    assert await mend(url, shards=SHARDS, environment=environment(secured_kafka, url)) != []
    log = await opened(secured_kafka, url)
    await log.close()


async def owned(log: KafkaLog) -> frozenset[int]:
    """The shards that the group gives us."""
    given: asyncio.Queue[frozenset[int]] = asyncio.Queue()

    async def revoked() -> None: ...

    following = asyncio.create_task(log.membership.follow(revoked, given.put_nowait))
    try:
        async with asyncio.timeout(30):
            while not (shards := await given.get()):
                """The group has not decided yet."""
            return shards
    finally:
        following.cancel()
        await asyncio.wait([following])


async def spoil(secured: SecuredKafka, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=plain(secured.server))
    await admin.start()
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "1000"})])
    await admin.close()


def foreign(folder: Path) -> Path:
    trustme.CA().cert_pem.write_to_path(folder / "foreign.pem")
    return folder / "foreign.pem"


REFUSED = {
    "another authority": (
        lambda one, folder: f"kafka://{one.tls}?tls=true&ca_file={foreign(folder)}",
        "ca_file in log.url must hold the authority",
    ),
    "the system's authorities": (
        lambda one, _: f"kafka://{one.tls}?tls=true",
        "ca_file in log.url must hold the authority",
    ),
    "a name that the certificate isn't of": (
        lambda one, _: f"kafka://{one.tls.replace(LOOPBACK, 'localhost')}?tls=true&ca_file={one.ca_file}",
        "the certificate the server's name",
    ),
    "a file that isn't there": (
        lambda one, folder: f"kafka://{one.tls}?tls=true&ca_file={folder}/none",
        "ca_file in log.url .*/none",
    ),
    "TLS where there is none": (
        lambda one, _: f"kafka://{plain(one.server)}?tls=true&ca_file={one.ca_file}",
        "leave tls=true out",
    ),
    "no TLS where there is some": (lambda one, _: f"kafka://{one.tls}?tls=false", "add tls=true to log.url"),
    "a login without TLS where there is some": (
        lambda one, _: f"kafka://admin@{one.sasl_tls}?tls=false",
        "add tls=true to log.url",
    ),
    "another password by SCRAM": (
        lambda one, _: f"kafka://admin@{one.sasl_tls}?tls=true&ca_file={one.ca_file}",
        f"{kafka.ADMIN}.*{PASSWORD_VARIABLE} the password",
    ),
    "another password by PLAIN": (
        lambda one, _: f"kafka://clerk@{one.sasl_tls}?tls=true&ca_file={one.ca_file}&mechanism=PLAIN",
        f"clerk.*{PASSWORD_VARIABLE} the password",
    ),
    "a login where nobody is asked for one": (
        lambda one, _: f"kafka://admin@{one.tls}?tls=true&ca_file={one.ca_file}",
        "leave the user out",
    ),
    "a mechanism that isn't enabled": (
        lambda one, _: f"kafka://admin@{sasl(one.server)}?mechanism=SCRAM-SHA-256",
        "a mechanism that it has enabled",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
async def test_who_is_not_let_in_is_told_why(secured_kafka: SecuredKafka, why: str, tmp_path: Path):
    url, words = REFUSED[why]
    with pytest.raises(LogUnavailable, match=words) as refused:
        await open_kafka(url(secured_kafka, tmp_path), shards=SHARDS, environment={PASSWORD_VARIABLE: WRONG})
    assert WRONG not in str(refused.value)


def permissions(prefix: str, **without: str) -> list[dict[str, Any]]:
    """All that are told to be needed, but for one. `without`: resource → operation."""
    return [
        {"resource": resource, "name": prefix, "pattern": "prefixed", "operations": operations}
        for resource, told in PERMISSIONS.items()
        if (operations := [operation for operation in told if operation != without.get(resource)])
    ]


async def user(secured: SecuredKafka, acls: list[dict[str, Any]]) -> str:
    """Who may just this."""
    name = unique("coreplane")
    declared = {"username": name, "password": {"from_env": "PW"}, "acls": acls}
    async with world(secured.server, DictSecrets(PW=PASSWORD)) as one:
        await one.converge("queue.user", declared)
    return name


@pytest.mark.parametrize(
    ("resource", "operation"), [("topic", "create"), ("topic", "write"), ("transactional_id", "write")]
)
async def test_who_may_too_little_is_told_what_is_needed(
    secured_kafka: SecuredKafka, prefix: str, resource: str, operation: str
):
    name = await user(secured_kafka, permissions(prefix, **{resource: operation}))
    url = f"kafka://{name}@{secured_kafka.sasl_tls}?tls=true&ca_file={secured_kafka.ca_file}&prefix={prefix}"

    async def work() -> None:
        async with using(await open_kafka(url, shards=SHARDS, environment={PASSWORD_VARIABLE: PASSWORD})) as log:
            await log.journal.open_shard(0)

    with pytest.raises(LogUnavailable, match=f"on all that begins with {prefix} its login needs topic: create"):
        await work()


@asynccontextmanager
async def using(log: KafkaLog) -> AsyncIterator[KafkaLog]:
    try:
        yield log
    finally:
        await log.close()


async def test_a_daemon_works_by_tls_with_no_more_than_the_permissions_that_are_told(
    secured_kafka: SecuredKafka,
    secured_elasticsearch: SecuredElasticsearch,
    redis_server: Any,
    prefix: str,
    tmp_path: Path,
):
    """From the declaration to the event in Elasticsearch, which is reached by TLS, too."""
    login = await user(secured_kafka, permissions(prefix))
    name, password = credentials(secured_elasticsearch.server.place)
    (tmp_path / "password").write_text(password)
    where = f"{secured_elasticsearch.server.url}?prefix={prefix}&ca_file={secured_elasticsearch.ca_file}"
    url = f"kafka://{login}@{secured_kafka.sasl_tls}?tls=true&ca_file={secured_kafka.ca_file}&prefix={prefix}"
    content = {
        "log": {"url": url, "shards": SHARDS},
        "projection": {
            "url": where,
            "username": name,
            "password": {"from_file": str(tmp_path / "password")},
        },
    }
    process = DaemonProcess(tmp_path / "coreplane", content)
    await process.start(**{PASSWORD_VARIABLE: PASSWORD})
    try:
        async with process.client() as client:
            target = {"type": "cache.target", "name": "redis", "value": {"kind": "redis", "url": redis_server.url}}
            await client.apply([target])
            async with asyncio.timeout(90):
                while not (await client.events(event_type="Converged"))["items"]:
                    await asyncio.sleep(0.1)
        await process.stop()
    finally:
        await process.clean_up()
    async with using(await open_kafka(url, shards=SHARDS, environment={PASSWORD_VARIABLE: PASSWORD})) as log:
        assert await log.journal.trim(Stream.EVENTS, timestamp(time.time() + 1)) > 0
    said = (tmp_path / "coreplane" / "daemon.log").read_text()
    assert PASSWORD not in said
    assert password not in said
