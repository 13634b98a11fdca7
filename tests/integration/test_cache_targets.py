"""Targets on real servers: hints, samples, silent nodes, wrong kinds."""

from __future__ import annotations

import asyncio
import re

import pytest
from redis.asyncio import Redis

from reconcilers import cache
from reconcilers.contract import Measurement, Result, Unreachable
from tests.integration.backend_world import DictSecrets
from tests.integration.cache_world import DEADLINE_S, hinted, world

pytestmark = pytest.mark.integration

USER = "cache.redis_user"
CONFIG = "cache.redis_config"


@pytest.fixture
async def redis(redis_server):
    client = Redis.from_url(redis_server.url, socket_timeout=5)
    yield client
    await client.aclose()


def values(measurements: list[Measurement]) -> dict[str, float]:
    return {one.metric_type: one.value for one in measurements}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("ACL", "SETUSER", "stranger"), "ACL SETUSER"),
        (("ACL", "DELUSER", "stranger"), "ACL DELUSER"),
        (("CONFIG", "SET", "hz", "11"), "CONFIG SET"),
        (("CONFIG", "RESETSTAT"), "RESET"),
    ],
)
async def test_administration_by_somebody_else_is_hinted(redis_server, redis, command, said):
    async with world(redis_server.url) as target:
        await target.declare(USER, {"commands": ["+ping"]}, "u")
        async with hinted(target.backend) as following:
            await redis.execute_command(*command)
            assert said in (await following()).reason.upper()


async def test_our_own_changes_are_no_hints(redis_server, redis):
    async with world(redis_server.url) as target:
        polls = target.backend.nodes[0].poll
        assert await polls() is None
        for index in range(5):
            await target.declare(USER, {"commands": ["+ping"]}, f"u{index}")
            assert await polls() is None
        await target.declare(CONFIG, {"parameters": {"hz": 12, "databases": 3}})
        assert await polls() is None
        await redis.execute_command("ACL", "SETUSER", "stranger")
        assert "ACL SETUSER" in str(await polls())
        assert await polls() is None


async def test_a_restart_is_hinted_and_forgets_what_was_learnt(redis_server):
    async with world(redis_server.url) as target:
        node, before = target.backend.nodes[0], target.backend.incarnation
        await target.declare(USER, {"commands": ["+ping"]}, "u")
        await redis_server.kill()
        with pytest.raises(Unreachable):
            await target.look(USER, {"commands": ["+ping"]}, "u")
        await redis_server.restart()
        assert "restarted" in str(await node.poll())
        assert target.backend.incarnation != before
        await target.declare(USER, {"commands": ["+ping"]}, "u")
        assert (await target.look(USER, {"commands": ["+ping"]}, "u")).converged


async def test_a_target_that_is_down_is_unreachable(redis_server, memcached_server):
    for server in (redis_server, memcached_server):
        async with world(server.url) as target:
            await server.kill()
            with pytest.raises(Unreachable):
                await target.backend.sample()
        with pytest.raises(Unreachable):
            async with world(server.url):
                raise AssertionError


async def test_steps_that_can_not_be_sent_have_failed(redis_server):
    async with world(redis_server.url) as target:
        plan = await target.look(USER, {"commands": ["+ping"]}, "u")
        await redis_server.kill()
        (outcome,) = await target.take(plan)
        assert outcome.result in (Result.FAILED, Result.UNKNOWN)
        assert isinstance(outcome.error, Unreachable)


async def sent(target):
    """Until a step is under way: the server has been asked and doesn't answer."""
    async with asyncio.timeout(DEADLINE_S):
        while not target.backend.nodes[0].tally.under_way:
            await asyncio.sleep(0)


async def asleep(redis, seconds):
    """A server that answers nobody for a while; the connection that told it so."""
    connection = await redis.connection_pool.get_connection()
    await connection.send_command("DEBUG", "SLEEP", seconds)
    return connection


@pytest.mark.parametrize("setting", [(USER, {"commands": ["+ping"]}), (CONFIG, {"parameters": {"hz": 11}})], ids=str)
async def test_a_step_whose_answer_never_came_is_unknown(redis_server, redis, setting):
    async with world(redis_server.url) as target:
        plan = await target.look(*setting)
        sleeper = await asleep(redis, 60)
        step = asyncio.create_task(target.take(plan))
        await sent(target)
        await redis_server.kill()
        (outcome,) = await step
        assert outcome.result is Result.UNKNOWN
        await sleeper.disconnect()


async def test_a_step_that_was_given_up_leaves_no_answer_for_the_next(redis_server, redis):
    async with world(redis_server.url) as target:
        plan = await target.look(USER, {"commands": ["+ping"]}, "u")
        sleeper = await asleep(redis, 1)
        step = asyncio.create_task(target.take(plan))
        await sent(target)
        step.cancel()
        await asyncio.wait([step])
        await sleeper.read_response()
        await redis.connection_pool.release(sleeper)
        for index in range(10):
            await target.declare(USER, {"commands": ["+get"]}, f"u{index}")
            assert (await target.look(USER, {"commands": ["+get"]}, f"u{index}")).converged


