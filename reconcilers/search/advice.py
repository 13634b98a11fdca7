"""What to do about a cluster, each with its evidence: copies, shards, fields, slow queries. I/O, reads only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from reconcilers.contract import BackendError
from reconcilers.search.generations import mark_of
from reconcilers.search.query_log import QueryLog
from reconcilers.search.samples import named
from reconcilers.search.sizing import Advice, one, replicated, sharded
from reconcilers.search.wire import Wire, path_of

USAGE_S: Final = 86_400.0
"""How long fields must have been watched before `unused` means something."""
SLOW_MS: Final = 100.0


async def advised(wire: Wire, queries: QueryLog) -> list[Advice]:
    """Everything, worst first."""
    health = await wire.ask("GET", "/_cluster/health")
    described = await wire.ask("GET", "/*", params={"flat_settings": True, "expand_wildcards": "open"}, absent={})
    answer = await wire.ask("GET", "/_stats/store", params={"filter_path": "indices.*.primaries"})
    stats = answer.get("indices", {})
    usage, now_ms = await _used(wire), await _now_ms(wire)
    found: list[Advice] = []
    for index, document in sorted(described.items()):
        mark = mark_of(document["mappings"])
        if index.startswith(".") or (mark is not None and mark.phase != "serving"):
            continue
        name, settings, mappings = named(index, document), document["settings"], document["mappings"]
        expands = str(settings.get("index.auto_expand_replicas", "false")) != "false"
        copies, shards = int(settings["index.number_of_replicas"]), int(settings["index.number_of_shards"])
        size_bytes = int(stats.get(index, {}).get("primaries", {}).get("store", {}).get("size_in_bytes", 0))
        found += replicated(name, copies, int(health["number_of_data_nodes"]), expands=expands)
        found += sharded(name, shards, size_bytes)
        found += blocked(name, settings)
        found += unsearchable(name, mappings)
        found += unused(name, mappings, usage.get(index, {}).get("shards", ()), now_ms)
    return [*found, *await _slow(wire, queries)]


def blocked(index: str, settings: Mapping[str, Any]) -> Iterator[Advice]:
    """A disk is full."""
    if settings.get("index.blocks.read_only_allow_delete") == "true":
        advice = "free space on the data nodes; the server lifts the block by itself"
        yield one(index, "takes no writes: a disk is over the flood stage", advice, block="read_only_allow_delete")


def unsearchable(index: str, mappings: Mapping[str, Any]) -> Iterator[Advice]:
    """Fields that are kept for nothing but the _source."""
    names = [
        path
        for path, field in fields_of(mappings)
        if field.get("index") is False and field.get("doc_values") is False and not field.get("store")
    ]
    if names:
        advice = "index them if they are searched, or gather them under an object with enabled: false"
        yield one(index, "fields that can be neither searched, sorted nor aggregated", advice, fields=names[:20])


def fields_of(mappings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(dotted path, parameters) of every field, sub-fields too."""
    for key in ("properties", "fields"):
        for name, field in mappings.get(key, {}).items():
            path = f"{prefix}{name}"
            if "properties" not in field:
                yield path, field
            yield from fields_of(field, f"{path}.")


async def _used(wire: Wire) -> Mapping[str, Any]:
    """Index → field usage of its shards, by one request."""
    parts = "*.shards.tracking_started_at_millis,*.shards.stats.fields.*.any"
    found: Mapping[str, Any] = await wire.ask(
        "GET", "/*/_field_usage_stats", params={"filter_path": parts, "expand_wildcards": "open"}, absent={}
    )
    return found


def unused(
    name: str, mappings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], now_ms: float
) -> Iterator[Advice]:
    """Fields that no search used since the shards were started, when that is long ago."""
    watched_s = min((now_ms - row["tracking_started_at_millis"]) / 1e3 for row in rows) if rows else 0.0
    if watched_s < USAGE_S:
        return
    used = {
        field for row in rows for field, usage in row.get("stats", {}).get("fields", {}).items() if usage.get("any")
    }
    found = [path for path, field in fields_of(mappings) if path not in used and field.get("index") is not False]
    if found:
        advice = "declare index: false for them (a migration), if nothing else needs them"
        yield one(name, "fields that no search used", advice, fields=found[:50], watched_s=round(watched_s))


async def _now_ms(wire: Wire) -> float:
    answer = await wire.ask("GET", "/_nodes/stats/os", params={"filter_path": "nodes.*.timestamp"})
    return max((float(node["timestamp"]) for node in answer["nodes"].values()), default=0.0)


async def _slow(wire: Wire, queries: QueryLog) -> list[Advice]:
    """The slowest queries that went through us, with what the server spent its time on."""
    slow = sorted(queries.kinds.items(), key=lambda row: -row[1].slowest_ms)[:3]
    found = []
    for (index, kind), counted in slow:
        if counted.slowest_ms < SLOW_MS or counted.slowest is None:
            continue
        try:
            answer = await wire.ask("POST", path_of(index, "_search"), {**counted.slowest, "profile": True})
            plan = [part for shard in answer["profile"]["shards"] for part in profiled(shard)]
        except BackendError as exc:
            plan = [exc.message]
        advice = "look at the dearest part of its plan first: filter instead of query, fewer wildcards, a smaller size"
        slowest_ms = round(counted.slowest_ms)
        found.append(one(index, f"query {kind} is slow", advice, slowest_ms=slowest_ms, plan=plan[:10]))
    return found


def profiled(shard: Mapping[str, Any]) -> Iterator[str]:
    """`12.3 ms BooleanQuery +title:shoes`, as the profile API tells it."""
    for search in shard.get("searches", ()):
        for part in search.get("query", ()):
            yield f"{part['time_in_nanos'] / 1e6:.1f} ms {part['type']} {part['description'][:120]}"
    for aggregation in shard.get("aggregations", ()):
        yield f"{aggregation['time_in_nanos'] / 1e6:.1f} ms {aggregation['type']} {aggregation['description'][:120]}"
