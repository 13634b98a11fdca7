"""Filters → searches of the Elasticsearch store. Pure: bodies of requests, no client.

Words are what SQLite's `unicode61` makes of a text: runs of letters and digits, without case and accents. Each word of a
question may be several of them in a row (`cache.redis_user`), hence phrases.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

from controlplane.projection.elasticsearch_layout import LONGEST_TOKEN, label
from controlplane.projection.queries import Aggregate, EventFilter, MetricFilter, StatusFilter, micros, parse_cursor

Json = dict[str, Any]

NEWEST_FIRST: Final = ({"at_us": "desc"}, {"id": "desc"})
OLDEST_FIRST: Final = ({"at_us": "asc"}, {"id": "asc"})
SLOTS: Final = 5000
"""Buckets in one answer."""
SETTINGS_SIZE: Final = 10_000
"""More documents than a page of settings has: each has one, and few for a moment two."""
WANTED: Final = "wanted"
MOST_EXPANSIONS: Final = 1000
_WORD: Final = re.compile(r"[^\W_]+")
_AGGREGATES: Final[Mapping[Aggregate, Json]] = {
    Aggregate.AVG: {"avg": {"field": "value"}},
    Aggregate.MIN: {"min": {"field": "value"}},
    Aggregate.MAX: {"max": {"field": "value"}},
    Aggregate.SUM: {"sum": {"field": "value"}},
    Aggregate.LAST: {"top_hits": {"size": 1, "sort": list(NEWEST_FIRST), "_source": ["value"]}},
}


def events(wanted: EventFilter, limit: int) -> Json:
    """Events, newest first."""
    terms = {
        "tenant": wanted.tenant,
        "event_type": wanted.event_type,
        "service_name": wanted.service_name,
        "status": wanted.status,
        "setting": wanted.setting,
    }
    times = _range("at_us", _us(wanted.since), _us(wanted.until))
    conditions = [*_terms(terms), *_services(wanted.services), *times, *words(wanted.text)]
    return _page(conditions, wanted.cursor, limit)


def statuses(wanted: StatusFilter, limit: int) -> Json:
    """Documents by the keys of their settings, which is all that is asked of them."""
    conditions = [*_of_statuses(wanted), *([{"range": {"setting": {"gt": wanted.after}}}] if wanted.after else [])]
    body = {"size": limit, "query": _all(conditions), "sort": [{"setting": "asc"}], "_source": False}
    return {**body, "track_total_hits": False}


def all_of_settings(wanted: StatusFilter, settings: Sequence[str]) -> Json:
    """All documents of these settings; those that are wanted have `WANTED` among their `matched_queries`."""
    named = {**_all(_of_statuses(wanted))["bool"], "_name": WANTED}
    query = {"filter": [{"terms": {"setting": list(settings)}}], "should": [{"bool": named}]}
    return {"size": SETTINGS_SIZE, "query": {"bool": query}, "track_total_hits": False}


def points(wanted: MetricFilter, limit: int) -> Json:
    """Points, newest first."""
    return _page(_of_metrics(wanted), wanted.cursor, limit)


def all_points(wanted: MetricFilter, size: int, after: Sequence[Any] | None) -> Json:
    """Points in the order of time, a page at a time."""
    body = {"size": size, "query": _all(_of_metrics(wanted)), "sort": list(OLDEST_FIRST)}
    return {**body, "track_total_hits": False, **({"search_after": list(after)} if after is not None else {})}


def counted(wanted: MetricFilter) -> Json:
    """How many points there are."""
    return {"size": 0, "query": _all(_of_metrics(wanted)), "track_total_hits": True}


def series(wanted: MetricFilter, after: Mapping[str, Any] | None) -> Json:
    """The series that there are, a page at a time."""
    return _buckets(wanted, [{"series": {"terms": {"field": "series"}}}], {}, after)


def slots(wanted: MetricFilter, interval_us: int, after: Mapping[str, Any] | None) -> Json:
    """One value per series and interval, a page at a time; in the order of the series, then of time."""
    return _buckets(wanted, _slot_sources(interval_us), {"value": _AGGREGATES[wanted.aggregate]}, after)


def thinned(wanted: MetricFilter, interval_us: int, after: Mapping[str, Any] | None) -> Json:
    """The last point of each series and interval, a page at a time."""
    last = {"last": {"top_hits": {"size": 1, "sort": list(NEWEST_FIRST)}}}
    return _buckets(wanted, _slot_sources(interval_us), last, after)


def words(text: str | None) -> list[Json]:
    """All words of a text, as conditions. What has no letter or digit is no word and asks for nothing."""
    clean = (text or "").replace("\0", " ").encode("utf-8", "replace").decode()
    return [_word(word) for word in clean.split() if any(map(str.isalnum, word))]


def _word(word: str) -> Json:
    core = word.rstrip("*")
    if core == word:
        return {"match_phrase": {"text": core}}
    parts = _WORD.findall(core)
    if len(parts) == 1:
        return {"prefix": {"text": _folded(parts[0])[:LONGEST_TOKEN]}}
    return {"match_phrase_prefix": {"text": {"query": core, "max_expansions": MOST_EXPANSIONS}}}


def _folded(word: str) -> str:
    """As the analyzer leaves it: without case and accents."""
    return "".join(c for c in unicodedata.normalize("NFD", word.lower()) if not unicodedata.combining(c))


def _of_statuses(wanted: StatusFilter) -> list[Json]:
    terms = {
        "tenant": wanted.tenant,
        "setting": wanted.setting,
        "setting_type": wanted.setting_type,
        "service_name": wanted.service_name,
        "phase": wanted.phase,
        "conditions.reason": wanted.reason,
    }
    conditions = [{"term": {"condition": one}} for one in wanted.conditions]
    return [*_terms(terms), *_services(wanted.services), *conditions, *words(wanted.text)]


def _of_metrics(wanted: MetricFilter) -> list[Json]:
    terms = {"tenant": wanted.tenant, "service_name": wanted.service_name, "metric_type": wanted.metric_type}
    labels = [{"term": {"labels": label(name, value)}} for name, value in wanted.tags.items()]
    values = {"gte": wanted.minimum, "lte": wanted.maximum}
    bounds = {name: bound for name, bound in values.items() if bound is not None}
    return [
        *_terms(terms),
        *_services(wanted.services),
        *labels,
        *_range("at_us", _us(wanted.since), _us(wanted.until)),
        *([{"range": {"value": bounds}}] if bounds else []),
    ]


def _slot_sources(interval_us: int) -> list[Json]:
    return [
        {"series": {"terms": {"field": "series"}}},
        {"slot": {"histogram": {"field": "at_us", "interval": interval_us}}},
    ]


def _buckets(wanted: MetricFilter, sources: Sequence[Json], inner: Json, after: Mapping[str, Any] | None) -> Json:
    composite: Json = {"size": SLOTS, "sources": list(sources)}
    if after is not None:
        composite["after"] = dict(after)
    aggregation = {"composite": composite, **({"aggs": inner} if inner else {})}
    return {"size": 0, "query": _all(_of_metrics(wanted)), "track_total_hits": False, "aggs": {"found": aggregation}}


def _page(conditions: Sequence[Json], cursor: str | None, limit: int) -> Json:
    body = {"size": limit, "query": _all(conditions), "sort": list(NEWEST_FIRST), "track_total_hits": False}
    return body if cursor is None else {**body, "search_after": list(parse_cursor(cursor))}


def _all(conditions: Sequence[Json]) -> Json:
    return {"bool": {"filter": list(conditions)}}


def _terms(wanted: Mapping[str, str | None]) -> list[Json]:
    return [{"term": {name: value}} for name, value in wanted.items() if value is not None]


def _services(allowed: frozenset[str] | None) -> list[Json]:
    """None: all of them; an empty set: none, and nothing is found."""
    return [] if allowed is None else [{"terms": {"service_name": sorted(allowed)}}]


def _range(name: str, since: int | None, until: int | None) -> list[Json]:
    bounds = {kind: bound for kind, bound in (("gte", since), ("lt", until)) if bound is not None}
    return [{"range": {name: bounds}}] if bounds else []


def _us(instant: float | None) -> int | None:
    return None if instant is None else micros(instant)
