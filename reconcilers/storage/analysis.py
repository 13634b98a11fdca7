"""What people of an object store ask first, from sampled metrics, events and settings. Pure.

Growth: the difference of the first and the last count of a bucket in the time, by the day. Counts come from the server's
scanner, which may lag. When it is full: at the growth of the whole, if that goes on; an estimate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

from reconcilers.contract import Evidence
from schemas.names import parse_timestamp, timestamp

DAY_S: Final = 86_400.0
TOP: Final = 10
SOON_S: Final = 14 * DAY_S
FULL: Final = 0.9
SLOW: Final = 0.05
LATELY_S: Final = 3_600.0

Point = tuple[float, float]


def analyse(evidence: Evidence) -> dict[str, Any]:
    """→ `{since, until, targets: {name: {…}}, keys, lifecycle, findings}`."""
    targets = {name: _target(rows) for name, rows in sorted(_by_target(evidence.metrics).items())}
    keys = _expiring_keys(evidence.settings, evidence.until)
    lifecycle = _lifecycle(evidence.events)
    return {
        "since": timestamp(evidence.since),
        "until": timestamp(evidence.until),
        "targets": targets,
        "keys": keys,
        "lifecycle": lifecycle,
        "findings": [*_target_findings(targets), *_key_findings(keys)],
    }


Rows = Mapping[tuple[str, str], Sequence[Point]]
"""(metric type, bucket, limit of a latency, or nothing) → points, oldest first."""


def _by_target(metrics: Iterable[Mapping[str, Any]]) -> dict[str, Rows]:
    found: defaultdict[str, defaultdict[tuple[str, str], list[Point]]] = defaultdict(lambda: defaultdict(list))
    for metric in metrics:
        tags = metric["tags"]
        point = (parse_timestamp(metric["timestamp"]), float(metric["value"]))
        what = str(tags.get("bucket") or tags.get("within_s") or "")
        found[str(tags.get("target"))][metric["metric_type"], what].append(point)
    return dict(found)


def _target(rows: Rows) -> dict[str, Any]:
    newest = max((points[-1][0] for points in rows.values()), default=0.0)
    last = {name: points[-1][1] for (name, bucket), points in rows.items() if not bucket}
    capacity, free = last.get("capacity_bytes"), last.get("free_bytes")
    growth = _per_day(rows.get(("stored_bytes", ""), ()))
    requests = _grown(rows.get(("requests_total", ""), ()))
    errors = _grown(rows.get(("request_5xx_errors_total", ""), ()))
    return {
        "stored_bytes": last.get("stored_bytes"),
        "objects": last.get("objects"),
        "capacity_bytes": capacity,
        "free_bytes": free,
        "growth_bytes_per_day": growth,
        "full_in_days": None if not growth or growth <= 0 or free is None else round(free / growth, 1),
        "requests": requests,
        "request_5xx_errors": errors,
        "received_bytes": _grown(rows.get(("received_bytes_total", ""), ())),
        "sent_bytes": _grown(rows.get(("sent_bytes_total", ""), ())),
        "drives_offline": last.get("drives_offline"),
        "expirations_pending": last.get("expirations_pending"),
        "largest": _largest(rows),
        "fastest_growing": _fastest(rows),
        "noncurrent": _noncurrent(rows),
        "public": sorted(
            b for (name, b), p in rows.items() if name == "bucket_public" and p[-1][0] > newest - LATELY_S
        ),
        "quotas": _quotas(rows),
        "slower_than_1s": _slower(rows, "1.000"),
        "replication": _replication(rows),
        "cold": _told(rows, "cold_bytes", "cold_objects"),
        "lifecycle_removed": _grown(rows.get(("lifecycle_removed_total", ""), ())),
        "lifecycle_moved": _grown(rows.get(("lifecycle_moved_total", ""), ())),
        "will_expire": _told(rows, "expiring_bytes", "expiring_versions"),
        "incomplete_uploads": _told(rows, "incomplete_uploads"),
    }


def _told(rows: Rows, *names: str) -> list[dict[str, Any]]:
    """Of buckets where the first of these isn't nothing, the most first: what they were when they were last walked."""
    buckets = [bucket for name, bucket in rows if name == f"bucket_{names[0]}"]
    found: list[dict[str, Any]] = [
        {"bucket": one, **{name: _last(rows, f"bucket_{name}", one) for name in names}} for one in buckets
    ]
    return sorted((one for one in found if one[names[0]]), key=lambda one: -one[names[0]])[:TOP]


def _last(rows: Rows, name: str, bucket: str) -> float:
    points = rows.get((name, bucket), ())
    return points[-1][1] if points else 0.0


def _slower(rows: Rows, limit: str) -> float | None:
    """The share of requests whose first byte came later than that; None when there were none."""
    every, within = (_grown(rows.get(("requests_answered_total", le), ())) for le in ("+Inf", limit))
    return round((every - within) / every, 3) if every else None


