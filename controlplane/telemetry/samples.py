"""Values sampled from backends, as one Prometheus family.

Which metric types and tags there are is known only at run time, and a backend may have very many: the family holds at most
`MOST_SERIES` series, counts what it turned away, and forgets a series that wasn't renewed for `STALE_S`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

MOST_SERIES: Final = 5000
STALE_S: Final = 300.0
MOST_TAGS: Final = 8
"""Tags of one series that become labels."""

_OWN: Final = ("tenant", "service", "metric_type")
_UNFIT = re.compile(r"[^a-zA-Z0-9_]")

_Labels = tuple[tuple[str, str], ...]


class Samples(Collector):
    """The last value of each series."""

    def __init__(self, most: int = MOST_SERIES, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._values: dict[_Labels, tuple[float, float]] = {}
        self._refused = 0

    def set(self, tenant: str, service: str, metric_type: str, value: float, tags: Mapping[str, str]) -> None:
        """Renew one series; a new one over the limit is turned away and counted."""
        labels = _labels(tenant, service, metric_type, tags)
        if labels not in self._values and len(self._values) >= self._most:
            self._drop_stale()
        if labels in self._values or len(self._values) < self._most:
            self._values[labels] = (value, self._clock())
        else:
            self._refused += 1

    def collect(self) -> Iterator[Metric]:
        """The family, and how much it turned away."""
        self._drop_stale()
        family = GaugeMetricFamily("coreplane_sample", "Last value sampled from a backend")
        for labels, (value, _) in self._values.items():
            family.add_sample("coreplane_sample", dict(labels), value)
        yield family
        yield CounterMetricFamily(
            "coreplane_samples_refused", f"Sampled values over the limit of {self._most} series", value=self._refused
        )

    def _drop_stale(self) -> None:
        oldest = self._clock() - STALE_S
        self._values = {labels: entry for labels, entry in self._values.items() if entry[1] >= oldest}


def _labels(tenant: str, service: str, metric_type: str, tags: Mapping[str, str]) -> _Labels:
    own = {"tenant": tenant, "service": service, "metric_type": metric_type}
    for tag in sorted(tags)[:MOST_TAGS]:
        name = _UNFIT.sub("_", tag)
        if name in own or not name or name[0].isdigit() or name.startswith("__"):
            name = f"tag_{name}"
        own[name] = tags[tag]
    return tuple(own.items())
