"""What goes through `search.query`, counted for monitoring and analytics. Pure, bounded.

A query is known by its label, or by its shape: names of clauses and fields without what people typed, so that no personal
data gets into metrics and equal questions count together. Of the slowest the body is kept in memory for `search.advise`,
which profiles it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from reconcilers.contract import Measurement

MOST_KINDS: Final = 50
"""Kinds of query told apart; further ones count as `other`."""
MOST_TIMES: Final = 500
"""Times kept of each kind since the last sample; of more, every second one is dropped."""
PERCENTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
OTHER: Final = "other"
_OPAQUE: Final = ("script", "source", "params", "filters")


@dataclass(slots=True)
class Counted:
    """One kind of query on one index, since the log was opened."""

    queries: int = 0
    empty: int = 0
    failed: int = 0
    clicks: int = 0
    positions: int = 0
    """Sum over the clicks."""
    times_ms: list[float] = field(default_factory=list)
    slowest_ms: float = 0.0
    slowest: Mapping[str, Any] | None = None


class QueryLog:
    """The queries of one target."""

    def __init__(self) -> None:
        self.kinds: dict[tuple[str, str], Counted] = {}

    def record(self, index: str, kind: str, took_ms: float, hits: int | None, body: Mapping[str, Any]) -> None:
        """One answered query; `hits` None: it failed."""
        counted = self._counted(index, kind)
        counted.queries += 1
        counted.failed += hits is None
        counted.empty += hits == 0
        counted.times_ms.append(took_ms)
        if len(counted.times_ms) > MOST_TIMES:
            del counted.times_ms[::2]
        if took_ms > counted.slowest_ms:
            counted.slowest_ms, counted.slowest = took_ms, body

    def click(self, index: str, kind: str, position: int) -> None:
        """Somebody took the hit at this position, from 1."""
        counted = self._counted(index, kind)
        counted.clicks += 1
        counted.positions += position

    def _counted(self, index: str, kind: str) -> Counted:
        if (index, kind) not in self.kinds and len(self.kinds) >= MOST_KINDS:
            kind = OTHER
        return self.kinds.setdefault((index, kind), Counted())

    def measurements(self) -> list[Measurement]:
        """Counters for ever, times since the last sample."""
        found = [*self._latencies_of_indices()]
        for (index, kind), counted in self.kinds.items():
            tags = {"index": index, "query": kind}
            found.append(Measurement("queries_total", counted.queries, tags))
            found.append(Measurement("queries_without_hits_total", counted.empty, tags))
            found.append(Measurement("queries_failed_total", counted.failed, tags))
            if counted.clicks:
                found.append(Measurement("query_clicks_total", counted.clicks, tags))
                found.append(Measurement("query_click_positions_total", counted.positions, tags))
            found += latencies("query_latency_s", counted.times_ms, tags)
            counted.times_ms.clear()
        return found

    def _latencies_of_indices(self) -> Iterator[Measurement]:
        times_ms: dict[str, list[float]] = defaultdict(list)
        for (index, _), counted in self.kinds.items():
            times_ms[index] += counted.times_ms
        for index, of_all in times_ms.items():
            yield from latencies("index_query_latency_s", of_all, {"index": index})


def latencies(metric: str, times_ms: Sequence[float], tags: Mapping[str, str]) -> Iterator[Measurement]:
    """p50, p95 and p99 in seconds; none of no times."""
    if times_ms:
        for name, share in PERCENTILES.items():
            yield Measurement(metric, percentile(times_ms, share) / 1e3, {**tags, "percentile": name})


def percentile(values: Sequence[float], share: float) -> float:
    """Of at least one value."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def shape_of(query: Mapping[str, Any] | None) -> str:
    """`bool(filter(term(brand)), must(match(title)))`: without values."""
    return "match_all" if not query else _shape(query, 0)[:64]


def _shape(node: Any, depth: int) -> str:
    if isinstance(node, list):
        return ", ".join(dict.fromkeys(_shape(one, depth) for one in node))
    if not isinstance(node, Mapping) or depth > 5:
        return ""
    parts = []
    for name, value in sorted(node.items()):
        inner = "" if name in _OPAQUE else _shape(value, depth + 1)
        parts.append(f"{name}({inner})" if inner else str(name))
    return ", ".join(parts)
