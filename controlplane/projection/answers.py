"""Parts of answers that all stores give alike. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.projection.documents import rfc3339
from controlplane.projection.queries import MOST_POINTS, MOST_SERIES, MetricFilter


def series_item(
    named: tuple[str, str, Mapping[str, str]], wanted: MetricFilter, values: Sequence[tuple[int, float]]
) -> dict[str, Any]:
    """One series: (service, type, tags), and its values by the beginnings of their intervals in Unix microseconds."""
    service_name, metric_type, tags = named
    return {
        "service_name": service_name,
        "metric_type": metric_type,
        "tags": tags,
        "aggregate": str(wanted.aggregate),
        "interval_s": wanted.interval_s,
        "points": [{"timestamp": rfc3339(at_us), "value": value} for at_us, value in values],
    }


def too_many_series(count: int) -> Refused:
    """More than one answer holds."""
    return _too_many(f"{count} series; at most {MOST_SERIES} are answered: name a metric_type or tags")


def too_many_points() -> Refused:
    """More than one answer holds."""
    return _too_many(f"more than {MOST_POINTS} points: ask for a longer interval or a shorter time")


def _too_many(message: str) -> Refused:
    return Refused(Reason.MALFORMED, message, [Fault("/interval", message)])
