"""Going back: what was declared then is declared again, as one change request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from aiohttp import web

from controlplane.api import admission, bodies, parameters, plan
from controlplane.api.call import CORRELATION, Call, answer
from controlplane.domain import answers, rollback, writes
from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.domain.fold import Verdict
from controlplane.domain.history import Records
from controlplane.domain.rollback import Place, Request, Restored, Seen
from controlplane.runtime.preview import Proposal
from schemas.names import ACCESS, parse_key

_MANY: Final = 500
"""So many settings are compared beside the loop, which has leases to keep."""


async def roll_back(call: Call[parameters.Rollback]) -> web.Response:
    """Restore what was declared at a revision of the log, or at a time: all of it or nothing."""
    replica, now = call.parts.replica, call.parts.clock.now()
    body = await bodies.json_map(call.request, call.most_bytes)
    asked = rollback.request_of(body, call.tenant, position=replica.state.position, now=now)
    if asked.to.revision is None:
        asked = replace(asked, to=Place(await call.parts.past.revision(asked.to.instant)))
    first = admission.remembered(call)
    found = [] if first is not None else await _restored(call, asked)
    changes = [one.change for one in found if one.change is not None]
    admission.admit(call, changes)
    proposal, where = Proposal(call.tenant, changes, None, admission.record(call, asked.reason)), _path(call)
    if call.query.plan is not None and first is None:
        changes = await plan.as_planned(call, proposal, where, call.query.plan)
    if call.query.dry_run:
        told = (await plan.foresee(call, proposal, where)).document()
        told |= {"results": _listed(found, told["results"])}
        return answer({"revision": replica.state.position, "dry_run": True, **told})
    if first is None and not changes:
        newest = max((one.now.revision for one in found if one.now is not None), default=replica.state.position)
        return answer({"revision": newest, "results": []})
    verdict = first or await admission.submit(call, changes, reason=asked.reason)
    if verdict.refusals:
        raise plan.overtaken(verdict.refusals) if call.query.plan is not None else writes.refused(verdict.refusals)
    _check_same(asked, verdict)
    results = [{"setting": o.key, "outcome": o.outcome, "generation": o.generation} for o in verdict.outcomes]
    return answer({"revision": verdict.offset + 1, "results": results}, headers={CORRELATION: verdict.request_id})


async def _restored(call: Call[Any], asked: Request) -> list[Restored]:
    seen = _without_access(rollback.seen(call.parts.replica.state, call.tenant, asked), asked)
    records = await _records(call, rollback.offsets(seen))
    if sum(not one.current for one in seen.values()) < _MANY:
        return _compared(call, seen, records, asked)
    return await asyncio.to_thread(_compared, call, seen, records, asked)


def _without_access(seen: Mapping[str, Seen], asked: Request) -> dict[str, Seen]:
    """A token that was revoked stays revoked, whatever else is restored."""
    named = [key for key in asked.keys or () if parse_key(key).service == ACCESS]
    if named:
        detail = "who may do what isn't rolled back: declare it again"
        raise Refused(Reason.INVALID, detail, [Fault("/settings", detail)])
    return {key: one for key, one in seen.items() if parse_key(key).service != ACCESS}


def _compared(call: Call[Any], seen: Mapping[str, Seen], records: Records, asked: Request) -> list[Restored]:
    return rollback.restored(seen, rollback.apart(records, seen), asked, call.parts.kinds)


async def _records(call: Call[Any], offsets: Sequence[int]) -> list[tuple[int, Mapping[str, Any]]]:
    wanted = frozenset(offsets)
    found: list[tuple[int, Mapping[str, Any]]] = []
    for first, last in answers.runs(offsets):
        found += [pair for pair in await call.parts.replica.records(first, last + 1) if pair[0] in wanted]
    return found


def _path(call: Call[Any]) -> str:
    """Where an owner says what the rollback would do to what it drives."""
    return f"{plan.root(call)}/rollback?dry_run=true"


def _listed(found: Sequence[Restored], results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Every setting chosen; those that are as they were are unchanged."""
    told = {result["setting"]: result for result in results}
    same = {"outcome": "unchanged", "changed": [], "differences": []}
    return [told.get(one.key, {"setting": one.key, **same}) for one in found]


def _check_same(asked: Request, verdict: Verdict) -> None:
    """A remembered verdict must be about settings that this rollback chooses."""
    if asked.keys is not None and not {outcome.key for outcome in verdict.outcomes} <= asked.keys:
        detail = "this Idempotency-Key was used for another request: choose a new one"
        raise Refused(Reason.CONFLICT, detail, [Fault("Idempotency-Key", detail)])
