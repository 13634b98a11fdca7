"""What people of a queue ask first, from sampled metrics. Pure.

Growth is that of a straight line between the first and the last sample. A group falls behind when its lag at the end is
higher than at the start and than what it was at its lowest since; it has since the moment of that lowest lag.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from reconcilers.contract import Evidence
from schemas.names import parse_timestamp, timestamp

DAY_S: Final = 86_400.0
MOST: Final = 10
LEAST_LAG: Final = 100
"""A lag below it is nothing to speak of."""

Point = tuple[float, float]
Tags = tuple[tuple[str, str], ...]


def analyse(evidence: Evidence) -> dict[str, Any]:
    """→ `{since, until, targets: {name: {topics, groups, routes, …}}, findings}`."""
    targets = {name: _target(series) for name, series in sorted(_series(evidence.metrics).items())}
    return {
        "since": timestamp(evidence.since),
        "until": timestamp(evidence.until),
        "targets": targets,
        "findings": [text for name, target in targets.items() for text in _findings(name, target)],
    }


Series = Mapping[str, Mapping[Tags, Sequence[Point]]]


def _series(metrics: Iterable[Mapping[str, Any]]) -> dict[str, Series]:
    found: defaultdict[str, defaultdict[str, defaultdict[Tags, list[Point]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for metric in metrics:
        tags = dict(metric["tags"])
        target = str(tags.pop("target", ""))
        point = (parse_timestamp(metric["timestamp"]), float(metric["value"]))
        found[target][metric["metric_type"]][tuple(sorted(tags.items()))].append(point)
    return {target: dict(series) for target, series in found.items()}


def _target(series: Series) -> dict[str, Any]:
    return {
        "stored_bytes": _last(series.get("stored_bytes", {}).get((), ())),
        "under_replicated_partitions": _last(series.get("under_replicated_partitions", {}).get((), ())),
        "offline_partitions": _last(series.get("offline_partitions", {}).get((), ())),
        "topics": _topics(series.get("topic_bytes", {})),
        "groups": _groups(series.get("lag_messages", {})),
        "routes": _routes(series),
    }


def _topics(rows: Mapping[Tags, Sequence[Point]]) -> list[dict[str, Any]]:
    """The busiest first: those that grow most."""
    found: list[dict[str, Any]] = [
        {"topic": dict(tags)["topic"], "bytes": points[-1][1], "growth_bytes_per_day": _per_day(points)}
        for tags, points in rows.items()
    ]
    return sorted(found, key=lambda one: (-one["growth_bytes_per_day"], -one["bytes"]))[:MOST]


def _groups(rows: Mapping[Tags, Sequence[Point]]) -> list[dict[str, Any]]:
    found = []
    for tags, points in rows.items():
        low_at, low = min(reversed(points), key=lambda point: point[1])
        behind = points[-1][1] >= LEAST_LAG and points[-1][1] > max(low, points[0][1])
        since = timestamp(low_at) if behind else None
        found.append({**dict(tags), "lag_messages": points[-1][1], "falling_behind_since": since})
    return sorted(found, key=lambda one: -one["lag_messages"])


def _routes(series: Series) -> list[dict[str, Any]]:
    dead = series.get("dead_lettered_total", {})
    return [
        {
            "route": dict(tags)["route"],
            "routed": points[-1][1],
            "dead_lettered": _last(dead.get(tags, ())) or 0,
            "routed_since": max(0.0, points[-1][1] - points[0][1]),
        }
        for tags, points in sorted(series.get("routed_total", {}).items())
    ]


def _last(points: Sequence[Point]) -> float | None:
    return points[-1][1] if points else None


def _per_day(points: Sequence[Point]) -> float:
    (begun, first), (ended, last) = points[0], points[-1]
    return (last - first) / (ended - begun) * DAY_S if ended > begun else 0.0


def _findings(name: str, target: Mapping[str, Any]) -> list[str]:
    found = [
        f"{name}: group {one['group']} falls behind on {one['topic']} since {one['falling_behind_since']}: "
        f"{one['lag_messages']:.0f} messages wait"
        for one in target["groups"]
        if one["falling_behind_since"] is not None
    ]
    if target["offline_partitions"]:
        found.append(f"{name}: {target['offline_partitions']:.0f} partitions have no leader: nobody can use them")
    if target["under_replicated_partitions"]:
        found.append(f"{name}: {target['under_replicated_partitions']:.0f} partitions lack replicas")
    found += [
        f"{name}: route {one['route']} buried {one['dead_lettered']:.0f} messages: see queue.redrive"
        for one in target["routes"]
        if one["dead_lettered"]
    ]
    return found
