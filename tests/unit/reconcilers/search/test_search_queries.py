"""Query log, suggesters, bulk requests, analytics: what is made of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconcilers.contract import Evidence, ExternalId, TerminalError
from reconcilers.search.advice import unused
from reconcilers.search.analysis import analyse
from reconcilers.search.feeding import ShardLog
from reconcilers.search.query_log import MOST_KINDS, QueryLog, shape_of
from reconcilers.search.querying import BULK_ITEMS, parts, rows_of
from reconcilers.search.snapshots import (
    RemoveSnapshot,
    Taken,
    TakeSnapshot,
    plan_policy,
    policy,
    snapshot_name,
    taken_at,
)
from reconcilers.search.suggesters import request_of, suggestions_of
from reconcilers.search.wire import Answer, Refused, fault_of
from schemas.names import timestamp
from schemas.search import Bulk, SnapshotPolicy, Suggest, Suggester


def test_a_shape_holds_nothing_that_people_typed() -> None:
    query = {"bool": {"must": [{"match": {"title": "my secret"}}], "filter": [{"term": {"brand": "acme"}}]}}
    assert shape_of(query) == "bool(filter(term(brand)), must(match(title)))"
    assert shape_of(None) == "match_all"


def test_kinds_of_query_are_bounded() -> None:
    log = QueryLog()
    for number in range(2 * MOST_KINDS):
        log.record("i", f"kind {number}", 1.0, 1, {})
    assert len(log.kinds) == MOST_KINDS + 1
    assert sum(m.value for m in log.measurements() if m.metric_type == "queries_total") == 2 * MOST_KINDS


def test_buckets_that_lost_a_document_are_seen() -> None:
    log = ShardLog(interval=128)
    for number in (1, 2, 130):
        log.add(number, f"d{number}")
    log.add(130, "again")
    assert log.counts == {0: 2, 128: 1}
    assert log.shrunk({0: 1, 128: 1}) == [0]
    assert log.shrunk({}) == [0, 128]
    assert log.drop(2) == "d2"
    assert log.shrunk({0: 1, 128: 5}) == []


def test_bulk_requests_are_cut_at_items_and_keep_their_order() -> None:
    request = Bulk.model_validate({"index": "i", "documents": [{"n": n} for n in range(2 * BULK_ITEMS + 1)]})
    found = list(parts(rows_of(request, "i")))
    assert len(found) == 3
    numbers = [json.loads(line)["n"] for part in found for line in part.splitlines()[1::2]]
    assert numbers == list(range(2 * BULK_ITEMS + 1))


def test_a_line_that_is_wrong_is_named() -> None:
    request = Bulk.model_validate({"index": "i", "ndjson": '{"index":{}}\n{"a":1}\n\n{"drop":{}}'})
    with pytest.raises(TerminalError, match="line 4"):
        list(rows_of(request, "i"))


@pytest.mark.parametrize(
    ("kind", "mapping", "field"),
    [("completion", {}, "t.completion"), ("term", {}, "t"), ("phrase", {"analyzer": "s"}, "t.phrases")],
)
def test_a_suggester_asks_the_field_it_needs(kind: str, mapping: dict[str, Any], field: str) -> None:
    value = Suggester.model_validate({"target": "m", "index": "i", "field": "t", "kind": kind, "mapping": mapping})
    body = request_of(value, Suggest(suggester="s", text="abc"))
    assert body["suggest"]["suggestions"][kind]["field"] == field


def test_suggestions_are_told_once_best_first() -> None:
    value = Suggester.model_validate({"target": "m", "index": "i", "field": "a.b", "kind": "prefix"})
    hits = [{"_score": 3, "_source": {"a": {"b": "x"}}}, {"_score": 2, "_source": {"a": {"b": "x"}}}]
    assert suggestions_of(value, {"hits": {"hits": hits}}, 5) == [{"text": "x", "score": 3}]


def test_the_name_of_a_snapshot_says_when_it_was_taken() -> None:
    name = snapshot_name("Nightly", 1_764_000_000.0)
    assert taken_at("Nightly", name) == 1_764_000_000.0
    assert taken_at("night", name) is None
    assert taken_at("Nightly", "nightly-x") is None


def test_snapshots_beyond_those_kept_go_before_another_is_taken() -> None:
    value = SnapshotPolicy.model_validate({"target": "m", "repository": "r", "indices": ["*"], "every_s": 2, "keep": 2})
    external = ExternalId("search.snapshot_policy", "n")
    taken = [Taken(snapshot_name("n", at), at, "SUCCESS") for at in (1.0, 3.0, 5.0)]
    for now in (5.5, 100.0):  # the next is due already: a server may be as slow as that every time
        (step,) = plan_policy(external, policy("n", value), taken, now).steps
        assert step == RemoveSnapshot(external, "r", taken[0].name)
    (step,) = plan_policy(external, policy("n", value), taken[1:], 100.0).steps
    assert step == TakeSnapshot(external, "r", snapshot_name("n", 100.0), ("*",))


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (401, "security_exception", "Unauthorized"),
        (403, "security_exception", "Forbidden"),
        (403, "cluster_block_exception", "Blocked"),
        (503, "unavailable_shards_exception", "Busy"),
        (400, "illegal_argument_exception", "Refused"),
        (500, "mapper_exception", "ServerError"),
    ],
)
def test_refusals_mean_different_things(status: int, kind: str, reason: str) -> None:
    error = {"type": kind, "reason": "outer", "caused_by": {"type": "x", "reason": "inner"}}
    fault = fault_of(Answer(status, {"error": error}))
    assert fault.reason == reason
    assert "outer: inner" in fault.message
    assert isinstance(fault, Refused) is (reason in ("Refused", "ServerError"))


def metric(at: float, name: str, value: float, **tags: str) -> dict[str, Any]:
    return {"timestamp": timestamp(at), "metric_type": name, "value": value, "tags": {"target": "main", **tags}}


def test_the_analysis_names_the_evidence_of_each_advice() -> None:
    metrics = [
        metric(1, "data_nodes", 1),
        metric(1, "replicas", 1, index="shop"),
        metric(1, "shards", 5, index="shop"),
        metric(1, "size_bytes", 1_000, index="shop"),
        *[metric(at, "queries_total", count, index="shop", query="q") for at, count in ((1, 10), (2, 40))],
        *[metric(at, "queries_without_hits_total", count, index="shop", query="q") for at, count in ((1, 5), (2, 20))],
        metric(2, "query_latency_s", 0.5, index="shop", query="q", percentile="p95"),
    ]
    found = analyse(Evidence(0.0, 10.0, metrics, [], []))
    (most,) = found["targets"]["main"]["queries"]["most_frequent"]
    assert most["queries"] == 40
    assert "click_through" not in most, "nobody reports clicks"
    assert {(one["target"], one["index"]) for one in found["advice"]} == {("main", "shop")}
    evidence = {one["about"]: one["evidence"] for one in found["advice"]}
    assert evidence["replicas can't be allocated"] == {"number_of_replicas": 1, "data_nodes": 1}
    assert evidence["more shards than its size needs"] == {"number_of_shards": 5, "size_bytes": 1_000}
    assert evidence["query q is slow"] == {"p95_s": 0.5, "queries": 40}
    assert evidence["query q often finds nothing"] == {"queries": 40, "without_hits": 20}
    assert found["findings"][2].startswith("main: shop: query q is slow: ")
    assert len(found["findings"]) == 4


def test_clicks_are_told_beside_the_queries_that_led_to_them() -> None:
    log = QueryLog()
    for took_ms in (1.0, 2.0, 3.0, 40.0):
        log.record("shop", "q", took_ms, 5, {})
    log.record("shop", "r", 100.0, 5, {})
    log.click("shop", "q", 1)
    log.click("shop", "q", 4)
    log.click("shop", "never asked", 1)
    metrics = [metric(1, m.metric_type, m.value, **m.tags) for m in log.measurements()]
    found = analyse(Evidence(0.0, 10.0, metrics, [], []))["targets"]["main"]
    told = {row["query"]: row for row in found["queries"]["most_frequent"]}
    assert (told["q"]["click_through"], told["q"]["click_position"]) == (0.5, 2.5)
    assert told.keys() == {"q", "r"}, "a click without a query is no query"
    latencies = {name: value for name, value in found["indices"]["shop"].items() if name.startswith("query_latency")}
    assert latencies == {"query_latency_p50_s": 0.003, "query_latency_p95_s": 0.1, "query_latency_p99_s": 0.1}


def test_fields_are_unused_when_they_were_watched_for_long() -> None:
    mappings = {
        "properties": {"a": {"type": "keyword"}, "b": {"type": "text"}, "c": {"type": "keyword", "index": False}}
    }
    used = {"fields": {"a": {"any": 3}, "b": {"any": 0}}}
    day_ms = 86_400_000.0
    rows = [{"tracking_started_at_millis": 0, "stats": used}, {"tracking_started_at_millis": day_ms, "stats": used}]
    assert list(unused("shop", mappings, rows, 1.5 * day_ms)) == [], "one shard was watched for half a day"
    (found,) = unused("shop", mappings, rows, 2 * day_ms)
    assert found["evidence"] == {"fields": ["b"], "watched_s": 86_400}
    assert list(unused("shop", mappings, (), 2 * day_ms)) == []
