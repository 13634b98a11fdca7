"""Requests to declare and retire, turned into the changes of one change request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from controlplane.domain import placing, validation
from controlplane.domain.changes import identical
from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.domain.fold import ChangeOutcome, Entry, Refusal, State, Verdict, applied, judge
from controlplane.domain.prune import check_share, prune
from controlplane.domain.requests import ChangeRequest, as_change
from schemas.names import Key
from schemas.record import VERSION
from schemas.setting import Declaration

Change = dict[str, Any]
Kinds = Mapping[str, type[BaseModel]]


class Trial(NamedTuple):
    """One setting before a change (None: absent) and as the change would leave it."""

    before: Entry | None
    after: Entry

    @property
    def key(self) -> str:
        """The setting's key."""
        return self.after.key

    @property
    def outcome(self) -> str:
        """created, updated, unchanged or retired."""
        if self.before is None:
            return "created"
        if self.after is self.before:
            return "unchanged"
        return "retired" if self.after.retiring else "updated"


def declare(
    key: Key, body: Mapping[str, Any], entry: Entry | None, kinds: Kinds, *, expected: int | None = None
) -> Change:
    """The change that declares one setting. Raises `Refused` (Invalid) with every fault at once."""
    document = {"type": key.setting_type, "name": key.name, **(placing.declared(body) or {})}
    declaration, faults = validation.check_one(document, kinds)
    if declaration is not None:
        faults = _moved_target(declaration, entry, kinds, "")
    if declaration is None or faults:
        raise invalid(faults)
    return _change(key, declaration, entry, kinds, expected)


def declare_all(
    tenant: str, declarations: Sequence[Any], entries: Mapping[str, Entry], kinds: Kinds, *, prefix: str = "/settings"
) -> list[Change]:
    """The changes that declare all of a document. Raises `Refused` (Invalid) with every fault at once."""
    sound, faults = validation.check(declarations, kinds, prefix)
    # As text, since what isn't sound may hold anything in their place.
    places = {str((d.get("type"), d.get("name"))): n for n, d in enumerate(declarations) if isinstance(d, Mapping)}
    changes = []
    for declaration in sound:
        key = Key(tenant, declaration.type, declaration.name)
        path = f"{prefix}/{places[str((declaration.type, declaration.name))]}"
        faults += _moved_target(declaration, entries.get(str(key)), kinds, path)
        changes.append(_change(key, declaration, entries.get(str(key)), kinds, None))
    if faults:
        raise invalid(faults)
    return changes


def retire(key: str, *, expected: int | None = None, deletion: str | None = None) -> Change:
    """The change that retires one setting; `deletion` overrides its policy this once."""
    change: Change = {"op": "retire", "key": key, "expected": expected}
    return change if deletion is None else {**change, "deletion": deletion}


NEVER: Final = 2**62
"""A revision that no setting comes to."""


def hopeless(key: str) -> Change:
    """A change that the fold refuses, whatever the state: so that a request that was refused without it stays refused."""
    return retire(key, expected=NEVER)


def is_hopeless(verdict: Verdict) -> bool:
    """Whether it is the verdict on such a change."""
    return any(refusal.expected == NEVER for refusal in verdict.refusals)


def trial(state: State, change: Change, record: Mapping[str, Any]) -> Entry:
    """The entry that a declare or retire would leave now. `record`: at, actor, reason, request_id. Raises `Refused`."""
    asked = as_change(change)
    refusals = judge(state, [asked])
    entry = applied(state.entries.get(asked.key), asked, state.position, _request(record))
    if refusals or entry is None:
        raise refused(refusals)
    return entry


def trials(state: State, changes: Sequence[Change], record: Mapping[str, Any]) -> list[Trial]:
    """What every declare and retire would leave now; nothing is stored. Raises `Refused`."""
    asked = [as_change(change) for change in changes]
    refusals = judge(state, asked)
    if refusals:
        raise refused(refusals)
    found, request = [], _request(record)
    for change in asked:
        before = state.entries.get(change.key)
        after = applied(before, change, state.position, request)
        if after is not None:
            found.append(Trial(before, after))
    return found


def trial_outcomes(state: State, changes: Sequence[Change], record: Mapping[str, Any]) -> list[ChangeOutcome]:
    """What would become of the changes now. Raises `Refused`."""
    return [
        ChangeOutcome(one.key, one.outcome, one.after.generation, one.after.revision)
        for one in trials(state, changes, record)
    ]


def prune_changes(
    state: State, tenant: str, labels: Mapping[str, str], declared: Sequence[Change], *, allow: bool
) -> list[Change]:
    """The retires of an apply with prune. `allow`: also over the safety share. Raises `Refused`."""
    mine = [entry for entry in state.entries.values() if entry.key.startswith(f"{tenant}/")]
    found = prune(mine, labels, {change["key"] for change in declared})
    if not allow:
        check_share(found)
    return [retire(key) for key in found.retire]


def refused(refusals: Sequence[Refusal]) -> Refused:
    """The fold's refusals in the words of the caller; the gravest gives the reason."""
    faults = [Fault(f"/{refusal.key}", _why(refusal)) for refusal in refusals]
    first = next((r for r in refusals if r.reason == "Protected"), refusals[0])
    reason = {"Protected": Reason.PROTECTED, "NotFound": Reason.NOT_FOUND}.get(first.reason, Reason.CONFLICT)
    return Refused(reason, f"{first.key}: {_why(first)}", faults)


def invalid(faults: Sequence[Fault]) -> Refused:
    """The refusal of a document with faults."""
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return Refused(Reason.INVALID, f"the declaration has {count}", faults)


def _request(record: Mapping[str, Any]) -> ChangeRequest:
    """What a trial is recorded as; its changes are tried one by one."""
    return ChangeRequest(v=VERSION, changes=(), **record)


def _change(key: Key, declaration: Declaration, entry: Entry | None, kinds: Kinds, expected: int | None) -> Change:
    body = validation.stored_body(declaration)
    if entry is None or not identical(entry.body, body):  # one that was stored without its target is still unchanged
        body = placing.placed(body, key, kinds.get(key.setting_type))
    return {"op": "declare", "key": str(key), "expected": expected, "body": body}


def _moved_target(declaration: Declaration, entry: Entry | None, kinds: Kinds, path: str) -> list[Fault]:
    """A setting stays at its target: moving it would leave an orphan at the old one that nobody owns."""
    place = placing.place_of(kinds.get(declaration.type))
    if entry is None or placing.at(entry.body["value"], place) == placing.at(declaration.value, place):
        return []
    advice = "a target can't be changed: declare the setting under a new name there, then retire this one"
    return [Fault("/".join((path, "value", *map(str, place))), advice)]


def _why(refusal: Refusal) -> str:
    match refusal.reason:
        case "Protected":
            return "is protected: set policy.protect to false first"
        case "NotFound":
            return "doesn't exist"
        case "Conflict" if refusal.revision == 0:
            return "doesn't exist any more"
        case "Conflict":
            return f"is at revision {refusal.revision} now, expected {refusal.expected or 'none'}"
    return refusal.reason
