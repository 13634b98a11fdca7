"""Registrations on real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from reconcilers.cache.keyspace import RedisKeyspace
from reconcilers.cache.namespace import DeregisterNamespace, RegisterNamespace, Registration, definition
from reconcilers.contract import ExternalId, NotSent, Result, Unreachable
from schemas.cache import Namespace
from schemas.cache_layout import registration_key
from tests.integration.layered_daemon import Open, memcached_keyspace

pytestmark = pytest.mark.integration


def external(prefix: str) -> ExternalId:
    return ExternalId("cache.namespace", prefix)


def register(prefix: str, ttl_s: float = 60, name: str = "n") -> RegisterNamespace:
    value = Namespace.model_validate({"prefix": prefix, "layers": [{"target": "t", "ttl_s": ttl_s}]})
    return RegisterNamespace(external(prefix), definition(name, value))


class Closed:
    token = (1, 1)

    def check(self) -> None:
        raise NotSent


@pytest.fixture
async def redis(redis_server: Any) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_server.url, socket_timeout=2.0, socket_connect_timeout=2.0)
    yield client
    await client.aclose()


@pytest.fixture(params=["redis", "memcached"])
async def keyspace(request: Any, redis: Redis, memcached_server: Any) -> Any:
    return RedisKeyspace(redis) if request.param == "redis" else memcached_keyspace(memcached_server.url)


async def test_what_is_registered_is_observed_and_what_is_not_is_absent(keyspace: Any) -> None:
    step = register("shop:")
    assert [outcome.result for outcome in await keyspace.apply([step], Open())] == [Result.SUCCEEDED]
    found = await keyspace.observe([external("shop:"), external("other:")])
    assert found == {external("shop:"): Registration(step.definition, 0)}


async def test_registering_anew_keeps_the_generation(keyspace: Any) -> None:
    await keyspace.apply([register("shop:")], Open())
    await keyspace.stamp("shop:", 8812)
    changed = register("shop:", ttl_s=5)
    await keyspace.apply([changed], Open())
    assert (await keyspace.observe([external("shop:")]))[external("shop:")] == Registration(changed.definition, 8812)


async def test_the_generation_never_falls(keyspace: Any) -> None:
    await keyspace.apply([register("shop:")], Open())
    for revision in (10, 9, 11, 3):
        await keyspace.stamp("shop:", revision)
    assert (await keyspace.observe([external("shop:")]))[external("shop:")].generation == 11


async def test_stamps_always_rise_and_a_flush_raises_the_floor(keyspace: Any) -> None:
    _, floor = await keyspace.stamp("shop:", 1)
    stamps = [await keyspace.stamp("shop:", revision) for revision in range(2, 30)]
    assert {one for _, one in stamps} == {floor}
    assert sorted(stamps) == stamps
    assert (await keyspace.stamp("shop:", 30, flush=True))[1] > floor


async def test_deregistering_removes_the_registration_and_may_be_repeated(keyspace: Any) -> None:
    await keyspace.apply([register("shop:")], Open())
    for _ in range(2):
        outcomes = await keyspace.apply([DeregisterNamespace(external("shop:"))], Open())
        assert [outcome.result for outcome in outcomes] == [Result.SUCCEEDED]
    assert await keyspace.observe([external("shop:")]) == {}


async def test_nothing_is_written_once_the_fence_is_closed(keyspace: Any) -> None:
    with pytest.raises(NotSent):
        await keyspace.apply([register("shop:")], Closed())
    assert await keyspace.observe([external("shop:")]) == {}


async def test_overlapping_prefixes_are_refused_on_redis(redis: Redis) -> None:
    keyspace = RedisKeyspace(redis)
    outcomes = await keyspace.apply([register("shop:"), register("shop:cart:"), register("shopping:")], Open())
    assert [outcome.result for outcome in outcomes] == [Result.SUCCEEDED, Result.FAILED, Result.SUCCEEDED]
    assert outcomes[1].error is not None
    assert outcomes[1].error.reason == "PrefixOverlap"
    await keyspace.apply([DeregisterNamespace(external("shop:"))], Open())
    assert (await keyspace.apply([register("shop:cart:")], Open()))[0].result is Result.SUCCEEDED


async def test_a_flush_of_redis_is_noticed(redis: Redis) -> None:
    keyspace = RedisKeyspace(redis)
    await keyspace.apply([register("shop:")], Open())
    await redis.flushall()
    assert await keyspace.observe([external("shop:")]) == {}


async def test_a_foreign_hash_is_observed_as_something_else(redis: Redis) -> None:
    await redis.hset(registration_key("shop:"), "definition", "rubbish")
    found = await RedisKeyspace(redis).observe([external("shop:")])
    assert found == {external("shop:"): Registration(None, 0)}


async def test_a_dead_server_is_unknown_not_absent(redis_server: Any, memcached_server: Any, redis: Redis) -> None:
    await redis_server.kill()
    await memcached_server.kill()
    for keyspace in (RedisKeyspace(redis), memcached_keyspace(memcached_server.url)):
        with pytest.raises(Unreachable):
            await keyspace.observe([external("shop:")])
        assert (await keyspace.apply([register("shop:")], Open()))[0].result is Result.UNKNOWN