async def test_kinds_of_the_other_server_are_unsupported(redis_server, memcached_server):
    async with world(redis_server.url) as redis, world(memcached_server.url) as memcached:
        for setting_type in (USER, CONFIG, "cache.namespace"):
            assert redis.backend.unsupported(setting_type) is None
        assert "memcached" in str(redis.backend.unsupported("cache.memcached_config"))
        assert memcached.backend.unsupported("cache.memcached_config") is None
        assert "redis" in str(memcached.backend.unsupported(USER))


async def test_a_sample_of_redis_has_what_people_ask_for(redis_server, redis):
    await redis.set("app:1", "x" * 100)
    await redis.get("app:1")
    await redis.get("app:2")
    async with world(redis_server.url) as target:
        measured = await target.backend.sample()
        found = values(measured)
        assert (found["hits_total"], found["misses_total"], found["hit_ratio"], found["keys"]) == (1, 1, 0.5, 1)
        names = "evictions_total expired_total used_memory_bytes peak_memory_bytes fragmentation_ratio operations_per_s"
        assert set(names.split()) | {"clients", "replicas", "slowlog_entries", "without_ttl_keys"} <= found.keys()
        latencies = {m.tags["percentile"] for m in measured if m.metric_type == "command_latency_s"}
        assert latencies == {"p50", "p99", "p99.9"}


async def test_a_sample_of_memcached_has_what_people_ask_for(memcached_server):
    async with world(memcached_server.url) as target:
        await target.backend.nodes[0].command("get absent")
        found = values(await target.backend.sample())
        assert (found["hits_total"], found["misses_total"]) == (0, 1)
        names = (
            "evictions_total used_memory_bytes memory_limit_bytes clients keys slab_waste_bytes gets_total sets_total"
        )
        assert set(names.split()) <= found.keys()


async def test_each_node_is_driven_by_itself(redis_server, second_redis_server, redis):
    async with world(redis_server.url, second_redis_server.url, secrets=DictSecrets()) as target:
        value = {"commands": ["+ping"]}
        (outcome,) = await target.declare(USER, value, "u")
        assert set(outcome.details["nodes"]) == {node.name for node in target.backend.nodes}
        await redis.execute_command("ACL", "DELUSER", "u")
        plan = await target.look(USER, value, "u")
        first = target.backend.nodes[0].name
        assert [(d.path, d.observed) for d in plan.differences] == [(f"/username@{first}", None)]
        await target.take(plan)
        assert (await target.look(USER, value, "u")).converged


async def test_a_silent_node_keeps_nobody_from_driving_the_other(redis_server, second_redis_server):
    async with world(redis_server.url, second_redis_server.url) as target:
        await second_redis_server.kill()
        declared = {"parameters": {"maxmemory": "7mb"}}
        (outcome,) = await target.declare(CONFIG, declared)
        assert outcome.result is Result.SUCCEEDED
        plan = await target.look(CONFIG, declared)
        assert not plan.steps
        assert target.backend.nodes[1].name in str(plan.wait_reason)
        await second_redis_server.restart()
        await target.declare(CONFIG, declared)
        assert (await target.look(CONFIG, declared)).converged


async def test_a_user_is_gone_only_when_every_node_says_so(redis_server, second_redis_server):
    async with world(redis_server.url, second_redis_server.url) as target:
        value = {"commands": ["+ping"]}
        await target.declare(USER, value, "u")
        await second_redis_server.kill()
        for _ in range(2):
            plan = await target.look(USER, value, "u", retiring=True)
            assert not plan.converged
            await target.take(plan)
        await second_redis_server.restart()
        await target.take(await target.look(USER, value, "u", retiring=True))
        assert (await target.look(USER, value, "u", retiring=True)).converged


async def test_the_permissions_that_the_package_asks_for_are_enough(redis_server, redis):
    everything = re.findall(r"\+[a-z@|]+", str(cache.__doc__))
    await redis.execute_command("ACL", "SETUSER", "ops", "on", ">secret", *everything, "~*")
    login = {"username": "ops", "password": {"from_env": "P"}}
    async with world(redis_server.url, secrets=DictSecrets(P="secret"), **login) as target:
        for kind, value in [
            (USER, {"commands": ["+ping"]}),
            (USER, {"commands": []}),
            (CONFIG, {"parameters": {"hz": 11}, "persist": True}),
            ("cache.namespace", {"prefix": "shop:", "layers": [{"target": "main", "ttl_s": 5}]}),
        ]:
            (outcome,) = await target.declare(kind, value)
            assert outcome.result is Result.SUCCEEDED
        assert "census_failures" not in values(await target.backend.sample())
