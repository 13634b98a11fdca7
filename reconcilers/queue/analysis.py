"""What people of a queue ask first, from sampled metrics. Pure.

Growth is that of a straight line between the first and the last sample, and so are rates: of a counter that begins anew only
what it gained counts. A group falls behind when its lag at the end is higher than at the start and than what it was at its
lowest since; it has since the moment of that lowest lag. A topic is idle when nothing was produced for IDLE_S and to the end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from reconcilers.contract import Evidence
from schemas.names import parse_timestamp, timestamp

DAY_S: Final = 86_400.0
MOST: Final = 10
LEAST_LAG: Final = 100
"""A lag below it is nothing to speak of."""
IDLE_S: Final = 3_600.0
SKEWED: Final = 3.0
"""A partition so many times as big as the average of its topic holds the others up."""
SKEW_BYTES: Final = 10_000_000
SOON_DAYS: Final = 14.0
PERCENTILES: Final = (50, 95, 99)

Point = tuple[float, float]
Tags = tuple[tuple[str, str], ...]
Rows = Mapping[Tags, Sequence[Point]]
Series = Mapping[str, Rows]


def analyse(evidence: Evidence) -> dict[str, Any]:
    """→ `{since, until, targets: {name: {topics, groups, routes, …}}, findings}`."""
    targets = {name: _target(series) for name, series in sorted(_series(evidence.metrics).items())}
    return {
        "since": timestamp(evidence.since),
        "until": timestamp(evidence.until),
        "targets": targets,
        "findings": [f"{name}: {text}" for name, target in targets.items() for text in _findings(target)],
    }


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
    topics = _topics(series)
    return {
        "stored_bytes": _last(_whole(series, "stored_bytes")),
        "under_replicated_partitions": _last(_whole(series, "under_replicated_partitions")),
        "offline_partitions": _last(_whole(series, "offline_partitions")),
        "isr_changes": _gained(_whole(series, "isr_changes_total")),
        "days_until_disk_full": _disk(series),
        "delivery": _delivery(series),
        "topics": topics[:MOST],
        "idle_topics": sorted(one["topic"] for one in topics if one["idle_since"] is not None),
        "skewed_topics": [one["topic"] for one in topics if one["skewed"]],
        "groups": _groups(series),
        "routes": _routes(series),
    }


# --- topics --------------------------------------------------------------------------------------------------------------


def _topics(series: Series) -> list[dict[str, Any]]:
    """The busiest first: those that grow most, and of equals those with the most messages."""
    found = [_topic(series, tags, points) for tags, points in series.get("topic_bytes", {}).items()]
    return sorted(found, key=lambda one: (-one["growth_bytes_per_day"], -one["produced_per_s"], -one["bytes"]))


def _topic(series: Series, tags: Tags, sizes: Sequence[Point]) -> dict[str, Any]:
    produced = series.get("produced_total", {}).get(tags, ())
    skew = _last(series.get("topic_skew_ratio", {}).get(tags, ()))
    limit = _last(series.get("topic_limit_bytes", {}).get(tags, ()))
    growth = _per_day(sizes)
    return {
        "topic": dict(tags)["topic"],
        "bytes": sizes[-1][1],
        "growth_bytes_per_day": growth,
        "produced_per_s": _per_s(produced),
        "days_until_retention": None if limit is None else _days(limit - sizes[-1][1], growth),
        "idle_since": _idle_since(produced),
        "skew_ratio": skew,
        "skewed": skew is not None and skew >= SKEWED and sizes[-1][1] >= SKEW_BYTES,
    }


def _idle_since(produced: Sequence[Point]) -> str | None:
    """When its last message was seen to have come; the first look when none came since."""
    if not produced:
        return None
    since = next((at for (at, _), (_, before) in _backwards(produced) if before != produced[-1][1]), produced[0][0])
    return timestamp(since) if produced[-1][0] - since >= IDLE_S else None


def _backwards(points: Sequence[Point]) -> Iterator[tuple[Point, Point]]:
    """(a point, the one before it), newest first."""
    return ((after, before) for before, after in reversed(list(pairwise(points))))


def _disk(series: Series) -> float | None:
    """Until the first broker's disk is full, as it fills now."""
    left = [_days(points[-1][1], -_per_day(points)) for points in series.get("disk_usable_bytes", {}).values()]
    return min((days for days in left if days is not None), default=None)


# --- groups, routes, delivery ----------------------------------------------------------------------------------------------


