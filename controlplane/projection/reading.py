"""How the SQLite store answers: one connection with one snapshot in, plain values out."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from controlplane.projection import selection
from controlplane.projection.answers import series_item, too_many_points, too_many_series
from controlplane.projection.documents import rfc3339
from controlplane.projection.queries import (
    MOST_POINTS,
    MOST_SERIES,
    Cursor,
    EventFilter,
    EvidenceRows,
    MetricFilter,
    MetricType,
    Page,
    StatusFilter,
    micros,
)

MOST_EVIDENCE_EVENTS: Final = 5000
RARE: Final = 2000
"""Fewer matches than this are looked up one by one."""


class _Series(NamedTuple):
    series: int
    tenant: str
    service_name: str
    metric_type: str
    tags: dict[str, str]


class _Point(NamedTuple):
    """Ordered by time and id first, so that series can be merged."""

    at_us: int
    id: str
    value: float
    extra: str | None
    series: _Series


def events(connection: sqlite3.Connection, wanted: EventFilter) -> Page:
    """One page."""
    rows = connection.execute(*selection.events(wanted, rare=_is_rare(connection, wanted))).fetchall()
    more = len(rows) > wanted.limit
    rows = rows[: wanted.limit]
    return Page([json.loads(body) for body, _, _ in rows], str(Cursor(*rows[-1][1:])) if more else None)


def statuses(connection: sqlite3.Connection, wanted: StatusFilter) -> Page:
    """One page."""
    rows = connection.execute(*selection.statuses(wanted)).fetchall()
    page = rows[: wanted.limit]
    return Page([json.loads(body) for body, _ in page], page[-1][1] if len(rows) > wanted.limit else None)


def points(connection: sqlite3.Connection, wanted: MetricFilter) -> Page:
    """One page, merged from all the series that match: each is read only as far as the page reaches."""
    newest_first = [_points(connection, wanted, one) for one in _matching(connection, wanted)]
    merged = heapq.merge(*newest_first, key=_place, reverse=True)
    found = list(islice(merged, wanted.limit + 1))
    page = found[: wanted.limit]
    cursor = str(Cursor(page[-1].at_us, page[-1].id)) if len(found) > wanted.limit else None
    return Page([_metric(point) for point in page], cursor)


def series(connection: sqlite3.Connection, wanted: MetricFilter) -> Page:
    """All the series that match, one value per interval."""
    interval_us = micros(wanted.interval_s or 0)
    matching = _matching(connection, wanted)
    if len(matching) > MOST_SERIES:
        raise too_many_series(len(matching))
    items: list[dict[str, Any]] = []
    left = MOST_POINTS
    for one in matching:
        rows = connection.execute(*selection.slots(wanted, one.series, interval_us, left + 1)).fetchall()
        left -= len(rows)
        if left < 0:
            raise too_many_points()
        if rows:
            named = (one.service_name, one.metric_type, one.tags)
            items.append(series_item(named, wanted, [(row[0] * interval_us, row[1]) for row in rows]))
    return Page(items, None)


def metric_types(connection: sqlite3.Connection, tenant: str, service_name: str | None) -> list[MetricType]:
    """From the table of series; reads no points."""
    names: dict[tuple[str, str], set[str]] = {}
    for _, service, metric_type, tags in connection.execute(*selection.series(tenant, service_name)):
        names.setdefault((service, metric_type), set()).update(json.loads(tags))
    return [
        MetricType(service, metric_type, tuple(sorted(tags))) for (service, metric_type), tags in sorted(names.items())
    ]


def evidence(
    connection: sqlite3.Connection, tenant: str, service_name: str, since: float, until: float
) -> EvidenceRows:
    """Bounded: see `EvidenceRows`."""
    wanted = EventFilter(tenant, service_name, since=since, until=until)
    page = _newest_events(connection, wanted)
    matching = _matching(connection, MetricFilter(tenant, service_name))
    interval_us = _thinning_us(connection, matching, micros(since), micros(until))
    found: list[_Point] = []
    for one in matching:
        rows = connection.execute(*selection.thinned(one.series, micros(since), micros(until), interval_us))
        found.extend(_Point(at_us, ident, value, extra, one) for at_us, ident, value, extra in rows)
    found.sort(key=_place)
    return EvidenceRows(
        page.items[::-1],
        [_metric(point) for point in found],
        page.next_cursor is None,
        None if interval_us == 1 else interval_us / 1_000_000,
    )


def dead_letters(connection: sqlite3.Connection, limit: int) -> list[dict[str, Any]]:
    """Newest first, as far as offsets tell."""
    rows = connection.execute(
        "SELECT stream, shard, offset, key, reason, length(data) FROM dead_letters ORDER BY offset DESC, stream, shard"
        " LIMIT ?",
        (limit,),
    )
    names = ("stream", "shard", "offset", "key", "reason", "size_bytes")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _is_rare(connection: sqlite3.Connection, wanted: EventFilter) -> bool:
    expression = selection.matching(wanted.text)
    if expression is None:
        return False
    matches: int = connection.execute(*selection.some_matches(expression, RARE)).fetchone()[0]
    return matches < RARE


def _newest_events(connection: sqlite3.Connection, wanted: EventFilter) -> Page:
    sql, parameters = selection.events(wanted)
    rows = connection.execute(sql, (*parameters[:-1], MOST_EVIDENCE_EVENTS + 1)).fetchall()
    items = [json.loads(row[0]) for row in rows[:MOST_EVIDENCE_EVENTS]]
    return Page(items, "more" if len(rows) > MOST_EVIDENCE_EVENTS else None)


def _thinning_us(connection: sqlite3.Connection, matching: Sequence[_Series], since_us: int, until_us: int) -> int:
    """The interval of which one point is kept, so that at most about `MOST_POINTS` remain; 1 keeps all."""
    count = "SELECT count(*) FROM points WHERE series = ? AND at_us >= ? AND at_us < ?"
    total = sum(connection.execute(count, (one.series, since_us, until_us)).fetchone()[0] for one in matching)
    if total <= MOST_POINTS:
        return 1
    return max(1, (until_us - since_us) * len(matching) // MOST_POINTS)


def _matching(connection: sqlite3.Connection, wanted: MetricFilter) -> list[_Series]:
    found = [
        _Series(number, wanted.tenant, service, metric_type, json.loads(tags))
        for number, service, metric_type, tags in connection.execute(
            *selection.series(wanted.tenant, wanted.service_name, wanted.metric_type, wanted.services)
        )
    ]
    return [one for one in found if _has(one.tags, wanted.tags)]


def _has(tags: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(tags.get(name) == value for name, value in wanted.items())


def _points(connection: sqlite3.Connection, wanted: MetricFilter, one: _Series) -> Iterator[_Point]:
    for at_us, ident, value, extra in connection.execute(*selection.points(wanted, one.series)):
        yield _Point(at_us, ident, value, extra, one)


def _place(point: _Point) -> tuple[int, str]:
    return point.at_us, point.id


def _metric(point: _Point) -> dict[str, Any]:
    """The metric as it stands in the journal."""
    metric = {
        "id": point.id,
        "metric_type": point.series.metric_type,
        "timestamp": rfc3339(point.at_us),
        "service_name": point.series.service_name,
        "value": point.value,
        "tags": point.series.tags,
        "tenant": point.series.tenant,
    }
    return metric if point.extra is None else {**metric, **json.loads(point.extra)}
