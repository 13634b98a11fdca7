"""Operations of the search service on a real Elasticsearch."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from reconcilers.contract import TerminalError, TransientError
from reconcilers.registry import SERVICES
from tests.integration.backend_world import KINDS
from tests.integration.search_world import INDEX, SearchWorld, login, opened

pytestmark = pytest.mark.integration

OPERATIONS = {operation.name: operation for operation in SERVICES["search"].operations}


class Context:
    """What the daemon gives to operations."""

    revision = 1

    def __init__(self, world: SearchWorld, tenant: str = "default") -> None:
        self.world = world
        self.tenant = tenant
        self.declared: dict[tuple[str, str], Any] = {}

    def declare(self, setting_type: str, name: str, value: dict[str, Any]) -> None:
        self.declared[setting_type, name] = KINDS[setting_type].value.model_validate({"target": "main", **value})

    def setting(self, setting_type: str, name: str) -> Any:
        return self.declared[setting_type, name]

    def settings(self, setting_type: str) -> dict[str, Any]:
        return {name: value for (kind, name), value in self.declared.items() if kind == setting_type}

    async def backend(self, _target: str) -> Any:
        return self.world.backend


async def run(context: Context, name: str, **request: Any) -> dict[str, Any]:
    operation = OPERATIONS[name]
    asked = operation.request.model_validate(request)
    assert operation.target(context, asked) == "main"
    return await operation.run(context, asked)


def value(kind: str = "integer", **more: Any) -> dict[str, Any]:
    properties = {"n": {"type": kind}, "title": {"type": "text"}, "tenant": {"type": "keyword"}}
    return {"settings": {"number_of_replicas": 0}, "mappings": {"properties": properties}, **more}


async def declared(world: SearchWorld, context: Context, name: str, declaration: dict[str, Any]) -> None:
    context.declare(INDEX, name, declaration)
    await world.converge(INDEX, declaration, name)


async def test_queries_are_bounded_filtered_by_tenant_and_counted(elasticsearch_server):
    async with opened(elasticsearch_server) as world:
        ours, theirs = Context(world, "ours"), Context(world, "theirs")
        for context in (ours, theirs):
            await declared(world, context, "ops-query", value(tenant_field="tenant"))
        docs = [{"n": n, "title": f"shoe {n}", "tenant": "ours" if n % 2 else "theirs"} for n in range(20)]
        answer = await run(ours, "bulk", index="ops-query", documents=docs, id_field="n", refresh=True)
        assert (answer["written"], answer["failed"]) == (20, 0)
        found = await run(ours, "query", index="ops-query", query={"match": {"title": "shoe"}}, size=5)
        assert (found["total"], len(found["hits"])) == (10, 5)
        assert {hit["source"]["tenant"] for hit in found["hits"]} == {"ours"}
        narrow = await run(theirs, "query", index="ops-query", filter={"range": {"n": {"lt": 6}}}, label="cheap")
        assert narrow["total"] == 3
        beyond = {"aggs": {"all": {"global": {}, "aggs": {"t": {"top_hits": {}}}}}}
        with pytest.raises(TerminalError, match="other tenants"):
            await run(ours, "query", index="ops-query", body=beyond)
        nothing = await run(ours, "query", index="ops-query", query={"match": {"title": "boot"}}, profile=True)
        assert nothing["total"] == 0
        assert nothing["profile"]
        measured = {(m.metric_type, m.tags.get("query")): m.value for m in await world.backend.sample()}
        assert measured["queries_total", "match(title)"] == 2
        assert measured["queries_without_hits_total", "match(title)"] == 1
        assert measured["queries_total", "cheap"] == 1
        assert measured["health_status", None] in (0, 1, 2)
        assert narrow["counted_as"] == "cheap"
        await run(ours, "click", index="ops-query", counted_as=found["counted_as"], position=3)
        clicked = {(m.metric_type, m.tags.get("query")): m.value for m in await world.backend.sample()}
        assert clicked["query_clicks_total", "match(title)"] == 1
        assert clicked["query_click_positions_total", "match(title)"] == 3


async def test_bulk_tells_the_fate_of_every_item(elasticsearch_server):
    async with opened(elasticsearch_server) as world:
        context = Context(world)
        await declared(world, context, "ops-bulk", value(mappings={"dynamic": "strict", **value()["mappings"]}))
        rows = [
            {"index": {"_id": "1"}},
            {"n": 1},
            {"create": {"_id": "1"}},
            {"n": 2},
            {"index": {"_id": "2"}},
            {"n": "not a number"},
            {"index": {"_id": "3"}},
            {"unknown": 1},
            {"delete": {"_id": "9"}},
        ]
        ndjson = "\n".join(map(json.dumps, rows))
        answer = await run(context, "bulk", index="ops-bulk", ndjson=ndjson)
        assert [item["status"] for item in answer["items"]] == [201, 409, 400, 400, 404]
        assert (answer["written"], answer["failed"]) == (2, 3)
        assert "strict" in answer["items"][3]["error"]
        told = OPERATIONS["bulk"].record(answer)
        assert "items" not in told
        assert len(told["failures"]) == 3
        for wrong in ('{"index":{"_index":"other"}}\n{}', '{"index":{}}', "nonsense"):
            with pytest.raises(TerminalError, match="line 1"):
                await run(context, "bulk", index="ops-bulk", ndjson=wrong)


async def test_items_that_a_full_disk_refuses_are_told_in_its_words(elasticsearch_server):
    async with opened(elasticsearch_server) as world:
        context = Context(world)
        await declared(world, context, "ops-full", value())
        await run(context, "bulk", index="ops-full", documents=[{"n": 1}], id_field="n")
        await world.wire.ask("PUT", "/ops-full/_settings", {"index.blocks.read_only_allow_delete": True})
        rows = [{"index": {"_id": "2"}}, {"n": 2}, {"delete": {"_id": "1"}}]
        answer = await run(context, "bulk", index="ops-full", ndjson="\n".join(map(json.dumps, rows)))
        assert (answer["written"], [item["status"] for item in answer["items"]]) == (0, [429, 429])
        assert all("disk usage exceeded flood-stage watermark" in item["error"] for item in answer["items"])


async def test_many_documents_go_in_several_requests(elasticsearch_server):
    async with opened(elasticsearch_server) as world:
        context = Context(world)
        await declared(world, context, "ops-many", value())
        docs = [{"n": n, "title": "x" * 500} for n in range(4_000)]
        answer = await run(context, "bulk", index="ops-many", documents=docs, refresh=True)
        assert (answer["written"], len(answer["items"])) == (4_000, 4_000)


async def test_analyze_and_suggest(elasticsearch_server):
    async with opened(elasticsearch_server) as world:
        context = Context(world)
        await declared(world, context, "ops-text", value())
        suggester = {"index": "ops-text", "field": "title", "kind": "prefix"}
        context.declare("search.suggester", "ops-titles", suggester)
        await run(context, "bulk", index="ops-text", documents=[{"title": "Running Shoes"}], refresh=True)
        tokens = await run(context, "analyze", index="ops-text", text="Running Shoes", field="title")
        assert [token["token"] for token in tokens["tokens"]] == ["running", "shoes"]
        found = await run(context, "suggest", suggester="ops-titles", text="runn")
        assert [row["text"] for row in found["suggestions"]] == ["Running Shoes"]


async def test_suggestions_are_of_the_tenants_own_texts_by_whatever_name(elasticsearch_server):
    own = {"name": "whose", "type": "category", "path": "tenant"}
    brand = {"name": "brand", "type": "category", "path": "title"}
    async with opened(elasticsearch_server) as world:
        ours, theirs = Context(world, "ours"), Context(world, "ours-too")
        for context in (ours, theirs):
            await declared(world, context, "ops-mixed", value(tenant_field="tenant"))
            for name, kind, mapping in (
                ("whole", "completion", {"contexts": [own, brand]}),
                ("start", "prefix", {}),
                ("words", "term", {}),
            ):
                suggester = {"index": "ops-mixed", "field": "title", "kind": kind, "mapping": mapping}
                context.declare("search.suggester", name, suggester)
                await world.converge("search.suggester", suggester, name)
            (concrete,) = await world.wire.ask("GET", "/ops-mixed")
            context.declare("search.suggester", "concrete", {**suggester, "index": concrete})
        docs = [
            {"title": "shoe of ours", "tenant": "ours"},
            {"title": "shoe of theirs", "tenant": "ours-too"},
            {"title": "shoe of nobody"},
        ]
        await run(ours, "bulk", index="ops-mixed", documents=docs, refresh=True)
        for context, text in ((ours, "shoe of ours"), (theirs, "shoe of theirs")):
            for name in ("whole", "start"):
                found = await run(context, "suggest", suggester=name, text="shoe")
                assert [row["text"] for row in found["suggestions"]] == [text], name
        for name, more in (("words", {}), ("concrete", {}), ("whole", {"contexts": {"brand": ["shoe of theirs"]}})):
            with pytest.raises(TerminalError, match="texts of other tenants"):
                await run(ours, "suggest", suggester=name, text="shoo", **more)


async def test_a_manual_migration_waits_is_aborted_started_and_rolled_back(elasticsearch_server):
    name = "ops-manual"
    old, new = value(migration={"mode": "manual"}), value("long", migration={"mode": "manual"})
    async with opened(elasticsearch_server) as world:
        context = Context(world)
        await declared(world, context, name, old)
        await run(context, "bulk", index=name, documents=[{"n": 1}], refresh=True)
        await declared(world, context, name, new)
        assert (await world.look(INDEX, new, name)).blocked.reason == "MigrationNeeded"

        await run(context, "migrate", index=name, action="start")
        await world.converge(INDEX, new, name, until="VerifyGeneration")
        status = await run(context, "migrate", index=name)
        assert (status["migrating"], status["generations"][-1]["phase"]) == (True, "feeding")
        await run(context, "migrate", index=name, action="throttle", requests_per_second=500)
        assert (await run(context, "migrate", index=name))["generations"][-1]["requests_per_second"] == 500

        await run(context, "migrate", index=name, action="abort")
        assert (await world.look(INDEX, new, name)).blocked.reason == "MigrationAborted"
        assert len((await run(context, "migrate", index=name))["generations"]) == 1

        await run(context, "migrate", index=name, action="start")
        assert (await world.converge(INDEX, new, name)).converged
        await run(context, "bulk", index=name, documents=[{"n": 2}], refresh=True)

        await run(context, "migrate", index=name, action="rollback")
        assert (await world.converge(INDEX, new, name)).blocked.reason == "RolledBack"
        mapping = await world.wire.ask("GET", f"/{name}/_mapping")
        (document,) = mapping.values()
        assert document["mappings"]["properties"]["n"]["type"] == "integer"
        assert (await world.wire.ask("GET", f"/{name}/_count"))["count"] == 2, "what was written since stays"
        assert (await world.look(INDEX, old, name)).converged

        await run(context, "migrate", index=name, action="start")
        assert (await world.converge(INDEX, new, name)).converged
        with pytest.raises(TerminalError, match="no migration"):
            await run(context, "migrate", index=name, action="abort")


async def test_a_snapshot_is_restored_beside_what_is_there(elasticsearch_server):
    async with opened(elasticsearch_server) as world:
        context = Context(world)
        repository = {"settings": {"location": str(login(elasticsearch_server).snapshots / "ops")}}
        context.declare("search.repository", "ops-repo", repository)
        await world.converge("search.repository", repository, "ops-repo")
        await declared(world, context, "ops-snap", value())
        await run(context, "bulk", index="ops-snap", documents=[{"n": 1}], refresh=True)
        taken = await run(context, "snapshot", repository="ops-repo", indices=["ops-snap*"])
        async with asyncio.timeout(60):
            while True:
                try:
                    restored = await run(
                        context,
                        "restore",
                        repository="ops-repo",
                        snapshot=taken["snapshot"],
                        indices=["ops-snap-g*"],
                        prefix="back-",
                    )
                    break
                except (TerminalError, TransientError):
                    await asyncio.sleep(0.2)  # it is still being taken
        (index,) = restored["indices"]
        assert index.startswith("back-ops-snap-g1-")
        assert (await world.wire.ask("GET", f"/{index}/_count"))["count"] == 1


async def test_advice_comes_with_its_evidence(elasticsearch_server):
    async with opened(elasticsearch_server) as world:
        context = Context(world)
        declaration = value(settings={"number_of_replicas": 1, "number_of_shards": 3})
        declaration["mappings"]["properties"]["dead"] = {"type": "keyword", "index": False, "doc_values": False}
        await declared(world, context, "ops-advice", declaration)
        await run(context, "query", index="ops-advice", query={"match": {"title": "a"}}, label="slow one")
        world.backend.queries.kinds["ops-advice", "slow one"].slowest_ms = 5_000
        advice = (await run(context, "advise", target="main"))["advice"]
        mine = {one["about"]: one["evidence"] for one in advice if one["index"] == "ops-advice"}
        assert mine["replicas can't be allocated"] == {"number_of_replicas": 1, "data_nodes": 1}
        assert mine["more shards than its size needs"]["number_of_shards"] == 3
        assert mine["fields that can be neither searched, sorted nor aggregated"] == {"fields": ["dead"]}
        assert "Query" in mine["query slow one is slow"]["plan"][0]


async def test_where_templates_are_in_effect(elasticsearch_server):
    async with opened(elasticsearch_server) as world:
        context = Context(world)

        async def template(replicas: int) -> None:
            body = {
                "index_patterns": ["effect-*"],
                "priority": 700,
                "composed_of": ["effect-part"],
                "template": {"settings": {"number_of_replicas": replicas}},
                "version": replicas + 1,
            }
            await world.wire.ask("PUT", "/_index_template/effect", body)

        part = {"template": {"mappings": {"properties": {"n": {"type": "integer"}}}}}
        await world.wire.ask("PUT", "/_component_template/effect-part", part)
        await template(0)
        await world.wire.ask("PUT", "/effect-1", {})
        before = await run(context, "effective", target="main", match="effect-*")
        assert before["templates"] == [
            {"template": "effect", "version": 1, "composed_of": ["effect-part"], "effective": 1, "of": 1}
        ]
        await template(1)
        await world.wire.ask("PUT", "/effect-2?wait_for_active_shards=0", {})
        after = await run(context, "effective", target="main", match="effect-*")
        assert [(row["index"], row["follows"], row["differs"]) for row in after["indices"]] == [
            ("effect-1", False, ["/settings/number_of_replicas"]),
            ("effect-2", True, []),
        ]
        assert [(row["effective"], row["of"]) for row in after["templates"]] == [(1, 2)]
        await world.wire.ask("DELETE", "/effect-1,effect-2")
        await world.wire.ask("DELETE", "/_index_template/effect")
