"""A log that three brokers keep: any of them may go at any moment, and without two nothing is acknowledged."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from controlplane.devstack.elasticsearch import credentials
from controlplane.devstack.ports import LOOPBACK
from controlplane.log.kafka import KafkaLog, examine, open_kafka
from controlplane.log.ports import Indeterminate, LogUnavailable
from controlplane.projection.elasticsearch_address import Address
from tests.contract.projection_stores import forget
from tests.integration.log_writers import SHARDS, each_write_counts_once, everything, nothing_is_lost_or_there_twice
from tests.kafka_cluster import NODES, KafkaCluster
from tests.servers import DaemonProcess, SharedServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture
def url(kafka_cluster: KafkaCluster) -> str:
    return f"kafka://{kafka_cluster.bootstrap}?prefix=t{uuid.uuid4().hex}"


@pytest.fixture
async def log(url: str) -> AsyncIterator[KafkaLog]:
    log = await open_kafka(url, shards=SHARDS)
    yield log
    await log.close()


@asynccontextmanager
async def without(cluster: KafkaCluster, *nodes: int) -> AsyncIterator[None]:
    """Inside, these have been killed."""
    for node in nodes:
        await cluster.kill_node(node)
    try:
        yield
    finally:
        await asyncio.gather(*map(cluster.start_node, nodes))
        await in_sync(cluster)


async def in_sync(cluster: KafkaCluster) -> None:
    """Until every copy is up to date: before that another one that goes may be the last but one."""
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        async with asyncio.timeout(90):
            while any(len(part["isr"]) < len(part["replicas"]) for part in await partitions(admin)):
                await asyncio.sleep(0.2)
    finally:
        await admin.close()


async def put_out(cluster: KafkaCluster, node: int) -> None:
    """Until the others have noticed that it is gone: its session has ended, and it leads nothing any more."""
    others = ",".join(f"{LOOPBACK}:{cluster.nodes[other].place.port}" for other in NODES if other != node)
    async with asyncio.timeout(60):
        while True:
            admin = AIOKafkaAdminClient(bootstrap_servers=others)
            await admin.start()
            try:
                with suppress(KafkaError, TimeoutError):
                    copied = [part for part in await partitions(admin) if len(part["replicas"]) > 1]
                    if all(part["leader"] not in (node, -1) for part in copied):
                        return
            finally:
                await admin.close()
            await asyncio.sleep(0.2)


async def partitions(admin: AIOKafkaAdminClient) -> list[dict[str, Any]]:
    """Of all topics."""
    described = await admin.describe_topics(await admin.list_topics())
    return [part for topic in described for part in topic["partitions"]]


async def leader(cluster: KafkaCluster, topic: str) -> int:
    """Node that leads its first partition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        (described,) = await admin.describe_topics([topic])
    finally:
        await admin.close()
    return int(described["partitions"][0]["leader"])


async def test_every_topic_has_a_copy_on_each_and_two_must_have_taken_a_record(log: KafkaLog, url: str):
    assert await examine(url, shards=SHARDS) == []


async def test_nothing_is_lost_when_whoever_leads_the_settings_is_killed(kafka_cluster: KafkaCluster, log: KafkaLog):
    async def outage() -> None:
        node = await leader(kafka_cluster, log.address.topic("settings"))
        async with without(kafka_cluster, node):
            await log.settings.append(b"without it")

    await nothing_is_lost_or_there_twice(log, outage)


async def test_writes_go_on_while_all_are_killed_one_after_the_other(kafka_cluster: KafkaCluster, log: KafkaLog):
    async def outage() -> None:
        for node in NODES:
            await kafka_cluster.kill_node(node)
            await kafka_cluster.start_node(node)

    await each_write_counts_once(log, outage)


async def test_without_two_of_them_nothing_is_acknowledged_and_with_them_it_goes_on(
    kafka_cluster: KafkaCluster, url: str
):
    log = await open_kafka(url, shards=SHARDS, send_timeout_s=3.0)
    await log.settings.append(b"before")
    async with without(kafka_cluster, *NODES[1:]):
        with pytest.raises((Indeterminate, LogUnavailable)):
            await log.settings.append(b"alone")
    async with asyncio.timeout(60):
        while True:
            with suppress(Indeterminate, LogUnavailable):
                await log.settings.append(b"after")
                break
    kept = await everything(log)
    await log.close()
    assert kept[0] == b"before"
    assert kept.count(b"alone") <= 1
    assert kept[-1] == b"after"


async def test_a_daemon_starts_without_one_of_them_and_goes_on_without_another(
    kafka_cluster: KafkaCluster, url: str, redis_server: Any, elasticsearch_server: SharedServer, tmp_path: Path
):
    name, password = credentials(elasticsearch_server.place)
    (tmp_path / "password").write_text(password)
    address = Address(elasticsearch_server.url, f"test-{uuid.uuid4().hex[:12]}")
    content = {
        "log": {"url": url, "shards": SHARDS},
        "projection": {
            "url": f"{address.url}?prefix={address.prefix}",
            "username": name,
            "password": {"from_file": str(tmp_path / "password")},
        },
        "runtime": {"backoff_cap_s": 2.0},
    }
    process = DaemonProcess(tmp_path / "coreplane", content)
    target = {"type": "cache.target", "name": "redis", "value": {"kind": "redis", "url": redis_server.url}}
    layers = [{"target": "redis", "ttl_s": 60}]
    carts = {"type": "cache.namespace", "name": "carts", "value": {"prefix": "cart:", "layers": layers}}
    made = await open_kafka(url, shards=SHARDS)  # with a copy of each topic on each of the three
    await made.close()
    try:
        async with without(kafka_cluster, 1):
            await put_out(kafka_cluster, 1)
            await process.start()
            async with process.client() as client:
                await client.apply([target])
                await projected(client, "default/cache.target/redis")
        async with without(kafka_cluster, 2), process.client() as client:
            await client.apply([carts])
            await projected(client, "default/cache.namespace/carts")
        await process.stop()
    finally:
        await process.clean_up()
        forget(elasticsearch_server, address)


async def projected(client: Any, key: str) -> None:
    """Until its convergence can be found in Elasticsearch."""
    async with asyncio.timeout(90):
        while not (await client.events(event_type="Converged", setting=key))["items"]:
            await asyncio.sleep(0.1)
