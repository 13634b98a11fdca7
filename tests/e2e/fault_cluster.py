"""Three replicas on one broker and one Redis, and what can happen to them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.asyncio as redis_client

from controlplane.domain.sharding import shard_of
from tests.e2e.slow_network import SlowNetwork
from tests.servers import DaemonProcess, SharedServer, frozen

SHARDS = 6
REPLICAS = 3
TENANTS = ("default", "other")
BEYOND_SESSION_S = 8.0
"""A replica that stands still for longer than the session timeout is replaced."""


@dataclass(frozen=True)
class Distant:
    """A broker that tells its clients to come by a port where a network of the run stands between."""

    server: SharedServer
    port: int


@dataclass
class Cluster:
    """The processes of one run."""

    broker: SharedServer
    network: SlowNetwork
    """Between replicas and Redis."""
    road: SlowNetwork
    """Between everybody and Kafka."""
    replicas: list[DaemonProcess]
    rng: random.Random
    told: list[str] = field(default_factory=list)
    """The faults, in words."""

    async def owner(self) -> DaemonProcess:
        """Whoever drives the target of the first tenant."""
        shard = shard_of(TENANTS[0], "cache", "main", SHARDS)
        async with asyncio.timeout(60):
            while True:
                for replica in self.replicas:
                    async with replica.client() as client:
                        if shard in (await client.status())["shards"]:
                            return replica
                await asyncio.sleep(0.1)

    async def injure(self, fault: str) -> None:
        """Do it, and wait until it is over."""
        victim = self.rng.randrange(REPLICAS)
        self.told.append(f"{fault} {victim}")
        await FAULTS[fault](self, self.replicas[victim])


def cluster(
    directory: Path, broker: SharedServer, networks: Sequence[SlowNetwork], rng: random.Random, **options: Any
) -> Cluster:
    """The processes, not started. `networks`: to Redis, to Kafka. `options`: prefix, and another command for the daemons."""
    content = {
        "log": {"url": f"{broker.url}?prefix={options.pop('prefix')}", "shards": SHARDS},
        "runtime": {"backoff_cap_s": 2.0, "sweep_s": 10.0},
        "tenants": list(TENANTS),
    }
    replicas = [DaemonProcess(directory / f"replica{number}", content, **options) for number in range(REPLICAS)]
    return Cluster(broker, *networks, replicas, rng)


async def killed(world: Cluster, victim: DaemonProcess) -> None:
    await victim.kill()
    await asyncio.sleep(world.rng.uniform(0.0, 3.0))
    await victim.start()


async def left(world: Cluster, victim: DaemonProcess) -> None:
    await victim.stop()
    await asyncio.sleep(world.rng.uniform(0.0, 1.0))
    await victim.start()


async def stood_still(world: Cluster, victim: DaemonProcess) -> None:
    """With its effects in the network, if there are any: those land while it stands."""
    world.network.delay_s = 0.3
    await asyncio.sleep(world.rng.uniform(0.3, 1.0))
    os.kill(victim.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(BEYOND_SESSION_S + world.rng.uniform(0.0, 3.0))
    finally:
        os.kill(victim.pid, signal.SIGCONT)
        world.network.delay_s = 0.0


async def slow(world: Cluster, _victim: DaemonProcess) -> None:
    world.network.delay_s = world.rng.uniform(0.1, 1.5)
    await asyncio.sleep(world.rng.uniform(2.0, 4.0))
    world.network.delay_s = 0.0


async def silent(world: Cluster, victim: DaemonProcess) -> None:
    """Nothing comes through, and then all of it at once; meanwhile somebody is killed."""
    world.network.open.clear()
    await asyncio.sleep(world.rng.uniform(0.5, 2.0))
    await victim.kill()
    await asyncio.sleep(world.rng.uniform(0.0, 2.0))
    world.network.open.set()
    await victim.start()


async def cut(world: Cluster, _victim: DaemonProcess) -> None:
    for _ in range(3):
        await world.network.cut()
        await asyncio.sleep(world.rng.uniform(0.1, 0.7))


async def broker_killed(world: Cluster, _victim: DaemonProcess) -> None:
    await world.broker.kill()
    await world.broker.start()


async def broker_stopped(world: Cluster, _victim: DaemonProcess) -> None:
    await world.broker.stop()
    await world.broker.start()


async def broker_froze(world: Cluster, _victim: DaemonProcess) -> None:
    async with frozen(world.broker):
        await asyncio.sleep(world.rng.uniform(0.5, 4.0))


async def road_slow(world: Cluster, _victim: DaemonProcess) -> None:
    """Every packet to and from Kafka takes its time: several of them make a commit."""
    world.road.delay_s = world.rng.uniform(0.05, 0.4)
    await asyncio.sleep(world.rng.uniform(2.0, 5.0))
    world.road.delay_s = 0.0


async def road_cut(world: Cluster, _victim: DaemonProcess) -> None:
    """Connections end with requests under way, whose outcome nobody is told."""
    for _ in range(3):
        await world.road.cut()
        await asyncio.sleep(world.rng.uniform(0.1, 1.0))


async def road_silent(world: Cluster, _victim: DaemonProcess) -> None:
    """Nothing comes through, and then all of it at once."""
    world.road.open.clear()
    await asyncio.sleep(world.rng.uniform(1.0, 5.0))
    world.road.open.set()


async def owner_stood_still(world: Cluster, _victim: DaemonProcess) -> None:
    """The one that drives the Redis everybody writes to."""
    await stood_still(world, await world.owner())


FAULTS: dict[str, Callable[[Cluster, DaemonProcess], Awaitable[None]]] = {
    fault.__name__: fault
    for fault in (
        killed,
        left,
        stood_still,
        slow,
        silent,
        cut,
        broker_killed,
        broker_stopped,
        broker_froze,
        road_slow,
        road_cut,
        road_silent,
        owner_stood_still,
    )
}


@dataclass(frozen=True)
class Write:
    """A change of a namespace's registration, as Redis carried it out."""

    at: float
    prefix: str
    command: Sequence[str]


async def watch_redis(url: str, watching: asyncio.Event, writes: list[Write]) -> None:
    """What really happens to registrations, told by Redis itself."""
    server = redis_client.from_url(url, decode_responses=True, socket_timeout=None)  # it may have nothing to tell
    try:
        async with server.monitor() as monitor:
            watching.set()
            async for seen in monitor.listen():
                words = seen["command"].split(" ")
                verb, key = words[0].lower(), words[1] if len(words) > 1 else ""
                if key.startswith("coreplane:namespace:") and _changes(verb, words):
                    writes.append(Write(seen["time"], key.removeprefix("coreplane:namespace:"), words))
    finally:
        await server.aclose()


def _changes(verb: str, words: Sequence[str]) -> bool:
    return verb in {"del", "unlink"} or (verb == "hset" and "definition" in words)
