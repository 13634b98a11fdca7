"""LayeredCache on real servers, with the daemon's operations behind it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from controlplane.client.cache import LayeredCache, RevisionNotReached
from controlplane.client.cache_config import CacheOptions
from tests.integration.layered_daemon import Daemon, until

pytestmark = pytest.mark.integration

NAME = "products"
PREFIX = "shop:products:"


class Source:
    """The database behind the cache: counts how often it is asked."""

    def __init__(self, value: Any = "v1") -> None:
        self.value = value
        self.asked = 0
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self) -> Any:
        self.asked += 1
        value = self.value
        self.entered.set()
        await asyncio.wait_for(self.gate.wait(), 20)
        return value


def namespace(layers: list[tuple[str, float]], **more: Any) -> dict[str, Any]:
    return {"prefix": PREFIX, "layers": [{"target": t, "ttl_s": ttl_s} for t, ttl_s in layers], **more}


BOTH = [("redis", 60), ("memcached", 600)]


@pytest.fixture
async def daemon(redis_server: Any, memcached_server: Any) -> AsyncIterator[Daemon]:
    daemon = Daemon(
        {"redis": redis_server.url, "memcached": memcached_server.url},
        {NAME: namespace(BOTH, tags=True)},
    )
    yield daemon
    await daemon.close()


@pytest.fixture
async def opened(daemon: Daemon) -> AsyncIterator[Callable[..., Any]]:
    async with contextlib.AsyncExitStack() as stack:

        async def open_cache(**options: Any) -> LayeredCache:
            cache = LayeredCache(daemon, NAME, options=CacheOptions(**{"layer_timeout_s": 2.0, **options}))
            await stack.enter_async_context(cache)
            await until(cache.feed.trusted)
            return cache

        yield open_cache


@pytest.fixture
async def redis(redis_server: Any) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_server.url, socket_timeout=2.0)
    yield client
    await client.aclose()


@pytest.mark.parametrize("layers", [[("redis", 60)], [("memcached", 60)], BOTH])
async def test_a_hundred_readers_of_one_key_load_it_once(daemon: Daemon, opened: Any, layers: Any) -> None:
    daemon.namespaces[NAME] = namespace(layers)
    cache, source = await opened(), Source()
    values = await asyncio.gather(*(cache.get("a", source.load) for _ in range(100)))
    assert values == ["v1"] * 100
    assert source.asked == 1


@pytest.mark.parametrize("layers", [[("redis", 60)], [("memcached", 60)], BOTH])
async def test_two_processes_that_miss_the_same_key_load_it_once(daemon: Daemon, opened: Any, layers: Any) -> None:
    daemon.namespaces[NAME] = namespace(layers)
    one, two, source = await opened(), await opened(), Source()
    source.gate.clear()
    reads = [asyncio.create_task(cache.get("a", source.load)) for cache in (one, two) for _ in range(10)]
    await until(lambda: one.stats.waits + two.stats.waits == 1)
    source.gate.set()
    assert await asyncio.gather(*reads) == ["v1"] * 20
    assert source.asked == 1


async def test_what_one_process_loaded_another_finds_in_redis_and_a_third_in_memcached(
    opened: Any, redis: Redis
) -> None:
    one, two, three, source = await opened(), await opened(), await opened(), Source({"price": 12, "name": "tea"})
    first = await one.get("a", source.load)
    second = await two.get("a", source.load)
    await redis.delete(PREFIX + "a")
    third = await three.get("a", source.load)
    assert first == second == third == {"price": 12, "name": "tea"}
    assert (source.asked, two.stats.hits["redis"], three.stats.hits["memcached"]) == (1, 1, 1)
    assert await redis.exists(PREFIX + "a"), "what was found below is carried up"


async def test_a_value_handed_out_is_the_callers_own(opened: Any) -> None:
    cache, source = await opened(), Source({"tags": []})
    (await cache.get("a", source.load))["tags"].append("changed")
    assert await cache.get("a", source.load) == {"tags": []}


async def test_a_stale_value_is_served_at_once_while_one_process_loads_anew(daemon: Daemon, opened: Any) -> None:
    daemon.namespaces[NAME] = namespace([("redis", 0.05), ("memcached", 0.05)], stale_s=60)
    one, two, source = await opened(), await opened(), Source("old")
    assert await one.get("a", source.load) == "old"
    source.value = "new"
    source.gate.clear()
    await until(lambda: not one.memory.get("a", 0.0).fresh(time.time()))
    assert await one.get("a", source.load) == "old"
    assert await two.get("a", source.load) == "old"
    await until(lambda: source.asked == 2)
    source.gate.set()
    await until(lambda: one._loads.idle and two._loads.idle)
    assert source.asked == 2
    assert await in_redis(two, "a") == "new"


async def test_a_failing_loader_raises_for_everybody_and_the_next_reader_loads_at_once(opened: Any) -> None:
    one, two = await opened(), await opened()

    async def broken() -> Any:
        raise LookupError("no such product")

    results = await asyncio.gather(*(one.get("a", broken) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(result, LookupError) for result in results)
    assert await two.get("a", Source("there").load) == "there"
    assert two.stats.waits == 0


async def test_invalidating_a_tag_drops_its_keys_everywhere_and_leaves_the_others(opened: Any) -> None:
    one, two = await opened(), await opened()
    tea, cup = Source("tea 1"), Source("cup 1")
    for cache in (one, two):
        await cache.get("tea", tea.load, tags=("drinks", "all"))
        await cache.get("cup", cup.load, tags=("things",))
    tea.value, cup.value = "tea 2", "cup 2"
    revision = await one.invalidate(tags=["drinks"])
    assert await two.get("tea", tea.load, min_revision=revision) == "tea 2"
    assert await one.get("tea", tea.load) == "tea 2"
    assert await two.get("cup", cup.load) == "cup 1"
    assert await one.get("cup", cup.load) == "cup 1"


@pytest.mark.parametrize(
    "what",
    [{"keys": ["a:1"]}, {"tags": ["t"]}, {"prefix": "a:"}, {"everything": True}],
    ids=lambda what: next(iter(what)),
)
async def test_every_kind_of_invalidation_reaches_every_layer_and_process(
    opened: Any, redis: Redis, what: dict[str, Any]
) -> None:
    one, two, source = await opened(), await opened(), Source("old")
    for cache in (one, two):
        await cache.get("a:1", source.load, tags=("t",))
    source.value = "new"
    revision = await one.invalidate(**what)
    assert not await redis.exists(PREFIX + "a:1")
    assert await two.get("a:1", source.load, tags=("t",), min_revision=revision) == "new"
    assert source.asked == 2


@pytest.mark.parametrize(
    "what", [{"keys": ["a"]}, {"tags": ["t"]}, {"prefix": "a"}, {"everything": True}], ids=lambda what: next(iter(what))
)
@pytest.mark.parametrize("layers", [[("redis", 60)], [("memcached", 60)], BOTH], ids=["redis", "memcached", "both"])
async def test_a_load_begun_before_an_invalidation_is_kept_nowhere(
    daemon: Daemon, opened: Any, layers: Any, what: dict[str, Any]
) -> None:
    with_redis = layers[0][0] == "redis"
    if "tags" in what and not with_redis:
        what = {"keys": ["a"]}
    daemon.namespaces[NAME] = namespace(layers, tags=with_redis)
    one, two, source = await opened(), await opened(), Source("old")
    tags = ("t",) if with_redis else ()
    source.gate.clear()
    read = asyncio.create_task(one.get("a", source.load, tags=tags))
    await source.entered.wait()
    source.value = "new"
    revision = await two.invalidate(**what)
    await until(lambda: one.feed.reached(revision))
    source.gate.set()
    assert await read == "old", "who asked before may have what was there before"
    assert await one.get("a", source.load, tags=tags) == "new"
    assert await two.get("a", source.load, tags=tags) == "new"
    assert source.asked == 2


async def test_a_reader_after_the_invalidation_does_not_join_a_load_from_before(opened: Any) -> None:
    cache, source = await opened(), Source("old")
    source.gate.clear()
    before = asyncio.create_task(cache.get("a", source.load))
    await source.entered.wait()
    await cache.delete("a")
    source.value = "new"
    after = asyncio.create_task(cache.get("a", source.load))
    await until(lambda: cache.stats.waits == 1)
    source.gate.set()
    assert (await before, await after) == ("old", "new")


async def test_set_and_delete_refuse_older_loads_and_are_seen_by_who_asks_the_shared_layers(opened: Any) -> None:
    one, two, source = await opened(), await opened(), Source("old")
    source.gate.clear()
    slow = asyncio.create_task(one.get("a", source.load))
    await source.entered.wait()
    await two.set("a", "put")
    source.gate.set()
    assert await slow == "old"
    assert await one.get("a", source.load) == "put"
    await one.delete("a")
    assert await one.get("a", Source("loaded").load) == "loaded"


async def test_a_process_that_was_cut_off_replays_exactly_what_it_missed(daemon: Daemon, opened: Any) -> None:
    one, two = await opened(), await opened(max_disconnected_s=60.0)
    sources = {key: Source(f"{key} old") for key in ("a", "b", "c")}
    for key, source in sources.items():
        await two.get(key, source.load)
    daemon.cut()
    for source in sources.values():
        source.value = "new"
    await daemon.operate("cache.invalidate", {"namespace": NAME, "keys": ["b"]})
    assert await two.get("b", sources["b"].load) == "b old", "within max_disconnected_s the memory answers"
    daemon.mend()
    await until(lambda: two.stats.invalidations == 1)
    assert await two.get("b", sources["b"].load) == "new"
    assert await two.get("a", sources["a"].load) == "a old"
    assert await two.get("c", sources["c"].load) == "c old"
    assert two.stats.flushes == 0
    assert one.stats.invalidations == 1


async def test_a_process_whose_place_in_the_stream_is_gone_empties_its_memory(daemon: Daemon, opened: Any) -> None:
    cache, source = await opened(max_disconnected_s=60.0), Source("old")
    daemon.append("TargetUp", {})
    await cache.get("a", source.load)
    daemon.cut()
    source.value = "new"
    await daemon.operate("cache.invalidate", {"namespace": NAME, "keys": ["a"]})
    daemon.forget()
    daemon.mend()
    await until(lambda: cache.stats.flushes == 1)
    assert await cache.get("a", source.load) == "new"


async def test_cut_off_for_too_long_the_memory_is_left_aside(daemon: Daemon, opened: Any, redis: Redis) -> None:
    cache, source = await opened(max_disconnected_s=0.05), Source("old")
    await cache.get("a", source.load)
    daemon.cut()
    await until(lambda: not cache.feed.trusted())
    await redis.delete(PREFIX + "a")
    assert await cache.get("a", source.load) == "old", "found in Memcached"
    assert cache.stats.bypassed == 1


async def test_a_reader_may_demand_a_revision_and_is_told_when_it_does_not_come(daemon: Daemon, opened: Any) -> None:
    cache = await opened(revision_timeout_s=0.1)
    with pytest.raises(RevisionNotReached):
        await cache.get("a", Source().load, min_revision=99)
    revision = await cache.invalidate(everything=True)
    assert await cache.get("a", Source("v").load, min_revision=revision) == "v"


async def test_a_dead_redis_costs_no_read(opened: Any, redis_server: Any) -> None:
    cache, source = await opened(), Source("v1")
    await redis_server.kill()
    assert await cache.get("a", source.load) == "v1"
    assert await cache.get("a", source.load) == "v1"
    assert cache.stats.errors["redis"] > 0
    assert source.asked == 1, "the memory still serves"


async def test_a_restarted_redis_is_used_again(opened: Any, redis_server: Any, redis: Redis) -> None:
    cache, source = await opened(layer_pause_s=0.01), Source("v1")
    await cache.get("a", source.load)
    await redis_server.restart()
    for number in range(10):
        await cache.get(f"b{number}", source.load)
    assert await redis.keys(PREFIX + "b*")


async def test_after_a_flush_of_redis_nothing_old_is_found_in_memcached(opened: Any, redis: Redis) -> None:
    cache, other, source = await opened(), await opened(), Source("old")
    await cache.get("a", source.load)
    await redis.flushall()
    source.value = "new"
    assert await other.get("a", source.load) == "new"


async def test_a_changed_setting_is_followed(daemon: Daemon, opened: Any, redis: Redis) -> None:
    cache, source = await opened(), Source("v1")
    await cache.get("a", source.load)
    daemon.declare(NAME, namespace(BOTH) | {"prefix": "other:"})
    await until(lambda: cache.follower.config.prefix == "other:")
    await cache.get("a", source.load)
    assert await redis.exists("other:a")


async def test_many_keys_are_loaded_by_few_calls(opened: Any) -> None:
    one, two = await opened(), await opened()
    calls: list[list[str]] = []

    async def load(keys: Any) -> dict[str, str]:
        calls.append(sorted(keys))
        return {key: f"value of {key}" for key in keys if key != "missing"}

    await two.get_many(["k0", "k1"], load)
    before = len(calls)  # one call, or two when the leases didn't come at once
    keys = [f"k{number}" for number in range(20)]
    values = await one.get_many([*keys, "missing"], load)
    assert values == {key: f"value of {key}" for key in keys}
    assert sorted(key for call in calls[before:] for key in call) == sorted([*keys[2:], "missing"])
    assert len(calls) < 10
    assert one.stats.hits["redis"] == 2


async def test_keys_of_any_kind_come_back(opened: Any) -> None:
    one, two = await opened(), await opened()
    for key in ("space here", "ümläut", "x" * 900, "new\nline", "percent%20"):
        await one.get(key, Source(key).load)
        assert await two.get(key, Source("other").load) == key


async def test_a_memory_of_two_keys_keeps_two(opened: Any) -> None:
    cache = await opened(memory_keys=2)
    for key in "abc":
        await cache.get(key, Source(key).load)
    assert len(cache.memory) == 2


async def in_redis(cache: LayeredCache, key: str) -> Any:
    """What the shared layer holds, whatever the memory does."""
    held = await cache.follower.shared.get(key)
    return cache._codec.decode(held[0].payload)
