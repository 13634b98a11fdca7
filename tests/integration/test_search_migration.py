"""Migrations on a real Elasticsearch, while people go on writing."""

from __future__ import annotations

import asyncio
import json

import pytest

from controlplane.devstack.elasticsearch import credentials
from tests.integration.search_load import load, settled
from tests.integration.search_world import INDEX, opened

pytestmark = pytest.mark.integration

SEEDS = 3_000


def value(kind, **more):
    return {
        "settings": {"number_of_shards": 2, "number_of_replicas": 0, "refresh_interval": "1s"},
        "mappings": {"properties": {"n": {"type": kind}, "title": {"type": "text"}}},
        "migration": {"keep_old_s": 3600, "hold_s": 20, **more},
    }


async def seed(world, index, count=SEEDS):
    rows = [row for i in range(count) for row in ({"index": {"_id": f"s{i}"}}, {"n": i, "title": f"seed {i}"})]
    body = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    answer = await world.wire.ask("POST", f"/{index}/_bulk", body, params={"refresh": True})
    assert not answer["errors"]
    return {f"s{i}": i for i in range(count)}


async def serving(world, index):
    return list(await world.wire.ask("GET", f"/_alias/{index}"))


async def test_nothing_is_lost_and_nobody_refused_in_three_migrations_under_load(elasticsearch_server):
    index = "mig-load"
    auth = credentials(elasticsearch_server.place)
    async with opened(elasticsearch_server) as world:
        await world.converge(INDEX, value("integer"), index)
        seeds = await seed(world, index)
        async with load(elasticsearch_server.url, auth, index) as people:
            people.expected |= seeds
            for kind in ("long", "double", "integer"):
                begun = people.requests
                plan = await world.converge(INDEX, value(kind), index)
                assert plan.converged
                async with asyncio.timeout(60):
                    while people.requests < begun + 50:
                        await asyncio.sleep(0.05)
        assert people.failures == []
        assert await settled(elasticsearch_server.url, auth, people) == {"lost": [], "stale": [], "resurrected": []}
        assert people.deleted
        (now,) = await serving(world, index)
        assert now.startswith(f"{index}-g4-")
        assert world.taken.count("SwitchAlias") == 3
        assert "mended" not in world.said["SwitchAlias"], "a pass missed something"


class Crash(BaseException):
    """The process is gone."""


class CrashingFence:
    """Lets some writes through, then the process dies."""

    token = (1, 1)

    def __init__(self, left):
        self.left = left

    def check(self):
        if self.left == 0:
            raise Crash
        self.left -= 1

    still_ours = check


async def test_a_process_that_dies_before_any_of_its_writes_is_taken_over(elasticsearch_server):
    """The first process dies at its second write, the next at its third, and so on, while people write all the time."""
    index = "mig-crash"
    auth = credentials(elasticsearch_server.place)
    crashes = 0
    async with opened(elasticsearch_server) as world:
        await world.converge(INDEX, value("integer"), index)
        seeds = await seed(world, index, 300)
    async with load(elasticsearch_server.url, auth, index, writers=2) as people:
        people.expected |= seeds
        is_done = False
        while not is_done:
            async with opened(elasticsearch_server) as world:
                world.fence = CrashingFence(1 + crashes)
                try:
                    is_done = (await world.converge(INDEX, value("long"), index)).converged
                except Crash:
                    crashes += 1
    assert people.failures == []
    assert await settled(elasticsearch_server.url, auth, people) == {"lost": [], "stale": [], "resurrected": []}
    assert crashes >= 8
