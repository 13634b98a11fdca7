"""Monitoring values of a MinIO, from what it tells Prometheus and from its count of what is stored. Pure.

Counters end in `_total` and count since the server's start. What is stored is counted by the server's scanner, now and then;
`usage_age_s` says how long ago. Of very many buckets the largest are told.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from reconcilers.contract import Measurement
from reconcilers.storage import policies
from reconcilers.storage.model import HeldBucket

MOST_BUCKETS: Final = 100
_CLUSTER: Final = MappingProxyType(
    {
        "minio_cluster_capacity_usable_total_bytes": "capacity_bytes",
        "minio_cluster_capacity_usable_free_bytes": "free_bytes",
        "minio_cluster_drive_online_total": "drives_online",
        "minio_cluster_drive_offline_total": "drives_offline",
        "minio_cluster_nodes_online_total": "nodes_online",
        "minio_cluster_nodes_offline_total": "nodes_offline",
        "minio_cluster_usage_object_total": "objects",
        "minio_cluster_usage_version_total": "versions",
        "minio_cluster_usage_total_bytes": "stored_bytes",
        "minio_cluster_bucket_total": "buckets",
        "minio_s3_requests_total": "requests_total",
        "minio_s3_requests_errors_total": "request_errors_total",
        "minio_s3_requests_4xx_errors_total": "request_4xx_errors_total",
        "minio_s3_requests_5xx_errors_total": "request_5xx_errors_total",
        "minio_s3_requests_inflight_total": "requests_in_flight",
        "minio_s3_requests_waiting_total": "requests_waiting",
        "minio_s3_requests_rejected_auth_total": "rejected_logins_total",
        "minio_s3_traffic_received_bytes": "received_bytes_total",
        "minio_s3_traffic_sent_bytes": "sent_bytes_total",
        "minio_node_ilm_expiry_pending_tasks": "expirations_pending",
        "minio_node_process_uptime_seconds": "uptime_s",
        "minio_node_process_resident_memory_bytes": "used_memory_bytes",
        "minio_notify_events_errors_total": "notification_errors_total",
        "minio_node_ilm_action_count_delete_action": "lifecycle_removed_total",
        "minio_node_ilm_action_count_delete_version_action": "lifecycle_removed_total",
        "minio_node_ilm_action_count_delete_all_versions_action": "lifecycle_removed_total",
        "minio_node_ilm_action_count_del_marker_delete_all_versions_action": "lifecycle_removed_total",
        "minio_node_ilm_action_count_transition_action": "lifecycle_moved_total",
        "minio_node_ilm_action_count_transition_version_action": "lifecycle_moved_total",
    }
)
_LATE: Final = (
    "lifecycle_removed_total",
    "lifecycle_moved_total",
    "request_errors_total",
    "request_4xx_errors_total",
    "request_5xx_errors_total",
)
"""Counters that the server doesn't tell while they are 0: what they grew by would miss the beginning."""
_BUCKET: Final = MappingProxyType(
    {
        "size": "bucket_size_bytes",
        "objectsCount": "bucket_objects",
        "versionsCount": "bucket_versions",
        "deleteMarkersCount": "bucket_delete_markers",
    }
)


_LATENCY: Final = re.compile(r'minio_s3_requests_ttfb_seconds_distribution\{.*?le="([^"]+)".*\} (\S+)')


def of_server(text: str) -> list[Measurement]:
    """What the server tells Prometheus, summed over nodes and APIs."""
    found: defaultdict[str, float] = defaultdict(float, dict.fromkeys(_LATE, 0.0))
    within: defaultdict[str, float] = defaultdict(float)
    for line in text.splitlines():
        answered = _LATENCY.match(line)
        if answered is not None:
            within[answered[1]] += float(answered[2])
            continue
        name, _, rest = line.partition("{")
        ours = _CLUSTER.get(name if rest else line.partition(" ")[0])
        if ours is not None:
            found[ours] += float(line.rpartition(" ")[2])
    measured = [Measurement(name, value) for name, value in found.items()]
    return measured + [Measurement("requests_answered_total", count, {"within_s": le}) for le, count in within.items()]


def of_replication(bucket: str, told: Mapping[str, Any]) -> list[Measurement]:
    """What a bucket's rules copied since the server's start, what they couldn't copy, over all its remotes, and what waits."""
    remotes = ((told.get("currStats") or {}).get("Stats") or {}).values()
    totals = [(one.get("failed") or {}).get("totals") or {} for one in remotes]
    values = {
        "bucket_replicated_total": sum(one.get("replicationCount") or 0 for one in remotes),
        "bucket_replicated_bytes_total": sum(one.get("completedReplicationSize") or 0 for one in remotes),
        "bucket_replication_failures_total": sum(one.get("count") or 0 for one in totals),
        "bucket_replication_failed_bytes_total": sum(one.get("bytes") or 0 for one in totals),
    }
    queued = (told.get("currStats") or {}).get("queued") or {}
    values |= {
        "bucket_replication_queued": (queued.get("curr") or {}).get("count") or 0,
        "bucket_replication_queued_bytes": (queued.get("curr") or {}).get("bytes") or 0,
    }
    return [Measurement(name, float(value), {"bucket": bucket}) for name, value in values.items()]


def of_usage(usage: Mapping[str, Any], now: float) -> list[Measurement]:
    """What is stored, by bucket."""
    buckets = usage.get("bucketsUsageInfo") or {}
    largest = sorted(buckets, key=lambda name: -buckets[name].get("size", 0))[:MOST_BUCKETS]
    found = [
        Measurement(ours, float(buckets[name].get(theirs) or 0), {"bucket": name})
        for name in largest
        for theirs, ours in _BUCKET.items()
    ]
    updated = usage.get("lastUpdate")
    if updated:
        found.append(Measurement("usage_age_s", max(0.0, now - datetime.fromisoformat(updated).timestamp())))
    return found


def of_buckets(held: Iterable[tuple[str, HeldBucket]]) -> list[Measurement]:
    """What was last seen of declared buckets: which of them are open to everybody, how full their quotas may get."""
    rows = list(held)
    found = [Measurement("public_buckets", sum(policies.opens(bucket.access) for _, bucket in rows))]
    for name, bucket in rows[:MOST_BUCKETS]:
        if policies.opens(bucket.access):
            found.append(Measurement("bucket_public", 1, {"bucket": name}))
        if bucket.quota_bytes:
            found.append(Measurement("bucket_quota_bytes", bucket.quota_bytes, {"bucket": name}))
    return found
