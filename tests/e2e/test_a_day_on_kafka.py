"""The whole daemon on a Kafka log, and what other people's consumers see of it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from kafka import KafkaConsumer

from tests.servers import DaemonProcess, SharedServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SHARDS = 4


def carts(ttl_s: int = 60) -> dict[str, Any]:
    layers = [{"target": "redis", "ttl_s": ttl_s}]
    return {"type": "cache.namespace", "name": "carts", "value": {"prefix": "cart:", "layers": layers}}


@pytest.fixture
def prefix() -> str:
    return f"t{uuid.uuid4().hex}"


@pytest.fixture
async def daemon(tmp_path: Path, kafka_broker: SharedServer, prefix: str) -> AsyncIterator[DaemonProcess]:
    """With nothing declared."""
    log = {"url": f"{kafka_broker.url}?prefix={prefix}", "shards": SHARDS}
    process = DaemonProcess(tmp_path / "coreplane", {"log": log, "runtime": {"backoff_cap_s": 2.0}})
    await process.start()
    yield process
    await process.clean_up()


def target(redis_server: Any) -> dict[str, Any]:
    return {"type": "cache.target", "name": "redis", "value": {"kind": "redis", "url": redis_server.url}}


async def ready(client: Any, type_: str, name: str) -> None:
    async with asyncio.timeout(60):
        while (await client.get_setting(type_, name))["status"]["phase"] != "Ready":
            await asyncio.sleep(0.05)


def consumed(broker: SharedServer, prefix: str, wanted: str) -> list[dict[str, Any]]:
    """A consumer as anybody would write it: picks by headers, and decodes only what it picked."""
    consumer = KafkaConsumer(
        f"{prefix}.events",
        bootstrap_servers=broker.url.removeprefix("kafka://"),
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        consumer_timeout_ms=3000,
    )
    events = []
    for record in consumer:
        headers = {name: value.decode() for name, value in record.headers}
        if headers["service"] == "cache" and headers["type"] == wanted:
            events.append({"key": record.key.decode(), "headers": headers, **msgpack.unpackb(record.value)})
    consumer.close()
    return events


async def test_a_consumer_of_somebody_else_reads_the_events_and_filters_them_by_their_headers(
    daemon: DaemonProcess, redis_server: Any, kafka_broker: SharedServer, prefix: str
):
    async with daemon.client() as client:
        await client.apply([target(redis_server), carts()])
        await ready(client, "cache.namespace", "carts")
    events = await asyncio.to_thread(consumed, kafka_broker, prefix, "SettingAccepted")
    assert {event["key"] for event in events} == {"default/cache.target/redis", "default/cache.namespace/carts"}
    for event in events:
        assert event["event_type"] == event["headers"]["type"]
        assert event["headers"] == {
            "type": "SettingAccepted",
            "service": "cache",
            "tenant": "default",
            "schema": "event.v1",
        }
    assert len({event["id"] for event in events}) == len(events)


async def test_change_requests_say_what_they_are_about_without_being_decoded(
    daemon: DaemonProcess, redis_server: Any, kafka_broker: SharedServer, prefix: str
):
    async with daemon.client() as client:
        await client.apply([target(redis_server)])
        await client.apply([carts(), {**carts(), "name": "more"}])
    consumer = KafkaConsumer(
        f"{prefix}.settings",
        bootstrap_servers=kafka_broker.url.removeprefix("kafka://"),
        auto_offset_reset="earliest",
        consumer_timeout_ms=3000,
    )
    records = await asyncio.to_thread(list, consumer)
    consumer.close()
    assert [record.key for record in records] == [b"default/cache.target/redis", None], "the second is about two"
    for record in records:
        assert {name: text.decode() for name, text in record.headers} == {
            "type": "ChangeRequest",
            "service": "cache",
            "tenant": "default",
            "schema": "record.v1",
        }
        placed = [change["body"]["target"] for change in msgpack.unpackb(record.value)["changes"]]
        assert set(placed) == {"redis"}


async def test_what_was_declared_is_there_after_the_daemon_was_killed(daemon: DaemonProcess, redis_server: Any):
    async with daemon.client() as client:
        await client.apply([target(redis_server), carts()])
        await ready(client, "cache.namespace", "carts")
        before = await client.get_setting("cache.namespace", "carts")
    await daemon.kill()
    await daemon.start()
    async with daemon.client() as client:
        await ready(client, "cache.namespace", "carts")
        after = await client.get_setting("cache.namespace", "carts")
    assert {name: after[name] for name in ("revision", "generation", "value")} == {
        name: before[name] for name in ("revision", "generation", "value")
    }


async def test_a_daemon_lives_through_a_restart_of_its_broker_and_says_so_meanwhile(
    daemon: DaemonProcess, redis_server: Any, kafka_broker: SharedServer
):
    async with daemon.client() as client:
        await client.apply([target(redis_server), carts()])
        await ready(client, "cache.namespace", "carts")
        await kafka_broker.kill()
        try:
            health = await client.health()
            async with asyncio.timeout(30):
                while health["ready"]:
                    health = await client.health()
            assert any(reason["part"] == "log" for reason in health["reasons"])
            assert (await client.get_setting("cache.namespace", "carts"))["value"]["layers"][0]["ttl_s"] == 60, (
                "reads go on"
            )
        finally:
            await kafka_broker.start()
        async with asyncio.timeout(60):
            while not (await client.health())["ready"]:
                await asyncio.sleep(0.05)
        await client.apply([carts(30)])
        async with asyncio.timeout(60):
            while True:
                found = await client.get_setting("cache.namespace", "carts")
                if found["status"]["phase"] == "Ready" and found["status"]["observed_generation"] == 2:
                    break
                await asyncio.sleep(0.05)
