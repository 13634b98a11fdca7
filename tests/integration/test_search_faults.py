"""What goes wrong on a real Elasticsearch: nodes and daemons killed, documents and mappings refused, disks full, shards gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reconcilers.contract import Result, TerminalError, TransientError, Unreachable
from tests.e2e.conditions import condition_of, phase, until
from tests.integration.backend_world import OpenFence
from tests.integration.search_load import load, settled
from tests.integration.search_world import INDEX, SearchWorld, login, opened
from tests.integration.test_search_migration import Crash, CrashingFence, seed, serving, value

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


async def test_documents_that_the_new_mapping_refuses_stop_the_migration_and_are_named(elasticsearch_server):
    index = "fault-refused"
    async with opened(elasticsearch_server) as world:
        text = {"mappings": {"properties": {"n": {"type": "keyword"}}}, "settings": {"number_of_replicas": 0}}
        await world.converge(INDEX, text, index)
        await world.wire.ask("PUT", f"/{index}/_doc/word?refresh=true", {"n": "a word"})
        number = {**text, "mappings": {"properties": {"n": {"type": "integer"}}}}
        blocked = (await world.converge(INDEX, number, index)).blocked
        assert blocked.reason == "MigrationRefused"
        assert "word" in blocked.message
        assert "integer" in blocked.message
        (now,) = await serving(world, index)
        assert now.startswith(f"{index}-g1-")
        assert (await world.converge(INDEX, text, index)).converged
        assert world.taken[-1] == "DropGeneration"


async def test_a_definition_that_the_server_refuses_says_so_in_its_words(elasticsearch_server):
    wrong = {"mappings": {"properties": {"n": {"type": "text", "analyser": "english"}}}}
    async with opened(elasticsearch_server) as world:
        with pytest.raises(TerminalError, match=r"unknown parameter \[analyser\]") as caught:
            await world.look(INDEX, wrong, "fault-invalid")
        assert caught.value.reason == "InvalidDefinition"


async def test_losing_the_source_of_documents_is_never_done_in_place(elasticsearch_server):
    index = "fault-source"
    async with opened(elasticsearch_server) as world:
        await world.converge(INDEX, value("integer"), index)
        blind = value("integer")
        blind["mappings"]["_source"] = {"enabled": False}
        assert (await world.look(INDEX, blind, index)).blocked.reason == "DataLoss"


async def test_an_analysis_that_indexing_uses_is_migrated_and_another_one_reopened_or_migrated(elasticsearch_server):
    index = "fault-analysis"

    def analysed(stop: str, **migration: Any) -> dict[str, Any]:
        chain = {
            "filter": {"s": {"type": "stop", "stopwords": [stop]}},
            "analyzer": {"a": {"tokenizer": "standard", "filter": ["s"]}},
        }
        fields = {"t": {"type": "text", "analyzer": "a"}}
        return {
            "settings": {"number_of_replicas": 0},
            "analysis": chain,
            "mappings": {"properties": fields},
            "migration": {"hold_s": 20, **migration},
        }

    async with opened(elasticsearch_server) as world:
        await world.converge(INDEX, analysed("the"), index)
        await world.wire.ask("PUT", f"/{index}/_doc/1?refresh=true", {"t": "the shoe"})
        assert (await world.converge(INDEX, analysed("shoe", allow_close=True), index)).converged
        assert "SwitchAlias" in world.taken
        assert "ReopenIndex" not in world.taken
        answer = await world.wire.ask("POST", f"/{index}/_search", {"query": {"match": {"t": "the"}}})
        assert answer["hits"]["total"]["value"] == 1, "old documents have their new tokens"


async def test_a_full_disk_is_reported_and_not_fought(elasticsearch_server):
    index = "fault-full"
    async with opened(elasticsearch_server) as world:
        await world.converge(INDEX, value("integer"), index)
        block = {"index.blocks.read_only_allow_delete": True}
        await world.wire.ask("PUT", f"/{index}/_settings", block)
        plan = await world.look(INDEX, value("integer"), index)
        assert plan.converged
        assert "disk is full" in plan.warnings[0]
        changed = await world.look(INDEX, value("long"), index)
        assert changed.steps == ()
        assert "disk is full" in (changed.wait_reason or "")
        await world.wire.ask("PUT", f"/{index}/_settings", {"index.blocks.read_only_allow_delete": None})
        assert (await world.converge(INDEX, value("long"), index)).converged


async def test_a_new_generation_that_takes_nothing_for_now_is_tried_again_and_not_given_up(elasticsearch_server):
    index = "fault-later"
    async with opened(elasticsearch_server) as world:
        await world.converge(INDEX, value("integer"), index)
        plan = await world.converge(INDEX, value("long"), index, until="FeedChanges")
        building = plan.steps[0].index
        await world.wire.ask("PUT", f"/{building}/_settings", {"index.blocks.write": True})
        await world.wire.ask("PUT", f"/{index}/_doc/meanwhile", {"n": 1})
        (outcome,) = await world.take(plan)
        assert isinstance(outcome.error, TransientError)
        assert outcome.error.reason == "Blocked"
        await world.wire.ask("PUT", f"/{building}/_settings", {"index.blocks.write": None})
        assert (await world.converge(INDEX, value("long"), index)).converged
        assert list(await world.wire.ask("GET", f"/_alias/{index}")) == [building]
        found = await world.wire.ask("GET", f"/{index}/_doc/meanwhile")
        assert found["found"]


async def test_an_index_whose_shards_are_gone_is_not_migrated_from(elasticsearch_server):
    index = "fault-red"
    async with opened(elasticsearch_server) as world:
        red = value("integer")
        red["settings"]["index.routing.allocation.require._name"] = "no-such-node"
        body = {"settings": red["settings"], "aliases": {index: {}}}
        await world.wire.ask("PUT", f"/{index}-g1-00000000?wait_for_active_shards=0", body)
        wanted = {**value("integer"), "settings": {**red["settings"], "number_of_shards": 1}}
        plan = await world.look(INDEX, wanted, index)
        assert [step.name for step in plan.steps] == ["CreateGeneration"]
        (outcome,) = await world.take(plan)
        assert (outcome.result, outcome.error.reason) == (Result.FAILED, "ShardsMissing")
        await world.wire.ask("DELETE", f"/{index}-g1-00000000")


async def test_an_alias_taken_away_or_moved_by_hand_comes_back(elasticsearch_server):
    index = "fault-alias"
    async with opened(elasticsearch_server) as world:
        await world.converge(INDEX, value("integer"), index)
        await world.converge(INDEX, value("long"), index)
        (now,) = await serving(world, index)
        (old,) = [one.name for one in (await world.backend.indices.described([index]))[index] if one.name != now]
        await world.wire.ask("DELETE", f"/{now}/_alias/{index}")
        await world.converge(INDEX, value("long"), index)
        assert await serving(world, index) == [now]
        actions = [{"remove": {"index": now, "alias": index}}, {"add": {"index": old, "alias": index}}]
        await world.wire.ask("POST", "/_aliases", {"actions": actions})
        await world.converge(INDEX, value("long"), index)
        assert await serving(world, index) == [now]


async def test_an_index_of_another_name_behind_the_alias_is_migrated_from_also_when_the_process_dies(
    elasticsearch_server,
):
    index = "fault-foreign"
    async with opened(elasticsearch_server) as world:
        body = {**value("integer"), "aliases": {index: {}}}
        del body["migration"]
        await world.wire.ask("PUT", "/fault-other-name", body)
        seeds = await seed(world, index, 100)
        plan = await world.converge(INDEX, value("long"), index, until="SwitchAlias")
        world.fence = CrashingFence(3)
        with pytest.raises(Crash):
            await world.take(plan)
    async with opened(elasticsearch_server) as world:
        assert (await world.converge(INDEX, value("long", keep_old_s=0), index)).converged
        assert {"FinishSwitch", "RetireGeneration", "DropGeneration"} <= set(world.taken)
        assert (await world.wire.ask("GET", f"/{index}/_count"))["count"] == len(seeds)
        assert await world.wire.ask("GET", "/fault-other-name/_alias", absent=None) is None


async def test_old_generations_go_when_their_time_is_over(elasticsearch_server):
    index = "fault-old"
    async with opened(elasticsearch_server) as world:
        await world.converge(INDEX, value("integer"), index)
        kept = await world.converge(INDEX, value("long"), index)
        assert kept.requeue_after_s is not None
        await world.converge(INDEX, value("long", keep_old_s=0), index)
        assert world.taken[-1] == "DropGeneration"
        assert len((await world.backend.indices.described([index]))[index]) == 1


async def test_a_killed_daemon_goes_on_with_the_migration_while_people_write(elasticsearch_server, daemon):
    index = "fault-daemon"
    auth, _ = login(elasticsearch_server)
    target = {"url": elasticsearch_server.url, "username": auth[0], "password": {"from_env": "ES_PASSWORD"}}
    await daemon.stop()
    await daemon.start(ES_PASSWORD=auth[1])
    async with daemon.client() as client:
        await client.put_setting("search.target", "main", {"value": target})
        await client.put_setting(INDEX, index, {"value": {"target": "main", **value("integer")}})
        await phase(client, INDEX, index, "Ready", 60)
    async with opened(elasticsearch_server) as world:
        seeds = await seed(world, index, 1_000)
    async with load(elasticsearch_server.url, auth, index, writers=2) as people:
        people.expected |= seeds
        async with daemon.client() as client:
            await client.put_setting(INDEX, index, {"value": {"target": "main", **value("long")}})
        for _ in range(3):
            begun = people.requests
            async with asyncio.timeout(60):
                while people.requests < begun + 60:
                    await asyncio.sleep(0.02)
            await daemon.kill()
            await daemon.start(ES_PASSWORD=auth[1])
        async with daemon.client() as client:
            await phase(client, INDEX, index, "Ready", 200)

            async def told() -> bool:
                page = await client.events(setting=f"default/{INDEX}/{index}", event_type="ActionStarted", limit=200)
                return {"CreateGeneration", "StartCopy"} <= {event["details"]["step"] for event in page["items"]}

            await until(told, 60, "both steps are events")
    assert people.failures == []
    assert await settled(elasticsearch_server.url, auth, people) == {"lost": [], "stale": [], "resurrected": []}


async def test_drift_and_refusal_reach_the_status(elasticsearch_server, daemon):
    index = "fault-status"
    auth, _ = login(elasticsearch_server)
    target = {"url": elasticsearch_server.url, "username": auth[0], "password": {"from_env": "ES_PASSWORD"}}
    await daemon.stop()
    await daemon.start(ES_PASSWORD=auth[1])
    async with daemon.client() as client:
        await client.put_setting("search.target", "main", {"value": target})
        await client.put_setting(INDEX, index, {"value": {"target": "main", **value("integer")}})
        await phase(client, INDEX, index, "Ready", 60)
        async with opened(elasticsearch_server) as world:
            (concrete,) = await serving(world, index)
            await world.wire.ask("PUT", f"/{concrete}/_settings", {"index.refresh_interval": "17s"})

        async def drifted() -> Any:
            return (await client.events(setting=f"default/{INDEX}/{index}", event_type="DriftDetected"))["items"]

        event = (await until(drifted, 60, "the drift is detected"))[0]
        assert event["details"]["drift"][0] == {
            "path": "/settings/refresh_interval",
            "desired": "1s",
            "observed": "17s",
        }
        await phase(client, INDEX, index, "Ready", 60)
        wrong = {"target": "main", "mappings": {"properties": {"n": {"type": "no-such-type"}}}}
        await client.put_setting(INDEX, "fault-wrong", {"value": wrong})
        stalled = condition_of(await phase(client, INDEX, "fault-wrong", "Stalled", 60), "Stalled")
        assert stalled["reason"] == "InvalidDefinition"
        assert "no-such-type" in stalled["message"]
        answer = await client.operate("search.query", {"index": index, "size": 1})
        assert answer["result"]["total"] == 0


async def until_dead_at_the_swap(world: SearchWorld, declared: dict[str, Any], index: str) -> None:
    """The process dies when rehearsal and hold are through. What the node refuses for now is tried again before that."""
    crashed = False
    while not crashed:
        plan = await world.converge(INDEX, declared, index, until="SwitchAlias")
        assert [step.name for step in plan.steps] == ["SwitchAlias"], (plan, world.taken[-20:], world.said)
        world.fence = CrashingFence(3)
        try:
            outcomes = await world.take(plan)
            print([outcome.error for outcome in outcomes])
        except Crash:
            crashed = True
        world.fence = OpenFence()


async def test_a_killed_node_ends_neither_a_copy_nor_a_switch(elasticsearch_server):
    """Killed while it copies, and while writers are held and the alias has moved."""
    index = "fault-node"
    async with opened(elasticsearch_server) as world:
        await world.converge(INDEX, value("integer"), index)
        seeds = await seed(world, index)
        slow = value("long", requests_per_second=1_000)
        await world.converge(INDEX, slow, index, until="RecordProgress")
        await elasticsearch_server.kill()
        with pytest.raises(Unreachable, match=r"no connection to 127\.0\.0\.1:"):
            await world.look(INDEX, slow, index)
        await elasticsearch_server.start()
    async with opened(elasticsearch_server) as world:
        fast = value("long")
        await until_dead_at_the_swap(world, fast, index)
        assert "StartCopy" in world.taken
        await elasticsearch_server.kill()
        await elasticsearch_server.start()
    async with opened(elasticsearch_server) as world:
        assert (await world.converge(INDEX, fast, index)).converged
        found = await world.wire.ask("GET", f"/{index}/_count")
        assert found["count"] == len(seeds)
        written = await world.wire.ask("PUT", f"/{index}/_doc/after?timeout=10s", {"n": 1})
        assert written["result"] == "created", "nobody is held any more"
