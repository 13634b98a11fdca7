"""One run of the fault suite: a cluster, clients, seeded faults, and the evidence of what happened."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import redis.asyncio as redis_client

from controlplane.client.http import CoreplaneClient
from tests.e2e import fault_checker, fault_clients
from tests.e2e.conditions import all_ready
from tests.e2e.fault_checker import Evidence, fresh_prefix
from tests.e2e.fault_clients import COUNTERS, PASSWORDS, Client, History, counter
from tests.e2e.fault_cluster import TENANTS, Cluster, Distant, Write, cluster, watch_redis
from tests.e2e.slow_network import SlowNetwork
from tests.servers import DaemonProcess

CONVERGED_S = 120.0


@dataclass(frozen=True)
class Plan:
    """What is to happen."""

    seed: int
    faults: Sequence[str]
    command: Sequence[str] = ("-m", "controlplane", "serve", "--config")
    converges: bool = True
    """Not with a broken fence: then the evidence is taken as it is."""


async def run(plan: Plan, directory: Path, broker: Distant, redis_url: str) -> Evidence:
    """The evidence. The cluster is gone afterwards."""
    rng, prefix = random.Random(plan.seed), fresh_prefix()
    async with SlowNetwork(redis_url) as network, SlowNetwork(broker.server.url, broker.port) as road:
        world = cluster(directory, broker.server, (network, road), rng, prefix=prefix, command=plan.command)
        for replica in world.replicas:
            write_secrets(replica)
        try:
            return await _run(plan, world, prefix, redis_url)
        finally:
            await asyncio.gather(*(replica.clean_up() for replica in world.replicas))


def write_secrets(replica: DaemonProcess) -> None:
    for name in PASSWORDS:
        path = replica.data_dir / "secrets" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(secret(name))


def secret(name: str) -> str:
    return f"{name}-zq81-password"


async def _run(plan: Plan, world: Cluster, prefix: str, redis_url: str) -> Evidence:
    await asyncio.gather(*(replica.start() for replica in world.replicas))
    history, writes, watching = History(), list[Write](), asyncio.Event()
    watcher = asyncio.create_task(watch_redis(redis_url, watching, writes))
    await watching.wait()
    urls = [replica.url for replica in world.replicas]
    followers = [
        asyncio.create_task(fault_clients.follow(lambda: world.rng.choice(urls), tenant, history)) for tenant in TENANTS
    ]
    try:
        await _with_clients(world, history, plan.faults)
        if plan.converges:
            await _converged(world)
        users = await _users(redis_url)
        restarted_at = time.time() if plan.converges else math.inf
        if plan.converges:
            for replica in world.replicas:
                await replica.restart()
            await _converged(world)
        replicas = [await _settings(replica) for replica in world.replicas]
        servers = world.broker.url.removeprefix("kafka://")
        topics = await asyncio.to_thread(fault_checker.read_topics, servers, prefix)
        await _streamed(history, {event.said["id"] for event in topics.events if event.said["tenant"] in TENANTS})
        texts = await _texts(world)
        for task in (watcher, *followers):
            assert not task.done(), task.result()
    finally:
        for task in (watcher, *followers):
            task.cancel()
        await asyncio.wait({watcher, *followers})
    values = {key: value for key, (_, value) in replicas[0].items() if "/cache.redis_user/" in key}
    return Evidence(
        history,
        topics,
        writes,
        replicas,
        declared=await _by_hand(redis_url, values),
        users=users,
        secrets=[form for name in PASSWORDS for form in (secret(name), _sha256(secret(name)))],
        texts=texts,
        restarted_at=restarted_at,
    )


async def _with_clients(world: Cluster, history: History, faults: Sequence[str]) -> None:
    """Everything that is declared, and everything that happens meanwhile."""
    urls = [replica.url for replica in world.replicas]
    named = [("one", "default"), ("two", "default"), ("three", "default"), ("ann", "default"), ("bob", "other")]
    clients = [Client(name, tenant, urls, history, random.Random(world.rng.random())) for name, tenant in named]
    target = {"kind": "redis", "url": world.network.url}
    stop = asyncio.Event()
    try:
        for client in clients[-2:]:
            await client.put("cache.target/main", target)
        for name in COUNTERS:
            await clients[0].put(f"cache.namespace/{name}", counter(name, 0))
        async with asyncio.TaskGroup() as tasks:
            for client in clients[:3]:
                tasks.create_task(fault_clients.count(client, stop))
            for client in clients[3:]:
                tasks.create_task(fault_clients.change_users(client, stop))
            for fault in faults:
                await asyncio.sleep(world.rng.uniform(0.5, 1.5))
                await world.injure(fault)
            await asyncio.sleep(1.0)
            stop.set()
    finally:
        for client in clients:
            await client.close()


async def _converged(world: Cluster) -> None:
    for tenant in TENANTS:
        async with CoreplaneClient(world.replicas[0].url, tenant=tenant) as client:
            await all_ready(client, CONVERGED_S)


async def _settings(replica: DaemonProcess) -> dict[str, tuple[int, Any]]:
    found = {}
    for tenant in TENANTS:
        async with replica.client(tenant=tenant) as client:
            async for setting in client.list_settings():
                key = f"{tenant}/{setting['setting_type']}/{setting['name']}"
                found[key] = (setting["revision"], setting["value"])
    return found


async def _streamed(history: History, wanted: set[str]) -> None:
    """Until the followers have been given everything; what is missing in the end is for the checker to tell."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if wanted <= {id_ for connection in history.streamed for id_ in connection.ids}:
            return
        await asyncio.sleep(0.1)


async def _texts(world: Cluster) -> dict[str, str]:
    texts = {}
    async with aiohttp.ClientSession() as session:
        for number, replica in enumerate(world.replicas):
            texts[f"log of {number}"] = (replica.data_dir / "daemon.log").read_text()
            async with session.get(f"{replica.url}/metrics") as answer:
                texts[f"metrics of {number}"] = await answer.text()
    return texts


async def _users(redis_url: str) -> dict[str, list[str]]:
    async with redis_client.from_url(redis_url, decode_responses=True) as server:
        rows = {}
        for line in await server.acl_list():
            _, name, *rules = line.split()
            if name not in ("default", "coreplane"):
                hashes = sorted(rule for rule in rules if rule.startswith("#"))
                rows[name] = [*(rule for rule in rules if not rule.startswith("#")), *hashes]
        return rows


async def _by_hand(redis_url: str, values: Mapping[str, Any]) -> dict[str, list[str]]:
    """The same users, made by hand on the same server: it writes rules out in an order of its own."""
    async with redis_client.from_url(redis_url, decode_responses=True) as server:
        await server.acl_deluser(*(await _users(redis_url) or ["nobody"]))
        for key, value in values.items():
            hashes = [f"#{_sha256(secret(p['from_file'].rpartition('/')[2]))}" for p in value["passwords"]]
            rules = ["reset", "resetchannels", *value["commands"], *(f"~{k}" for k in value["keys"]), *hashes, "on"]
            await server.execute_command("ACL", "SETUSER", key.rpartition("/")[2], *rules)
    return await _users(redis_url)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
