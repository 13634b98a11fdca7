"""Three replicas on one Kafka: a thousand users made on a Redis, and how soon shards are taken over. Run by `bench_kafka`."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from controlplane.devstack.guardian import Guardian
from controlplane.devstack.redis import REDIS
from tests.benchmarks.figures import Figures, median, spread
from tests.servers import DaemonProcess, program_of, started

REPLICAS = 3
SHARDS = 12
TARGETS = tuple(f"redis{number}" for number in range(8))
"""Of the same Redis: enough for every replica to drive some."""
USERS = 1_000
AT_ONCE = 100
TRIALS = 5
SESSION_S = 6.0
"""Of the group of replicas: so long a dead one's shards are nobody's."""
WITHIN_S = 300


async def run(figures: Figures, broker_url: str, folder: Path, guardian: Guardian) -> None:
    redis = await started(REDIS, folder, await program_of(REDIS), guardian)
    log = {"url": f"{broker_url}?prefix=bench{uuid.uuid4().hex[:8]}", "shards": SHARDS}
    replicas = [DaemonProcess(folder / f"replica{number}", {"log": log}) for number in range(REPLICAS)]
    try:
        await asyncio.gather(*(replica.start() for replica in replicas))
        figures.group(f"{REPLICAS} replicas, {SHARDS} shards, sessions of {SESSION_S:g} s")
        await _created(figures, replicas, redis.url)
        await _taken_over(figures, replicas)
    finally:
        await asyncio.gather(*(replica.clean_up() for replica in replicas))
        await redis.kill()


def _user(number: int) -> dict[str, Any]:
    value = {"target": TARGETS[number % len(TARGETS)], "commands": ["+@read"], "keys": [f"shop:{number}:*"]}
    return {"type": "cache.redis_user", "name": f"user-{number:04d}", "value": value}


async def _created(figures: Figures, replicas: Sequence[DaemonProcess], url: str) -> None:
    targets = [{"type": "cache.target", "name": name, "value": {"kind": "redis", "url": url}} for name in TARGETS]
    async with replicas[0].client() as client, Redis.from_url(url) as redis:
        await client.apply(targets)
        await _shared(replicas)
        begun = time.perf_counter()
        for number in range(USERS):
            await redis.acl_setuser(f"bare-{number:04d}", enabled=True, commands=["+@read"], keys=[f"shop:{number}:*"])
            await redis.acl_getuser(f"bare-{number:04d}")
        bare = time.perf_counter() - begun
        before = len(await redis.acl_users())
        begun = time.perf_counter()
        writes = [
            _applied(replicas[first // AT_ONCE % REPLICAS], range(first, first + AT_ONCE))
            for first in range(0, USERS, AT_ONCE)
        ]
        await asyncio.gather(*writes)
        async with asyncio.timeout(WITHIN_S):
            while len(await redis.acl_users()) < before + USERS:
                await asyncio.sleep(0.05)
        took = time.perf_counter() - begun
    note = f"over {len(TARGETS)} targets; bare: set and read back, one by one"
    figures.add(f"{USERS:,} users declared, until all are in Redis", took, "s", bare=bare, most=20.0, note=note)


async def _applied(replica: DaemonProcess, numbers: range) -> None:
    async with replica.client(timeout_s=60.0) as client:
        await client.apply([_user(number) for number in numbers])


async def _taken_over(figures: Figures, replicas: Sequence[DaemonProcess]) -> None:
    killed, left = [], []
    for trial in range(TRIALS):
        victim = replicas[trial % REPLICAS]
        others = [replica for replica in replicas if replica is not victim]
        for ends, times in ((victim.kill, killed), (victim.stop, left)):
            begun = time.perf_counter()
            ending = asyncio.ensure_future(ends())
            await _owned(others)
            times.append(time.perf_counter() - begun)
            await ending
            await victim.start()
            await _shared(replicas)
    for what, times, most in (("kill -9", killed, SESSION_S + 2.0), ("SIGTERM", left, 2.0)):
        more = {"most": most, "note": spread(times, "s")}
        figures.add(f"{what} of a replica → all shards driven by the others", median(times), "s", **more)


async def _owned(replicas: Sequence[DaemonProcess]) -> None:
    """Until these drive every shard."""
    async with asyncio.timeout(WITHIN_S):
        while sum(await asyncio.gather(*map(_shards, replicas))) < SHARDS:
            await asyncio.sleep(0.02)


async def _shared(replicas: Sequence[DaemonProcess]) -> None:
    """Until all shards are driven, and everybody drives some."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            owned = await asyncio.gather(*map(_shards, replicas))
            if sum(owned) == SHARDS and all(owned):
                return
            await asyncio.sleep(0.05)


async def _shards(replica: DaemonProcess) -> int:
    async with replica.client() as client:
        return len((await client.status())["shards"])
