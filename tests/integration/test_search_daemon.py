"""Search through the whole daemon: what is asked is counted, and what is advised is told by the doctor."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.cli.doctor import examine
from tests.e2e.conditions import phase, until
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
