"""Questions to the projection, and the protocol that answers them. Every question names its tenant.

Times are Unix seconds: `since` is included, `until` isn't; None is open. Filters that can't be meant raise `Refused`
(domain.errors) when they are made, so that a store never sees one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

from controlplane.domain.errors import Fault, Reason, Refused

MOST_ITEMS: Final = 1000
"""Items on one page."""
MOST_POINTS: Final = 20_000
"""Points in one answer with series; more are refused, because a chart can't show them either."""
MOST_SERIES: Final = 1000
"""Series in one answer."""


class Aggregate(StrEnum):
    """How the values of one interval become one. `p95` is the nearest rank: always a value that was measured."""

    AVG = "avg"
    MIN = "min"
    MAX = "max"
    SUM = "sum"
    LAST = "last"
    P95 = "p95"


class Cursor(NamedTuple):
    """Place in a list that is ordered newest first by (time, id): the next page begins after it.

    Stable: what arrives meanwhile shifts nothing, and the same cursor means the same place after a rebuild.
    """

    at_us: int
    id: str

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(f"{self.at_us}:{self.id}".encode()).decode().rstrip("=")


def parse_cursor(text: str) -> Cursor:
    """The cursor as `Page.next_cursor` gave it; raises `Refused`."""
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
        at_us, _, ident = decoded.partition(":")
        cursor = Cursor(int(at_us), ident)
    except (binascii.Error, ValueError) as exc:
        raise _refused("cursor", "is not one that was given out") from exc
    if abs(cursor.at_us) >= 2**62:
        raise _refused("cursor", "is not one that was given out")
    return cursor


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events. `text`: all of its words must occur; a word that ends in `*` matches the beginnings of words."""

    tenant: str
    service_name: str | None = None
    event_type: str | None = None
    status: str | None = None
    setting: str | None = None
    """Key of the setting: `tenant/type/name`."""
    since: float | None = None
    until: float | None = None
    text: str | None = None
    limit: int = 100
    cursor: str | None = None
    services: frozenset[str] | None = None
    """Only events of these; None: of all."""

    def __post_init__(self) -> None:
        _check(self.limit, self.cursor, self.since, self.until)


@dataclass(frozen=True, slots=True)
class MetricFilter:
    """Which metrics. With `interval_s`: series of one value per interval; without: the points, newest first."""

    tenant: str
    service_name: str | None = None
    metric_type: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    """All of these must be there with these values; others may."""
    since: float | None = None
    until: float | None = None
    minimum: float | None = None
    """Only values at or above."""
    maximum: float | None = None
    """Only values at or below."""
    interval_s: float | None = None
    aggregate: Aggregate = Aggregate.AVG
    limit: int = 100
    """Points on a page; series are bounded by `MOST_POINTS` and `MOST_SERIES` instead."""
    cursor: str | None = None
    services: frozenset[str] | None = None
    """Only metrics of these; None: of all."""

    def __post_init__(self) -> None:
        _check(self.limit, self.cursor, self.since, self.until)
        if self.interval_s is not None and not 0.001 <= self.interval_s <= 10 * 366 * 86_400:
            raise _refused("interval", "must be between a millisecond and ten years")
        if self.aggregate not in tuple(Aggregate):
            raise _refused("aggregate", f"must be one of {', '.join(Aggregate)}")


@dataclass(frozen=True, slots=True)
class StatusFilter:
    """The statuses of which settings. `text`: as of events, in reasons, messages and in what differs."""

    tenant: str
    service_name: str | None = None
    setting_type: str | None = None
    setting: str | None = None
    """Key of the setting: `tenant/type/name`."""
    phase: str | None = None
    conditions: Sequence[str] = ()
    """`Ready=False`: all of these."""
    reason: str | None = None
    """Of any condition."""
    text: str | None = None
    limit: int = 100
    after: str = ""
    """The key after which the page begins."""
    services: frozenset[str] | None = None
    """Only settings of these; None: of all."""

    def __post_init__(self) -> None:
        _check(self.limit)


class Page(NamedTuple):
    """Items and where to go on; `next_cursor` None: that was all."""

    items: Sequence[dict[str, Any]]
    next_cursor: str | None


class MetricType(NamedTuple):
    """One type of metric that there is, with the names of the tags it comes with."""

    service_name: str
    metric_type: str
    tags: tuple[str, ...]


class EvidenceRows(NamedTuple):
    """What an analysis looks at, oldest first, as the query API answers events and metrics.

    Bounded: of many events the newest are given, of many points the last measured one of each `thinned_to_s` seconds and
    series.
    """

    events: Sequence[dict[str, Any]]
    metrics: Sequence[dict[str, Any]]
    events_complete: bool
    thinned_to_s: float | None
    """None: every point is there."""


class Queries(Protocol):
    """The searchable copy of the journal. May lag behind it. Every call raises `StoreUnavailable` (ports) when it can't
    be answered now; asking again later may work."""

    async def events(self, wanted: EventFilter) -> Page:
        """Events, newest first."""

    async def metrics(self, wanted: MetricFilter) -> Page:
        """Without an interval: points, newest first. With one: series, by (service_name, metric_type, tags).

        A series is `{service_name, metric_type, tags, aggregate, interval_s, points: [{timestamp, value}]}`, oldest point
        first; `timestamp` is the beginning of the interval, intervals begin at multiples of `interval_s` since the epoch,
        empty ones are left out. Raises `Refused` when there would be more than `MOST_POINTS` or `MOST_SERIES`.
        """

    async def statuses(self, wanted: StatusFilter) -> Page:
        """The newest status of each setting, by keys; `next_cursor` is the key to go on after. A page may be shorter than
        its limit, and empty, with others to come. Settings are told of that have a status: what was declared a moment ago
        has none yet."""

    async def metric_types(self, tenant: str, service_name: str | None = None) -> Sequence[MetricType]:
        """Which metrics there are, sorted."""

    async def evidence(self, tenant: str, service_name: str, since: float, until: float) -> EvidenceRows:
        """Events and metrics of one service for its analysis."""

    async def dead_letters(self, limit: int = 100) -> Sequence[dict[str, Any]]:
        """Records that can't be projected, newest first: `{stream, shard, offset, key, reason, size_bytes}`. For operators:
        they have no tenant."""


def micros(instant: float) -> int:
    """Unix seconds as whole microseconds."""
    return round(instant * 1_000_000)


def _check(limit: int, cursor: str | None = None, since: float | None = None, until: float | None = None) -> None:
    if not 1 <= limit <= MOST_ITEMS:
        raise _refused("limit", f"must be between 1 and {MOST_ITEMS}")
    if cursor is not None:
        parse_cursor(cursor)
    for name, instant in (("since", since), ("until", until)):
        if instant is not None and not abs(instant) < 2**40:
            raise _refused(name, "is too far from now")


def _refused(name: str, message: str) -> Refused:
    return Refused(Reason.MALFORMED, f"{name} {message}", [Fault(f"/{name}", message)])
