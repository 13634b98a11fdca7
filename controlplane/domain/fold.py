"""The fold: what the settings log means.

Theory of operation. Every replica folds the same records in the same order with this function and so reaches the same
state and the same verdicts; there is no leader to ask. A record is a change request: all its changes are accepted, or
none. A change is accepted iff its `expected` matches: None any, 0 absent, else the revision of the key. The fold reads
nothing but its arguments: no clock, no configuration, no registry. Validation against schemas happens before the append,
never here, so that replicas of different versions can't disagree; a record version that isn't known stops the replica.

`revision` of a key is offset + 1 of the last accepted record that changed it (0 means absent). `generation` counts the
changes of its value or policy. The state is updated in place: copying it for each record would make a replay quadratic.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from schemas.record import VERSION

REMEMBERED_OFFSETS: Final = 20_000
"""How many offsets back a repeated request_id is recognised. Part of the fold: all replicas must agree on it."""


class UnknownRecord(Exception):
    """A record this version can't fold. The replica must stop here; going on would fork it from newer ones."""

    def __init__(self, offset: int, detail: str) -> None:
        super().__init__(
            f"settings log, offset {offset}: {detail}. Upgrade this replica; it has stopped before the record."
        )
        self.offset = offset


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
class State:
    """What the log means up to `position` (the next offset to fold)."""

    position: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)
    history: dict[str, array[int]] = field(default_factory=dict)
    """Every revision of every key that ever was, ascending; forgotten keys included."""
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    _remembered: deque[tuple[int, str]] = field(default_factory=deque)

    def revision_of(self, key: str) -> int:
        """The key's revision, 0 when absent."""
        entry = self.entries.get(key)
        return 0 if entry is None else entry.revision


def fold(state: State, offset: int, record: Mapping[str, Any]) -> Verdict:
    """Fold one record. A repetition of a remembered request_id changes nothing and gets the first verdict."""
    if record.get("v") != VERSION:
        raise UnknownRecord(offset, f"record version {record.get('v')!r}, this version knows {VERSION}")
    request_id = record["request_id"]
    verdict = state.verdicts.get(request_id)
    if verdict is None:
        verdict = _decide(state, offset, record, request_id)
        state.verdicts[request_id] = verdict
        state._remembered.append((offset, request_id))  # noqa: SLF001 - the window belongs to the fold alone
    state.position = offset + 1
    _forget_old_requests(state, offset)
    return verdict


def judge(state: State, changes: Sequence[Mapping[str, Any]]) -> tuple[Refusal, ...]:
    """What the fold would refuse now, in the state as it is. Before an append this spares the log a hopeless record."""
    refusals = [_refusal(state.entries.get(change["key"]), change) for change in changes]
    return tuple(refusal for refusal in refusals if refusal is not None)


def is_unchanged(entry: Entry | None, change: Mapping[str, Any]) -> bool:
    """True when accepting the change would alter nothing."""
    if entry is None:
        return False
    if change["op"] == "declare":
        return not entry.retiring and entry.body == change["body"]
    return bool(change["op"] == "retire" and entry.retiring and change.get("deletion") in (None, entry.deletion))


def _forget_old_requests(state: State, offset: int) -> None:
    remembered = state._remembered  # noqa: SLF001
    while remembered and remembered[0][0] <= offset - REMEMBERED_OFFSETS:
        del state.verdicts[remembered.popleft()[1]]


def _decide(state: State, offset: int, record: Mapping[str, Any], request_id: str) -> Verdict:
    changes = record["changes"]
    if len(changes) == 1:
        change = changes[0]
        entry = state.entries.get(change["key"])
        refusal = _refusal(entry, change, offset)
        if refusal is not None:
            return Verdict(offset, request_id, (), (refusal,))
        after = _applied(entry, change, offset, record)
        return Verdict(offset, request_id, (_store(state, entry, after, change["key"], offset),), ())
    return _decide_many(state, offset, record, request_id)


def _decide_many(state: State, offset: int, record: Mapping[str, Any], request_id: str) -> Verdict:
    """Changes of one request see those before them; nothing is stored until all are accepted."""
    before: dict[str, Entry | None] = {}
    after: dict[str, Entry | None] = {}
    refusals = []
    for change in record["changes"]:
        key = change["key"]
        entry = after[key] if key in after else state.entries.get(key)
        before.setdefault(key, entry)
        refusal = _refusal(entry, change, offset)
        if refusal is not None:
            refusals.append(refusal)
        else:
            after[key] = _applied(entry, change, offset, record)
    if refusals:
        return Verdict(offset, request_id, (), tuple(refusals))
    outcomes = tuple(_store(state, before[key], entry, key, offset) for key, entry in after.items())
    return Verdict(offset, request_id, outcomes, ())


def _refusal(entry: Entry | None, change: Mapping[str, Any], offset: int = -1) -> Refusal | None:
    expected = change.get("expected")
    revision = 0 if entry is None else entry.revision
    key: str = change["key"]
    if expected is not None and expected != revision:
        return Refusal(key, "Conflict", expected, revision)
    op = change["op"]
    if op == "declare":
        return None
    if op == "retire":
        if entry is None:
            return Refusal(key, "NotFound", expected, 0)
        protected = entry.body.get("policy", {}).get("protect", False)
        return Refusal(key, "Protected", expected, revision) if protected else None
    if op == "forget":
        return None if entry is not None and entry.retiring else Refusal(key, "NotRetiring", expected, revision)
    raise UnknownRecord(offset, f"change {op!r} of {key}")


def _applied(entry: Entry | None, change: Mapping[str, Any], offset: int, record: Mapping[str, Any]) -> Entry | None:
    """The entry after an accepted change; the same object when nothing changes, None when it is forgotten."""
    op = change["op"]
    if op == "forget":
        return None
    if is_unchanged(entry, change):
        return entry
    at, actor, reason, request_id = record["at"], record["actor"], record.get("reason", ""), record["request_id"]
    revision = offset + 1
    if op == "retire" and entry is not None:
        return entry._replace(
            revision=revision,
            retiring=True,
            deletion=change.get("deletion"),
            updated_at=at,
            actor=actor,
            reason=reason,
            request_id=request_id,
        )
    body = change["body"]
    if entry is None:
        return Entry(change["key"], body, 1, revision, revision, at, at, False, None, actor, reason, request_id)
    same = entry.body.get("value") == body.get("value") and entry.body.get("policy") == body.get("policy")
    generation = entry.generation if same else entry.generation + 1
    since, created_at = entry.created_revision, entry.created_at
    return Entry(entry.key, body, generation, revision, since, created_at, at, False, None, actor, reason, request_id)


def _store(state: State, before: Entry | None, after: Entry | None, key: str, offset: int) -> ChangeOutcome:
    if after is not None and after is before:
        return ChangeOutcome(key, "unchanged", after.generation, after.revision)
    revisions = state.history.get(key)
    if revisions is None:
        revisions = state.history[key] = array("Q")
    revisions.append(offset + 1)
    if after is None:
        state.entries.pop(key, None)
        return ChangeOutcome(key, "forgotten", 0 if before is None else before.generation, offset + 1)
    state.entries[key] = after
    if before is None:
        return ChangeOutcome(key, "created", 1, after.revision)
    return ChangeOutcome(key, "retired" if after.retiring else "updated", after.generation, after.revision)
