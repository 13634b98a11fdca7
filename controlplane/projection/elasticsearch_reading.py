"""How the Elasticsearch store answers: searches of one generation in, plain values out. I/O.

Aggregations are `composite`, because they come in pages: nothing is cut off silently. The 95th percentile is found here,
because the server's own is an estimate.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from itertools import groupby
from typing import Any, Final

from controlplane.projection import elasticsearch_questions as questions
from controlplane.projection.answers import series_item, too_many_points, too_many_series
from controlplane.projection.elasticsearch_layout import Names, event_of, metric_of, series_of, status_of
from controlplane.projection.elasticsearch_wire import Busy, Wire
from controlplane.projection.queries import (
    MOST_POINTS,
    MOST_SERIES,
    Aggregate,
    Cursor,
    EventFilter,
    EvidenceRows,
    MetricFilter,
    MetricType,
    Page,
    StatusFilter,
    micros,
)

Json = dict[str, Any]

MOST_EVIDENCE_EVENTS: Final = 5000
MOST_READ: Final = 500_000
"""Points that are looked at one by one for one answer."""
PAGE: Final = 5000
WHOLE: Final = {"ignore_unavailable": "true", "allow_no_indices": "true", "allow_partial_search_results": "false"}
OPENING_S: Final = 3.0
OPENING_LOOK_S: Final = 0.05
Slot = tuple[str, int, float]
"""Series, beginning of the interval in Unix microseconds, value."""


class Reader:
    """Of one generation."""

    def __init__(self, wire: Wire, names: Names) -> None:
        self._wire = wire
        self._names = names

    async def events(self, wanted: EventFilter) -> Page:
        """One page."""
        hits = await self._hits("events", questions.events(wanted, wanted.limit + 1))
        return Page([event_of(hit["_source"]) for hit in hits[: wanted.limit]], _next(hits, wanted.limit))

    async def statuses(self, wanted: StatusFilter) -> Page:
        """One page: its settings, then what each shard says of them; see documents, [A document a shard]."""
        found = await self._search(self._names.statuses, questions.statuses(wanted, wanted.limit + 1))
        hits = found["hits"]["hits"]
        settings = list(dict.fromkeys(hit["sort"][0] for hit in hits[: wanted.limit]))
        if not settings:
            return Page([], None)
        told = await self._search(self._names.statuses, questions.all_of_settings(wanted, settings))
        newest = {hit["_source"]["setting"]: hit for hit in sorted(told["hits"]["hits"], key=_rank)}
        kept = [hit for hit in map(newest.get, settings) if hit and questions.WANTED in hit.get("matched_queries", ())]
        items = [status_of(hit["_source"]) for hit in kept]
        return Page(items, settings[-1] if len(hits) > wanted.limit else None)

    async def points(self, wanted: MetricFilter) -> Page:
        """One page."""
        hits = await self._hits("metrics", questions.points(wanted, wanted.limit + 1))
        return Page([metric_of(hit["_source"]) for hit in hits[: wanted.limit]], _next(hits, wanted.limit))

    async def series(self, wanted: MetricFilter) -> Page:
        """All the series that match, one value per interval."""
        interval_us = micros(wanted.interval_s or 0)
        found: list[Slot] = []
        names: set[str] = set()
        slots = (
            self._ranked(wanted, interval_us) if wanted.aggregate == Aggregate.P95 else self._slots(wanted, interval_us)
        )
        async for slot in slots:
            found.append(slot)
            names.add(slot[0])
            if len(names) > MOST_SERIES:
                raise too_many_series(len(names))
            if len(found) > MOST_POINTS:
                raise too_many_points()
        by_series = [(series_of(name), list(group)) for name, group in groupby(found, key=lambda slot: slot[0])]
        by_series.sort(key=lambda one: (one[0][0], one[0][1], one[1][0][0]))
        return Page([series_item(named, wanted, [slot[1:] for slot in group]) for named, group in by_series], None)

    async def metric_types(self, tenant: str, service_name: str | None) -> list[MetricType]:
        """Reads no points, but counts all of them."""
        names: dict[tuple[str, str], set[str]] = {}
        async for series in self._all_series(MetricFilter(tenant, service_name)):
            service, metric_type, tags = series_of(series)
            names.setdefault((service, metric_type), set()).update(tags)
        return [MetricType(*named, tuple(sorted(tags))) for named, tags in sorted(names.items())]

    async def evidence(self, wanted: EventFilter, measured: MetricFilter) -> EvidenceRows:
        """Bounded: see `EvidenceRows`. Both filters are of the same service and time."""
        hits = await self._hits("events", questions.events(wanted, MOST_EVIDENCE_EVENTS + 1))
        events = [event_of(hit["_source"]) for hit in hits[:MOST_EVIDENCE_EVENTS]][::-1]
        counted = await self._search(self._names.all_of("metrics"), questions.counted(measured))
        complete = len(hits) <= MOST_EVIDENCE_EVENTS
        if counted["hits"]["total"]["value"] <= MOST_POINTS:
            points = [metric_of(hit["_source"]) async for hit in self._in_order(measured)]
            return EvidenceRows(events, points, complete, None)
        number = len([series async for series in self._all_series(measured)])
        span_us = micros(measured.until or 0) - micros(measured.since or 0)
        interval_us = max(1, span_us * number // MOST_POINTS)
        kept = [bucket["last"]["hits"]["hits"][0]["_source"] async for bucket in self._thinned(measured, interval_us)]
        kept.sort(key=lambda source: (source["at_us"], source["id"]))
        return EvidenceRows(events, [metric_of(source) for source in kept], complete, interval_us / 1_000_000)

    async def dead_letters(self, limit: int) -> list[Json]:
        """Newest first, as far as offsets tell."""
        fields = ["stream", "shard", "offset", "key", "reason", "size_bytes"]
        sort: list[Json] = [{"offset": "desc"}, {"stream": "asc"}, {"shard": "asc"}]
        body = {"size": limit, "sort": sort, "_source": fields, "query": {"match_all": {}}}
        found = await self._search(self._names.dead_letters, body)
        return [hit["_source"] for hit in found["hits"]["hits"]]

    async def _slots(self, wanted: MetricFilter, interval_us: int) -> AsyncIterator[Slot]:
        """As the server aggregates them."""
        async for bucket in self._buckets(lambda after: questions.slots(wanted, interval_us, after)):
            found = bucket["value"]
            value = found["value"] if "value" in found else found["hits"]["hits"][0]["_source"]["value"]
            yield bucket["key"]["series"], int(bucket["key"]["slot"]), value

    async def _ranked(self, wanted: MetricFilter, interval_us: int) -> AsyncIterator[Slot]:
        """Nearest ranks, from all the values; in the order of the series, then of time."""
        values: dict[tuple[str, int], list[float]] = {}
        read = 0
        async for hit in self._in_order(wanted):
            source = hit["_source"]
            values.setdefault((source["series"], source["at_us"] // interval_us), []).append(source["value"])
            read += 1
            if read > MOST_READ:
                raise too_many_points()
        for (series, slot), measured in sorted(values.items()):
            yield series, slot * interval_us, sorted(measured)[(95 * len(measured) + 99) // 100 - 1]

    async def _thinned(self, wanted: MetricFilter, interval_us: int) -> AsyncIterator[Json]:
        async for bucket in self._buckets(lambda after: questions.thinned(wanted, interval_us, after)):
            yield bucket

    async def _all_series(self, wanted: MetricFilter) -> AsyncIterator[str]:
        async for bucket in self._buckets(lambda after: questions.series(wanted, after)):
            yield bucket["key"]["series"]

    async def _buckets(self, question: Any) -> AsyncIterator[Json]:
        after: Mapping[str, Any] | None = None
        while True:
            found = (
                (await self._search(self._names.all_of("metrics"), question(after)))
                .get("aggregations", {})
                .get("found", {})
            )
            for bucket in found.get("buckets", ()):
                yield bucket
            after = found.get("after_key")
            if after is None or len(found["buckets"]) < questions.SLOTS:
                return

    async def _in_order(self, wanted: MetricFilter) -> AsyncIterator[Json]:
        after = None
        while True:
            hits = await self._hits("metrics", questions.all_points(wanted, PAGE, after))
            for hit in hits:
                yield hit
            if len(hits) < PAGE:
                return
            after = hits[-1]["sort"]

    async def _hits(self, kind: str, body: Json) -> list[Json]:
        hits: list[Json] = (await self._search(self._names.all_of(kind), body))["hits"]["hits"]
        return hits

    async def _search(self, indices: str, body: Json) -> Json:
        """A new day's index is there some milliseconds before it can be searched: asked again, not answered without it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + OPENING_S
        while True:
            try:
                found: Json = await self._wire.ask("POST", f"/{indices}/_search", body, params=WHOLE)
            except Busy:
                if loop.time() > until:
                    raise
                await asyncio.sleep(OPENING_LOOK_S)
            else:
                return found


def _rank(hit: Json) -> tuple[int, int]:
    return hit["_source"]["revision"], hit["_source"]["shard"]


def _next(hits: list[Json], limit: int) -> str | None:
    return str(Cursor(*hits[limit - 1]["sort"])) if len(hits) > limit else None
