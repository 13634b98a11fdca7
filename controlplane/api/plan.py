"""What an apply would do: said beforehand, and held to when it is applied."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web

from controlplane.api import admission, bodies, parameters
from controlplane.api.call import Call, answer
from controlplane.api.table import TENANT
from controlplane.domain import writes
from controlplane.domain.documents import Document, document_of
from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.domain.fold import Refusal
from controlplane.domain.writes import Change
from controlplane.runtime import foreseen
from controlplane.runtime.foreseen import Previewed
from controlplane.runtime.preview import Proposal

_MANY: Final = 500
"""Validating this many declarations takes tens of milliseconds: it is done beside the loop, which has leases to keep."""

_TOLD: Final = 20
"""So many of the things that moved are told."""


async def plan(call: Call[parameters.Plan]) -> web.Response:
    """What an apply of the same body would do to every setting, and to the backends. Nothing is done."""
    document = document_of(await bodies.json_or_yaml(call.request, call.most_bytes))
    found = await foresee(call, of_document(call, document, await proposed(call, document)), path(call))
    return answer(found.document())


async def proposed(call: Call[Any], document: Document) -> list[Change]:
    """The changes that a document asks for. Raises `Refused` with every fault at once."""
    state = call.parts.replica.state
    asked = (call.tenant, document.settings, state.entries, call.parts.kinds)
    if len(document.settings) < _MANY:
        changes = writes.declare_all(*asked)
    else:
        changes = await asyncio.to_thread(writes.declare_all, *asked)  # it only looks single entries up
    if document.prune is not None:
        changes += writes.prune_changes(state, call.tenant, document.prune, changes, allow=call.query.allow_prune)
    admission.admit(call, changes)
    return changes


def of_document(call: Call[Any], document: Document, changes: Sequence[Change]) -> Proposal:
    """The proposal of an apply."""
    return Proposal(call.tenant, changes, document.prune, admission.record(call, document.reason))


def path(call: Call[Any]) -> str:
    """Where an owner says what an apply would do to what it drives."""
    allow = "true" if call.query.allow_prune else "false"
    return f"{root(call)}/plan?allow_prune={allow}"


def root(call: Call[Any]) -> str:
    """The path of the call's tenant."""
    return TENANT.format(tenant=quote(call.tenant, safe=""))


async def as_planned(call: Call[Any], proposal: Proposal, where: str, plan_id: str) -> list[Change]:
    """The changes, each expecting the revision that was planned with. Raises `Refused` (PlanStale) when the plan of them
    isn't the one with that id any more, naming what moved. `where`: the path of the same at their owners."""
    before = foreseen.parse_plan_id(plan_id)
    now = await foresee(call, proposal, where)
    faults = [] if before.same(now.plan_id) else foreseen.moved(before, now)
    if faults:
        raise _stale(f"{faults[0].path}: {faults[0].message}", faults)
    return [{**change, "expected": now.revisions[change["key"]]} for change in proposal.changes]


def overtaken(refusals: Sequence[Refusal]) -> Refused:
    """The refusal of a plan whose settings moved after it was checked and before it was folded."""
    refused = writes.refused(refusals)
    return _stale(refused.detail, refused.faults) if refused.reason is Reason.CONFLICT else refused


async def foresee(call: Call[Any], proposal: Proposal, where: str) -> Previewed:
    """What would become of every setting; what others drive is asked of them, by the same body at `where`."""
    found = await call.parts.preview.foresee(proposal)
    if not (wanted := found.elsewhere()):
        return found
    return foreseen.merged(found, await call.parts.forwarding.plans(call.request, call.request_id, wanted, where))


def _stale(what: str, faults: Sequence[Fault]) -> Refused:
    return Refused(Reason.PLAN_STALE, f"the world moved since the plan; plan again: {what}", faults[:_TOLD])
