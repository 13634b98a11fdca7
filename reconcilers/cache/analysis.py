"""What people of a cache ask first, from sampled metrics, events and settings. Pure.

Hit ratio: from the differences of `hits_total` and `misses_total`; a counter that falls was reset and counts from zero.
Changes: every accepted change of a setting that concerns the target, with the ratio of the WINDOW_S before and after it
(cut off at the next change), when both saw MIN_READS reads. A coincidence in time, not a proof.

What another memory limit would keep: a cache that evicts what was used longest ago holds the objects used within some
time T. The sampled bytes by idle time give T for a smaller limit, and the bytes that would go. A bigger limit, while
evictions happen, keeps objects for (extra bytes) / (evictions per second x mean size) seconds longer. Estimates both: of
a policy near LRU, of the sampled moment, from idle times that the server rounds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from reconcilers.contract import Evidence
from schemas.names import parse_timestamp, timestamp

WINDOW_S: Final = 1_800.0
MIN_READS: Final = 100
NOTABLE: Final = 0.05
"""Relative change of the hit ratio that is worth a sentence."""
LATELY_S: Final = 900.0
"""What wasn't measured again for so long isn't there any more (a prefix, a namespace)."""
POINTS: Final = 60
"""Most points of a curve in the answer."""
FACTORS: Final = (0.5, 0.75, 1.25, 1.5, 2.0)
FULL: Final = 0.95
"""Share of the limit from which memory counts as full."""
UNKNOWN: Final = "unknown"

Point = tuple[float, float]
Reads = tuple[float, float, float]
"""(at, hits, misses) since the point before."""


@dataclass(slots=True)
class Series:
    """Everything measured of one target: type → (tags without target, as sorted pairs) → points, oldest first."""

    rows: dict[str, dict[tuple[tuple[str, str], ...], list[Point]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def last(self, metric_type: str) -> float | None:
        """Newest value, summed over the nodes; None when it was never measured."""
        found = [points[-1][1] for points in self.rows.get(metric_type, {}).values()]
        return sum(found) if found else None

    def by(self, metric_type: str, tag: str) -> dict[str, float]:
        """Newest value for each value of a tag, summed over the nodes; without what hasn't been measured lately."""
        found: dict[str, float] = defaultdict(float)
        rows = self.rows.get(metric_type, {})
        newest = max((points[-1][0] for points in rows.values()), default=0.0)
        for tags, points in rows.items():
            if points[-1][0] < newest - LATELY_S:
                continue
            found[dict(tags).get(tag, UNKNOWN)] += points[-1][1]
        return dict(found)

    def grown(self, metric_type: str) -> float:
        """How much a counter counted in the time, over all nodes."""
        return sum(amount for points in self.rows.get(metric_type, {}).values() for _, amount in _growth(points))


@dataclass(frozen=True, slots=True)
class Change:
    """An accepted change of a setting."""

    at: float
    revision: int
    setting: str
    actor: str | None


def analyse(evidence: Evidence) -> dict[str, Any]:
    """→ `{since, until, targets: {name: …}, namespaces: […], findings: […]}`; see the functions for the parts."""
    targets = _by_target(evidence.metrics)
    concerns = _concerns(evidence.settings)
    changes = list(_changes(evidence.events))
    parameters = _redis_parameters(evidence.settings)
    found = {
        name: _target(
            series, [one for one in changes if name in concerns(one.setting)], parameters.get(name, {}), evidence
        )
        for name, series in sorted(targets.items())
    }
    namespaces = _namespaces(targets, evidence.settings)
    return {
        "since": timestamp(evidence.since),
        "until": timestamp(evidence.until),
        "targets": found,
        "namespaces": namespaces,
        "findings": [*_target_findings(found), *_namespace_findings(namespaces)],
    }


def _target(
    series: Series, changes: Sequence[Change], parameters: Mapping[str, str], evidence: Evidence
) -> dict[str, Any]:
    reads = _reads(series)
    return {
        "hit_ratio": {"overall": _ratio(reads), "points": _curve(reads)},
        "changes": _effects(reads, changes),
        "evictions": _evictions(series, parameters),
        "memory": _memory(series),
        "without_ttl_keys": _rounded(series.last("without_ttl_keys")),
        "prefixes": _top(series.by("prefix_size_bytes", "prefix")),
        "other_limits": _other_limits(series, max(1.0, evidence.until - evidence.since)),
    }


# --- hit ratio ---------------------------------------------------------------------------------------------------------


def _reads(series: Series) -> list[Reads]:
    """Hits and misses since the point before, of all nodes, oldest first."""
    found: list[Reads] = []
    for points in series.rows.get("hits_total", {}).values():
        found += [(at, amount, 0.0) for at, amount in _growth(points)]
    for points in series.rows.get("misses_total", {}).values():
        found += [(at, 0.0, amount) for at, amount in _growth(points)]
    return sorted(found)


def _growth(points: Sequence[Point]) -> Iterable[Point]:
    for (_, before), (at, value) in pairwise(points):
        yield at, value - before if value >= before else value


