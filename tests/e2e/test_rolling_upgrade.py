"""Two versions of the change request side by side: whoever can't read one stops before it, and never forks."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.client.errors import ApiError
from tests.servers import DaemonProcess, SharedServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SHARDS = 4
DEADLINE_S = 60.0
NEWER = (str(Path(__file__).with_name("newer_version.py")), "serve", "--config")


@pytest.fixture
async def versions(tmp_path: Path, kafka_broker: SharedServer) -> AsyncIterator[tuple[DaemonProcess, DaemonProcess]]:
    """This version and the next, which still writes what this one reads."""
    content = {"log": {"url": f"{kafka_broker.url}?prefix=t{uuid.uuid4().hex}", "shards": SHARDS}}
    older, newer = DaemonProcess(tmp_path / "older", content), DaemonProcess(tmp_path / "newer", content, NEWER)
    await asyncio.gather(older.start(), newer.start())
    yield older, newer
    await asyncio.gather(older.clean_up(), newer.clean_up())


def carts(name: str) -> dict[str, Any]:
    value = {"prefix": f"{name}:", "layers": [{"target": "r0", "ttl_s": 60}]}
    return {"type": "cache.namespace", "name": name, "value": value}


async def told(process: DaemonProcess) -> dict[str, Any]:
    async with process.client() as client:
        return await client.status()


async def until_ready(process: DaemonProcess, name: str) -> dict[str, Any]:
    async with process.client() as client, asyncio.timeout(DEADLINE_S):
        while (found := await client.get_setting("cache.namespace", name))["status"]["phase"] != "Ready":
            await asyncio.sleep(0.05)
    return found


async def test_an_older_replica_stops_before_a_newer_record_gives_its_shards_up_and_goes_on_once_upgraded(
    versions: tuple[DaemonProcess, DaemonProcess], redis_server: Any
):
    older, newer = versions
    target = {"type": "cache.target", "name": "r0", "value": {"kind": "redis", "url": redis_server.url}}
    async with older.client() as one, newer.client() as other:
        await one.apply([target, carts("first")])
        await other.apply([carts("second")])
    for process in versions:
        await asyncio.gather(until_ready(process, "first"), until_ready(process, "second"))
    await newer.stop()
    await newer.start(WRITES="2")
    async with newer.client() as client:
        written = await client.apply([carts("third")])
    async with asyncio.timeout(DEADLINE_S):
        while (stopped := (await told(older))["replica"]["stopped"]) is None or (await told(older))["shards"]:
            await asyncio.sleep(0.05)
    offset = written["revision"] - 1
    assert f"offset {offset}" in stopped
    assert "Upgrade this replica" in stopped
    await until_ready(newer, "third")
    async with asyncio.timeout(DEADLINE_S):
        while (await told(newer))["shards"] != list(range(SHARDS)):
            await asyncio.sleep(0.05)
    async with older.client(attempts=1) as client:
        assert not (await client.health())["ready"]
        assert (await client.get_setting("cache.namespace", "first"))["name"] == "first", "reads go on"
        assert (await told(older))["replica"]["position"] == offset, "it stands before the record"
        with pytest.raises(ApiError, match="nothing was stored"):
            await client.apply([carts("refused")])
    await older.stop()
    upgraded = DaemonProcess(older.data_dir, older.content, NEWER)
    await upgraded.start()
    same = await until_ready(upgraded, "third")
    assert same["revision"] == written["revision"]
    assert (await told(upgraded))["replica"]["stopped"] is None
    await upgraded.stop()
