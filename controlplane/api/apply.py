"""Many declarations at once: all of them or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from controlplane.api import admission, bodies, parameters, plan
from controlplane.api.call import CORRELATION, Call, answer
from controlplane.domain import writes
from controlplane.domain.documents import Document, document_of
from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.domain.fold import ChangeOutcome


async def apply(call: Call[parameters.Apply]) -> web.Response:
    """Declare all settings of a document and, with `prune`, retire those it no longer declares."""
    document = document_of(await bodies.json_or_yaml(call.request, call.most_bytes))
    replica = call.parts.replica
    first = admission.remembered(call)
    changes = [] if first is not None else await plan.proposed(call, document)
    if call.query.plan is not None and first is None:
        proposal = plan.of_document(call, document, changes)
        changes = await plan.as_planned(call, proposal, plan.path(call), call.query.plan)
    if call.query.dry_run:
        outcomes = writes.trial_outcomes(replica.state, changes, admission.record(call, document.reason))
        return answer({**_results(outcomes, replica.state.position), "dry_run": True})
    if first is None and not changes:
        return answer(_results((), replica.state.position))
    verdict = first or await admission.submit(call, changes, reason=document.reason)
    if verdict.refusals:
        raise plan.overtaken(verdict.refusals) if call.query.plan is not None else writes.refused(verdict.refusals)
    _check_same(call.tenant, document, verdict.outcomes)
    results = _results(verdict.outcomes, replica.state.position, verdict.offset)
    return answer(results, headers={CORRELATION: verdict.request_id})


def _results(outcomes: Sequence[ChangeOutcome], position: int, offset: int = -1) -> dict[str, Any]:
    """`revision`: the one this apply made, or the newest of what it found unchanged."""
    newest = max((outcome.revision for outcome in outcomes), default=position)
    results = [{"setting": o.key, "outcome": o.outcome, "generation": o.generation} for o in outcomes]
    return {"revision": offset + 1 if offset >= 0 else newest, "results": results}


def _check_same(tenant: str, document: Document, outcomes: Sequence[ChangeOutcome]) -> None:
    """A remembered verdict must be about this document, whose prune may have found other settings then."""
    done = {outcome.key for outcome in outcomes}
    declared = {
        f"{tenant}/{declaration.get('type')}/{declaration.get('name')}"
        for declaration in document.settings
        if isinstance(declaration, dict)
    }
    if not declared <= done:
        detail = "this Idempotency-Key was used for another request: choose a new one"
        raise Refused(Reason.CONFLICT, detail, [Fault("Idempotency-Key", detail)])