def _replication(rows: Rows) -> list[dict[str, Any]]:
    """What was copied in the time, and what couldn't be; those that fail come first."""
    found: list[dict[str, Any]] = [
        {
            "bucket": bucket,
            "replicated": _grown(points),
            "failures": _grown(rows.get(("bucket_replication_failures_total", bucket), ())),
            "queued": _last(rows, "bucket_replication_queued", bucket),
        }
        for (name, bucket), points in rows.items()
        if name == "bucket_replicated_total"
    ]
    return sorted(found, key=lambda one: (-one["failures"], -one["queued"], one["bucket"]))[:TOP]


def _largest(rows: Rows) -> list[dict[str, Any]]:
    sizes = {bucket: points[-1][1] for (name, bucket), points in rows.items() if name == "bucket_size_bytes"}
    return [{"bucket": name, "size_bytes": sizes[name]} for name in sorted(sizes, key=lambda n: -sizes[n])[:TOP]]


def _fastest(rows: Rows) -> list[dict[str, Any]]:
    growth = {bucket: _per_day(points) for (name, bucket), points in rows.items() if name == "bucket_size_bytes"}
    rising = {bucket: rate for bucket, rate in growth.items() if rate}
    names = sorted(rising, key=lambda name: -rising[name])[:TOP]
    return [{"bucket": name, "bytes_per_day": rising[name]} for name in names if rising[name] > 0]


def _noncurrent(rows: Rows) -> list[dict[str, Any]]:
    """Buckets with more versions than objects: what a rule for noncurrent versions would be about."""
    found: list[dict[str, Any]] = []
    for (name, bucket), points in rows.items():
        if name != "bucket_versions":
            continue
        objects = rows.get(("bucket_objects", bucket), [(0.0, 0.0)])[-1][1]
        extra = points[-1][1] - objects
        if extra > 0:
            found.append({"bucket": bucket, "noncurrent_versions": extra})
    return sorted(found, key=lambda one: -one["noncurrent_versions"])[:TOP]


def _quotas(rows: Rows) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for (name, bucket), points in rows.items():
        used = rows.get(("bucket_size_bytes", bucket))
        if name == "bucket_quota_bytes" and used and points[-1][1]:
            found.append({"bucket": bucket, "share": round(used[-1][1] / points[-1][1], 3)})
    return sorted(found, key=lambda one: -one["share"])[:TOP]


def _per_day(points: Sequence[Point]) -> float | None:
    if len(points) < 2 or points[-1][0] - points[0][0] < 1.0:
        return None
    return round((points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0]) * DAY_S, 1)


def _grown(points: Sequence[Point]) -> float:
    """Of a counter, which begins anew with the server."""
    values = [value for _, value in points]
    return sum(after - before if after >= before else after for before, after in pairwise(values))


def _expiring_keys(settings: Iterable[Mapping[str, Any]], now: float) -> list[dict[str, Any]]:
    found = []
    for setting in settings:
        expires = setting["value"].get("expires_at") if setting["setting_type"] == "storage.access_key" else None
        if expires and (left_s := datetime.fromisoformat(expires).timestamp() - now) < SOON_S:
            found.append({"setting": f"storage.access_key/{setting['name']}", "days": round(left_s / DAY_S, 1)})
    return sorted(found, key=lambda one: one["days"])


def _lifecycle(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Changes of rules, with what they would have removed on their day."""
    return [
        {
            "at": event["timestamp"],
            "setting": event.get("setting"),
            "expires_today": event["details"].get("expires_today"),
        }
        for event in events
        if event["event_type"] == "ActionStarted" and event["details"].get("step") == "SetLifecycle"
    ][-TOP:]


def _target_findings(targets: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    for name, one in targets.items():
        if one["drives_offline"]:
            yield f"{name}: {one['drives_offline']:g} drives are offline"
        if one["full_in_days"] is not None and one["full_in_days"] < 30:
            yield f"{name}: full in {one['full_in_days']:g} days if it goes on growing as it does"
        if one["public"]:
            yield f"{name}: open to everybody: {', '.join(one['public'])}"
        yield from (
            f"{name}: {q['bucket']} uses {q['share']:.0%} of its quota" for q in one["quotas"] if q["share"] > FULL
        )
        if (one["slower_than_1s"] or 0) > SLOW:
            yield f"{name}: {one['slower_than_1s']:.0%} of the requests waited more than a second"
        yield from (
            f"{name}: {r['failures']:g} objects of {r['bucket']} couldn't be copied"
            for r in one["replication"]
            if r["failures"]
        )
        yield from (
            f"{name}: {u['incomplete_uploads']:g} uploads to {u['bucket']} were never finished"
            for u in one["incomplete_uploads"]
        )
        if one["request_5xx_errors"]:
            yield f"{name}: {one['request_5xx_errors']:g} requests failed by the server's fault"


def _key_findings(keys: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for key in keys:
        days = key["days"]
        yield f"{key['setting']} " + (f"has expired {-days:g} days ago" if days < 0 else f"expires in {days:g} days")
