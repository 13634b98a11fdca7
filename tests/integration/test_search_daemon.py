"""Search through the whole daemon: what is asked is counted, and what is advised is told by the doctor."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.cli.doctor import examine
from controlplane.client.errors import ApiError
from tests.e2e.conditions import condition_of, phase, until
from tests.integration.search_world import INDEX, login, opened
from tests.integration.test_search_migration import serving

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

INDEX_NAME = "told-shop"
VALUE = {
    "settings": {"number_of_shards": 3, "number_of_replicas": 1},
    "mappings": {
        "properties": {"title": {"type": "text"}, "dead": {"type": "keyword", "index": False, "doc_values": False}}
    },
}


async def test_queries_are_counted_and_the_doctor_tells_what_to_do(elasticsearch_server, daemon):
    auth, _ = login(elasticsearch_server)
    await daemon.stop()
    daemon.content = {**daemon.content, "runtime": {"backoff_cap_s": 2.0, "sample_s": 0.5}}
    await daemon.start(ES_PASSWORD=auth[1])
    target = {"url": elasticsearch_server.url, "username": auth[0], "password": {"from_env": "ES_PASSWORD"}}
    async with daemon.client() as client:
        await client.put_setting("search.target", "main", {"value": target})
        await client.put_setting(INDEX, INDEX_NAME, {"value": {"target": "main", **VALUE}})
        await phase(client, INDEX, INDEX_NAME, "Ready", 60)
        await client.operate("search.bulk", {"index": INDEX_NAME, "documents": [{"title": "shoe"}], "refresh": True})
        for _ in range(25):
            asked = {"index": INDEX_NAME, "query": {"match": {"title": "a boot"}}}
            assert (await client.operate("search.query", asked))["result"]["total"] == 0
        await client.operate(
            "search.query", {"index": INDEX_NAME, "query": {"match": {"title": "shoe"}}, "label": "hit"}
        )

        async def counted() -> Any:
            rows = (
                (await client.analytics("search"))["targets"]
                .get("main", {})
                .get("queries", {})
                .get("most_frequent", ())
            )
            found = {row["query"]: row for row in rows if row["index"] == INDEX_NAME}
            return found if {"match(title)", "hit"} <= found.keys() else None

        found = await until(counted, 60, "the queries are in the analysis")
        assert (found["match(title)"]["queries"], found["match(title)"]["without_hits"]) == (25, 25)
        assert found["match(title)"]["latency_p95_s"] > 0
        assert found["hit"].get("without_hits", 0) == 0
        assert "boot" not in repr(found), "what people type is kept nowhere"

        told = {
            one.message.partition(" (")[0]: one for one in await examine(client) if one.check == "advice search/main"
        }
        mine = {about.removeprefix(f"{INDEX_NAME}: ") for about in told if about.startswith(f"{INDEX_NAME}: ")}
        assert mine >= {
            "replicas can't be allocated",
            "more shards than its size needs",
            "fields that can be neither searched, sorted nor aggregated",
            "query match(title) often finds nothing",
        }
        assert "number_of_replicas 1, data_nodes 1" in told[f"{INDEX_NAME}: replicas can't be allocated"].message
        assert "auto_expand_replicas" in told[f"{INDEX_NAME}: replicas can't be allocated"].advice
        assert "dead" in told[f"{INDEX_NAME}: fields that can be neither searched, sorted nor aggregated"].message
        empty = told[f"{INDEX_NAME}: query match(title) often finds nothing"]
        assert "queries 25, without_hits 25" in empty.message
    async with opened(elasticsearch_server) as world:
        for concrete in await serving(world, INDEX_NAME):
            await world.wire.ask("DELETE", f"/{concrete}")


async def test_what_the_server_lacks_or_the_login_may_not_is_in_the_status(elasticsearch_server, daemon):
    auth, _ = login(elasticsearch_server)
    await daemon.stop()
    await daemon.start(ES_PASSWORD=auth[1], ES_WATCHER="watcher-secret")
    target = {"url": elasticsearch_server.url, "username": auth[0], "password": {"from_env": "ES_PASSWORD"}}
    watcher = {"password": {"from_env": "ES_WATCHER"}, "roles": ["told-watcher"]}
    poor = {"url": elasticsearch_server.url, "username": "told-watcher", "password": {"from_env": "ES_WATCHER"}}
    async with daemon.client() as client:

        async def declare(setting_type: str, name: str, value: dict[str, Any]) -> None:
            await client.put_setting(setting_type, name, {"value": value})

        async def stalled(setting_type: str, name: str) -> dict[str, Any]:
            return condition_of(await phase(client, setting_type, name, "Stalled", 60), "Stalled")

        await declare("search.target", "main", target)
        await declare("search.lifecycle", "told", {"target": "main", "phases": {"delete": {"min_age": "1d"}}})
        await declare("search.role", "told-watcher", {"target": "main", "cluster": ["monitor"]})
        await declare("search.user", "told-watcher", {"target": "main", **watcher})
        lacking = await stalled("search.lifecycle", "told")
        assert (lacking["reason"], "x-pack-ilm" in lacking["message"]) == ("Unsupported", True)
        await phase(client, "search.user", "told-watcher", "Ready", 60)

        await declare("search.target", "poor", poor)
        await declare("search.pipeline", "told-poor", {"target": "poor", "processors": []})
        forbidden = await stalled("search.pipeline", "told-poor")
        assert (forbidden["reason"], "told-watcher" in forbidden["message"]) == ("Forbidden", True)


async def test_suggestions_that_would_mix_tenants_are_refused(elasticsearch_server, daemon):
    auth, _ = login(elasticsearch_server)
    await daemon.stop()
    await daemon.start(ES_PASSWORD=auth[1])
    target = {"url": elasticsearch_server.url, "username": auth[0], "password": {"from_env": "ES_PASSWORD"}}
    async with daemon.client() as client:
        await client.put_setting("search.target", "main", {"value": target})
        shared = {"target": "main", "index": "told-mixed", **VALUE, "tenant_field": "tenant"}
        shared["mappings"] = {"properties": {"title": {"type": "text"}, "tenant": {"type": "keyword"}}}
        await client.put_setting(INDEX, "told-by-another-name", {"value": shared})
        await phase(client, INDEX, "told-by-another-name", "Ready", 60)
        words = {"target": "main", "index": "told-mixed", "field": "title", "kind": "term"}
        await client.put_setting("search.suggester", "words", {"value": words})
        with pytest.raises(ApiError, match="texts of other tenants") as caught:
            await client.operate("search.suggest", {"suggester": "words", "text": "shoo"})
        assert caught.value.reason == "OperationFailed"
        del shared["tenant_field"]
        await client.put_setting(INDEX, "told-by-another-name", {"value": shared})
        assert (await client.operate("search.suggest", {"suggester": "words", "text": "shoo"}))["result"]
    async with opened(elasticsearch_server) as world:
        for concrete in await serving(world, "told-mixed"):
            await world.wire.ask("DELETE", f"/{concrete}")
