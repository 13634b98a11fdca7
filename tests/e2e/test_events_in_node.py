"""The example consumer in Node reads what a daemon writes, and picks by headers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

from controlplane.devstack import provision
from tests.servers import DaemonProcess, SharedServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

EXAMPLE = Path(provision.__file__).parent / "example" / "events.js"
PACKAGES = ("kafkajs@2.2.4", "@msgpack/msgpack@3.1.2")


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The packages that the example names, installed once a machine."""
    npm = shutil.which("npm")
    assert npm is not None, "the example is for Node: install node and npm (Debian and Ubuntu: apt-get install npm)"
    home = provision.this_machine().cache_dir / "node" / "kafkajs-2.2.4"
    if not (home / "installed").exists():
        home.mkdir(parents=True, exist_ok=True)
        asyncio.run(installed(npm, home))
        (home / "installed").touch()
    return home / "node_modules"


async def installed(npm: str, home: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(home), *PACKAGES
    )
    async with asyncio.timeout(180):
        assert await process.wait() == 0


async def test_a_consumer_in_node_picks_events_by_their_headers(
    tmp_path: Path, kafka_broker: SharedServer, redis_server: Any, node_modules: Path
):
    prefix = f"t{uuid.uuid4().hex}"
    daemon = DaemonProcess(tmp_path / "coreplane", {"log": {"url": f"{kafka_broker.url}?prefix={prefix}", "shards": 4}})
    await daemon.start()
    node = shutil.which("node")
    assert node is not None
    consumer = await asyncio.create_subprocess_exec(
        node,
        str(EXAMPLE),
        *(kafka_broker.url.removeprefix("kafka://"), f"{prefix}.events", "cache", "SettingAccepted"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "NODE_PATH": str(node_modules)},
    )
    assert consumer.stdout is not None
    try:
        async with daemon.client() as client:
            target = {"type": "cache.target", "name": "redis", "value": {"kind": "redis", "url": redis_server.url}}
            space = {"prefix": "cart:", "layers": [{"target": "redis", "ttl_s": 60}]}
            await client.apply([target, {"type": "cache.namespace", "name": "carts", "value": space}])
        seen: dict[str, dict[str, Any]] = {}
        async with asyncio.timeout(90):
            while len(seen) < 2:
                event = json.loads(await consumer.stdout.readline())
                assert event["id"] not in seen
                seen[event["id"]] = event
        assert {event["setting"] for event in seen.values()} == {
            "default/cache.target/redis",
            "default/cache.namespace/carts",
        }
        assert {event["details"]["outcome"] for event in seen.values()} == {"created"}
    finally:
        if consumer.returncode is None:
            consumer.terminate()
        async with asyncio.timeout(30):
            await consumer.wait()
        await daemon.clean_up()
