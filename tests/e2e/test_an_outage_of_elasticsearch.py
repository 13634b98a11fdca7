"""A daemon on Kafka and Elasticsearch while Elasticsearch is away: what it says, and that nothing is missing afterwards."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controlplane.devstack.elasticsearch import credentials
from controlplane.projection.elasticsearch_address import Address
from tests.contract.projection_stores import forget
from tests.e2e.conditions import all_ready
from tests.e2e.slow_network import SlowNetwork
from tests.servers import DaemonProcess, SharedServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

WITHIN_S = 120


@pytest.fixture
async def network(elasticsearch_server: SharedServer) -> AsyncIterator[SlowNetwork]:
    async with SlowNetwork(elasticsearch_server.url) as network:
        yield network


@pytest.fixture
async def daemon(
    tmp_path: Path, kafka_broker: SharedServer, elasticsearch_server: SharedServer, network: SlowNetwork
) -> AsyncIterator[DaemonProcess]:
    name, password = credentials(elasticsearch_server.place)
    (tmp_path / "password").write_text(password)
    prefix = f"test-{uuid.uuid4().hex[:12]}"
    projection = {
        "url": f"{network.url}?prefix={prefix}",
        "username": name,
        "password": {"from_file": str(tmp_path / "password")},
    }
    content = {
        "log": {"url": f"{kafka_broker.url}?prefix={prefix}", "shards": 2},
        "projection": projection,
        "runtime": {"backoff_cap_s": 2.0},
    }
    process = DaemonProcess(tmp_path / "coreplane", content)
    await process.start()
    yield process
    await process.clean_up()
    forget(elasticsearch_server, Address(elasticsearch_server.url, prefix))


def namespace(ttl_s: int) -> dict[str, Any]:
    layers = [{"target": "redis", "ttl_s": ttl_s}]
    return {"type": "cache.namespace", "name": "carts", "value": {"prefix": "cart:", "layers": layers}}


async def asked(daemon: DaemonProcess) -> tuple[int, str, dict[str, Any]]:
    """Status, when to come again, and body of a query; the project's client would come again by itself."""
    url = f"{daemon.url}/v1/tenants/default/events?event_type=SettingAccepted"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, answer.headers.get("Retry-After", ""), await answer.json()


async def accepted(daemon: DaemonProcess, wanted: int) -> list[str]:
    """Ids of the events of accepted settings, once there are so many."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            status, _, body = await asked(daemon)
            if status == 200 and len(body["items"]) >= wanted:
                return [event["id"] for event in body["items"]]
            await asyncio.sleep(0.1)


async def test_while_it_is_away_queries_are_refused_with_what_goes_on_and_nothing_is_missing_afterwards(
    daemon: DaemonProcess, network: SlowNetwork, redis_server: Any
):
    target = {"type": "cache.target", "name": "redis", "value": {"kind": "redis", "url": redis_server.url}}
    async with daemon.client() as client:
        await client.apply([target, namespace(60)])
        await all_ready(client, 60)
    before = await accepted(daemon, 2)
    await network.refuse()
    status, again, problem = await asked(daemon)
    assert (status, problem["reason"], again) == (503, "ProjectionUnavailable", "1")
    assert "settings and the stream go on" in problem["detail"]
    async with daemon.client() as client:
        await client.apply([namespace(30)])
        await all_ready(client, 60)
    await daemon.stop()  # orderly, with events that Elasticsearch hasn't got
    await network.listen()
    await daemon.start()
    after = await accepted(daemon, 3)
    assert len(after) == len(set(after)) == 3
    assert set(before) < set(after)
