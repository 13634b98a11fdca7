"""Tables of the SQLite store.

Every question names its tenant, so every index of events begins with it; the order within one time is by id and needs no
index, because few events share a microsecond. `status` and `setting` are followed by the time for the same reason as type
and service: pages are newest first.

Points are kept by series (tenant, service, type, tags), clustered in time order: one row takes a third of what it took as a
document of its own, and (metric_type, timestamp) and (service_name, timestamp) are answered by its primary key. The id in
that key is what makes writing a point twice harmless.

Statuses: see documents, [A document a shard]. A row without a body is a tombstone: it stays until the next trim, so that what is
older doesn't come back.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = 2
"""Of the schema below. A file with another one is dropped and projected anew."""

APPLICATION_ID: Final = 0x636F7265
"""Marks the file as ours ("core")."""

SCHEMA: Final = (
    """
    CREATE TABLE events (
        row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, event_type TEXT NOT NULL,
        at_us INTEGER NOT NULL, service_name TEXT NOT NULL, status TEXT NOT NULL, setting TEXT, body TEXT NOT NULL)
    """,
    "CREATE INDEX events_by_time ON events (tenant, at_us)",
    "CREATE INDEX events_by_type ON events (tenant, event_type, at_us)",
    "CREATE INDEX events_by_service ON events (tenant, service_name, at_us)",
    "CREATE INDEX events_by_status ON events (tenant, status, at_us)",
    "CREATE INDEX events_by_setting ON events (tenant, setting, at_us) WHERE setting IS NOT NULL",
    "CREATE VIRTUAL TABLE events_text USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2')",
    """
    CREATE TABLE series (
        series INTEGER PRIMARY KEY, tenant TEXT NOT NULL, service_name TEXT NOT NULL, metric_type TEXT NOT NULL,
        tags TEXT NOT NULL, UNIQUE (tenant, service_name, metric_type, tags))
    """,
    "CREATE INDEX series_by_type ON series (tenant, metric_type)",
    """
    CREATE TABLE points (
        series INTEGER NOT NULL, at_us INTEGER NOT NULL, id TEXT NOT NULL, value REAL NOT NULL, extra TEXT,
        PRIMARY KEY (series, at_us, id)) WITHOUT ROWID
    """,
    "CREATE INDEX points_by_value ON points (series, value)",
    """
    CREATE TABLE statuses (
        row INTEGER PRIMARY KEY, setting TEXT NOT NULL, shard INTEGER NOT NULL, version INTEGER NOT NULL,
        tenant TEXT NOT NULL, setting_type TEXT NOT NULL, service_name TEXT NOT NULL, revision INTEGER NOT NULL,
        phase TEXT NOT NULL, conditions TEXT NOT NULL, reasons TEXT NOT NULL, body TEXT, UNIQUE (setting, shard))
    """,
    "CREATE INDEX statuses_by_tenant ON statuses (tenant, setting)",
    "CREATE VIRTUAL TABLE statuses_text USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2')",
    """
    CREATE TABLE dead_letters (
        stream TEXT NOT NULL, shard INTEGER NOT NULL, offset INTEGER NOT NULL, key TEXT NOT NULL, reason TEXT NOT NULL,
        data BLOB NOT NULL, PRIMARY KEY (stream, shard, offset))
    """,
    """
    CREATE TABLE positions (
        stream TEXT NOT NULL, shard INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (stream, shard))
    """,
)
