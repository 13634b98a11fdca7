"""What exists in real Redis and Memcached servers as declarations that converge without a write."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from reconcilers.contract import Unreachable
from tests.integration.backend_world import DictSecrets
from tests.integration.cache_world import world
from tests.integration.test_cache_redis_users import SPELLINGS

pytestmark = pytest.mark.integration

USER, CONFIG, MEMCACHED = "cache.redis_user", "cache.redis_config", "cache.memcached_config"

BY_HAND = [
    ["on", ">secret", "~app:*", "%R~ro:*", "&news.*", "+@read", "-@dangerous", "+config|get"],
    ["off", ">a", ">b", "+@all", "-@admin", "-keys", "~*", "&*"],
    ["on", "nopass", "allcommands", "allkeys"],
    ["on", ">x", "+get", "(+set ~x:* &c)", "(%RW~y:* -@all +@hash)"],
    ["on", "+@write", "-@list", "+lpush", "~foo(bar"],
]
"""Users as administrators make them."""


def secrets():
    return DictSecrets(A="first secret", B="second secret")


@pytest.fixture
async def redis(redis_server):
    client = Redis.from_url(redis_server.url, socket_timeout=5)
    yield client
    await client.aclose()


async def effects(redis):
    """How often every command was executed that changes what is declared. Scratch users are made and unmade by `reset`."""
    rows = await redis.info("commandstats")
    names = ("acl|setuser", "acl|deluser", "acl|load", "acl|save", "config|set", "config|rewrite", "client|kill")
    return {name: rows.get(f"cmdstat_{name}", {}).get("calls", 0) for name in names}


async def dump(redis):
    return sorted(await redis.execute_command("ACL", "LIST"))


async def test_users_made_by_hand_converge_as_declared_without_a_write(redis_server, redis):
    for index, rules in enumerate(BY_HAND):
        await redis.execute_command("ACL", "SETUSER", f"by-hand:{index}", "reset", *rules)
    before = await dump(redis)
    async with world(redis_server.url, secrets=secrets()) as target:
        found = {one.value["username"]: one for one in await target.backend.discover(USER, "by-hand:*")}
        assert sorted(found) == [f"by-hand:{index}" for index in range(len(BY_HAND))]
        for one in found.values():
            assert one.undeclarable is None
            assert (await target.look(USER, one.value, one.name)).converged
        settled = await effects(redis)
        for one in found.values():
            assert (await target.look(USER, one.value, one.name)).steps == ()
        assert await effects(redis) == settled
    assert await dump(redis) == before
    assert "can't be read" in found["by-hand:0"].fill_in["/passwords"]
    assert "2 passwords" in found["by-hand:1"].fill_in["/passwords"]
    assert found["by-hand:2"].fill_in == {}
    assert not any("secret" in str(one.value) for one in found.values())


async def test_users_that_were_declared_are_found_as_what_they_were_declared(redis_server, redis):
    async with world(redis_server.url, secrets=secrets()) as target:
        for index, value in enumerate(SPELLINGS):
            await target.declare(USER, value, f"spelt-{index}")
        found = {one.name: one for one in await target.backend.discover(USER, "spelt-*")}
        assert len(found) == len(SPELLINGS)
        for name, one in found.items():
            assert (await target.look(USER, one.value, name)).converged, one


async def test_the_servers_own_user_is_found_by_its_name_only(redis_server):
    async with world(redis_server.url) as target:
        assert "default" not in {one.name for one in await target.backend.discover(USER, "*")}
        (one,) = await target.backend.discover(USER, "default")
        assert (await target.look(USER, one.value, one.name)).converged


async def test_a_user_there_are_no_words_for_says_so(redis_server, redis):
    await redis.execute_command("ACL", "SETUSER", "unsanitized", "on", "skip-sanitize-payload")
    async with world(redis_server.url) as target:
        (one,) = await target.backend.discover(USER, "unsanitized")
    assert "skip-sanitize-payload" in one.undeclarable


async def test_parameters_that_somebody_set_converge_as_declared_without_a_write(redis_server, redis):
    await redis.config_set("maxmemory", "123mb")
    await redis.config_set("notify-keyspace-events", "Ex$")
    await redis.config_set("client-output-buffer-limit", "pubsub 64mb 16mb 90")
    async with world(redis_server.url) as target:
        (one,) = await target.backend.discover(CONFIG, "*")
        assert one.value["parameters"]["maxmemory"] == str(123 * 1024 * 1024)
        assert {"notify-keyspace-events", "client-output-buffer-limit"} <= one.value["parameters"].keys()
        assert "maxmemory-samples" not in one.value["parameters"]
        settled = await effects(redis)
        assert (await target.look(CONFIG, one.value)).converged
        (narrow,) = await target.backend.discover(CONFIG, "maxmemory-s*")
        assert narrow.value == {"parameters": {"maxmemory-samples": "5"}}
        assert await target.backend.discover(CONFIG, "nonsense*") == []
        (everything,) = await target.backend.discover(CONFIG, "[a-z]*")
        assert (await target.look(CONFIG, everything.value)).converged
        assert await effects(redis) == settled


async def test_nodes_that_differ_are_said_to(redis_server, second_redis_server, redis):
    await redis.execute_command("ACL", "SETUSER", "one-sided", "on")
    await redis.config_set("maxmemory-samples", "9")
    async with world(redis_server.url, second_redis_server.url) as target:
        (user,) = await target.backend.discover(USER, "one-sided")
        assert "only some nodes" in user.undeclarable
        (config,) = await target.backend.discover(CONFIG, "maxmemory-s*")
        assert "maxmemory-samples" in config.undeclarable


async def test_settings_of_memcached_converge_as_declared(memcached_server):
    async with world(memcached_server.url) as target:
        (one,) = await target.backend.discover(MEMCACHED, "*")
        assert {"memory_mb", "lru", "max_item"} <= one.value.keys()
        assert (await target.look(MEMCACHED, one.value)).converged
        assert await target.backend.discover("cache.namespace", "*") == []


async def test_no_answer_is_not_nothing(redis_server):
    async with world(redis_server.url) as target:
        await redis_server.kill()
        with pytest.raises(Unreachable):
            await target.backend.discover(USER, "*")
