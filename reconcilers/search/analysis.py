"""What people of a search cluster ask first, from sampled metrics and settings. Pure.

Queries: those that went through `search.query`, by their label or shape: the most frequent, the slowest, those without
hits. Indices: size, documents, rates. Advice: each with the figures it is drawn from; `search.advise` looks deeper, now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from reconcilers.contract import Evidence
from reconcilers.search.sizing import Advice, one, replicated, sharded
from schemas.names import parse_timestamp, timestamp

TOP: Final = 10
_COUNTED: Final = {
    "queries_total": "queries",
    "queries_without_hits_total": "without_hits",
    "query_clicks_total": "clicks",
    "query_click_positions_total": "click_positions",
}
_SAID: Final = ("target", "index", "about", "advice")
SLOW_S: Final = 0.1
EMPTY_SHARE: Final = 0.2
HEAP_SHARE: Final = 0.85
MIN_QUERIES: Final = 20

Point = tuple[float, float]
Tags = tuple[tuple[str, str], ...]
Rows = Mapping[str, Mapping[Tags, Sequence[Point]]]


def analyse(evidence: Evidence) -> dict[str, Any]:
    """→ `{since, until, targets: {name: {health, indices, queries}}, advice: […], findings: […]}`."""
    targets = {name: _target(rows) for name, rows in sorted(_by_target(evidence.metrics).items())}
    advice = [{"target": name, **row} for name, found in targets.items() for row in _advice(found)]
    return {
        "since": timestamp(evidence.since),
        "until": timestamp(evidence.until),
        "targets": targets,
        "advice": advice,
        "findings": [": ".join(row[part] for part in _SAID if part in row) for row in advice],
    }


def _target(rows: Rows) -> dict[str, Any]:
    return {
        "health": {name: _last(rows, name) for name in ("health_status", "data_nodes", "unassigned_shards")},
        "heap_share": _heap(rows),
        "rejected": {tags.get("pool", "?"): grown for tags, grown in _growths(rows, "rejected_threads_total") if grown},
        "indices": _indices(rows),
        "queries": _queries(rows),
    }


def _indices(rows: Rows) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for metric in ("documents", "size_bytes", "replicas", "shards", "segments", "search_latency_s"):
        for tags, points in rows.get(metric, {}).items():
            found[dict(tags).get("index", "?")][metric] = points[-1][1]
    for tags, points in rows.get("index_query_latency_s", {}).items():
        row = dict(tags)
        found[row.get("index", "?")][f"query_latency_{row.get('percentile')}_s"] = max(value for _, value in points)
    for metric, name in (("indexed_total", "indexed"), ("searches_total", "searches")):
        for named, grown in _growths(rows, metric):
            found[named.get("index", "?")][name] = grown
    return dict(found)


def _queries(rows: Rows) -> dict[str, Any]:
    counted: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for metric, name in _COUNTED.items():
        for tags, points in rows.get(metric, {}).items():
            row = dict(tags)
            counted[row.get("index", "?"), row.get("query", "?")][name] = _growth_from_zero(points)
    for tags, points in rows.get("query_latency_s", {}).items():
        row = dict(tags)
        longest = max(value for _, value in points)
        counted[row.get("index", "?"), row.get("query", "?")][f"latency_{row.get('percentile')}_s"] = longest
    listed = [
        {"index": index, "query": query, **row, **_clicked(row)}
        for (index, query), row in counted.items()
        if row.get("queries")
    ]
    return {
        "most_frequent": sorted(listed, key=lambda row: -row["queries"])[:TOP],
        "slowest": sorted(listed, key=lambda row: -row.get("latency_p95_s", 0))[:TOP],
        "without_hits": sorted(
            (row for row in listed if row.get("without_hits")), key=lambda row: -row["without_hits"]
        )[:TOP],
    }


def _clicked(row: Mapping[str, Any]) -> dict[str, float]:
    """How many of the queries led to a click, and where the hits stood that were taken; nothing when none was reported."""
    if not row.get("clicks"):
        return {}
    return {
        "click_through": round(row["clicks"] / row["queries"], 3),
        "click_position": round(row["click_positions"] / row["clicks"], 2),
    }


# --- advice ------------------------------------------------------------------------------------------------------------


def _advice(found: Mapping[str, Any]) -> Iterator[Advice]:
    nodes = int(found["health"]["data_nodes"] or 0)
    for index, row in sorted(found["indices"].items()):
        yield from replicated(index, int(row.get("replicas", 0)), nodes)
        yield from sharded(index, int(row.get("shards", 1)), int(row.get("size_bytes", 0)))
    for row in found["queries"]["slowest"]:
        p95 = row.get("latency_p95_s", 0)
        if p95 >= SLOW_S:
            advice = "search.advise profiles it; filters are cheaper than scored clauses"
            about = f"query {row['query']} is slow"
            yield one(row["index"], about, advice, p95_s=p95, queries=row["queries"])
    for row in found["queries"]["without_hits"]:
        if row["queries"] >= MIN_QUERIES and row["without_hits"] / row["queries"] >= EMPTY_SHARE:
            advice = "look at what people type: synonyms, fuzziness or a suggester may help"
            about = f"query {row['query']} often finds nothing"
            yield one(row["index"], about, advice, queries=row["queries"], without_hits=row["without_hits"])
    if found["heap_share"] is not None and found["heap_share"] >= HEAP_SHARE:
        yield one(None, "the heap is nearly full", "fewer shards, or more memory", heap_share=found["heap_share"])
    for pool, count in found["rejected"].items():
        advice = "send fewer requests at once, or add nodes"
        yield one(None, f"the pool {pool} refused requests", advice, rejected=count)


# --- series ------------------------------------------------------------------------------------------------------------


def _by_target(metrics: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[Tags, list[Point]]]]:
    targets: dict[str, dict[str, dict[Tags, list[Point]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for metric in metrics:
        tags = dict(metric.get("tags") or {})
        target = str(tags.pop("target", "unknown"))
        point = (parse_timestamp(metric["timestamp"]), float(metric["value"]))
        targets[target][metric["metric_type"]][tuple(sorted(tags.items()))].append(point)
    return targets


def _last(rows: Rows, metric: str) -> float | None:
    found = [points[-1][1] for points in rows.get(metric, {}).values()]
    return found[0] if found else None


def _heap(rows: Rows) -> float | None:
    used, limit = rows.get("heap_used_bytes", {}), rows.get("heap_limit_bytes", {})
    shares = [
        points[-1][1] / limit[tags][-1][1] for tags, points in used.items() if tags in limit and limit[tags][-1][1]
    ]
    return round(max(shares), 3) if shares else None


def _growths(rows: Rows, metric: str) -> Iterator[tuple[dict[str, str], float]]:
    for tags, points in rows.get(metric, {}).items():
        yield dict(tags), _growth(points)


def _growth(points: Sequence[Point]) -> float:
    """How much a counter counted; one that falls was reset and counts from zero."""
    return sum(value - before if value >= before else value for (_, before), (_, value) in pairwise(points))


def _growth_from_zero(points: Sequence[Point]) -> float:
    """The same for a counter of our own, which begins with this process: what its first point says counts."""
    return points[0][1] + _growth(points)
