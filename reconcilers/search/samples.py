"""Monitoring values of a cluster from what it reports. Pure.

Counters end in `_total` and count since the shards were started; rates and mean latencies are their differences. Indices are
named by the alias of their generation, so that a migration doesn't begin a new series.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from reconcilers.contract import Measurement

MOST_INDICES: Final = 100
"""Indices that are measured one by one: the largest."""
_STATUS: Final = {"green": 0, "yellow": 1, "red": 2}
_POOLS: Final = ("search", "write", "get")


def of_cluster(health: Mapping[str, Any]) -> list[Measurement]:
    """From `_cluster/health`. `health_status`: 0 green, 1 yellow, 2 red."""
    names = {
        "number_of_nodes": "nodes",
        "number_of_data_nodes": "data_nodes",
        "active_shards": "active_shards",
        "unassigned_shards": "unassigned_shards",
        "relocating_shards": "relocating_shards",
        "number_of_pending_tasks": "pending_tasks",
    }
    status = Measurement("health_status", _STATUS.get(str(health["status"]), 2))
    return [status, *(Measurement(ours, float(health[theirs])) for theirs, ours in names.items() if theirs in health)]


def of_nodes(stats: Mapping[str, Any]) -> Iterator[Measurement]:
    """From `_nodes/stats/jvm,thread_pool,fs`."""
    for node in stats.get("nodes", {}).values():
        tags = {"node": str(node.get("name", "?"))}
        memory = node.get("jvm", {}).get("mem", {})
        if "heap_used_in_bytes" in memory:
            yield Measurement("heap_used_bytes", float(memory["heap_used_in_bytes"]), tags)
            yield Measurement("heap_limit_bytes", float(memory["heap_max_in_bytes"]), tags)
        disk = node.get("fs", {}).get("total", {})
        if "available_in_bytes" in disk:
            yield Measurement("disk_free_bytes", float(disk["available_in_bytes"]), tags)
        for pool in _POOLS:
            row = node.get("thread_pool", {}).get(pool)
            if row is not None:
                yield Measurement("rejected_threads_total", float(row["rejected"]), {**tags, "pool": pool})


def of_indices(described: Mapping[str, Any], stats: Mapping[str, Any]) -> Iterator[Measurement]:
    """From `GET` of the indices (settings and aliases) and their `_stats`."""
    rows = sorted(stats.items(), key=lambda row: -_at(row[1], "primaries", "store", "size_in_bytes"))
    for index, row in rows[:MOST_INDICES]:
        document = described.get(index)
        if index.startswith(".") or document is None:
            continue
        tags = {"index": named(index, document)}
        settings = document.get("settings", {})
        yield Measurement("replicas", float(settings.get("index.number_of_replicas", 0)), tags)
        yield Measurement("shards", float(settings.get("index.number_of_shards", 1)), tags)
        for metric, path in _OF_PRIMARIES.items():
            yield Measurement(metric, _at(row, "primaries", *path), tags)
        for metric, path in _OF_ALL.items():
            yield Measurement(metric, _at(row, "total", *path), tags)
        queries, spent = _at(row, "total", "search", "query_total"), _at(row, "total", "search", "query_time_in_millis")
        if queries:
            yield Measurement("search_latency_s", spent / queries / 1e3, tags)


def named(index: str, document: Mapping[str, Any]) -> str:
    """The alias that a generation belongs to, or the index."""
    for alias in document.get("aliases", {}):
        if index.startswith(f"{alias}-g"):
            return str(alias)
    return index


_OF_PRIMARIES: Final = {
    "documents": ("docs", "count"),
    "deleted_documents": ("docs", "deleted"),
    "size_bytes": ("store", "size_in_bytes"),
    "segments": ("segments", "count"),
    "indexed_total": ("indexing", "index_total"),
    "index_time_ms_total": ("indexing", "index_time_in_millis"),
    "index_failures_total": ("indexing", "index_failed"),
    "merges_total": ("merges", "total"),
    "refreshes_total": ("refresh", "total"),
}
_OF_ALL: Final = {
    "searches_total": ("search", "query_total"),
    "search_time_ms_total": ("search", "query_time_in_millis"),
}


def _at(row: Mapping[str, Any], *path: str) -> float:
    value: Any = row
    for part in path:
        value = value.get(part, 0) if isinstance(value, Mapping) else 0
    return float(value) if isinstance(value, int | float) else 0.0
