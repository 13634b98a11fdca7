"""The fold: what the settings log means.

Theory of operation. Every replica folds the same records in the same order with this function and so reaches the same
state and the same verdicts; there is no leader to ask. A record is a change request: all its changes are accepted, or
none. A change is accepted iff its `expected` matches: None any, 0 absent, else the revision of the key; every change of a
request is judged against the state before the request, and a second change of the same key is a conflict. The fold reads
nothing but its arguments: no clock, no configuration, no registry. Validation against schemas happens before the append,
never here, so that replicas of different versions can't disagree; a record version that isn't known stops the replica.

`declare` of a retiring key cancels the retirement. `forget` must name the revision it saw retiring: between the look at the
backend and the forget, somebody may have declared the key anew.

`revision` of a key is offset + 1 of the last accepted record that changed it (0 means absent). `generation` counts the
changes of its value or policy. The state is updated in place: copying it for each record would make a replay quadratic.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from controlplane.domain.changes import identical
from controlplane.domain.requests import Change, ChangeRequest, UnknownRecord

REMEMBERED_OFFSETS: Final = 20_000
"""How many offsets back a repeated request_id is recognised. Part of the fold: all replicas must agree on it."""

_tuple = tuple.__new__
"""Makes a named tuple at half the price of calling its class. A replay makes one for each record."""


class Entry(NamedTuple):
    """The folded state of one key."""

    key: str
    body: Mapping[str, Any]
    """`value`, `labels`, `depends_on`, `policy` and whatever newer writers added."""
    generation: int
    revision: int
    created_revision: int
    created_at: str
    updated_at: str
    retiring: bool
    deletion: str | None
    """The retire's override of `policy.deletion`."""
    actor: str
    reason: str
    request_id: str
    """Of the change that made this revision: what it caused carries it as correlation_id."""


class ChangeOutcome(NamedTuple):
    """What became of one accepted change. `outcome`: created, updated, unchanged, retired or forgotten."""

    key: str
    outcome: str
    generation: int
    revision: int


class Refusal(NamedTuple):
    """Why one change was not accepted. `reason`: Conflict, NotFound, Protected or NotRetiring."""

    key: str
    reason: str
    expected: int | None
    revision: int
    """The key's revision at that moment, 0 when absent."""


class Verdict(NamedTuple):
    """The fold's answer to one change request; the first answer stands for every repetition of its request_id."""

    offset: int
    request_id: str
    outcomes: tuple[ChangeOutcome, ...]
    refusals: tuple[Refusal, ...]

    @property
    def accepted(self) -> bool:
        """True when the changes are in the state."""
        return not self.refusals


@dataclass(slots=True)
class Verdicts:
    """The verdicts on the requests of the window and up to another window before it, by request_id.

    Nearly all are on one accepted change and kept as a bare (offset, key, outcome, generation, revision): of such a tuple
    Python's garbage collector takes no notice, while it would walk through named tuples over and over. Old ones go a
    window at a time, by dropping a whole map: to take them out one by one would cost a tenth of a replay.
    """

    recent: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    older: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    turn_at: int = REMEMBERED_OFFSETS
    """Offset at which the recent ones become the older ones."""

    def get(self, request_id: str) -> Verdict | None:
        """The first verdict on the request, None when it isn't known any more."""
        kept = self.recent.get(request_id) or self.older.get(request_id)
        return None if kept is None else _written_out(request_id, kept)

    def turn(self, offset: int) -> None:
        """Drop what is out of the window for certain."""
        self.turn_at = offset + REMEMBERED_OFFSETS
        self.older, self.recent = self.recent, {}


@dataclass(slots=True)
class State:
    """What the log means up to `position` (the next offset to fold)."""

    position: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)
    history: dict[str, array[int]] = field(default_factory=dict)
    """Every revision of every key that ever was, ascending; forgotten keys included."""
    verdicts: Verdicts = field(default_factory=Verdicts)

    def revision_of(self, key: str) -> int:
        """The key's revision, 0 when absent."""
        entry = self.entries.get(key)
        return 0 if entry is None else entry.revision


