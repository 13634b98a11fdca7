"""Several replicas on one Kafka log: they share the shards, and take over from each other."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.servers import DaemonProcess, SharedServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SHARDS = 6
DEADLINE_S = 60.0


@pytest.fixture
async def replicas(tmp_path: Path, kafka_broker: SharedServer) -> AsyncIterator[list[DaemonProcess]]:
    """Two of them, started."""
    log = {"url": f"{kafka_broker.url}?prefix=t{uuid.uuid4().hex}", "shards": SHARDS}
    found = [DaemonProcess(tmp_path / name, {"log": log, "runtime": {"backoff_cap_s": 2.0}}) for name in ("a", "b")]
    await asyncio.gather(*(process.start() for process in found))
    yield found
    await asyncio.gather(*(process.clean_up() for process in found))


async def owned(process: DaemonProcess) -> set[int]:
    async with process.client() as client:
        return set((await client.status())["shards"])


async def until_owned(processes: list[DaemonProcess], fits: Callable[[list[set[int]]], bool]) -> list[set[int]]:
    async with asyncio.timeout(DEADLINE_S):
        while not fits(found := [await owned(process) for process in processes]):
            await asyncio.sleep(0.05)
    return found


def shared(found: list[set[int]]) -> bool:
    """Each shard is driven by exactly one, and both have some."""
    return sorted(shard for shards in found for shard in shards) == list(range(SHARDS)) and all(found)


def carts(name: str, target: str) -> dict[str, Any]:
    return {
        "type": "cache.namespace",
        "name": name,
        "value": {"prefix": f"{name}:", "layers": [{"target": target, "ttl_s": 60}]},
    }


async def ready(process: DaemonProcess, name: str) -> None:
    async with process.client() as client, asyncio.timeout(DEADLINE_S):
        while (await client.get_setting("cache.namespace", name))["status"]["phase"] != "Ready":
            await asyncio.sleep(0.05)


async def test_two_replicas_share_the_shards_and_either_takes_any_write(
    replicas: list[DaemonProcess], redis_server: Any
):
    await until_owned(replicas, shared)
    targets = [
        {"type": "cache.target", "name": f"r{n}", "value": {"kind": "redis", "url": redis_server.url}} for n in range(1)
    ]
    async with replicas[0].client() as one, replicas[1].client() as other:
        await one.apply([*targets, carts("first", "r0")])
        await other.apply([carts("second", "r0")])
    for process in replicas:
        await asyncio.gather(ready(process, "first"), ready(process, "second"))


async def test_what_was_refused_when_it_was_repeated_is_not_done_when_its_first_try_comes_late(
    replicas: list[DaemonProcess],
):
    """The first try went to a replica that was stopped before it looked."""
    path = "/v1/tenants/default/settings/cache.target/late"
    target = {"value": {"kind": "memcached", "url": "memcached://127.0.0.1:1"}}
    repeated = {"Idempotency-Key": "k", "Idempotency-Attempt": "2"}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(DEADLINE_S)) as http:
        for _ in range(2):
            async with http.delete(f"{replicas[0].url}{path}", headers=repeated) as refused:
                assert refused.status == 404, await refused.text()
        async with http.put(f"{replicas[0].url}{path}", json=target) as made:
            assert made.status == 201, await made.text()
        async with http.delete(f"{replicas[1].url}{path}", headers=repeated | {"Idempotency-Attempt": "1"}) as late:
            assert late.status == 409, await late.text()
        async with http.get(f"{replicas[1].url}{path}") as still:
            assert (await still.json())["status"]["phase"] != "Retiring"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_the_shards_of_a_replica_that_goes_are_taken_by_the_other(
    replicas: list[DaemonProcess], redis_server: Any, how: signal.Signals
):
    await until_owned(replicas, shared)
    leaving, staying = replicas
    await (leaving.stop() if how is signal.SIGTERM else leaving.kill())
    await until_owned([staying], lambda found: found[0] == set(range(SHARDS)))
    async with staying.client() as client:
        target = {"type": "cache.target", "name": "r0", "value": {"kind": "redis", "url": redis_server.url}}
        await client.apply([target, carts("after", "r0")])
    await ready(staying, "after")
    await leaving.start()
    await until_owned(replicas, shared)


async def test_a_replica_that_was_stopped_beyond_its_session_finds_its_place_again(replicas: list[DaemonProcess]):
    await until_owned(replicas, shared)
    stopped, staying = replicas
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        await until_owned([staying], lambda found: found[0] == set(range(SHARDS)))
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    await until_owned(replicas, shared)
