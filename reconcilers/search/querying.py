"""Operations that ask: `query`, `suggest`, `analyze`; and `bulk`, which writes documents. The I/O is the wire's."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from reconcilers.contract import BackendError, OperationContext, TerminalError
from reconcilers.search import tenancy
from reconcilers.search.model import INDEX
from reconcilers.search.query_log import shape_of
from reconcilers.search.suggesters import SUGGESTER, request_of, suggestions_of
from reconcilers.search.wire import Wire, lines, path_of, said, understood
from schemas.search import Analyze, Bulk, Click, Index, Query, Suggest, Suggester

BULK_ITEMS: Final = 1_000
BULK_BYTES: Final = 1024 * 1024
BULK_S: Final = 50.0
SPARE_S: Final = 2.0
"""The server ends a search by itself at its timeout; so much longer its answer is waited for."""


def alias_of(name: str, value: Index) -> str:
    """What people search in."""
    return value.index or name


async def query(ctx: OperationContext, request: Query) -> dict[str, Any]:
    """→ `{took_ms, timed_out, total, counted_as, hits: [{id, score, source, …}], aggregations?, profile?}`."""
    value: Index = ctx.setting(INDEX, request.index)
    backend = await ctx.backend(value.target)
    alias = alias_of(request.index, value)
    if value.tenant_field is not None:
        tenancy.check(request.body, request.query, request.filter)
    body = {
        **request.body,
        "query": filtered(request, value, ctx.tenant),
        "size": request.size,
        "from": request.offset,
        "timeout": f"{int(request.timeout_s * 1000)}ms",
        **({"profile": True} if request.profile else {}),
    }
    kind = request.label or shape_of(request.query)
    started = time.perf_counter()
    try:
        answer = await backend.wire.ask("POST", path_of(alias, "_search"), body, timeout_s=request.timeout_s + SPARE_S)
    except BackendError:
        backend.queries.record(alias, kind, (time.perf_counter() - started) * 1e3, None, body)
        raise
    total = answer["hits"].get("total", {})
    found = int(total["value"]) if isinstance(total, Mapping) and "value" in total else len(answer["hits"]["hits"])
    backend.queries.record(alias, kind, (time.perf_counter() - started) * 1e3, found, body)
    return {**_answered(answer, found), "counted_as": kind}


async def click(ctx: OperationContext, request: Click) -> dict[str, Any]:
    """→ `{}`: counted beside the queries of its kind."""
    value: Index = ctx.setting(INDEX, request.index)
    backend = await ctx.backend(value.target)
    backend.queries.click(alias_of(request.index, value), request.counted_as, request.position)
    return {}


def filtered(request: Query, value: Index, tenant: str) -> dict[str, Any]:
    """The query within what must always hold: the request's filter, and the tenant's own documents."""
    filters = [request.filter] if request.filter is not None else []
    if value.tenant_field is not None:
        filters.append({"term": {value.tenant_field: tenant}})
    asked = request.query or {"match_all": {}}
    return {"bool": {"must": [asked], "filter": filters}} if filters else asked


def _answered(answer: Mapping[str, Any], total: int) -> dict[str, Any]:
    hits = []
    for hit in answer["hits"]["hits"]:
        more = {name: hit[name] for name in ("highlight", "fields", "sort", "inner_hits") if name in hit}
        hits.append({"id": hit["_id"], "score": hit.get("_score"), "source": hit.get("_source"), **more})
    more = {name: answer[name] for name in ("aggregations", "profile", "suggest") if name in answer}
    return {"took_ms": answer["took"], "timed_out": answer["timed_out"], "total": total, "hits": hits, **more}


async def suggest(ctx: OperationContext, request: Suggest) -> dict[str, Any]:
    """→ `{took_ms, suggestions: [{text, score, …}]}`, best first."""
    value: Suggester = ctx.setting(SUGGESTER, request.suggester)
    backend = await ctx.backend(value.target)
    body = await _within_tenant(ctx, value, request, backend.wire)
    started = time.perf_counter()
    answer = await backend.wire.ask("POST", path_of(value.index, "_search"), body)
    found = suggestions_of(value, answer, request.size)
    took_ms = (time.perf_counter() - started) * 1e3
    backend.queries.record(value.index, f"suggest {request.suggester}", took_ms, len(found), body)
    return {"took_ms": answer["took"], "suggestions": found}


async def _within_tenant(ctx: OperationContext, value: Suggester, request: Suggest, wire: Wire) -> dict[str, Any]:
    """The body that asks. The index may be an alias, or a generation: which indices they are, the server knows."""
    confined = {
        alias_of(name, one): one.tenant_field
        for name, one in ctx.settings(INDEX).items()
        if one.tenant_field is not None
    }
    if not confined:
        return request_of(value, request)
    described = await wire.ask("GET", path_of(value.index), params={"filter_path": "*.aliases,*.mappings"})
    fields = tenancy.fields_of(described, confined)
    if not fields:
        return request_of(value, request)
    mappings = [document.get("mappings", {}) for document in described.values()]
    return tenancy.suggestion(value, request, tenancy.Bound(ctx.tenant, fields), mappings)


async def analyze(ctx: OperationContext, request: Analyze) -> dict[str, Any]:
    """→ `{tokens: [{token, position, …}]}`, or `{detail}` with `explain`."""
    value: Index = ctx.setting(INDEX, request.index)
    backend = await ctx.backend(value.target)
    how = {name: part for name in ("analyzer", "field") if (part := getattr(request, name)) is not None}
    body = {"text": request.text, "explain": request.explain, **how}
    answer: dict[str, Any] = await backend.wire.ask("POST", path_of(alias_of(request.index, value), "_analyze"), body)
    return answer


# --- bulk --------------------------------------------------------------------------------------------------------------


async def bulk(ctx: OperationContext, request: Bulk) -> dict[str, Any]:
    """→ `{took_ms, written, failed, items: [{action, id, status, result | error}]}`, items in their order.

    Sent in parts, one after the other; a part that gets no answer ends it, and what is said then is what was answered.
    """
    value: Index = ctx.setting(INDEX, request.index)
    backend = await ctx.backend(value.target)
    alias = alias_of(request.index, value)
    params = {"refresh": True if request.refresh else None, "pipeline": request.pipeline, "require_alias": True}
    items: list[dict[str, Any]] = []
    started = time.perf_counter()
    for part in parts(rows_of(request, alias)):
        answer = understood(
            await backend.wire.call("POST", path_of(alias, "_bulk"), part, params=params, timeout_s=BULK_S)
        )
        items += [item_of(row) for row in answer["items"]]
    failed = sum("error" in item for item in items)
    took_ms = round((time.perf_counter() - started) * 1e3, 1)
    return {"took_ms": took_ms, "written": len(items) - failed, "failed": failed, "items": items}


def rows_of(request: Bulk, alias: str) -> Iterator[tuple[dict[str, Any], Any]]:
    """(action, document or None) of each item. Raises `TerminalError` InvalidBulk with the line."""
    if request.documents is not None:
        for document in request.documents:
            named = {} if request.id_field is None else {"_id": str(document.get(request.id_field))}
            yield {"index": named}, document
        return
    rows = iter(enumerate((request.ndjson or "").splitlines(), 1))
    for number, line in rows:
        if not line.strip():
            continue
        action = _parsed(number, line)
        name = _checked(number, action, alias)
        if name == "delete":
            yield action, None
            continue
        following = next(rows, None)
        if following is None:
            raise TerminalError(f"line {number}: its document is missing", reason="InvalidBulk")
        yield action, _parsed(*following)


def action_of(number: int, line: str, alias: str) -> str:
    """What a line of actions says to do. Raises `TerminalError` InvalidBulk with the line."""
    return _checked(number, _parsed(number, line), alias)


def _checked(number: int, action: Mapping[str, Any], alias: str) -> str:
    name = next(iter(action), "")
    if name not in ("index", "create", "update", "delete") or not isinstance(action[name], dict):
        raise TerminalError(f"line {number}: not an action of the bulk API", reason="InvalidBulk")
    if action[name].get("_index", alias) != alias:
        raise TerminalError(f"line {number}: writes to another index than {alias}", reason="InvalidBulk")
    return name


def _parsed(number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as exc:
        raise TerminalError(f"line {number}: not JSON: {exc}", reason="InvalidBulk") from exc
    if not isinstance(found, dict):
        raise TerminalError(f"line {number}: not an object", reason="InvalidBulk")
    return found


def parts(rows: Iterator[tuple[dict[str, Any], Any]]) -> Iterator[bytes]:
    """Requests of at most BULK_ITEMS and about BULK_BYTES."""
    held: list[bytes] = []
    size = 0
    for action, document in rows:
        one = lines([action] if document is None else [action, document])
        held.append(one)
        size += len(one)
        if len(held) >= BULK_ITEMS or size >= BULK_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def item_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What became of one item: `{action, id, status, result | error}`."""
    action, result = next(iter(row.items()))
    told = {"action": action, "id": result.get("_id"), "status": result["status"]}
    if "error" in result:
        return {**told, "error": ": ".join(part for part in said(result["error"]) if part)}
    return {**told, "result": result.get("result")}