def fold(state: State, offset: int, request: ChangeRequest) -> Verdict:
    """Fold one record and say its verdict; see `replay`."""
    replay(state, offset, request)
    request_id, verdicts = request.request_id, state.verdicts
    return _written_out(request_id, verdicts.recent.get(request_id) or verdicts.older[request_id])


def replay(state: State, offset: int, request: ChangeRequest) -> None:
    """Fold one record. A repetition of a remembered request_id changes nothing.

    The verdict is kept in `state.verdicts`; who reads a long log spares making it by not asking. Raises `UnknownRecord`,
    and then the state is as it was before.
    """
    if offset < state.position:
        msg = f"offset {offset} is folded already: the state stands at {state.position}"
        raise ValueError(msg)
    try:
        request_id, verdicts = request.request_id, state.verdicts
        if offset >= verdicts.turn_at:
            verdicts.turn(offset)
        recent, older = verdicts.recent, verdicts.older
        if request_id in recent or (request_id in older and older[request_id][0] > offset - REMEMBERED_OFFSETS):
            pass  # a repetition
        elif len(request.changes) == 1:
            recent[request_id] = _decide_one(state, offset, request)
        else:
            recent[request_id] = _decide_all(state, offset, request)
    except (KeyError, TypeError, AttributeError) as exc:
        raise UnknownRecord(offset, f"not a change request that can be folded ({exc!r})") from exc
    state.position = offset + 1


def _written_out(request_id: str, kept: tuple[Any, ...]) -> Verdict:
    if isinstance(kept, Verdict):
        return kept
    offset, key, outcome, generation, revision = kept
    return Verdict(offset, request_id, (ChangeOutcome(key, outcome, generation, revision),), ())


def judge(state: State, changes: Sequence[Change]) -> tuple[Refusal, ...]:
    """What the fold would refuse now, in the state as it is. Before an append this spares the log a hopeless record."""
    return _refusals(state, changes)


def is_unchanged(entry: Entry | None, change: Change) -> bool:
    """True when accepting the change would alter nothing."""
    if entry is None:
        return False
    if change.op == "declare":
        return not entry.retiring and identical(entry.body, change.body)
    return bool(change.op == "retire" and entry.retiring and change.deletion in (None, entry.deletion))


def applied(entry: Entry | None, change: Change, offset: int, request: ChangeRequest) -> Entry | None:
    """The entry after an accepted change; the same object when nothing changes, None when it is forgotten."""
    if change.op != "declare":
        if entry is None or change.op == "forget":
            return None
        return entry if is_unchanged(entry, change) else _retired(entry, change, offset, request)
    body, at, revision = change.body, request.at, offset + 1
    if body is None:
        msg = "a declare without a body"
        raise TypeError(msg)
    value = body["value"]
    if entry is None:
        key, generation, since, created_at = change.key, 1, revision, at
    else:
        key, before, generation, _, since, created_at, _, _, _, _, _, _ = entry
        if value != before["value"] or not _same(before, body):
            generation += 1
        elif is_unchanged(entry, change):
            return entry
    actor, reason, request_id = request.actor, request.reason, request.request_id
    after = (key, body, generation, revision, since, created_at, at, False, None, actor, reason, request_id)
    return _tuple(Entry, after)


