"""LayeredCache beside the bare clients: µs per read where the value is found in memory, in Redis, in Memcached.

    python tests/benchmarks/bench_layered_cache.py [reads]

Starts its own redis-server and memcached. Ratios mean something on a shared machine, absolute times don't.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import contextmanager
from typing import Any

from pymemcache.client.base import Client as Pymemcache
from redis.asyncio import Redis

from controlplane.client.cache import LayeredCache
from controlplane.client.cache_config import CacheOptions
from controlplane.client.stream import StreamEvent, Watcher

VALUE = {"id": 42, "name": "tea", "price": 12, "text": "x" * 200}


class Quiet:
    """A daemon in which nothing happens."""

    def __init__(self, urls: Mapping[str, str], layers: list[str]) -> None:
        self.urls = urls
        self.layers = layers

    async def get_setting(self, setting_type: str, name: str) -> dict[str, Any]:
        if setting_type == "cache.target":
            return {"value": {"kind": name, "url": self.urls[name]}}
        return {
            "value": {"prefix": f"b{len(self.layers)}:", "layers": [{"target": t, "ttl_s": 600} for t in self.layers]}
        }

    async def operate(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return {"result": {"revision": 1}}

    async def stream(
        self, *, service_name: str, last_event_id: str | None, watcher: Watcher
    ) -> AsyncIterator[StreamEvent]:
        watcher(True)
        await asyncio.Event().wait()
        yield StreamEvent("1", "Never", {})


@contextmanager
def server(command: list[str], port: int):  # type: ignore[no-untyped-def]
    process = subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def each_us(call: Callable[[], Awaitable[Any]], reads: int) -> float:
    await call()
    began = time.perf_counter()
    for _ in range(reads):
        await call()
    return (time.perf_counter() - began) / reads * 1e6


async def load() -> Any:
    return VALUE


async def measured(urls: Mapping[str, str], reads: int) -> dict[str, float]:
    found: dict[str, float] = {}
    redis = Redis.from_url(urls["redis"])
    await redis.set("bare", b"x" * 260)
    found["bare redis GET"] = await each_us(lambda: redis.get("bare"), reads)
    host, port = urls["memcached"].removeprefix("memcached://").split(":")
    bare = Pymemcache((host, int(port)), default_noreply=False)
    bare.set("bare", b"x" * 260)
    began = time.perf_counter()
    for _ in range(reads):
        bare.get("bare")
    found["bare pymemcache get (sync)"] = (time.perf_counter() - began) / reads * 1e6
    for label, layers, keys in (
        ("L1 memory", ["redis"], 100),
        ("L2 redis", ["redis"], 0),
        ("memcached only", ["memcached"], 0),
    ):
        options = CacheOptions(memory_keys=keys, layer_timeout_s=5.0)
        async with LayeredCache(Quiet(urls, layers), "bench", options=options) as cache:
            while not cache.feed.trusted():
                await asyncio.sleep(0.001)
            found[label] = await each_us(lambda cache=cache: cache.get("k", load), reads)
    async with LayeredCache(Quiet(urls, ["redis", "memcached"]), "bench", options=CacheOptions(memory_keys=0)) as cache:
        await cache.get("k", load)

        async def from_below() -> None:
            await redis.delete("b2:k")
            await cache.get("k", load)

        found["L3 memcached, carried up to redis (with a DEL)"] = await each_us(from_below, reads)
        many = [f"k{number}" for number in range(100)]

        async def load_many(keys: Any) -> dict[str, Any]:
            return dict.fromkeys(keys, VALUE)

        await cache.get_many(many, load_many)
        found["get_many, each of 100 from redis"] = (
            await each_us(lambda: cache.get_many(many, load_many), reads // 50) / 100
        )
    bare.close()
    await redis.aclose()
    return found


def main() -> None:
    reads = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    ports = free_port(), free_port()
    urls = {"redis": f"redis://127.0.0.1:{ports[0]}", "memcached": f"memcached://127.0.0.1:{ports[1]}"}
    with (
        server(["redis-server", "--save", "", "--bind", "127.0.0.1", "--port"], ports[0]),
        server(["memcached", "-l", "127.0.0.1", "-u", "nobody", "-p"], ports[1]),
    ):
        found = asyncio.run(measured(urls, reads))
    base = found["bare redis GET"]
    print(f"{'':50} {'us/read':>9} {'x GET':>7}")
    for label, us in found.items():
        print(f"{label:50} {us:9.1f} {us / base:7.2f}")


if __name__ == "__main__":
    main()
