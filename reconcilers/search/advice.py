"""What to do about a cluster, each with its evidence: copies, shards, fields, slow queries. I/O, reads only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from reconcilers.contract import BackendError
from reconcilers.search.generations import mark_of
from reconcilers.search.query_log import QueryLog
from reconcilers.search.wire import Wire, path_of

SMALL_SHARD_BYTES: Final = 1024**3
"""Shards below this size cost more than they are worth, when an index has several."""
LARGE_SHARD_BYTES: Final = 50 * 1024**3
USAGE_S: Final = 86_400.0
"""How long fields must have been watched before `unused` means something."""
SLOW_MS: Final = 100.0

Advice = dict[str, Any]


async def advised(wire: Wire, queries: QueryLog) -> list[Advice]:
    """Everything, worst first."""
    health = await wire.ask("GET", "/_cluster/health")
    described = await wire.ask("GET", "/*", params={"flat_settings": True, "expand_wildcards": "open"}, absent={})
    stats = (await wire.ask("GET", "/_stats/docs,store,search", params={"filter_path": "indices.*.primaries"}))[
        "indices"
    ]
    found: list[Advice] = []
    for index, document in sorted(described.items()):
        mark = mark_of(document["mappings"])
        if index.startswith(".") or (mark is not None and mark.phase != "serving"):
            continue
        settings = document["settings"]
        found += shards(index, settings, stats.get(index, {}).get("primaries", {}), int(health["number_of_data_nodes"]))
        found += blocked(index, settings)
        found += unsearchable(index, document["mappings"])
        found += await _unused(wire, index, document["mappings"])
    return [*found, *await _slow(wire, queries)]


def shards(index: str, settings: Mapping[str, Any], primaries: Mapping[str, Any], nodes: int) -> Iterator[Advice]:
    """Copies that nobody can hold, and shards that are too many or too large."""
    replicas, count = int(settings.get("index.number_of_replicas", 0)), int(settings.get("index.number_of_shards", 1))
    expands = str(settings.get("index.auto_expand_replicas", "false")) != "false"
    if replicas >= nodes and not expands:
        advice = f"set number_of_replicas to {nodes - 1} or auto_expand_replicas to 0-1, or add nodes"
        yield _advice(index, "replicas can't be allocated", advice, number_of_replicas=replicas, data_nodes=nodes)
    size = int(primaries.get("store", {}).get("size_in_bytes", 0))
    if count > 1 and size / count < SMALL_SHARD_BYTES:
        advice = f"declare number_of_shards {max(1, -(-size // SMALL_SHARD_BYTES))}: it is migrated without downtime"
        yield _advice(index, "more shards than its size needs", advice, number_of_shards=count, size_bytes=size)
    if size / count > LARGE_SHARD_BYTES:
        advice = f"declare number_of_shards {-(-size // (LARGE_SHARD_BYTES // 2))}"
        yield _advice(index, "shards are too large to move or recover quickly", advice, size_bytes=size, shards=count)


def blocked(index: str, settings: Mapping[str, Any]) -> Iterator[Advice]:
    """A disk is full."""
    if settings.get("index.blocks.read_only_allow_delete") == "true":
        advice = "free space on the data nodes; the server lifts the block by itself"
        yield _advice(index, "takes no writes: a disk is over the flood stage", advice, block="read_only_allow_delete")


def unsearchable(index: str, mappings: Mapping[str, Any]) -> Iterator[Advice]:
    """Fields that are kept for nothing but the _source."""
    names = [
        path
        for path, field in fields_of(mappings)
        if field.get("index") is False and field.get("doc_values") is False and not field.get("store")
    ]
    if names:
        advice = "index them if they are searched, or gather them under an object with enabled: false"
        yield _advice(index, "fields that can be neither searched, sorted nor aggregated", advice, fields=names[:20])


def fields_of(mappings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(dotted path, parameters) of every field, sub-fields too."""
    for key in ("properties", "fields"):
        for name, field in mappings.get(key, {}).items():
            path = f"{prefix}{name}"
            if "properties" not in field:
                yield path, field
            yield from fields_of(field, f"{path}.")


async def _unused(wire: Wire, index: str, mappings: Mapping[str, Any]) -> list[Advice]:
    """Fields that no search used since the shards were started, when that is long ago."""
    answer = await wire.ask("GET", path_of(index, "_field_usage_stats"), absent={})
    rows = answer.get(index, {}).get("shards", [])
    if not rows:
        return []
    now_ms = await _now_ms(wire)
    watched_s = min((now_ms - row["tracking_started_at_millis"]) / 1e3 for row in rows)
    if watched_s < USAGE_S:
        return []
    used = {name for row in rows for name, usage in row["stats"]["fields"].items() if usage.get("any")}
    unused = [path for path, field in fields_of(mappings) if path not in used and field.get("index") is not False]
    if not unused:
        return []
    advice = "declare index: false for them (a migration), if nothing else needs them"
    return [_advice(index, "fields that no search used", advice, fields=unused[:50], watched_s=round(watched_s))]


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
        about = f"query {kind} took {counted.slowest_ms:.0f} ms"
        found.append(_advice(index, about, advice, slowest_ms=round(counted.slowest_ms), plan=plan[:10]))
    return found


def profiled(shard: Mapping[str, Any]) -> Iterator[str]:
    """`12.3 ms BooleanQuery +title:shoes`, as the profile API tells it."""
    for search in shard.get("searches", ()):
        for part in search.get("query", ()):
            yield f"{part['time_in_nanos'] / 1e6:.1f} ms {part['type']} {part['description'][:120]}"
    for aggregation in shard.get("aggregations", ()):
        yield f"{aggregation['time_in_nanos'] / 1e6:.1f} ms {aggregation['type']} {aggregation['description'][:120]}"


def _advice(index: str, about: str, advice: str, **evidence: Any) -> Advice:
    return {"index": index, "about": about, "advice": advice, "evidence": evidence}
