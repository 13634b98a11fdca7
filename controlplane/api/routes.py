"""Everything that can be called. Registration, roles, refusal of unknown parameters and OpenAPI follow from this table."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from controlplane.api import (
    application,
    apply,
    audit,
    bodies,
    declarations,
    drift,
    events,
    explain,
    importing,
    meta,
    objects,
    operations,
    parameters,
    plan,
    rollback,
    settings,
    stream,
)
from controlplane.api.parts import Parts
from controlplane.api.stream import Streams
from controlplane.api.table import SETTING, TENANT, Answer, Body, Route
from controlplane.domain.access import Role

_WRITES: Final = ("If-Match", "If-None-Match", "Idempotency-Key", "Idempotency-Attempt")

_SETTING: Final = Answer("InfrastructureSetting", "The setting, with its ETag.")
_LATE: Final = Answer("InfrastructureSetting", "Stored, but not yet as waited for: the status says how far it is.")
_RETIRING: Final = Answer("InfrastructureSetting", "Retiring.")
_MAP: Final = Answer("Map")

SETTINGS: Final = (
    Route(
        "GET",
        f"{TENANT}/settings",
        settings.many,
        "List settings",
        Role.VIEWER,
        {200: Answer("Settings")},
        query=parameters.List,
    ),
    Route(
        "GET",
        SETTING,
        settings.get,
        "One setting, now or as it was",
        Role.VIEWER,
        {200: _SETTING},
        query=parameters.Read,
    ),
    Route(
        "PUT",
        SETTING,
        declarations.put,
        "Declare",
        Role.EDITOR,
        {200: _SETTING, 201: Answer("InfrastructureSetting", "Created."), 202: _LATE},
        query=parameters.Write,
        body=Body("PutBody"),
        headers=_WRITES,
    ),
    Route(
        "PATCH",
        SETTING,
        declarations.merge,
        "Declare by merge patch (RFC 7396)",
        Role.EDITOR,
        {200: _SETTING, 202: _LATE},
        query=parameters.Write,
        body=Body("Map", bodies.PATCH),
        headers=_WRITES,
    ),
    Route(
        "DELETE",
        SETTING,
        declarations.retire,
        "Retire",
        Role.EDITOR,
        {200: Answer("InfrastructureSetting", "Gone, as waited for."), 202: _RETIRING},
        query=parameters.Retire,
        headers=_WRITES,
    ),
    Route(
        "GET",
        f"{SETTING}/history",
        settings.revisions,
        "Every accepted revision, newest first",
        Role.VIEWER,
        {200: _MAP},
        query=parameters.History,
    ),
    Route(
        "GET",
        f"{SETTING}/explain",
        explain.explain,
        "Why it is as it is: who set each path, what was done, what is there now",
        Role.VIEWER,
        {200: Answer("Explanation")},
        query=parameters.Explain,
    ),
    Route(
        "POST",
        f"{SETTING}/reconcile",
        settings.reconcile,
        "Look at the setting now",
        Role.EDITOR,
        {202: Answer("InfrastructureSetting", "It will be looked at.")},
    ),
    Route(
        "POST",
        f"{TENANT}/apply",
        apply.apply,
        "Declare many, all or none, and retire what is no longer declared",
        Role.EDITOR,
        {200: Answer("Applied")},
        query=parameters.Apply,
        body=Body("ApplyBody", (*bodies.JSON, *bodies.YAML)),
        headers=("Idempotency-Key",),
    ),
    Route(
        "POST",
        f"{TENANT}/plan",
        plan.plan,
        "What an apply would do, in the backends too; nothing is done",
        Role.EDITOR,
        {200: Answer("Planned")},
        query=parameters.Plan,
        body=Body("ApplyBody", (*bodies.JSON, *bodies.YAML)),
    ),
    Route(
        "POST",
        f"{TENANT}/rollback",
        rollback.roll_back,
        "Declare again what was declared at a revision of the log or at a time, all or none",
        Role.EDITOR,
        {200: Answer("RolledBack", "With `dry_run` what of a plan is told.")},
        query=parameters.Rollback,
        body=Body("RollbackBody"),
        headers=("Idempotency-Key",),
    ),
    Route(
        "POST",
        f"{TENANT}/import",
        importing.declarations,
        "Declarations of what exists in a backend, or stands in a file; nothing is stored",
        Role.EDITOR,
        {200: Answer("Imported", "`settings` is what apply takes.")},
        body=Body("ImportBody"),
    ),
    Route(
        "GET",
        f"{TENANT}/diff",
        settings.diff,
        "What was declared otherwise at one place of the log than at another",
        Role.VIEWER,
        {200: Answer("Compared")},
        query=parameters.Diff,
    ),
    Route(
        "GET",
        f"{TENANT}/export",
        settings.export,
        "Declarations that apply takes back, as JSON or YAML",
        Role.VIEWER,
        {200: Answer("ApplyBody")},
        query=parameters.Export,
    ),
)

EVENTS: Final = (
    Route(
        "GET",
        f"{TENANT}/drift",
        drift.many,
        "What differs now, or did: open, muted, recurring, resolved",
        Role.VIEWER,
        {200: Answer("Drifts")},
        query=parameters.Drift,
    ),
    Route(
        "GET",
        f"{TENANT}/events",
        events.events,
        "Events, newest first",
        Role.VIEWER,
        {200: Answer("Events")},
        query=parameters.EventQuery,
    ),
    Route(
        "GET",
        f"{TENANT}/statuses",
        events.statuses,
        "The newest status of each setting, searchable; it may lag behind the settings themselves",
        Role.VIEWER,
        {200: Answer("Statuses")},
        query=parameters.StatusQuery,
    ),
    Route(
        "GET",
        f"{TENANT}/audit",
        audit.audited,
        "Who did what when, newest first; and how often somebody was refused, since this replica started",
        Role.ADMIN,
        {200: Answer("Audit")},
        query=parameters.Audit,
    ),
    Route(
        "GET",
        f"{TENANT}/stream",
        stream.follow,
        "Events as they come (SSE), resumable",
        Role.VIEWER,
        {200: Answer("Text", "`id` is the cursor that resumes after the event.", "text/event-stream")},
        query=parameters.Follow,
        headers=("Last-Event-ID",),
    ),
    Route(
        "GET",
        f"{TENANT}/metrics",
        events.metrics,
        "Metrics: points, or series with an interval",
        Role.VIEWER,
        {200: Answer("Metrics")},
        query=parameters.MetricQuery,
    ),
    Route(
        "GET",
        f"{TENANT}/metrics/types",
        events.metric_types,
        "Which metrics there are",
        Role.VIEWER,
        {200: _MAP},
        query=parameters.OfService,
    ),
    Route(
        "GET",
        f"{TENANT}/analytics/{{service}}",
        events.analytics,
        "What people of the service ask first",
        Role.VIEWER,
        {200: _MAP},
        query=parameters.Analysis,
    ),
)

OPERATIONS: Final = (
    Route("GET", "/v1/operations", operations.many, "One-shot requests there are", Role.PUBLIC, {200: _MAP}),
    Route(
        "POST",
        f"{TENANT}/operations/{{operation}}",
        operations.run,
        "Run a one-shot request, for example cache.invalidate",
        Role.EDITOR,
        {200: _MAP},
        body=Body("Map", required=False),
        headers=("Idempotency-Key",),
    ),
)

_OBJECT: Final = f"{TENANT}/objects/{{target}}/{{path}}"

OBJECTS: Final = (
    Route(
        "GET",
        _OBJECT,
        objects.read,
        "An object of a storage.target, streamed: the path is BUCKET/KEY",
        Role.EDITOR,
        {200: Answer("Text", "What was stored.", "*/*"), 206: Answer("Text", "The range that was asked for.", "*/*")},
        query=parameters.Object,
        service="storage",
        headers=("Range", "If-Match", "If-None-Match"),
    ),
    Route(
        "PUT",
        _OBJECT,
        objects.write,
        "Store an object, streamed, of any size",
        Role.EDITOR,
        {200: Answer(None, "Stored; `ETag` and `x-amz-version-id` say as what.")},
        query=parameters.Object,
        service="storage",
        body=Body("Text", ("application/octet-stream",)),
        headers=("Content-MD5", "If-Match", "If-None-Match"),
    ),
    Route(
        "DELETE",
        _OBJECT,
        objects.remove,
        "Remove an object, or one version of it",
        Role.EDITOR,
        {204: Answer(None, "Removed, or never there.")},
        query=parameters.Object,
        service="storage",
    ),
)

DOCUMENTS: Final = (
    Route(
        "POST",
        f"{TENANT}/documents/{{target}}/{{path}}",
        objects.exchange,
        "Write documents, streamed: lines of the bulk API to an index of a search.target. The last line of the answer counts",
        Role.EDITOR,
        {
            200: Answer(
                "Text", "A line for each item that is told, then the counts, or why it ended.", "application/x-ndjson"
            )
        },
        query=parameters.Documents,
        service="search",
        body=Body("Text", ("application/x-ndjson",)),
    ),
)

META: Final = (
    Route("GET", "/v1/status", meta.status, "This replica, its shards and targets", Role.VIEWER, {200: _MAP}),
    Route("GET", "/v1/schemas", meta.schemas, "Every schema there is", Role.PUBLIC, {200: _MAP}),
    Route(
        "GET", "/v1/schemas/{type}", meta.schema, "JSON Schema of a setting type or document", Role.PUBLIC, {200: _MAP}
    ),
    Route("GET", "/openapi.json", meta.description, "This description", Role.PUBLIC, {200: _MAP}),
    Route("GET", "/metrics", meta.metrics, "Prometheus", Role.VIEWER, {200: Answer("Text", media_type="text/plain")}),
    Route("GET", "/healthz", meta.healthz, "The process answers", Role.PUBLIC, {200: _MAP}),
    Route(
        "GET",
        "/readyz",
        meta.readyz,
        "Whether it can serve, and if not, why",
        Role.PUBLIC,
        {200: _MAP, 503: Answer("Map", "Not ready; `reasons` says why.")},
    ),
    Route("GET", "/", meta.page, "The page for people", Role.PUBLIC, {200: Answer("Text", media_type="text/html")}),
    Route(
        "GET", "/web/{file}", meta.asset, "What the page loads", Role.PUBLIC, {200: Answer("Text", media_type="*/*")}
    ),
)

ROUTES: Final = SETTINGS + EVENTS + OPERATIONS + OBJECTS + DOCUMENTS + META


def create_app(parts: Parts, streams: Streams | None = None) -> web.Application:
    """The daemon's HTTP application. `streams`: other times than the defaults."""
    return application.build(parts, ROUTES, streams or Streams())
