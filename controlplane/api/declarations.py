"""Settings written: declared, patched, retired."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from controlplane.api import admission, bodies, parameters
from controlplane.api.call import CORRELATION, Call, answer
from controlplane.api.settings import not_found, records
from controlplane.domain import answers, history, patch, preconditions, writes
from controlplane.domain.documents import only_fields, text_field
from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.domain.fold import ChangeOutcome, Entry, State, Verdict
from schemas.names import Key

BODY_FIELDS = ("value", "labels", "depends_on", "policy", "reason")

_OF_THE_STATE = (Reason.NOT_FOUND, Reason.PRECONDITION_FAILED)
"""Reasons that another state may not have."""

_MOST_TRIES = 5
"""A patch is computed again when its setting moved meanwhile; after this many times the writer hears of it."""

_Changer = Callable[[Entry | None, int | None], writes.Change]
"""(entry now, expected) → the change."""


async def put(call: Call[parameters.Write]) -> web.Response:
    """Declare, as a whole."""
    key = call.key()
    body = await bodies.json_map(call.request, call.most_bytes)
    only_fields(body, BODY_FIELDS)
    reason = text_field(body, "reason")
    declared = {name: value for name, value in body.items() if name != "reason"}

    def change(entry: Entry | None, expected: int | None) -> writes.Change:
        return writes.declare(key, declared, entry, call.parts.kinds, expected=expected)

    return await _write(call, key, change, reason)


async def merge(call: Call[parameters.Write]) -> web.Response:
    """Declare, by merge patch on what is declared."""
    key = call.key()
    body = await bodies.json_map(call.request, call.most_bytes, bodies.PATCH)
    only_fields(body, BODY_FIELDS)
    reason = text_field(body, "reason")
    merged = {name: value for name, value in body.items() if name != "reason"}

    def change(entry: Entry | None, expected: int | None) -> writes.Change:
        if entry is None:
            raise not_found(key)
        declared = {name: entry.body[name] for name in BODY_FIELDS if name in entry.body}
        pinned = entry.revision if expected is None else expected
        return writes.declare(key, patch.patched(declared, merged), entry, call.parts.kinds, expected=pinned)

    return await _write(call, key, change, reason)


async def retire(call: Call[parameters.Retire]) -> web.Response:
    """Retire: 202, or 200 once it is gone when that is waited for."""
    key = call.key()

    def change(entry: Entry | None, expected: int | None) -> writes.Change:
        if entry is None:
            raise not_found(key)
        return writes.retire(str(key), expected=expected, deletion=call.query.deletion)

    if call.query.dry_run:
        return _dry_run(call, key, change, "")
    verdict = await _submit(call, key, change, "")
    entry = await _entry_of(call, verdict.outcomes[0])
    gone = call.query.wait == "Gone" and await _gone(call, entry)
    document = answers.setting(entry, call.parts.statuses.get(entry.key))
    return answer(document, 200 if gone else 202, _written(entry, verdict))


async def _write(call: Call[parameters.Write], key: Key, change: _Changer, reason: str) -> web.Response:
    if call.query.dry_run:
        return _dry_run(call, key, change, reason)
    verdict = await _submit(call, key, change, reason)
    outcome = verdict.outcomes[0]
    entry = await _entry_of(call, outcome)
    ready = call.query.wait is None or await _ready(call, entry)
    done = 201 if outcome.outcome == "created" else 200
    document = answers.setting(entry, call.parts.statuses.get(entry.key))
    return answer(document, done if ready else 202, _written(entry, verdict))


async def _submit(call: Call[Any], key: Key, change: _Changer, reason: str) -> Verdict:
    """The accepted verdict on a change of one setting. Raises `Refused`.

    A change that was pinned to the revision it was computed from, and not by the writer, is computed anew when the
    setting moved: under a request_id of its own, since the fold remembers the first verdict of each.
    """
    condition = call.precondition()
    for attempt in range(1, _MOST_TRIES + 1):
        request_id = call.request_id if attempt == 1 else f"{call.request_id}#{attempt}"
        verdict = await _attempt(call, key, change, condition=condition, request_id=request_id, reason=reason)
        moved = any(refusal.reason == "Conflict" for refusal in verdict.refusals) and not writes.is_hopeless(verdict)
        if condition.given or not moved:
            break
    _check_same(verdict, str(key))
    if not verdict.refusals:
        return verdict
    if condition.given and verdict.refusals[0].reason == "Conflict":
        raise preconditions.failed(verdict.refusals[0].revision)
    raise writes.refused(verdict.refusals)


async def _attempt(
    call: Call[Any], key: Key, change: _Changer, *, condition: preconditions.Precondition, request_id: str, reason: str
) -> Verdict:
    try:
        made = _now(call, key, change, condition, request_id)
    except Refused as exc:
        if exc.reason not in _OF_THE_STATE:
            raise
        await call.parts.replica.be_newest()  # a replica that is behind must not refuse what the log would accept
        try:
            made = _now(call, key, change, condition, request_id)
        except Refused as final:
            made = await _refused_for_good(call, key, final, request_id)
    if isinstance(made, Verdict):
        return made
    return await admission.submit(call, [made], reason=reason, request_id=request_id)


async def _refused_for_good(call: Call[Any], key: Key, why: Refused, request_id: str) -> Verdict:
    """The verdict that the log holds already, else raises `why`. A first try of the same request may still be under way at a
    replica that was stopped: it must find in the log that the request was refused, or it would be done after all."""
    if why.reason in _OF_THE_STATE and call.may_be_repeated and call.parts.replica.shared:
        refused = [writes.hopeless(str(key))]
        verdict = await admission.submit(call, refused, reason=f"refused: {why.detail}", request_id=request_id)
        if not writes.is_hopeless(verdict):
            return verdict
    raise why


def _now(
    call: Call[Any], key: Key, change: _Changer, condition: preconditions.Precondition, request_id: str
) -> writes.Change | Verdict:
    """The change in the state as it is, or the first verdict: a repeated request meets the state that it made itself."""
    first = admission.remembered(call, request_id)
    if first is not None and not writes.is_hopeless(first):
        return first
    entry = call.parts.replica.state.entries.get(str(key))
    return change(entry, preconditions.expected(condition, entry.revision if entry else 0))


def _dry_run(call: Call[Any], key: Key, change: _Changer, reason: str) -> web.Response:
    """What would be stored, folded onto the entry as it is now, without a revision of its own."""
    state = call.parts.replica.state
    entry = state.entries.get(str(key))
    made = change(entry, preconditions.expected(call.precondition(), entry.revision if entry else 0))
    admission.admit(call, [made])
    after = writes.trial(state, made, admission.record(call, reason))
    return answer({**answers.setting(after, call.parts.statuses.get(str(key))), "dry_run": True})


async def _entry_of(call: Call[Any], outcome: ChangeOutcome) -> Entry:
    """The entry that a verdict is about: a repeated request is answered with what it made, not with what came after."""
    entry = call.parts.replica.state.entries.get(outcome.key)
    if entry is not None and entry.revision == outcome.revision:
        return entry
    past = history.entry_at(outcome.key, await records(call, outcome.key), outcome.revision)
    if past is None:
        raise Refused(Reason.NOT_FOUND, f"{outcome.key} is gone")
    return past


async def _ready(call: Call[parameters.Write], entry: Entry) -> bool:
    ready, _ = await call.parts.statuses.wait(
        entry.key, lambda status: answers.is_ready(status, entry.generation), call.query.timeout
    )
    return ready


async def _gone(call: Call[parameters.Retire], entry: Entry) -> bool:
    """Wait until the key has left the state, or was declared anew after it had."""
    replica, clock = call.parts.replica, call.parts.clock
    deadline = clock.monotonic() + call.query.timeout
    while _still_there(replica.state, entry):
        left = deadline - clock.monotonic()
        if left <= 0 or not await replica.reach(replica.state.position + 1, left):
            return not _still_there(replica.state, entry)
    return True


def _still_there(state: State, entry: Entry) -> bool:
    now = state.entries.get(entry.key)
    return now is not None and now.created_revision == entry.created_revision


def _written(entry: Entry, verdict: Verdict) -> dict[str, str]:
    return {"ETag": preconditions.etag(entry.revision), CORRELATION: verdict.request_id}


def _check_same(verdict: Verdict, key: str) -> None:
    about = {outcome.key for outcome in verdict.outcomes} | {refusal.key for refusal in verdict.refusals}
    if about != {key}:
        detail = "this Idempotency-Key was used for another request: choose a new one"
        raise Refused(Reason.CONFLICT, detail, [Fault("Idempotency-Key", detail)])
