"""What was declared then, declared again: the changes of one change request that restores the past of some settings.

A key is compared with itself: as it is now, and as it was at a revision of the log or at a time. What was declared then is
declared again as it was; what wasn't, or was retiring, is retired. Each change expects the revision that was seen, so that
a setting that moves meanwhile refuses the whole request. Nothing is changed that is as it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from controlplane.domain import history, placing, writes
from controlplane.domain.changes import changed_paths
from controlplane.domain.documents import only_fields, text_field
from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.domain.fold import Entry, State, is_unchanged
from controlplane.domain.prune import carries
from controlplane.domain.requests import as_change
from controlplane.domain.validation import unstorable
from controlplane.domain.writes import Change, Kinds
from schemas.names import Key, parse_key, parse_timestamp

FIELDS: Final = ("to", "settings", "labels", "reason")

Moments = Mapping[str, Sequence[tuple[int, Mapping[str, Any]]]]
"""Key → (offset, record with that key's change alone), ascending: see `apart`."""


class Place(NamedTuple):
    """Where to go back to: a revision of the log (the state after folding offset `revision - 1`), or Unix seconds."""

    revision: int | None
    instant: float = 0.0

    def is_current(self, entry: Entry) -> bool:
        """True when the entry is as it was then, which needs no look at its past."""
        if self.revision is not None:
            return entry.revision <= self.revision
        return parse_timestamp(entry.updated_at) <= self.instant

    def entry(self, key: str, records: history.Records) -> Entry | None:
        """The key as it was then, None when it was absent."""
        if self.revision is not None:
            return history.entry_at(key, records, self.revision)
        return history.entry_at_time(key, records, self.instant)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. `keys` None: all settings of the tenant; `labels`: only those that carry them now or did then."""

    to: Place
    keys: frozenset[str] | None = None
    labels: Mapping[str, str] | None = None
    reason: str = ""


class Seen(NamedTuple):
    """One key when the rollback began: its past is read meanwhile, and it may move."""

    now: Entry | None
    current: bool
    """It is as it was: nothing of its past needs to be read."""
    revisions: tuple[int, ...]
    """Those whose records say how it was, ascending."""


class Restored(NamedTuple):
    """One setting. `change` None: it is as it was."""

    key: str
    now: Entry | None
    change: Change | None

    @property
    def changed(self) -> list[str]:
        """JSON pointers into the declaration that the rollback changes; none when it only retires."""
        if self.change is None or self.change["op"] != "declare":
            return []
        return changed_paths(
            placing.declared(None if self.now is None else self.now.body), placing.declared(self.change["body"])
        )


def request_of(body: Mapping[str, Any], tenant: str, *, position: int, now: float) -> Request:
    """The body of a rollback. `position`, `now`: where the log ends. Raises `Refused` (Malformed, Invalid)."""
    only_fields(body, FIELDS)
    faults = unstorable(body)
    if faults:
        raise Refused(Reason.INVALID, "the body can't be read", faults)
    return Request(
        _place(body.get("to"), position, now),
        _keys(body.get("settings"), tenant),
        _labels(body.get("labels")),
        text_field(body, "reason") or f"rollback to {body['to']}",
    )


def seen(state: State, tenant: str, request: Request) -> dict[str, Seen]:
    """The keys that may have to change, of all that ever were, by name. Raises `Refused` (NotFound)."""
    if request.keys is None:
        prefix = f"{tenant}/"
        keys = sorted(key for key in state.history if key.startswith(prefix))
    else:
        keys = sorted(request.keys)
        unknown = [parse_key(key).reference for key in keys if key not in state.history]
        if unknown:
            faults = [Fault("/settings", f"there never was {reference}") for reference in unknown]
            raise Refused(Reason.NOT_FOUND, f"tenant {tenant} never had {unknown[0]}", faults)
    return {key: _seen(state, key, request.to) for key in keys}


def offsets(found: Mapping[str, Seen]) -> list[int]:
    """Offsets of the records to be read, ascending."""
    return sorted({revision - 1 for one in found.values() for revision in one.revisions})


def apart(records: Iterable[tuple[int, Mapping[str, Any]]], found: Mapping[str, Seen]) -> Moments:
    """The records by key, each with the change of that key alone: a record may hold thousands."""
    wanted = {key: frozenset(one.revisions) for key, one in found.items() if one.revisions}
    moments: defaultdict[str, list[tuple[int, Mapping[str, Any]]]] = defaultdict(list)
    for offset, record in records:
        for change in record["changes"]:
            if offset + 1 in wanted.get(change["key"], ()):
                moments[change["key"]].append((offset, {**record, "changes": (change,)}))
    return moments


def restored(found: Mapping[str, Seen], past: Moments, request: Request, kinds: Kinds) -> list[Restored]:
    """Every setting chosen that is there now or was then. Raises `Refused` (Invalid) for what can't be declared any more."""
    chosen: list[Restored] = []
    faults: list[Fault] = []
    for key, one in found.items():
        then = one.now if one.current else request.to.entry(key, past.get(key, ()))
        if (one.now is None and then is None) or not _carried(one.now, then, request.labels):
            continue
        try:
            chosen.append(Restored(key, one.now, _change(key, one.now, then, kinds)))
        except Refused as exc:
            faults += [Fault(f"/{key}{fault.path}", fault.message) for fault in exc.faults]
    if faults:
        raise Refused(Reason.INVALID, "what was declared then can't be declared any more", faults)
    return chosen


def _seen(state: State, key: str, to: Place) -> Seen:
    entry = state.entries.get(key)
    if entry is not None and to.is_current(entry):
        return Seen(entry, current=True, revisions=())
    revisions = state.history[key]
    return Seen(entry, current=False, revisions=tuple(r for r in revisions if to.revision is None or r <= to.revision))


def _change(key: str, now: Entry | None, then: Entry | None, kinds: Kinds) -> Change | None:
    if then is now:
        return None
    if then is None or then.retiring:
        if now is None or now.retiring:
            return None
        return writes.retire(key, expected=now.revision, deletion=None if then is None else then.deletion)
    expected = 0 if now is None else now.revision
    change = writes.declare(parse_key(key), then.body, now, kinds, expected=expected)
    return None if is_unchanged(now, as_change(change)) else change


def _carried(now: Entry | None, then: Entry | None, labels: Mapping[str, str] | None) -> bool:
    return not labels or any(entry is not None and carries(entry, labels) for entry in (now, then))


def _place(to: Any, position: int, now: float) -> Place:
    if isinstance(to, str) and to.isdecimal() and len(to) < 19:
        to = int(to)
    if isinstance(to, int) and not isinstance(to, bool):
        if not 0 < to <= position:
            raise _invalid("/to", f"the log has revisions 1 to {position}")
        return Place(to)
    try:
        instant = parse_timestamp(to) if isinstance(to, str) else None
    except (ValueError, OverflowError, OSError):
        instant = None
    if instant is None:
        raise _invalid("/to", "is required: a revision of the log, or an RFC 3339 time such as 2026-01-31T12:00:00Z")
    if instant > now:
        raise _invalid("/to", "lies in the future")
    return Place(None, instant)


def _keys(settings: Any, tenant: str) -> frozenset[str] | None:
    if settings is None:
        return None
    if not isinstance(settings, list) or not settings:
        raise _invalid("/settings", "is a list of type/name; leave it out to mean all")
    found, faults = set(), []
    for index, text in enumerate(settings):
        try:
            key = parse_key(text if str(text).count("/") == 2 else f"{tenant}/{text}")
        except (ValueError, AttributeError):
            faults.append(Fault(f"/settings/{index}", "must be type/name, for example cache.redis_user/app"))
            continue
        if key.tenant != tenant:
            faults.append(Fault(f"/settings/{index}", f"is of another tenant than {tenant}"))
        found.add(str(Key(*key)))
    if faults:
        raise Refused(Reason.INVALID, "settings don't name settings", faults)
    return frozenset(found)


def _labels(labels: Any) -> Mapping[str, str] | None:
    if labels is None:
        return None
    if not isinstance(labels, Mapping) or not labels:
        raise _invalid("/labels", "is a map of at least one label")
    if not all(isinstance(text, str) for text in labels.values()):
        raise _invalid("/labels", "is a map of text to text")
    return labels


def _invalid(path: str, message: str) -> Refused:
    return Refused(Reason.INVALID, f"{path} {message}", [Fault(path, message)])
