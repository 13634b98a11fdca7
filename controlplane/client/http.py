"""The daemon's HTTP API, one method a call. Answers are the JSON documents of the API as dicts.

    async with CoreplaneClient("http://127.0.0.1:8470") as coreplane:
        await coreplane.put_setting("cache.redis_user", "app", {"value": {...}}, wait="Ready")
        async for event in coreplane.stream(service_name="cache"):
            ...

Errors: `ApiError` when the daemon refused (with its reason and every fault's path), `DaemonUnreachable` when there was
no answer. Writes carry an Idempotency-Key (yours or a random one) and are repeated with it, a bounded number of times.
Times are RFC 3339 texts; where a place in the log is meant too, an offset may be given instead.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from controlplane.client.stream import EventStream, StreamEvent, Watcher
from controlplane.client.transport import ATTEMPT, Request, Transport, segment

Json = dict[str, Any]

TIMEOUT_S = 15.0
"""Longer than the daemon waits for its own log (10 s), so that its 504 arrives."""
ATTEMPTS = 4
PAGE = 500
WAIT_S = 30.0
OPERATION_S = 60.0
"""Longest time the daemon gives an operation."""
PLAN_S = 60.0
"""Longest time the daemon waits for all the backends of a plan, which are asked at the same time."""


class CoreplaneClient:
    """One daemon, one tenant. `timeout_s` bounds each try of a call, `attempts` how many there are.

    `actor` is who stands in the log for what is done, where the daemon has no tokens to tell by.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        tenant: str = "default",
        *,
        actor: str | None = None,
        timeout_s: float = TIMEOUT_S,
        attempts: int = ATTEMPTS,
    ) -> None:
        self.url = url.rstrip("/")
        self.tenant = tenant
        headers = ({"Authorization": f"Bearer {token}"} if token else {}) | ({"X-Actor": actor} if actor else {})
        self._transport = Transport(url, headers, timeout_s, attempts)
        self._root = f"/v1/tenants/{segment(tenant)}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    # Settings

    async def get_setting(
        self, setting_type: str, name: str, *, at: str | int | None = None, min_revision: int | None = None
    ) -> Json:
        """One setting; `at`: as it was then; `min_revision`: not before the replica has folded it (504 otherwise)."""
        return await self._read(self._setting(setting_type, name), {"at": at, "min_revision": min_revision})

    async def put_setting(
        self,
        setting_type: str,
        name: str,
        declaration: Mapping[str, Any],
        *,
        if_match: int | None = None,
        if_absent: bool = False,
        dry_run: bool = False,
        wait: str | None = None,
        wait_s: float = WAIT_S,
        idempotency_key: str | None = None,
    ) -> Json:
        """Declare: `{value, labels?, depends_on?, policy?, reason?}`. `wait="Ready"`: answer when it is, or as it is
        after `wait_s`: look at `status.phase`. `if_match`: only on this revision; `if_absent`: only a new one (412).
        """
        headers = _conditions(if_match, if_absent=if_absent) | _key(idempotency_key)
        query = {"dry_run": dry_run or None} | _waiting(wait, wait_s)
        return await self._write("PUT", self._setting(setting_type, name), declaration, query, headers)

    async def patch_setting(
        self,
        setting_type: str,
        name: str,
        patch: Mapping[str, Any],
        *,
        if_match: int | None = None,
        dry_run: bool = False,
        wait: str | None = None,
        wait_s: float = WAIT_S,
        idempotency_key: str | None = None,
    ) -> Json:
        """Merge patch (RFC 7396) on the declaration: null removes, objects merge, everything else replaces."""
        headers = _conditions(if_match, if_absent=False) | _key(idempotency_key)
        query = {"dry_run": dry_run or None} | _waiting(wait, wait_s)
        return await self._write("PATCH", self._setting(setting_type, name), patch, query, headers)

    async def delete_setting(
        self,
        setting_type: str,
        name: str,
        *,
        if_match: int | None = None,
        deletion: str | None = None,
        wait: str | None = None,
        wait_s: float = WAIT_S,
        idempotency_key: str | None = None,
    ) -> Json:
        """Retire. `deletion`: `retain` or `delete`, this once. `wait="Gone"`: answer when it is forgotten."""
        headers = _conditions(if_match, if_absent=False) | _key(idempotency_key)
        query = {"deletion": deletion} | _waiting(wait, wait_s)
        return await self._write("DELETE", self._setting(setting_type, name), None, query, headers)

    async def list_settings(
        self,
        *,
        setting_type: str | None = None,
        service: str | None = None,
        labels: Mapping[str, str] | None = None,
        phase: str | None = None,
        text: str | None = None,
        at: str | int | None = None,
        page: int = PAGE,
    ) -> AsyncIterator[Json]:
        """Every setting that matches, now or as it was, fetched by pages as the iteration gets there."""
        query = {
            "type": setting_type,
            "service": service,
            "label": _pairs(labels),
            "phase": phase,
            "text": text,
            "at": at,
            "limit": page,
        }
        async for item in self._pages(f"{self._root}/settings", query):
            yield item

    async def history(self, setting_type: str, name: str) -> list[Json]:
        """Every accepted revision, newest first: `{revision, generation, at, actor, reason, changed, value}`."""
        return [item async for item in self._pages(f"{self._setting(setting_type, name)}/history", {})]

    async def reconcile(self, setting_type: str, name: str) -> Json:
        """Have it looked at now."""
        answer = await self._transport.call(Request("POST", f"{self._setting(setting_type, name)}/reconcile"))
        return answer.body or {}

    async def apply(
        self,
        settings: Sequence[Mapping[str, Any]],
        *,
        prune: Mapping[str, str] | None = None,
        allow_prune: bool = False,
        reason: str | None = None,
        plan: str | None = None,
        dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> Json:
        """Declare many at once, all or none → `{revision, results: [{setting, outcome, generation}]}`.
        `prune`: labels; settings that carry all of them and aren't among these are retired. `plan`: the id of the plan of
        the same settings; when the world has moved since, nothing is stored (409 PlanStale).
        """
        body = _document(settings, prune) | ({"reason": reason} if reason else {})
        query = {"plan": plan, "allow_prune": allow_prune or None, "dry_run": dry_run or None}
        return await self._write("POST", f"{self._root}/apply", body, query, _key(idempotency_key))

    async def plan(
        self,
        settings: Sequence[Mapping[str, Any]],
        *,
        prune: Mapping[str, str] | None = None,
        allow_prune: bool = False,
    ) -> Json:
        """What `apply` of the same would do, in the backends too → `{plan_id, results, steps, unchanged, unknown,
        refused}`. Nothing is done; `apply(…, plan=plan_id)` does exactly this, or refuses (409 PlanStale).
        """
        body = _document(settings, prune)
        path, query = f"{self._root}/plan", {"allow_prune": allow_prune or None}
        return dict((await self._transport.call(Request("POST", path, query, body, extra_time_s=PLAN_S))).body)

    async def rollback(
        self,
        to: int | str,
        *,
        settings: Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        reason: str | None = None,
        plan: str | None = None,
        dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> Json:
        """Declare again what was declared at `to` (a revision of the log, or a time), all or none → as `apply`.
        `settings`: `type/name` each; without them, and without `labels`, all there are or were are meant.
        `dry_run`: → as `plan`, nothing stored. `plan`: the id of that; when the world has moved since, nothing is stored.
        """
        body: Json = {"to": to}
        body |= {"settings": list(settings)} if settings else {}
        body |= {"labels": dict(labels)} if labels else {}
        body |= {"reason": reason} if reason else {}
        if dry_run:
            request = Request("POST", f"{self._root}/rollback", {"dry_run": True}, body, extra_time_s=PLAN_S)
            return dict((await self._transport.call(request)).body)
        return await self._write("POST", f"{self._root}/rollback", body, {"plan": plan}, _key(idempotency_key))

    async def drift(
        self,
        *,
        state: str | None = None,
        setting: str | None = None,
        setting_type: str | None = None,
        service: str | None = None,
        labels: Mapping[str, str] | None = None,
        since: str | None = None,
    ) -> Json:
        """Paths that differ or did since → `{items: [{setting, path, state, …}], counts, complete}`, all pages together."""
        query: Json = {"state": state, "setting": setting, "type": setting_type, "service": service}
        query |= {"label": _pairs(labels), "since": since, "limit": PAGE}
        found = await self._read(f"{self._root}/drift", query)
        while found["next_cursor"]:
            more = await self._read(f"{self._root}/drift", {**query, "cursor": found["next_cursor"]})
            found = {**more, "items": [*found["items"], *more["items"]]}
        return found

    async def explain(self, setting_type: str, name: str, *, path: str | None = None) -> Json:
        """Why it is as it is → `{paths: [{path, desired, observed, set_by, …}], chain, drift}`."""
        return await self._read(f"{self._setting(setting_type, name)}/explain", {"path": path})

    async def discover(self, setting_type: str, target: str, match: str = "*") -> Json:
        """Declarations of what exists in a backend → `{settings, fill_in, skipped, declared}`; nothing is stored."""
        return await self._import({"type": setting_type, "target": target, "match": match})

    async def convert(self, text: str, target: str, *, file_format: str | None = None, name: str = "") -> Json:
        """Declarations of what a file of another tool says → as `discover`. `name`: of the file, without its suffix."""
        body = {"text": text, "target": target, "name": name} | ({"format": file_format} if file_format else {})
        return await self._import(body)

    async def diff(
        self,
        begin: int | str,
        end: int | str | None = None,
        *,
        setting_type: str | None = None,
        service: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Json:
        """What was declared otherwise at one place (a revision of the log, or a time) than at another →
        `{from, to, items: [{setting, outcome, changed, before, after}]}`."""
        query = {"from": begin, "to": end, "type": setting_type, "service": service, "label": _pairs(labels)}
        return await self._read(f"{self._root}/diff", query)

    async def export(self, *, labels: Mapping[str, str] | None = None, at: str | int | None = None) -> list[Json]:
        """Declarations of what is declared, or was then, fit for `apply`."""
        query = {"label": _pairs(labels), "at": at}
        body = (await self._transport.call(Request("GET", f"{self._root}/export", query))).body
        return _items(body, "settings")

    # Events, metrics, operations

    async def events(self, *, limit: int | None = None, cursor: str | None = None, **filters: str | None) -> Json:
        """A page `{items, next_cursor}`. Filters: service_name, event_type, status, setting, since, until, text."""
        return await self._read(f"{self._root}/events", {**filters, "limit": limit, "cursor": cursor})

    async def statuses(
        self,
        *,
        conditions: Sequence[str] = (),
        limit: int | None = None,
        cursor: str | None = None,
        **filters: str | None,
    ) -> Json:
        """A page `{items, next_cursor}`, by keys. `conditions`: `Ready=False`. Filters: type, service, setting, phase, reason,
        text."""
        query = {**filters, "condition": list(conditions), "limit": limit, "cursor": cursor}
        return await self._read(f"{self._root}/statuses", query)

    async def audit(self, *, limit: int | None = None, cursor: str | None = None, **filters: str | None) -> Json:
        """A page `{items, next_cursor, refused}`: who did what when. Filters: actor, setting, since, until."""
        return await self._read(f"{self._root}/audit", {**filters, "limit": limit, "cursor": cursor})

    async def metrics(
        self,
        *,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        **filters: str | None,
    ) -> Json:
        """A page. Filters: service_name, metric_type, since, until, interval, aggregate."""
        query = {**filters, "tag": _pairs(tags), "limit": limit, "cursor": cursor}
        return await self._read(f"{self._root}/metrics", query)

    async def analytics(self, service: str, *, since: str | None = None) -> Json:
        """What people of that service ask first."""
        return await self._read(f"{self._root}/analytics/{segment(service)}", {"since": since})

    async def operate(
        self, name: str, body: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None
    ) -> Json:
        """Run the operation `service.name` → `{operation_id, result}`. Never repeated once it may have begun."""
        path = f"{self._root}/operations/{segment(name)}"
        request = Request(
            "POST",
            path,
            body=dict(body or {}),
            headers=_key(idempotency_key),
            repeatable=False,
            extra_time_s=OPERATION_S,
        )
        return dict((await self._transport.call(request)).body)

    async def stream(
        self,
        *,
        service_name: str | None = None,
        event_type: str | None = None,
        status: str | None = None,
        setting: str | None = None,
        last_event_id: str | None = None,
        from_: str | None = None,
        watcher: Watcher | None = None,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Events as they happen, over every reconnection; from now, from `from_` (a cursor, `earliest`, `latest`), or right after
        `last_event_id`. `watcher` is told True and False as connections come and break. Raises Gone when the place is
        no longer kept.
        """
        query = {
            "service_name": service_name,
            "event_type": event_type,
            "status": status,
            "setting": setting,
            "from": from_,
        }
        stream = EventStream(
            self._transport, f"{self._root}/stream", query, last_event_id=last_event_id, watcher=watcher
        )
        async with aclosing(stream.events()) as events:
            async for event in events:
                yield event

    # The daemon itself

    async def schemas(self, setting_type: str | None = None) -> Json:
        """What schemas there are, `{items: [{type, url}]}`; or the JSON Schema of one type's values."""
        return await self._read("/v1/schemas" + (f"/{segment(setting_type)}" if setting_type else ""), {})

    async def operations(self) -> Json:
        """What can be run, `{items: [{operation, request: JSON Schema}]}`."""
        return await self._read("/v1/operations", {})

    async def status(self) -> Json:
        """Replica, offsets, lag, shards owned, targets up or down."""
        return await self._read("/v1/status", {})

    async def health(self) -> Json:
        """`/readyz`, also when it says no: `{ready, …}` with its reasons."""
        answer = await self._transport.call(Request("GET", "/readyz", accepted=frozenset({503})))
        body = answer.body if isinstance(answer.body, dict) else {"detail": answer.body}
        return {"ready": answer.status == 200, **body}

    # Parts

    def _setting(self, setting_type: str, name: str) -> str:
        return f"{self._root}/settings/{segment(setting_type)}/{segment(name)}"

    async def _read(self, path: str, query: Mapping[str, Any]) -> Json:
        return dict((await self._transport.call(Request("GET", path, query))).body)

    async def _import(self, body: Json) -> Json:
        request = Request("POST", f"{self._root}/import", body=body, extra_time_s=PLAN_S)
        return dict((await self._transport.call(request)).body)

    async def _write(
        self, method: str, path: str, body: Mapping[str, Any] | None, query: Json, headers: dict[str, str]
    ) -> Json:
        extra_s = PLAN_S if query.get("plan") else query.get("timeout") or 0.0  # with a plan's id it is planned again
        request = Request(method, path, query, body, headers, extra_time_s=extra_s)
        return dict((await self._transport.call(request)).body or {})

    async def _pages(self, path: str, query: Json) -> AsyncIterator[Json]:
        cursor: str | None = None
        while True:
            body = (await self._transport.call(Request("GET", path, {**query, "cursor": cursor}))).body
            for item in _items(body, "items"):
                yield item
            cursor = body.get("next_cursor") if isinstance(body, dict) else None
            if not cursor:
                return


def _items(body: Any, name: str) -> list[Json]:
    """The list in an answer, wrapped or bare."""
    if isinstance(body, dict):
        body = body.get(name, body.get("items", []))
    return list(body or [])


def _document(settings: Sequence[Mapping[str, Any]], prune: Mapping[str, str] | None) -> Json:
    body: Json = {"settings": [dict(declaration) for declaration in settings]}
    return body | ({"prune": {"labels": dict(prune)}} if prune else {})


def _key(given: str | None) -> dict[str, str]:
    return {"Idempotency-Key": given} if given else {"Idempotency-Key": str(uuid.uuid4()), ATTEMPT: "1"}


def _conditions(if_match: int | None, *, if_absent: bool) -> dict[str, str]:
    headers = {} if if_match is None else {"If-Match": f'"{if_match}"'}
    return headers | ({"If-None-Match": "*"} if if_absent else {})


def _waiting(wait: str | None, wait_s: float) -> Json:
    return {} if wait is None else {"wait": wait, "timeout": wait_s}


def _pairs(pairs: Mapping[str, str] | None) -> list[str] | None:
    return [f"{key}={value}" for key, value in pairs.items()] if pairs else None
