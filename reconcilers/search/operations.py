"""The operations of the search service."""

from __future__ import annotations

from typing import Any

from reconcilers.contract import Operation, OperationContext
from reconcilers.search import managing, querying
from reconcilers.search.documents import REPOSITORY
from reconcilers.search.model import INDEX
from reconcilers.search.suggesters import SUGGESTER
from schemas.search import Advise, Analyze, Bulk, Click, Effective, Migrate, Query, Restore, Snapshot, Suggest


def _of_index(ctx: OperationContext, request: Any) -> str:
    return str(ctx.setting(INDEX, request.index).target)


def _of_suggester(ctx: OperationContext, request: Suggest) -> str:
    return str(ctx.setting(SUGGESTER, request.suggester).target)


def _of_repository(ctx: OperationContext, request: Any) -> str:
    return str(ctx.setting(REPOSITORY, request.repository).target)


def _of_target(_ctx: OperationContext, request: Advise | Effective) -> str:
    return request.target


def announced(request: Bulk) -> dict[str, Any]:
    """A bulk request without the documents."""
    size = len(request.documents) if request.documents is not None else len((request.ndjson or "").splitlines())
    what = "documents" if request.documents is not None else "lines"
    return {"index": request.index, what: size, **({"pipeline": request.pipeline} if request.pipeline else {})}


def tallied(result: dict[str, Any]) -> dict[str, Any]:
    """The result of a bulk request for the journal: counts, and the first failures."""
    failures = [item for item in result.get("items", ()) if "error" in item]
    return {**{name: part for name, part in result.items() if name != "items"}, "failures": failures[:10]}


OPERATIONS: tuple[Operation, ...] = (
    Operation("query", Query, _of_index, querying.query, effect=False),
    Operation("click", Click, _of_index, querying.click, effect=False),
    Operation("suggest", Suggest, _of_suggester, querying.suggest, effect=False),
    Operation("analyze", Analyze, _of_index, querying.analyze, effect=False),
    Operation("bulk", Bulk, _of_index, querying.bulk, announce=announced, record=tallied),
    Operation("migrate", Migrate, _of_index, managing.migrate),
    Operation("snapshot", Snapshot, _of_repository, managing.snapshot),
    Operation("restore", Restore, _of_repository, managing.restore),
    Operation("advise", Advise, _of_target, managing.advise, effect=False),
    Operation("effective", Effective, _of_target, managing.in_effect, effect=False),
)
