"""Why a setting is as it is: the log, the projection and a look at the backend, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from controlplane.api import parameters
from controlplane.api.call import Call, answer
from controlplane.api.settings import not_found, records
from controlplane.domain import answers, explanation, history, writes
from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.domain.explanation import Past, World
from controlplane.domain.fold import Entry
from controlplane.domain.muting import mutes
from controlplane.domain.status import KeyStatus
from controlplane.projection.queries import EventFilter
from controlplane.runtime.foreseen import Foreseen
from controlplane.runtime.preview import Proposal
from schemas.names import parse_key, timestamp

MOST_EVENTS: Final = 1_000
"""Newest events of the setting that are looked at."""


async def explain(call: Call[parameters.Explain]) -> web.Response:
    """Each owned path: desired, observed now, who set it and why, what was done about it; and the chain from the request to
    the observation."""
    key = str(call.key())
    entry = call.parts.replica.state.entries.get(key)
    if entry is None:
        raise not_found(call.key())
    moments = list(history.moments(key, await records(call, key)))
    events = await _events(call, key)
    world = await _world(call, entry)
    status = call.parts.statuses.get(key)
    past = Past(moments, events, mutes(entry.body, call.parts.clock.now()))
    rows = explanation.explained(past, world, call.query.path)
    if not rows and call.query.path is not None:
        message = f"{parse_key(key).reference} declares nothing at this path, nor does anything differ there"
        raise Refused(Reason.NOT_FOUND, message, [Fault("?path", message)])
    return answer(
        {
            "setting": key,
            "revision": entry.revision,
            "generation": entry.generation,
            "phase": str(answers.phase(entry, status)),
            "observed_generation": 0 if status is None else status.observed_generation,
            "unknown": world.unknown,
            "paths": rows,
            "chain": explanation.chain(past, rows),
            "drift": explanation.episode(events),
        }
    )


async def _events(call: Call[Any], key: str) -> Sequence[Mapping[str, Any]]:
    """Oldest first."""
    page = await call.parts.queries.events(EventFilter(call.tenant, setting=key, limit=MOST_EVENTS))
    return sorted(page.items, key=lambda event: (event["timestamp"], event["event_type"] not in explanation.STAGES))


async def _world(call: Call[Any], entry: Entry) -> World:
    """A look at the backend: what a plan of the same declaration sees. Where it sees nothing, the status knows."""
    status = call.parts.statuses.get(entry.key)
    key = parse_key(entry.key)
    if key.setting_type == f"{key.service}.target":
        return World(unknown={"reason": "Target", "message": "a target says where a backend is: it owns nothing there"})
    if entry.retiring:
        return _remembered(status, "Retiring", "it is being retired")
    try:
        change = writes.declare(key, entry.body, entry, call.parts.kinds)
    except Refused as exc:
        return _remembered(status, str(exc.reason), exc.detail)
    now = timestamp(call.parts.clock.now())
    record = {"at": now, "actor": call.caller.actor, "reason": "", "request_id": call.request_id}
    seen = (await call.parts.preview.foresee(Proposal(call.tenant, [change], None, record))).settings[0]
    return _seen(seen, status)


def _seen(seen: Foreseen, status: KeyStatus | None) -> World:
    why = seen.unknown or (seen.refused if not seen.differences else None)
    if why is not None:
        return _remembered(status, why.reason, why.message)
    muted = () if status is None else status.muted
    return World([(one.path, one.desired, one.observed) for one in seen.differences], muted=muted)


def _remembered(status: KeyStatus | None, reason: str, message: str) -> World:
    drift, muted = ((), ()) if status is None else (status.drift, status.muted)
    return World(drift, {"reason": reason, "message": message}, muted)
