"""What the writer of the SQLite store does with its connection."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from controlplane.log.ports import Place
from controlplane.projection.documents import Batch, EventDocument, MetricDocument, StatusDocument

SeriesKey = tuple[str, str, str, str]
"""Tenant, service, type, tags."""
TRIM_ROWS: Final = 2000
"""Events dropped in one transaction."""
MOST_SERIES_KNOWN: Final = 50_000


class SeriesIds(dict[SeriesKey, int]):
    """Rows of the series table by what they stand for, as far as they were asked for."""


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; takes the write lock at the beginning."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # some errors have rolled back already
            connection.rollback()
        raise
    connection.execute("COMMIT")


def write(connection: sqlite3.Connection, known: SeriesIds, batch: Batch, positions: Mapping[Place, int]) -> None:
    """One transaction. What is there already by its id stays as it is; statuses are replaced by higher versions."""
    try:
        with transaction(connection):
            _write_events(connection, batch.events)
            _write_metrics(connection, known, batch.metrics)
            _write_statuses(connection, batch.statuses)
            connection.executemany(
                "INSERT INTO dead_letters VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", batch.dead_letters
            )
            connection.executemany(
                "INSERT INTO positions VALUES (?, ?, ?)"
                " ON CONFLICT (stream, shard) DO UPDATE SET position = excluded.position",
                [(str(place.stream), place.shard, position) for place, position in positions.items()],
            )
    except BaseException:
        known.clear()  # the ids of series that were rolled back
        raise


def trim_events(connection: sqlite3.Connection, before_us: int) -> int:
    """Drop some of the events that are older; 0 when there are no more."""
    gone = 0
    with transaction(connection):
        for tenant in _tenants(connection):
            rows = connection.execute(
                "SELECT row FROM events WHERE tenant = ? AND at_us < ? LIMIT ?", (tenant, before_us, TRIM_ROWS)
            ).fetchall()
            connection.executemany("DELETE FROM events_text WHERE rowid = ?", rows)
            connection.executemany("DELETE FROM events WHERE row = ?", rows)
            gone += len(rows)
    return gone


def all_series(connection: sqlite3.Connection) -> Sequence[int]:
    """Rows of the series table."""
    return [one for (one,) in connection.execute("SELECT series FROM series")]


def trim_points(connection: sqlite3.Connection, one_series: int, before_us: int) -> int:
    """Drop the points of one series that are older; how many."""
    return connection.execute("DELETE FROM points WHERE series = ? AND at_us < ?", (one_series, before_us)).rowcount


def trim_tombstones(connection: sqlite3.Connection) -> None:
    """Drop what says of statuses that they are gone; the positions are past it."""
    connection.execute("DELETE FROM statuses WHERE body IS NULL")


def trim_series(connection: sqlite3.Connection, known: SeriesIds) -> None:
    """Drop series without points."""
    known.clear()
    connection.execute("DELETE FROM series WHERE NOT EXISTS (SELECT 1 FROM points WHERE points.series = series.series)")


def _write_events(connection: sqlite3.Connection, events: Sequence[EventDocument]) -> None:
    if not events:
        return
    fresh = {event.id: event for event in reversed(events)}
    ids = json.dumps(list(fresh))
    for (there,) in connection.execute("SELECT id FROM events WHERE id IN (SELECT value FROM json_each(?))", (ids,)):
        del fresh[there]
    last = connection.execute("SELECT coalesce(max(row), 0) FROM events").fetchone()[0]
    numbered = list(enumerate(reversed(fresh.values()), last + 1))
    connection.executemany(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (row, e.id, e.tenant, e.event_type, e.at_us, e.service_name, e.status, e.setting, e.body)
            for row, e in numbered
        ],
    )
    connection.executemany(
        "INSERT INTO events_text (rowid, text) VALUES (?, ?)", [(row, e.text) for row, e in numbered]
    )


def _write_metrics(connection: sqlite3.Connection, known: SeriesIds, metrics: Sequence[MetricDocument]) -> None:
    if len(known) > MOST_SERIES_KNOWN:
        known.clear()
    rows = [(_series(connection, known, m), m.at_us, m.id, m.value, m.extra) for m in metrics]
    connection.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)


def _write_statuses(connection: sqlite3.Connection, statuses: Sequence[StatusDocument]) -> None:
    if not statuses:
        return
    newest: dict[tuple[str, int], StatusDocument] = {}
    for one in sorted(statuses, key=lambda status: status.version):
        newest[one.setting, one.shard] = one
    settings = json.dumps([one.setting for one in newest.values()])
    there = connection.execute(
        "SELECT setting, shard, version, row FROM statuses WHERE setting IN (SELECT value FROM json_each(?))",
        (settings,),
    )
    rows: dict[tuple[str, int], int] = {}
    for setting, shard, version, row in there:
        rows[setting, shard] = row
        if (known := newest.get((setting, shard))) is not None and known.version <= version:
            del newest[setting, shard]
    last = connection.execute("SELECT coalesce(max(row), 0) FROM statuses").fetchone()[0]
    numbered = [(rows.get(place) or last + number, one) for number, (place, one) in enumerate(newest.items(), 1)]
    connection.executemany("DELETE FROM statuses_text WHERE rowid = ?", [(row,) for row, _ in numbered])
    connection.executemany(
        "REPLACE INTO statuses VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [_status_row(row, one) for row, one in numbered],
    )
    connection.executemany(
        "INSERT INTO statuses_text (rowid, text) VALUES (?, ?)",
        [(row, one.text) for row, one in numbered if one.body is not None],
    )


def _status_row(row: int, one: StatusDocument) -> tuple[object, ...]:
    marks = json.dumps(one.conditions), json.dumps(one.reasons)
    place = row, one.setting, one.shard, one.version, one.tenant, one.setting_type, one.service_name
    return *place, one.revision, one.phase, *marks, one.body


def _series(connection: sqlite3.Connection, known: SeriesIds, metric: MetricDocument) -> int:
    key = (metric.tenant, metric.service_name, metric.metric_type, metric.tags)
    one = known.get(key)
    if one is None:
        connection.execute(
            "INSERT INTO series (tenant, service_name, metric_type, tags) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            key,
        )
        row = connection.execute(
            "SELECT series FROM series WHERE tenant = ? AND service_name = ? AND metric_type = ? AND tags = ?", key
        ).fetchone()
        one = known[key] = int(row[0])
    return one


def _tenants(connection: sqlite3.Connection) -> Sequence[str]:
    """Each tenant that has events, by one seek each."""
    tenants: list[str] = []
    row = connection.execute("SELECT min(tenant) FROM events").fetchone()
    while row[0] is not None:
        tenants.append(row[0])
        row = connection.execute("SELECT min(tenant) FROM events WHERE tenant > ?", row).fetchone()
    return tenants
