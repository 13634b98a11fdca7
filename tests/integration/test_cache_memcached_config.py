"""Settings of a real Memcached: whatever spelling, one plan is enough."""

from __future__ import annotations

import pytest

from reconcilers.contract import Result
from tests.integration.backend_world import ClosedFence
from tests.integration.cache_world import hinted, world

pytestmark = pytest.mark.integration

CONFIG = "cache.memcached_config"
SPELLINGS = [
    {"memory_mb": 128},
    {"memory_mb": 64},
    {"max_item": "1mb"},
    {"slab_automove": 0},
    {"slab_automove": 2, "slab_automove_ratio": 0.777},
    {"verbosity": 2},
    {"lru": {"mode": "flat"}},
    {"lru": {"mode": "segmented", "hot_pct": 10}},
    {"lru": {"hot_pct": 30, "warm_pct": 50, "hot_max_factor": 0.333, "warm_max_factor": 2.5}},
    {"lru": {"temp_ttl_s": 61}},
    {"lru": {"temp_ttl_s": -1}},
    {"lru": {"temp_ttl_s": 0}},
]


@pytest.mark.parametrize("value", SPELLINGS, ids=str)
async def test_every_spelling_converges_at_once(memcached_server, value):
    async with world(memcached_server.url) as target:
        for outcome in await target.declare(CONFIG, value):
            assert outcome.result is Result.SUCCEEDED
        again = await target.look(CONFIG, value)
        assert (again.converged, again.differences) == (True, ())


async def test_a_temporary_lru_that_is_switched_off_again_is_seen(memcached_server):
    async with world(memcached_server.url) as target:
        await target.declare(CONFIG, {"lru": {"temp_ttl_s": 61}})
        await target.backend.nodes[0].command("lru temp_ttl -1")
        plan = await target.look(CONFIG, {"lru": {"temp_ttl_s": 61}})
        assert [(d.desired, d.observed) for d in plan.differences] == [("61", "-1")]


async def test_what_needs_a_restart_is_said_and_the_rest_is_changed(memcached_server):
    async with world(memcached_server.url) as target:
        declared = {"max_item": "2mb", "memory_mb": 128}
        (outcome,) = await target.declare(CONFIG, declared)
        assert outcome.result is Result.SUCCEEDED
        plan = await target.look(CONFIG, declared)
        assert plan.steps == ()
        assert plan.blocked is not None
        assert plan.blocked.reason == "RestartRequired"


async def test_a_refusal_in_words_of_its_own_is_understood(memcached_server):
    async with world(memcached_server.url) as target:
        node = target.backend.nodes[0]
        assert (await node.command("cache_memlimit 7")).startswith("MEMLIMIT_TOO_SMALL")
        assert (await node.command("lru tune 50 40 1 1")).startswith("ERROR")
        assert (await node.command("nonsense")) == "ERROR"
        outcome = await node.change_settings({"/memory_mb": "7", "/verbosity": "1"}, target.fence)
        assert outcome.result is Result.FAILED
        assert (await node.stats("settings"))["verbosity"] == "1"


async def test_a_restart_is_hinted_and_what_was_set_is_set_again(memcached_server):
    async with world(memcached_server.url) as target:
        declared = {"memory_mb": 128, "lru": {"hot_pct": 11}}
        await target.declare(CONFIG, declared)
        before = target.backend.incarnation
        await memcached_server.kill()
        await memcached_server.restart()
        async with hinted(target.backend) as following:
            assert "restarted" in (await following()).reason
            assert target.backend.incarnation != before
            await target.take(await target.look(CONFIG, declared))
            assert (await target.look(CONFIG, declared)).converged


async def test_a_setting_changed_by_hand_is_hinted(memcached_server):
    async with world(memcached_server.url) as target, hinted(target.backend) as following:
        async with world(memcached_server.url) as somebody:
            await somebody.backend.nodes[0].command("verbosity 1")
        assert "settings changed" in (await following()).reason


async def test_nothing_is_sent_once_the_fence_is_closed(memcached_server):
    async with world(memcached_server.url) as target:
        target.fence = ClosedFence()
        (outcome,) = await target.declare(CONFIG, {"memory_mb": 128})
        assert outcome.result is Result.NOT_SENT
        assert (await target.look(CONFIG, {"memory_mb": 64})).converged