def _ratio(reads: Iterable[Reads]) -> float | None:
    hits, misses = _sums(reads)
    return round(hits / (hits + misses), 4) if hits + misses else None


def _sums(reads: Iterable[Reads]) -> tuple[float, float]:
    hits = misses = 0.0
    for _, more_hits, more_misses in reads:
        hits, misses = hits + more_hits, misses + more_misses
    return hits, misses


def _curve(reads: Sequence[Reads]) -> list[dict[str, Any]]:
    if not reads:
        return []
    first, last = reads[0][0], reads[-1][0]
    width_s = max(1.0, (last - first) / POINTS)
    slots: dict[int, list[Reads]] = defaultdict(list)
    for one in reads:
        slots[min(POINTS - 1, int((one[0] - first) / width_s))].append(one)
    curve = [(first + slot * width_s, _ratio(rows)) for slot, rows in sorted(slots.items())]
    return [{"timestamp": timestamp(at), "value": ratio} for at, ratio in curve if ratio is not None]


def _effects(reads: Sequence[Reads], changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Each change with the hit ratio before and after, where there were reads enough to say."""
    effects = []
    times = [one[0] for one in reads]
    ends = [change.at for change in changes]
    for index, change in enumerate(changes):
        earliest = max(change.at - WINDOW_S, ends[index - 1] if index else float("-inf"))
        latest = min(change.at + WINDOW_S, ends[index + 1] if index + 1 < len(ends) else float("inf"))
        here = bisect_right(times, change.at)
        before, after = reads[bisect_right(times, earliest) : here], reads[here : bisect_right(times, latest)]
        if min(sum(_sums(before)), sum(_sums(after))) >= MIN_READS:
            effects.append(_effect(change, _ratio(before) or 0.0, _ratio(after) or 0.0))
    return effects


def _effect(change: Change, before: float, after: float) -> dict[str, Any]:
    relative = (after - before) / before if before else (1.0 if after else 0.0)
    notable = abs(relative) >= NOTABLE
    text = (
        f"hit ratio {'fell' if relative < 0 else 'rose'} {abs(relative) * 100:.0f} % after revision {change.revision}"
    )
    return {
        "revision": change.revision,
        "setting": change.setting,
        "actor": change.actor,
        "timestamp": timestamp(change.at),
        "before": before,
        "after": after,
        "change": round(relative, 4),
        "summary": f"{text} of {change.setting}" if notable else None,
    }


# --- evictions and memory ----------------------------------------------------------------------------------------------


def _evictions(series: Series, parameters: Mapping[str, str]) -> dict[str, Any]:
    """How objects left, and why: `memory_limit` (evicted), `expired`, `none`; what the policy has to do with it."""
    evicted, expired = series.grown("evictions_total"), series.grown("expired_total")
    policy = parameters.get("maxmemory-policy")
    eternal = series.last("without_ttl_keys") or 0.0
    cause = "memory_limit" if evicted else "expired" if expired else "none"
    note = None
    if policy == "noeviction" and _full(series):
        note = "memory is full and the policy is noeviction: writes are refused"
    elif policy is not None and policy.startswith("volatile-") and eternal:
        note = f"{policy} can't evict the {eternal:.0f} keys without a lifetime: the others pay for them"
    return {"evicted": round(evicted), "expired": round(expired), "cause": cause, "policy": policy, "note": note}


def _full(series: Series) -> bool:
    used, limit = series.last("used_memory_bytes"), series.last("memory_limit_bytes")
    return bool(used and limit and used >= FULL * limit)


def _memory(series: Series) -> dict[str, Any]:
    """Bytes used and left; `headroom_bytes` None where there is no limit."""
    used, limit = series.last("used_memory_bytes"), series.last("memory_limit_bytes") or None
    return {
        "used_bytes": _rounded(used),
        "peak_bytes": _rounded(series.last("peak_memory_bytes")),
        "limit_bytes": _rounded(limit),
        "headroom_bytes": _rounded(max(0.0, limit - used)) if limit and used is not None else None,
        "headroom_share": round(max(0.0, 1 - used / limit), 4) if limit and used is not None else None,
    }


def _other_limits(series: Series, span_s: float) -> list[dict[str, Any]]:
    """What smaller and bigger limits would keep; nothing where idle times aren't known. See the module."""
    total, limit = series.last("objects_size_bytes"), series.last("memory_limit_bytes")
    curve = sorted((float(within), size) for within, size in series.by("idle_size_bytes", "within").items())
    if not total or not curve:
        return []
    used = max(1.0, series.last("used_memory_bytes") or total)  # whoever holds something uses a byte
    full = limit or used
    overhead = used / total
    rate = series.grown("evictions_total") / span_s * total / max(1.0, series.last("keys") or 1.0)
    return [_at_limit(factor * full, factor * full / overhead, (total, rate), curve) for factor in FACTORS]


def _at_limit(limit: float, room: float, load: tuple[float, float], curve: Sequence[Point]) -> dict[str, Any]:
    total, rate = load
    kept = min(1.0, room / total)
    answer: dict[str, Any] = {"limit_bytes": round(limit), "kept_share": round(kept, 4)}
    if kept < 1.0:
        answer["kept_if_used_within_s"] = _age(room, curve)
    elif rate > 0:
        answer["kept_longer_s"] = round((room - total) / rate)
    return answer


def _age(room: float, curve: Sequence[Point]) -> float | None:
    """How long ago the last use may be so that the object still fits; None: longer than was told apart."""
    before_age, before_size = 0.0, 0.0
    for age, size in curve:
        if size >= room:
            share = (room - before_size) / (size - before_size) if size > before_size else 0.0
            return round(before_age + share * (age - before_age), 1)
        before_age, before_size = age, size
    return None


# --- namespaces --------------------------------------------------------------------------------------------------------


def _namespaces(targets: Mapping[str, Series], settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Keys and bytes of each namespace on each target, its share of all objects there, and its budget; biggest first."""
    budgets = {s["name"]: s["value"] for s in settings if s.get("setting_type") == "cache.namespace"}
    rows = []
    for target, series in targets.items():
        total, keys = series.last("objects_size_bytes"), series.by("namespace_keys", "namespace")
        eternal = series.by("namespace_without_ttl_keys", "namespace")
        for name, size in series.by("namespace_size_bytes", "namespace").items():
            budget = budgets.get(name, {})
            rows.append(
                {
                    "namespace": name,
                    "target": target,
                    "keys": round(keys.get(name, 0.0)),
                    "size_bytes": round(size),
                    "share": round(size / total, 4) if total else None,
                    "without_ttl_keys": round(eternal.get(name, 0.0)),
                    "budget_bytes": budget.get("budget_bytes"),
                    "budget_keys": budget.get("budget_keys"),
                    "over_budget": _over(size, budget.get("budget_bytes"))
                    or _over(keys.get(name, 0.0), budget.get("budget_keys")),
                }
            )
    return sorted(rows, key=lambda row: (-row["size_bytes"], row["namespace"], row["target"]))


def _over(value: float, budget: float | None) -> bool:
    return budget is not None and value > budget


# --- findings ----------------------------------------------------------------------------------------------------------


def _target_findings(targets: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    for name, found in targets.items():
        yield from (f"{name}: {change['summary']}" for change in found["changes"] if change["summary"])
        if found["evictions"]["evicted"]:
            yield f"{name}: {found['evictions']['evicted']} keys were evicted because the memory limit was reached"
        if found["evictions"]["note"]:
            yield f"{name}: {found['evictions']['note']}"
        headroom = found["memory"]["headroom_share"]
        if headroom is not None and headroom < 1 - FULL:
            yield f"{name}: memory is {100 * (1 - headroom):.0f} % full"
        if found["without_ttl_keys"]:
            yield f"{name}: about {found['without_ttl_keys']} keys have no lifetime"


def _namespace_findings(namespaces: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    for row in namespaces:
        if row["over_budget"]:
            yield f"namespace {row['namespace']} is over its budget on {row['target']}"


# --- evidence ----------------------------------------------------------------------------------------------------------


def _by_target(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Series]:
    targets: dict[str, Series] = defaultdict(Series)
    for metric in metrics:
        tags = dict(metric.get("tags") or {})
        target = tags.pop("target", UNKNOWN)
        point = (parse_timestamp(metric["timestamp"]), float(metric["value"]))
        targets[target].rows[metric["metric_type"]][tuple(sorted(tags.items()))].append(point)
    return targets


def _changes(events: Sequence[Mapping[str, Any]]) -> Iterable[Change]:
    for event in events:
        revision, setting = event.get("revision"), event.get("setting")
        if event.get("event_type") == "SettingAccepted" and setting and revision is not None:
            at, (_, _, reference) = parse_timestamp(event["timestamp"]), str(setting).partition("/")
            yield Change(at, int(revision), reference, event.get("actor"))


def _concerns(settings: Sequence[Mapping[str, Any]]) -> Callable[[str], frozenset[str]]:
    """Which targets a setting (`type/name`) concerns."""
    table: dict[str, frozenset[str]] = {}
    for setting in settings:
        kind, name, value = str(setting["setting_type"]), str(setting["name"]), setting.get("value") or {}
        names = {value.get("target"), name if kind == "cache.target" else None}
        names |= {layer.get("target") for layer in value.get("layers") or ()}
        table[f"{kind}/{name}"] = frozenset(str(one) for one in names if one)
    return lambda setting: table.get(setting, frozenset())


def _redis_parameters(settings: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Declared parameters by target."""
    found: dict[str, dict[str, str]] = {}
    for setting in settings:
        if setting.get("setting_type") == "cache.redis_config":
            value = setting.get("value") or {}
            rows = {str(name): str(text).lower() for name, text in (value.get("parameters") or {}).items()}
            found.setdefault(str(value.get("target")), {}).update(rows)
    return found


def _top(sizes: Mapping[str, float]) -> list[dict[str, Any]]:
    """Biggest first."""
    rows = sorted(sizes.items(), key=lambda row: (-row[1], row[0]))[:10]
    return [{"prefix": prefix, "size_bytes": round(size)} for prefix, size in rows]


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)
