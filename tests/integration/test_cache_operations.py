"""cache.invalidate and cache.inspect on real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError
from redis.asyncio import Redis

from controlplane.client.cache_codec import entry
from controlplane.client.cache_memcached import MemcachedLayer
from controlplane.client.cache_redis import RedisLayer, Start
from controlplane.client.memcached import MemcachedClient, address
from reconcilers.contract import TerminalError, Unreachable
from schemas.cache import Invalidate
from schemas.cache_layout import memcached_key, registration_key
from tests.integration.layered_daemon import Daemon

pytestmark = pytest.mark.integration

PREFIX = "shop:"
LIVES_S = (60.0, 600.0)


@pytest.fixture
async def redis(redis_server: Any) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_server.url, socket_timeout=5.0, socket_connect_timeout=2.0)
    yield client
    await client.aclose()


@pytest.fixture
async def memcached(memcached_server: Any) -> AsyncIterator[MemcachedLayer]:
    layer = MemcachedLayer([MemcachedClient(*address(memcached_server.url), 2.0)], PREFIX)
    yield layer
    await layer.close()


@pytest.fixture
async def daemon(redis_server: Any, memcached_server: Any) -> AsyncIterator[Daemon]:
    layers = [{"target": "redis", "ttl_s": 60}, {"target": "memcached", "ttl_s": 600}]
    daemon = Daemon(
        {"redis": redis_server.url, "memcached": memcached_server.url},
        {
            "both": {"prefix": PREFIX, "layers": layers, "tags": True},
            "upside_down": {"prefix": PREFIX, "layers": layers[::-1]},
            "untagged": {"prefix": PREFIX, "layers": layers[:1]},
            "memcached": {"prefix": PREFIX, "layers": layers[1:], "tags": True},
        },
    )
    yield daemon
    await daemon.close()


def value(text: str = "v", *tags: str) -> Any:
    import time

    return entry(text.encode(), time.time(), ttl_s=60, stale_s=0, tags=tags)


async def fill(layer: RedisLayer, key: str, *tags: str, token: int | None = None) -> bool:
    start = await layer.begin(key, "me", 5.0)
    if token is not None:
        start = Start(token, start.floor, won=True)
    return await layer.fill(key, value(key, *tags), start, "me", LIVES_S)


async def invalidate(daemon: Daemon, namespace: str = "both", **what: Any) -> dict[str, Any]:
    return (await daemon.operate("cache.invalidate", {"namespace": namespace, **what}))["result"]


async def test_thirty_thousand_keys_of_a_tag_go_and_every_other_key_stays(daemon: Daemon, redis: Redis) -> None:
    layer = RedisLayer(redis, PREFIX)
    await fill(layer, "seed", "other")
    pipe = redis.pipeline(transaction=False)
    for number in range(30_000):
        pipe.set(f"{PREFIX}k{number}", "v", ex=600)
    pipe.zadd(f"{PREFIX}~tag~big", {f"k{number}": number + 1 for number in range(30_000)})
    await pipe.execute()
    result = await invalidate(daemon, tags=["big"])
    assert result["layers"][0] | {"took_s": 0} == {"target": "redis", "dropped": 30_000, "by": "keys", "took_s": 0}
    assert await redis.exists(f"{PREFIX}seed", f"{PREFIX}~tag~big") == 1


async def test_an_invalidation_reports_each_layer_and_its_revision(daemon: Daemon, redis: Redis) -> None:
    layer = RedisLayer(redis, PREFIX)
    await fill(layer, "a")
    daemon.revision = 8811
    result = await invalidate(daemon, keys=["a", "b"])
    assert result["revision"] == 8812
    assert [(row["target"], row["dropped"]) for row in result["layers"]] == [("redis", 1), ("memcached", 0)]
    held = await redis.hgetall(registration_key(PREFIX))
    assert (held[b"generation"], held[b"completed"]) == (b"8812", b"8812")


async def test_an_older_invalidation_that_runs_late_lowers_nothing(daemon: Daemon, redis: Redis) -> None:
    daemon.revision = 10
    await invalidate(daemon, keys=["a"])
    daemon.revision = 8
    await invalidate(daemon, keys=["a"])
    held = await redis.hgetall(registration_key(PREFIX))
    assert (held[b"generation"], held[b"completed"]) == (b"11", b"11")


@pytest.mark.parametrize(
    "what", [{"keys": ["a"]}, {"tags": ["t"]}, {"prefix": "a"}, {"all": True}], ids=lambda w: next(iter(w))
)
async def test_a_fill_begun_before_is_refused_and_one_begun_after_accepted(
    daemon: Daemon, redis: Redis, what: dict[str, Any]
) -> None:
    layer = RedisLayer(redis, PREFIX)
    before = await layer.begin("a", "me", 5.0)
    await invalidate(daemon, **what)
    assert not await layer.fill("a", value("old", "t"), before, "me", LIVES_S)
    assert not await redis.exists(f"{PREFIX}a")
    after = await layer.begin("a", "me", 5.0)
    assert await layer.fill("a", value("new", "t"), after, "me", LIVES_S)


async def test_fills_of_other_keys_land_while_a_key_is_invalidated(daemon: Daemon, redis: Redis) -> None:
    layer = RedisLayer(redis, PREFIX)
    start = await layer.begin("b", "me", 5.0)
    await invalidate(daemon, keys=["a"], namespace="both")
    await invalidate(daemon, tags=["t"])
    assert await layer.fill("b", value("b", "u"), start, "me", LIVES_S)


async def test_a_fill_that_took_longer_than_tombstones_live_is_refused(redis: Redis) -> None:
    assert not await fill(RedisLayer(redis, PREFIX), "a", token=1)


async def test_what_was_filled_after_the_stamp_keeps_its_tag(daemon: Daemon, redis: Redis) -> None:
    layer = RedisLayer(redis, PREFIX)
    await fill(layer, "a", "t")
    await invalidate(daemon, tags=["t"])
    await fill(layer, "a", "t")
    result = await invalidate(daemon, tags=["t"])
    assert result["layers"][0]["dropped"] == 1


async def test_an_old_value_carried_up_while_its_tag_is_invalidated_does_not_stay(
    daemon: Daemon, redis: Redis, memcached: MemcachedLayer
) -> None:
    layer = RedisLayer(redis, PREFIX)
    await fill(layer, "a", "t")
    _, floor = await daemon.backend("redis").keyspace.stamp(PREFIX, 0)
    await memcached.store(floor, "a", value("old", "t"), 60)
    await redis.delete(f"{PREFIX}a")
    # The reader takes its token after the first stamp, finds the old value below, and stores it above before the second.
    drop_keys = type(daemon.backend("memcached").keyspace).drop_keys

    async def carried_meanwhile(self: Any, prefix: str, floor: int, keys: Any) -> int:
        start = await layer.begin("a", "reader", 5.0)
        assert (await memcached.get(floor, "a")) is not None
        assert await layer.fill("a", value("old", "t"), start, "reader", LIVES_S)
        return await drop_keys(self, prefix, floor, keys)

    real = daemon.backend

    def backend(target: str) -> Any:
        opened = real(target)
        if target == "memcached":
            opened.keyspace.drop_keys = carried_meanwhile.__get__(opened.keyspace)
        return opened

    daemon.backend = backend  # type: ignore[method-assign]
    await invalidate(daemon, tags=["t"])
    assert await layer.get("a") is None
    assert await memcached.get(floor, "a") is None


async def test_a_flush_is_a_new_floor_for_memcached_and_leaves_the_bookkeeping(
    daemon: Daemon, redis: Redis, memcached: MemcachedLayer
) -> None:
    layer = RedisLayer(redis, PREFIX)
    await fill(layer, "a", "t")
    await redis.set("shopping", "not ours")
    floor = await layer.floor()
    result = await invalidate(daemon, all=True)
    assert [(row["dropped"], row["by"]) for row in result["layers"]] == [(1, "keys"), (None, "floor")]
    assert (await layer.floor() or 0) > (floor or 0)
    assert await redis.exists("shopping", f"{PREFIX}~tag~t") == 2


async def test_a_prefix_goes_with_its_globs_taken_literally(daemon: Daemon, redis: Redis) -> None:
    layer = RedisLayer(redis, PREFIX)
    for key in ("a*1", "ab1", "a*2"):
        await fill(layer, key)
    assert (await invalidate(daemon, prefix="a*"))["layers"][0]["dropped"] == 2
    assert await layer.get("ab1") is not None


async def test_a_namespace_on_memcached_alone_is_invalidated_by_key_and_as_a_whole(
    daemon: Daemon, memcached: MemcachedLayer
) -> None:
    floor = await memcached.floor()
    await memcached.store(floor, "a", value(), 60)
    await memcached.store(floor, "b", value(), 60)
    assert (await invalidate(daemon, "memcached", keys=["a"]))["layers"][0]["dropped"] == 1
    assert await memcached.get(floor, "b") is not None
    await invalidate(daemon, "memcached", all=True)
    memcached.forget_floor()
    assert await memcached.get(await memcached.floor(), "b") is None
    with pytest.raises(TerminalError, match="Redis layer"):
        await invalidate(daemon, "memcached", tags=["t"])


async def test_a_layer_that_is_down_is_named_and_the_request_may_be_repeated(
    daemon: Daemon, redis: Redis, memcached_server: Any
) -> None:
    await fill(RedisLayer(redis, PREFIX), "a")
    await memcached_server.kill()
    with pytest.raises(Unreachable, match="layer memcached"):
        await invalidate(daemon, keys=["a"])
    held = await redis.hgetall(registration_key(PREFIX))
    assert (held[b"generation"], held.get(b"completed")) == (b"1", None)
    await memcached_server.restart()
    assert (await invalidate(daemon, keys=["a"]))["revision"] == 2
    assert [event for event, _ in daemon.journal][1] == "OperationFailed"


async def test_a_dead_authority_is_named(daemon: Daemon, redis_server: Any) -> None:
    await redis_server.kill()
    with pytest.raises(Unreachable, match="layer redis"):
        await invalidate(daemon, all=True)


async def test_tags_that_nobody_keeps_and_layers_in_disorder_are_refused(daemon: Daemon) -> None:
    with pytest.raises(TerminalError, match="tags: true"):
        await invalidate(daemon, "untagged", tags=["t"])
    with pytest.raises(TerminalError, match="stands first"):
        await invalidate(daemon, "upside_down", keys=["a"])


@pytest.mark.parametrize("what", [{}, {"keys": ["a"], "all": True}, {"keys": []}, {"all": False}])
def test_a_request_says_exactly_one_thing(what: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Invalidate.model_validate({"namespace": "n", **what})


async def test_a_small_target_is_inspected_whole(daemon: Daemon, redis: Redis) -> None:
    await redis.set("shop:1", "x" * 5_000, ex=30)
    await redis.set("shop:2", "x")
    await redis.set("cart:1", "x", ex=100_000)
    answer = (await daemon.operate("cache.inspect", {"target": "redis"}))["result"]
    assert (answer["keys"], answer["complete"], answer["biggest"][0]["key"]) == (3, True, "shop:1")
    assert answer["without_ttl"]["examples"] == ["shop:2"]
    assert answer["ttl_keys"]["below_60_s"] == 1
    assert {row["prefix"]: row["keys"] for row in answer["prefixes"]} == {"shop:": 2, "cart:": 1}
    assert len(answer["hottest"]) == 3


async def test_a_big_target_is_sampled_and_estimated(daemon: Daemon, redis: Redis) -> None:
    pipe = redis.pipeline(transaction=False)
    for number in range(4_000):
        pipe.set(f"{'even' if number % 2 == 0 else 'odd'}:{number}", "x" * 100, ex=600)
    await pipe.execute()
    answer = (await daemon.operate("cache.inspect", {"target": "redis", "sample": 1_000}))["result"]
    assert (answer["keys"], answer["complete"]) == (4_000, False)
    assert answer["sampled"] <= 1_000
    shares = {row["prefix"]: row["keys"] for row in answer["prefixes"]}
    assert all(1_400 < shares[prefix] < 2_600 for prefix in ("even:", "odd:"))


async def test_the_hottest_are_told_by_frequency_where_the_server_counts_it(daemon: Daemon, redis: Redis) -> None:
    await redis.config_set("maxmemory-policy", "allkeys-lfu")
    for key in ("hot", "cold"):
        await redis.set(key, "x")
    for _ in range(300):
        await redis.get("hot")
    answer = (await daemon.operate("cache.inspect", {"target": "redis"}))["result"]
    assert answer["hottest"][0]["key"] == "hot"
    assert answer["hottest"][0]["frequency"] > answer["hottest"][1]["frequency"]


async def test_a_namespace_is_inspected_in_each_of_its_layers(
    daemon: Daemon, redis: Redis, memcached: MemcachedLayer
) -> None:
    layer = RedisLayer(redis, PREFIX)
    await fill(layer, "a")
    floor = await layer.floor() or 0
    await memcached.store(floor, "a", value("x" * 300), 60)
    await redis.set("other", "x")
    answer = (await daemon.operate("cache.inspect", {"namespace": "both"}))["result"]
    above, below = answer["layers"]
    assert above["keys"] >= 1
    assert all(row["key"].startswith(PREFIX) for row in above["biggest"])
    assert [row["key"] for row in below["biggest"]] == [memcached_key(PREFIX, floor, "a")]
    assert below["biggest"][0]["size_bytes"] > 300
