"""Operations that manage: `migrate`, `snapshot`, `restore`, `advise`, `effective`.

What they want of a migration they write into marks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from reconcilers.contract import ExternalId, OperationContext, TerminalError
from reconcilers.search.advice import advised
from reconcilers.search.definition import definition
from reconcilers.search.documents import REPOSITORY
from reconcilers.search.effective import effective
from reconcilers.search.generations import Generation, serving
from reconcilers.search.model import INDEX, ObservedIndex
from reconcilers.search.querying import alias_of
from reconcilers.search.snapshots import snapshot_name
from reconcilers.search.steps import DropGeneration
from reconcilers.search.wire import path_of
from schemas.search import Advise, Effective, Index, Migrate, Repository, Restore, Snapshot

SNAPSHOT_S: Final = 50.0


class _Operating:
    """An operation is under its shard's fence already: the runtime began it."""

    token = (0, 0)

    def check(self) -> None:
        """Always open."""

    def still_ours(self) -> None:
        """Always, as long as the operation runs."""


FENCE: Final = _Operating()


# --- migrate -----------------------------------------------------------------------------------------------------------


async def migrate(ctx: OperationContext, request: Migrate) -> dict[str, Any]:
    """→ `{serving, generations: [{name, phase, …}], copy?, feed?}` after what was asked for."""
    value: Index = ctx.setting(INDEX, request.index)
    backend = await ctx.backend(value.target)
    alias = alias_of(request.index, value)
    seen = await _seen(backend, alias)
    if seen.serving is None:
        raise TerminalError(f"nothing serves {alias}", reason="NotServing")
    digest = definition(request.index, value).digest
    match request.action:
        case "start":
            await _start(backend, alias, seen, digest)
        case "throttle":
            await _throttle(backend, seen, request.requests_per_second)
        case "abort":
            await _abort(backend, alias, seen, digest)
        case "rollback":
            await _roll_back(backend, seen)
    return await _status(backend, await _seen(backend, alias))


async def _seen(backend: Any, alias: str) -> ObservedIndex:
    generations = (await backend.indices.described([alias])).get(alias, ())
    return ObservedIndex(serving(alias, generations), generations)


async def _start(backend: Any, alias: str, seen: ObservedIndex, digest: str) -> None:
    """Permit it, and take back what stood against it; a refused attempt goes."""
    if seen.building is not None and seen.building.mark.phase == "refused":
        await _drop(backend, alias, seen.building, "a new attempt was asked for")
    await backend.copies.remark(
        _serving(seen).name, FENCE, lambda mark: replace(mark, approved=digest, aborted="", pinned="")
    )


async def _throttle(backend: Any, seen: ObservedIndex, rate: float | None) -> None:
    building = _building(seen)
    await backend.copies.remark(building.name, FENCE, lambda mark: replace(mark, requests_per_second=rate))
    if building.mark.phase == "copying" and building.mark.task:
        params = {"requests_per_second": -1 if rate is None else rate}
        await backend.wire.ask(
            "POST", path_of("_reindex", building.mark.task, "_rethrottle"), params=params, absent=None
        )


async def _abort(backend: Any, alias: str, seen: ObservedIndex, digest: str) -> None:
    """Before the alias has moved: what was made goes, and isn't begun again until `start` or another declaration."""
    building = _building(seen)
    name = _serving(seen).name
    await backend.copies.remark(name, FENCE, lambda mark: replace(mark, aborted=digest, approved="", rollback=""))
    await _drop(backend, alias, building, "aborted")


async def _roll_back(backend: Any, seen: ObservedIndex) -> None:
    """Back to what the last generation was, by a migration of its own, so that no write since then is lost."""
    old = [one for one in seen.generations if one.mark.phase == "old"]
    if not old:
        raise TerminalError("no old generation is kept: declare what it was", reason="NothingToRollBackTo")
    await backend.copies.remark(_serving(seen).name, FENCE, lambda mark: replace(mark, rollback=old[-1].name))


async def _drop(backend: Any, alias: str, building: Generation, reason: str) -> None:
    await backend.copies.drop(DropGeneration(ExternalId(INDEX, alias), building.name, reason), FENCE)


def _serving(seen: ObservedIndex) -> Generation:
    if seen.serving is None:
        raise TerminalError("nothing serves", reason="NotServing")
    return seen.serving


def _building(seen: ObservedIndex) -> Generation:
    if seen.building is None:
        raise TerminalError("no migration is under way", reason="NoMigration")
    return seen.building


async def _status(backend: Any, seen: ObservedIndex) -> dict[str, Any]:
    building = seen.building
    rows = [_told(one) for one in seen.generations]
    found: dict[str, Any] = {"serving": _serving(seen).name, "migrating": building is not None, "generations": rows}
    if building is not None:
        if building.mark.phase == "copying":
            copy = await backend.copies.copy(building)
            found["copy"] = None if copy is None else asdict(copy)
        else:
            found["feed"] = asdict(backend.copies.feed(building))
    return found


def _told(one: Generation) -> dict[str, Any]:
    mark = {name: part for name, part in one.mark.document().items() if name not in ("checkpoints", "digest")}
    return {"name": one.name, **mark, "held": one.is_held, "write_blocked": one.is_blocked}


# --- snapshots ---------------------------------------------------------------------------------------------------------


async def snapshot(ctx: OperationContext, request: Snapshot) -> dict[str, Any]:
    """→ `{snapshot, state}`; it may go on after the answer."""
    value: Repository = ctx.setting(REPOSITORY, request.repository)
    backend = await ctx.backend(value.target)
    name = request.snapshot or snapshot_name("manual", time.time())
    await backend.snapshots.begin(request.repository, name, request.indices, FENCE)
    rows = await backend.wire.ask("GET", path_of("_snapshot", request.repository, name))
    return {"snapshot": name, "state": rows["snapshots"][0]["state"]}


async def restore(ctx: OperationContext, request: Restore) -> dict[str, Any]:
    """→ `{indices, shards}`. Never onto an index that is there: each comes back under its name with the prefix."""
    value: Repository = ctx.setting(REPOSITORY, request.repository)
    backend = await ctx.backend(value.target)
    body = {
        "indices": ",".join(request.indices),
        "rename_pattern": "(.+)",
        "rename_replacement": f"{request.prefix}$1",
        "include_aliases": False,
        "include_global_state": False,
    }
    answer: Mapping[str, Any] = await backend.wire.send(
        FENCE,
        "POST",
        path_of("_snapshot", request.repository, request.snapshot, "_restore"),
        body,
        params={"wait_for_completion": True},
        timeout_s=SNAPSHOT_S,
    )
    done = answer["snapshot"]
    return {"indices": done["indices"], "shards": done["shards"]}


# --- advice ------------------------------------------------------------------------------------------------------------


async def advise(ctx: OperationContext, request: Advise) -> dict[str, Any]:
    """→ `{advice: [{about, advice, evidence}]}`, looked up now; a slow query is profiled for it."""
    backend = await ctx.backend(request.target)
    return {"advice": await advised(backend.wire, backend.queries)}


async def in_effect(ctx: OperationContext, request: Effective) -> dict[str, Any]:
    """See `effective`."""
    backend = await ctx.backend(request.target)
    return await effective(backend.wire, request.match)