def _groups(series: Series) -> list[dict[str, Any]]:
    found = []
    for tags, points in series.get("lag_messages", {}).items():
        low_at, low = min(reversed(points), key=lambda point: point[1])
        behind = points[-1][1] >= LEAST_LAG and points[-1][1] > max(low, points[0][1])
        group = (("group", dict(tags)["group"]),)
        found.append(
            {
                **dict(tags),
                "lag_messages": points[-1][1],
                "lag_s": _last(series.get("lag_s", {}).get(tags, ())),
                "consumed_per_s": _per_s(series.get("consumed_total", {}).get(tags, ())),
                "rebalances": _gained(series.get("rebalances_total", {}).get(group, ())),
                "falling_behind_since": timestamp(low_at) if behind else None,
            }
        )
    return sorted(found, key=lambda one: -one["lag_messages"])


def _routes(series: Series) -> list[dict[str, Any]]:
    dead, repeated, failed = (
        series.get(name, {}) for name in ("dead_lettered_total", "repeated_total", "failed_total")
    )
    return [
        {
            "route": dict(tags)["route"],
            "routed": points[-1][1],
            "dead_lettered": _last(dead.get(tags, ())) or 0,
            "repeated": _last(repeated.get(tags, ())) or 0,
            "failed": _last(failed.get(tags, ())) or 0,
            "routed_since": max(0.0, points[-1][1] - points[0][1]),
        }
        for tags, points in sorted(series.get("routed_total", {}).items())
    ]


def _delivery(series: Series) -> dict[str, Any] | None:
    """Of the canary's messages: percentiles, and how many there were. None: there is no canary."""
    lost = _whole(series, "canary_lost")
    if not lost:
        return None
    took = sorted(value for _, value in _whole(series, "delivery_s"))
    return {
        "messages": len(lost),
        "lost": int(sum(value for _, value in lost)),
        **{f"p{share}_s": _percentile(took, share) for share in PERCENTILES},
    }


def _percentile(values: Sequence[float], share: int) -> float | None:
    """The smallest value that so many of a hundred don't exceed."""
    return values[-(-len(values) * share // 100) - 1] if values else None


# --- series --------------------------------------------------------------------------------------------------------------


def _whole(series: Series, name: str) -> Sequence[Point]:
    """Of what has no parts."""
    return series.get(name, {}).get((), ())


def _last(points: Sequence[Point]) -> float | None:
    return points[-1][1] if points else None


def _gained(points: Sequence[Point]) -> float:
    """By a counter that may have begun anew."""
    return sum(max(0.0, after - before) for (_, before), (_, after) in pairwise(points))


def _per_s(points: Sequence[Point]) -> float:
    return _gained(points) / (points[-1][0] - points[0][0]) if points and points[-1][0] > points[0][0] else 0.0


def _per_day(points: Sequence[Point]) -> float:
    (begun, first), (ended, last) = points[0], points[-1]
    return (last - first) / (ended - begun) * DAY_S if ended > begun else 0.0


def _days(left: float, per_day: float) -> float | None:
    """Until nothing is left; None: never."""
    return max(0.0, left) / per_day if per_day > 0 else None


# --- what is said of it ----------------------------------------------------------------------------------------------------


def _findings(target: Mapping[str, Any]) -> Iterator[str]:
    yield from _of_groups(target)
    if target["offline_partitions"]:
        yield f"{target['offline_partitions']:.0f} partitions have no leader: nobody can use them"
    if target["under_replicated_partitions"]:
        yield f"{target['under_replicated_partitions']:.0f} partitions lack replicas"
    if target["delivery"] is not None and target["delivery"]["lost"]:
        yield f"{target['delivery']['lost']} of {target['delivery']['messages']} canary messages didn't come in time"
    yield from _of_topics(target)
    yield from _of_routes(target)


def _of_groups(target: Mapping[str, Any]) -> Iterator[str]:
    for one in target["groups"]:
        if one["falling_behind_since"] is not None:
            yield (
                f"group {one['group']} falls behind on {one['topic']} since {one['falling_behind_since']}: "
                f"{one['lag_messages']:.0f} messages wait"
            )


def _of_topics(target: Mapping[str, Any]) -> Iterator[str]:
    days = target["days_until_disk_full"]
    if days is not None and days < SOON_DAYS:
        yield f"a broker's disk is full in {days:.1f} days as it fills now"
    for one in target["topics"]:
        if one["days_until_retention"] is not None and one["days_until_retention"] < SOON_DAYS:
            yield f"topic {one['topic']} reaches its retention.bytes in {one['days_until_retention']:.1f} days"
        if one["skewed"]:
            yield f"topic {one['topic']}: its biggest partition is {one['skew_ratio']:.1f} times the average: see its keys"


def _of_routes(target: Mapping[str, Any]) -> Iterator[str]:
    for one in target["routes"]:
        if one["dead_lettered"]:
            yield f"route {one['route']} buried {one['dead_lettered']:.0f} messages: see queue.redrive"
        if one["repeated"]:
            yield (
                f"route {one['route']} may have delivered {one['repeated']:.0f} messages twice after a crash: "
                "with delivery exactly_once it doesn't"
            )
