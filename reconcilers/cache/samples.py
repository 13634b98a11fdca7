"""Monitoring values of Redis and Memcached from what they report. Pure.

Counters end in `_total` and count since the server's start. `hit_ratio` is over the server's life; differences of
`hits_total` and `misses_total` give that of an interval. Every value has a tag `node` when the target has several.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from reconcilers.contract import Measurement
from reconcilers.planning import Nodes

MOST_COMMANDS: Final = 20
"""Commands whose latency is reported: the most called ones."""

_REDIS: Final = MappingProxyType(
    {
        "keyspace_hits": "hits_total",
        "keyspace_misses": "misses_total",
        "evicted_keys": "evictions_total",
        "expired_keys": "expired_total",
        "used_memory": "used_memory_bytes",
        "used_memory_peak": "peak_memory_bytes",
        "used_memory_dataset": "dataset_bytes",
        "maxmemory": "memory_limit_bytes",
        "mem_fragmentation_ratio": "fragmentation_ratio",
        "instantaneous_ops_per_sec": "operations_per_s",
        "total_commands_processed": "commands_total",
        "connected_clients": "clients",
        "blocked_clients": "blocked_clients",
        "rejected_connections": "rejected_connections_total",
        "connected_slaves": "replicas",
        "uptime_in_seconds": "uptime_s",
        "total_net_input_bytes": "received_bytes_total",
        "total_net_output_bytes": "sent_bytes_total",
    }
)
_MEMCACHED: Final = MappingProxyType(
    {
        "get_hits": "hits_total",
        "get_misses": "misses_total",
        "evictions": "evictions_total",
        "evicted_unfetched": "evicted_unfetched_total",
        "expired_unfetched": "expired_unfetched_total",
        "reclaimed": "expired_total",
        "curr_items": "keys",
        "bytes": "used_memory_bytes",
        "limit_maxbytes": "memory_limit_bytes",
        "curr_connections": "clients",
        "rejected_connections": "rejected_connections_total",
        "cmd_get": "gets_total",
        "cmd_set": "sets_total",
        "cmd_touch": "touches_total",
        "cmd_meta": "meta_total",
        "cmd_flush": "flushes_total",
        "uptime": "uptime_s",
        "bytes_read": "received_bytes_total",
        "bytes_written": "sent_bytes_total",
    }
)


def redis_measurements(info: Mapping[str, str], slowlog_entries: int) -> list[Measurement]:
    """From all sections of `INFO` and `SLOWLOG LEN`."""
    found = _plain(info, _REDIS)
    found += _hit_ratio(info, "keyspace_hits", "keyspace_misses")
    found.append(Measurement("slowlog_entries", slowlog_entries))
    found.append(Measurement("keys", sum(int(_fields(row)["keys"]) for row in _databases(info))))
    found += _latencies(info)
    found += _replication_lag(info)
    return found


def memcached_measurements(
    stats: Mapping[str, str], slabs: Mapping[str, str], before: tuple[float, float] | None
) -> list[Measurement]:
    """From `stats` and `stats slabs`. `before`: (uptime_s, commands) of the last sample, for a rate; None: no rate yet."""
    found = _plain(stats, _MEMCACHED)
    found += _hit_ratio(stats, "get_hits", "get_misses")
    found.append(Measurement("slab_waste_bytes", slab_waste_bytes(slabs)))
    uptime_s, commands = memcached_commands(stats)
    if before is not None and uptime_s > before[0]:
        found.append(Measurement("operations_per_s", (commands - before[1]) / (uptime_s - before[0])))
    return found


def memcached_commands(stats: Mapping[str, str]) -> tuple[float, float]:
    """(uptime_s, commands since the start)."""
    names = ("cmd_get", "cmd_set", "cmd_touch", "cmd_meta", "cmd_flush")
    return float(stats.get("uptime", 0)), sum(float(stats.get(name, 0)) for name in names)


def slab_waste_bytes(slabs: Mapping[str, str]) -> float:
    """Memory in pages that holds no item: free chunks, and in used ones the rest behind the item."""
    total = float(slabs.get("total_malloced", 0))
    used = sum(float(value) for name, value in slabs.items() if name.endswith(":mem_requested"))
    return max(0.0, total - used)


def of_nodes(nodes: Nodes[list[Measurement]]) -> list[Measurement]:
    """The values of all nodes, with a tag `node` when there are several."""
    rows = [(node, m) for node, measured in nodes.held.items() for m in measured]
    if not nodes.several:
        return [m for _, m in rows]
    return [Measurement(m.metric_type, m.value, {**m.tags, "node": node}) for node, m in rows]


def _plain(rows: Mapping[str, str], names: Mapping[str, str]) -> list[Measurement]:
    return [Measurement(ours, float(rows[theirs])) for theirs, ours in names.items() if theirs in rows]


def _hit_ratio(rows: Mapping[str, str], hits: str, misses: str) -> list[Measurement]:
    asked = float(rows.get(hits, 0)) + float(rows.get(misses, 0))
    return [Measurement("hit_ratio", float(rows[hits]) / asked)] if asked else []


def _databases(info: Mapping[str, str]) -> list[str]:
    return [row for name, row in info.items() if name.startswith("db") and name[2:].isdecimal()]


def _latencies(info: Mapping[str, str]) -> Iterable[Measurement]:
    """p50, p99 and p99.9 of the most called commands since the start, seconds."""
    called = {
        name.removeprefix("cmdstat_"): int(_fields(row)["calls"])
        for name, row in info.items()
        if name.startswith("cmdstat_")
    }
    for command in sorted(called, key=lambda name: (-called[name], name))[:MOST_COMMANDS]:
        for percentile, usec in _fields(info.get(f"latency_percentiles_usec_{command}", "")).items():
            tags = {"command": command, "percentile": percentile}
            yield Measurement("command_latency_s", float(usec) / 1e6, tags)


def _replication_lag(info: Mapping[str, str]) -> Iterable[Measurement]:
    """Of a primary: bytes each replica is behind, and seconds since it was heard. Of a replica: since its primary was."""
    written = int(info.get("master_repl_offset", 0))
    for name, row in info.items():
        if not name.startswith("slave") or not name[5:].isdecimal():
            continue
        replica = _fields(row)
        tags = {"replica": f"{replica.get('ip')}:{replica.get('port')}"}
        yield Measurement("replication_lag_bytes", max(0, written - int(replica.get("offset", 0))), tags)
        yield Measurement("replication_lag_s", float(replica.get("lag", 0)), tags)
    if "master_last_io_seconds_ago" in info:
        yield Measurement("replication_lag_s", float(info["master_last_io_seconds_ago"]))


def _fields(row: str) -> dict[str, str]:
    parts = (part.partition("=") for part in row.split(",") if "=" in part)
    return {name: value for name, _, value in parts}