def _same(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """True when neither value nor policy differ: there is nothing new to bring about."""
    return identical(before["value"], after["value"]) and identical(before.get("policy", {}), after.get("policy", {}))


def _retired(entry: Entry, change: Change, offset: int, request: ChangeRequest) -> Entry:
    return entry._replace(
        revision=offset + 1,
        retiring=True,
        deletion=change.deletion,
        updated_at=request.at,
        actor=request.actor,
        reason=request.reason,
        request_id=request.request_id,
    )


def _decide_one(state: State, offset: int, request: ChangeRequest) -> tuple[Any, ...]:
    """The same as `_decide_all` for nearly all records, in a third of the time."""
    change = request.changes[0]
    key = change.key
    entry = state.entries.get(key)
    if change.op != "declare" or change.expected is not None:
        refusal = _refusal(entry, change, offset)
        if refusal is not None:
            return Verdict(offset, request.request_id, (), (refusal,))
    elif entry is not None and (body := change.body) is not None and entry[1]["value"] != body["value"]:
        return _redeclared(state, entry, body, offset, request)
    return (offset, *_stored(state, entry, applied(entry, change, offset, request), key, offset))


def _redeclared(
    state: State, entry: Entry, body: Mapping[str, Any], offset: int, request: ChangeRequest
) -> tuple[Any, ...]:
    """What `applied` and `_stored` do for a new value of a known key."""
    key, generation, since, created_at = entry[0], entry[2] + 1, entry[4], entry[5]
    revision = offset + 1
    actor, reason, request_id = request.actor, request.reason, request.request_id
    after = (key, body, generation, revision, since, created_at, request.at, False, None, actor, reason, request_id)
    state.entries[key] = _tuple(Entry, after)
    state.history[key].append(revision)
    return (offset, key, "updated", generation, revision)


def _decide_all(state: State, offset: int, request: ChangeRequest) -> Verdict:
    """Nothing is stored until all changes are accepted and applied."""
    changes, request_id = request.changes, request.request_id
    refusals = _refusals(state, changes, offset)
    if refusals:
        return Verdict(offset, request_id, (), refusals)
    befores = [state.entries.get(change.key) for change in changes]
    afters = [applied(entry, change, offset, request) for entry, change in zip(befores, changes, strict=True)]
    stored = zip(befores, afters, changes, strict=True)
    outcomes = [_stored(state, before, after, change.key, offset) for before, after, change in stored]
    return Verdict(offset, request_id, tuple(ChangeOutcome(*outcome) for outcome in outcomes), ())


def _refusals(state: State, changes: Sequence[Change], offset: int = -1) -> tuple[Refusal, ...]:
    refusals: list[Refusal] = []
    seen: set[str] = set()
    for change in changes:
        key = change.key
        entry = state.entries.get(key)
        refusal = _refusal(entry, change, offset)
        if refusal is None and key in seen:
            refusal = Refusal(key, "Conflict", change.expected, 0 if entry is None else entry.revision)
        seen.add(key)
        if refusal is not None:
            refusals.append(refusal)
    return tuple(refusals)


def _refusal(entry: Entry | None, change: Change, offset: int) -> Refusal | None:
    expected = change.expected
    revision = 0 if entry is None else entry.revision
    op, key = change.op, change.key
    if expected is not None and expected != revision:
        return Refusal(key, "Conflict", expected, revision)
    if op == "declare":
        return None
    if op == "retire":
        if entry is None:
            return Refusal(key, "NotFound", expected, 0)
        protected = entry.body.get("policy", {}).get("protect", False)
        return Refusal(key, "Protected", expected, revision) if protected else None
    if op == "forget":
        if entry is None or not entry.retiring:
            return Refusal(key, "NotRetiring", expected, revision)
        return Refusal(key, "Conflict", None, revision) if expected is None else None
    raise UnknownRecord(offset, f"change {op!r} of {key}")


def _stored(
    state: State, before: Entry | None, after: Entry | None, key: str, offset: int
) -> tuple[str, str, int, int]:
    """Store what `applied` made; the fields of the `ChangeOutcome`."""
    if after is not None and after is before:
        return key, "unchanged", after.generation, after.revision
    revision = offset + 1
    revisions = state.history.get(key)
    if revisions is None:
        state.history[key] = array("Q", (revision,))
    else:
        revisions.append(revision)
    if after is None:
        del state.entries[key]
        return key, "forgotten", 0 if before is None else before.generation, revision
    state.entries[key] = after
    outcome = "created" if before is None else "retired" if after.retiring else "updated"
    return key, outcome, after.generation, revision
