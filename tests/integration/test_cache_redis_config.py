"""Parameters of a real Redis: whatever spelling, one plan is enough."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from reconcilers.contract import Result
from tests.integration.backend_world import ClosedFence
from tests.integration.cache_world import world

pytestmark = pytest.mark.integration

CONFIG = "cache.redis_config"
SPELLINGS = [
    {"maxmemory": "100mb"},
    {"maxmemory": "1g"},
    {"maxmemory": "1GB"},
    {"maxmemory": 1048576},
    {"maxmemory-policy": "ALLKEYS-LRU"},
    {"maxmemory-clients": "10%"},
    {"maxmemory-clients": "1gb"},
    {"notify-keyspace-events": "KEA"},
    {"notify-keyspace-events": "Ex$"},
    {"notify-keyspace-events": "KEAm"},
    {"notify-keyspace-events": "KEg$lshzxetd"},
    {"notify-keyspace-events": ""},
    {"notify-keyspace-events": "KEAmn"},
    {"hz": 1000},
    {"hz": 0},
    {"repl-backlog-size": 1},
    {"client-output-buffer-limit": "pubsub 64mb 16mb 60"},
    {"client-output-buffer-limit": "replica 1gb 0 0 pubsub 1mb 1kb 0"},
    {"client-output-buffer-limit": "SLAVE 1gb 0 0"},
    {"hash-max-ziplist-entries": 64},
    {"list-max-ziplist-size": -2},
    {"slave-priority": 50},
    {"lua-time-limit": 4000},
    {"save": "3600 1  300 100"},
    {"save": ""},
    {"latency-tracking-info-percentiles": "50.0 99.90"},
    {"oom-score-adj": "relative"},
    {"oom-score-adj-values": "0  200 800"},
    {"shutdown-on-sigterm": "now nosave"},
    {"appendonly": False, "appendfsync": "Always", "no-appendfsync-on-rewrite": True},
    {"loglevel": "DEBUG"},
    {"replica-announce-ip": "Host.Example"},
    {"stream-node-max-bytes": "4k", "hll-sparse-max-bytes": "3kb"},
    {"active-expire-effort": 5, "lfu-decay-time": 0, "timeout": 300, "tcp-keepalive": 60},
]


@pytest.fixture
async def redis(redis_server):
    client = Redis.from_url(redis_server.url, socket_timeout=5)
    yield client
    await client.aclose()


@pytest.mark.parametrize("parameters", SPELLINGS, ids=str)
async def test_every_spelling_of_a_value_converges_at_once(redis_server, parameters):
    async with world(redis_server.url) as target:
        for outcome in await target.declare(CONFIG, {"parameters": parameters}):
            assert outcome.result is Result.SUCCEEDED
        again = await target.look(CONFIG, {"parameters": parameters})
        assert (again.converged, again.steps, again.differences) == (True, (), ())


async def test_what_is_not_declared_is_not_touched(redis_server, redis):
    before = await redis.config_get("*")
    async with world(redis_server.url) as target:
        await target.declare(
            CONFIG, {"parameters": {"maxmemory": "5mb", "client-output-buffer-limit": "pubsub 1mb 1kb 0"}}
        )
    after = await redis.config_get("*")
    assert {name for name in after if after[name] != before[name]} == {"maxmemory", "client-output-buffer-limit"}
    assert "slave 268435456 67108864 60" in after["client-output-buffer-limit"]


async def test_what_can_not_be_changed_is_said_once_and_the_rest_is_set(redis_server, redis):
    declared = {"parameters": {"databases": 3, "activedefrag": True, "maxmemory": "nonsense", "hz": 20, "timeout": 7}}
    async with world(redis_server.url) as target:
        (outcome,) = await target.declare(CONFIG, declared)
        assert outcome.result is Result.FAILED
        assert outcome.details["held"] == {"hz": "20", "timeout": "7"}
        plan = await target.look(CONFIG, declared)
        assert plan.steps == ()
        assert plan.blocked is not None
        for words in ("immutable", "must be a memory value", "'databases'"):
            assert words in plan.blocked.message
    assert (await redis.config_get("hz"))["hz"] == "20"


async def test_an_unknown_parameter_is_found_without_a_write(redis_server):
    async with world(redis_server.url) as target:
        plan = await target.look(CONFIG, {"parameters": {"no-such-thing": 1}})
        assert plan.steps == ()
        assert plan.blocked is not None
        assert plan.blocked.reason == "UnknownParameter"


async def test_a_clamp_that_nobody_knew_is_learnt_and_not_fought(redis_server):
    declared = {"parameters": {"notify-keyspace-events": "KEAn"}}
    async with world(redis_server.url) as target:
        await target.declare(CONFIG, declared)
        plan = await target.look(CONFIG, declared)
        assert plan.converged
        assert plan.warnings


async def test_what_is_to_persist_survives_a_restart(redis_server, redis):
    async with world(redis_server.url) as target:
        declared = {"parameters": {"maxmemory": "7mb"}, "persist": True}
        (outcome,) = await target.declare(CONFIG, declared)
        assert outcome.result is Result.SUCCEEDED
        assert (await target.look(CONFIG, declared)).converged
    await redis_server.kill()
    await redis_server.restart()
    await redis.connection_pool.disconnect()
    assert (await redis.config_get("maxmemory"))["maxmemory"] == str(7 * 1024 * 1024)


async def test_a_later_wish_to_persist_writes_the_file(redis_server, redis):
    async with world(redis_server.url) as target:
        await target.declare(CONFIG, {"parameters": {"maxmemory": "7mb"}})
        declared = {"parameters": {"maxmemory": "7mb"}, "persist": True}
        plan = await target.look(CONFIG, declared)
        assert [step.name for step in plan.steps] == ["RewriteConfig"]
        await target.take(plan)
        assert (await target.look(CONFIG, declared)).converged
    await redis_server.kill()
    await redis_server.restart()
    await redis.connection_pool.disconnect()
    assert (await redis.config_get("maxmemory"))["maxmemory"] == str(7 * 1024 * 1024)


async def test_a_restart_without_a_file_is_seen_and_put_right(redis_server, redis):
    declared = {"parameters": {"maxmemory": "7mb"}}
    async with world(redis_server.url) as target:
        await target.declare(CONFIG, declared)
        before = target.backend.incarnation
        await redis_server.kill()
        await redis_server.restart()
        plan = await target.look(CONFIG, declared)
        assert target.backend.incarnation != before
        assert [d.path for d in plan.differences] == ["/parameters/maxmemory"]
        await target.take(plan)
        assert (await target.look(CONFIG, declared)).converged


async def test_nothing_is_set_once_the_fence_is_closed(redis_server, redis):
    async with world(redis_server.url) as target:
        target.fence = ClosedFence()
        (outcome,) = await target.declare(CONFIG, {"parameters": {"maxmemory": "7mb"}})
        assert outcome.result is Result.NOT_SENT
    assert (await redis.config_get("maxmemory"))["maxmemory"] == "0"


async def test_a_server_that_is_over_its_memory_can_still_be_observed_and_put_right(redis_server):
    user = {"enabled": True, "passwords": [], "commands": ["+@read"], "keys": ["app:*"]}
    narrowed = {**user, "commands": ["+get"]}
    client = Redis.from_url(redis_server.url)
    try:
        async with world(redis_server.url) as one:
            await one.declare("cache.redis_user", user, "app")
            await client.config_set("maxmemory-policy", "noeviction")
            await client.config_set("maxmemory", "1mb")
            plan = await one.look("cache.redis_user", narrowed, "app")
            assert [outcome.result for outcome in await one.take(plan)] == [Result.SUCCEEDED]
            assert (await one.look("cache.redis_user", narrowed, "app")).converged
            declared = {"parameters": {"maxmemory": "256mb"}}
            assert [o.result for o in await one.declare(CONFIG, declared)] == [Result.SUCCEEDED]
            assert (await one.look(CONFIG, declared)).converged
    finally:
        await client.aclose()
