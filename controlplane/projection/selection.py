"""Filters → SELECTs of the SQLite store. Pure: text and parameters, no connection."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from controlplane.projection.queries import Aggregate, EventFilter, MetricFilter, StatusFilter, micros, parse_cursor


class Select(NamedTuple):
    """One statement with its parameters."""

    sql: str
    parameters: tuple[Any, ...]


_MATCHES: Final = "SELECT rowid FROM events_text WHERE events_text MATCH ?"
_NEWEST: Final = (
    "s.body IS NOT NULL AND NOT EXISTS (SELECT 1 FROM statuses o WHERE o.setting = s.setting AND o.body IS NOT NULL"
    " AND (o.revision, o.shard) > (s.revision, s.shard))"
)
"""Of several shards: see documents, [A document a shard]."""
_AGGREGATES: Final = {
    Aggregate.AVG: "avg(value)",
    Aggregate.MIN: "min(value)",
    Aggregate.MAX: "max(value)",
    Aggregate.SUM: "sum(value)",
}


def matching(text: str | None) -> str | None:
    """Any text as an FTS5 expression that holds: all of its words. None when it has none.

    Each word is quoted, so nothing in it is syntax; the tokenizer splits it further (`cache.redis_user` is three words in
    a row). What has no letter or digit, such as `---`, is no word and asks for nothing.
    """
    words = (text or "").replace("\0", " ").encode("utf-8", "replace").decode().split()
    return " ".join(_quoted(word) for word in words if any(map(str.isalnum, word))) or None


def some_matches(expression: str, limit: int) -> Select:
    """One row: how many events match, counted up to the limit."""
    return Select(
        "SELECT count(*) FROM (SELECT 1 FROM events_text WHERE events_text MATCH ? LIMIT ?)", (expression, limit)
    )


def events(wanted: EventFilter, *, rare: bool = False) -> Select:
    """Rows (body, at_us, id), one more than the limit when there are more.

    `rare`: few events match the text, so they are looked up one by one; else the order of time leads and the matches are
    a set to look into. SQLite can't know which is better: it has no statistics of the text.
    """
    expression = matching(wanted.text)
    terms = [
        ("events_text MATCH ?" if rare else f"e.row IN ({_MATCHES})", expression),
        ("e.tenant = ?", wanted.tenant),
        ("e.event_type = ?", wanted.event_type),
        ("e.service_name = ?", wanted.service_name),
        ("e.service_name IN (SELECT value FROM json_each(?))", _listed(wanted.services)),
        ("e.status = ?", wanted.status),
        ("e.setting = ?", wanted.setting),
        ("e.at_us >= ?", None if wanted.since is None else micros(wanted.since)),
        ("e.at_us < ?", None if wanted.until is None else micros(wanted.until)),
    ]
    where, parameters = _where(terms, wanted.cursor, "e.at_us", "e.id")
    tables = "events_text CROSS JOIN events e ON e.row = events_text.rowid" if rare else "events e"
    sql = f"SELECT e.body, e.at_us, e.id FROM {tables} WHERE {where} ORDER BY e.at_us DESC, e.id DESC LIMIT ?"  # noqa: S608
    return Select(sql, (*parameters, wanted.limit + 1))


def statuses(wanted: StatusFilter) -> Select:
    """Rows (body, setting) by keys, one more than the limit when there are more."""
    terms = [
        ("s.tenant = ?", wanted.tenant),
        ("s.setting > ?", wanted.after),
        ("s.setting = ?", wanted.setting),
        ("s.setting_type = ?", wanted.setting_type),
        ("s.service_name = ?", wanted.service_name),
        ("s.service_name IN (SELECT value FROM json_each(?))", _listed(wanted.services)),
        ("s.phase = ?", wanted.phase),
        *(("EXISTS (SELECT 1 FROM json_each(s.conditions) WHERE value = ?)", one) for one in wanted.conditions),
        ("EXISTS (SELECT 1 FROM json_each(s.reasons) WHERE value = ?)", wanted.reason),
        ("s.row IN (SELECT rowid FROM statuses_text WHERE statuses_text MATCH ?)", matching(wanted.text)),
    ]
    where, parameters = _where(terms)
    sql = f"SELECT s.body, s.setting FROM statuses s WHERE {_NEWEST} AND {where} ORDER BY s.setting LIMIT ?"  # noqa: S608
    return Select(sql, (*parameters, wanted.limit + 1))


def series(
    tenant: str,
    service_name: str | None = None,
    metric_type: str | None = None,
    services: frozenset[str] | None = None,
) -> Select:
    """Rows (series, service_name, metric_type, tags) in the order of the last three."""
    terms = [
        ("tenant = ?", tenant),
        ("service_name = ?", service_name),
        ("service_name IN (SELECT value FROM json_each(?))", _listed(services)),
        ("metric_type = ?", metric_type),
    ]
    where, parameters = _where(terms)
    columns = "series, service_name, metric_type, tags"
    return Select(f"SELECT {columns} FROM series WHERE {where} ORDER BY service_name, metric_type, tags", parameters)  # noqa: S608


def points(wanted: MetricFilter, one_series: int) -> Select:
    """Rows (at_us, id, value, extra) of one series, newest first."""
    where, parameters = _where(_point_terms(wanted, one_series), wanted.cursor, "at_us", "id")
    return Select(f"SELECT at_us, id, value, extra FROM points WHERE {where} ORDER BY at_us DESC, id DESC", parameters)  # noqa: S608


def slots(wanted: MetricFilter, one_series: int, interval_us: int, limit: int) -> Select:
    """Rows (slot, value) of one series, oldest first; the slot begins at slot * interval_us."""
    where, parameters = _where(_point_terms(wanted, one_series))
    slot = f"at_us / {interval_us:d}"
    if wanted.aggregate == Aggregate.P95:
        ranked = (
            f"SELECT {slot} AS slot, value, row_number() OVER (PARTITION BY {slot} ORDER BY value) AS r,"  # noqa: S608
            f" count(*) OVER (PARTITION BY {slot}) AS n FROM points WHERE {where}"
        )
        sql = f"SELECT slot, value FROM ({ranked}) WHERE r = (95 * n + 99) / 100 ORDER BY slot LIMIT ?"  # noqa: S608
    elif wanted.aggregate == Aggregate.LAST:
        # With max(), SQLite takes the other columns from the row that has the maximum.
        sql = f"SELECT {slot} AS slot, value, max(at_us) FROM points WHERE {where} GROUP BY slot ORDER BY slot LIMIT ?"  # noqa: S608
    else:
        value = _AGGREGATES[wanted.aggregate]
        sql = f"SELECT {slot} AS slot, {value} FROM points WHERE {where} GROUP BY slot ORDER BY slot LIMIT ?"  # noqa: S608
    return Select(sql, (*parameters, limit))


def thinned(one_series: int, since_us: int, until_us: int, interval_us: int) -> Select:
    """Rows (at_us, id, value, extra): the last point of each interval, oldest first."""
    sql = (
        f"SELECT max(at_us), id, value, extra FROM points WHERE series = ? AND at_us >= ? AND at_us < ?"  # noqa: S608
        f" GROUP BY at_us / {interval_us:d} ORDER BY 1"
    )
    return Select(sql, (one_series, since_us, until_us))


def _point_terms(wanted: MetricFilter, one_series: int) -> list[tuple[str, Any]]:
    return [
        ("series = ?", one_series),
        ("at_us >= ?", None if wanted.since is None else micros(wanted.since)),
        ("at_us < ?", None if wanted.until is None else micros(wanted.until)),
        ("value >= ?", wanted.minimum),
        ("value <= ?", wanted.maximum),
    ]


def _listed(names: frozenset[str] | None) -> str | None:
    """As one parameter."""
    return None if names is None else json.dumps(sorted(names))


def _where(
    terms: Iterable[tuple[str, Any]], cursor: str | None = None, at_column: str = "", id_column: str = ""
) -> tuple[str, tuple[Any, ...]]:
    """The terms whose parameter isn't None, and the place after which the page begins."""
    given = [(term, parameter) for term, parameter in terms if parameter is not None]
    conditions, parameters = [term for term, _ in given], [parameter for _, parameter in given]
    if cursor is not None:
        conditions.append(f"({at_column}, {id_column}) < (?, ?)")
        parameters += parse_cursor(cursor)
    return " AND ".join(conditions), tuple(parameters)


def _quoted(word: str) -> str:
    begins = word.endswith("*")
    quoted = word.rstrip("*").replace('"', '""')
    return f'"{quoted}"*' if begins else f'"{quoted}"'
