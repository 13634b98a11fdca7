"""What is known of the world for one key: conditions, drift, the open intent; and how each fact changes it.

Frozen values and plain functions. A condition's `since` moves only when its status does, so that equal facts give equal
statuses and nothing is committed for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from schemas.names import timestamp
from schemas.setting import Phase


class Condition(NamedTuple):
    """`status`: "True", "False" or "Unknown". `since`: RFC 3339, when the status last changed."""

    type: str
    status: str
    reason: str
    message: str
    since: str


class Intent(NamedTuple):
    """A step that was begun and not yet ended: it may have happened. Committed before the effect, with the event."""

    step: str
    attempt: int
    plan: str
    """Digest of the plan it belongs to."""
    started_at: str
    event_id: str
    """Id of its ActionStarted, the cause of whatever ends it."""


class LastAction(NamedTuple):
    """`status`: started, succeeded, failed or unknown."""

    step: str
    status: str
    at: str
    attempt: int


_PartT = TypeVar("_PartT", Intent, LastAction)


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """The status record of one key, as it stands in the journal."""

    key: str
    revision: int = 0
    """Newest revision of the setting this status takes into account."""
    observed_generation: int = 0
    converged_generation: int = 0
    """Newest generation that was observed as declared: a difference at this generation is drift."""
    conditions: tuple[Condition, ...] = ()
    external: str | None = None
    drift: tuple[tuple[str, Any, Any], ...] = ()
    """(path, desired, observed)"""
    muted: tuple[tuple[str, Any, Any], ...] = ()
    """The same of paths that aren't owned: `policy.ignore`."""
    last_action: LastAction | None = None
    intent: Intent | None = None
    unknown_since: str | None = None
    """Set while an effect's outcome is unknown and the key is held. Durable: a takeover must hold it anew."""
    paused: bool = False
    retiring: bool = False
    next_at: str | None = None
    remembered: tuple[tuple[str, str], ...] = ()
    """What the reconciler must know later and no backend shows: (name, text), sorted. Fingerprints and ids, no secrets."""

    def condition(self, kind: str) -> Condition | None:
        """The condition of the type, if it was ever set."""
        for condition in self.conditions:
            if condition.type == kind:
                return condition
        return None

    def holds(self, kind: str) -> bool:
        """True when the condition is "True"."""
        condition = self.condition(kind)
        return condition is not None and condition.status == "True"

    @property
    def phase(self) -> Phase:
        """One word for people; the first that applies."""
        if self.paused:
            return Phase.PAUSED
        if self.holds("Stalled"):
            return Phase.STALLED
        if self.retiring:
            return Phase.RETIRING
        ready = self.condition("Ready")
        if self.unknown_since is not None or (ready is not None and ready.status == "Unknown"):
            return Phase.UNKNOWN
        if self.holds("Drifted"):
            return Phase.DRIFTED
        if self.holds("Reconciling"):
            return Phase.RECONCILING
        return Phase.READY if self.holds("Ready") else Phase.PENDING


def conditioned(status: KeyStatus, now: float, **conditions: tuple[str, str, str]) -> KeyStatus:
    """The status with some conditions set: `Ready=("True", "Converged", "message")`; the others stay."""
    kept = {c.type: c for c in status.conditions}
    for kind, (value, reason, message) in conditions.items():
        old = kept.get(kind)
        since = old.since if old is not None and old.status == value else timestamp(now)
        kept[kind] = Condition(kind, value, reason, message, since)
    return replace(status, conditions=tuple(kept[kind] for kind in sorted(kept)))


def pending(status: KeyStatus, now: float, reason: str, message: str) -> KeyStatus:
    """Not looked at yet, and why: a target or dependency that isn't there."""
    return conditioned(
        status, now, Ready=("False", reason, message), Reconciling=("False", reason, ""), Stalled=("False", reason, "")
    )


def converged(status: KeyStatus, now: float, external: str) -> KeyStatus:
    """The backend is observed as declared."""
    status = replace(
        status,
        external=external,
        drift=(),
        unknown_since=None,
        converged_generation=status.observed_generation,
    )
    return conditioned(
        status,
        now,
        Ready=("True", "Converged", ""),
        Reconciling=("False", "Converged", ""),
        Stalled=("False", "Converged", ""),
        Drifted=("False", "Converged", ""),
    )


def reconciling(status: KeyStatus, now: float, reason: str, message: str) -> KeyStatus:
    """Steps are being taken or waited for."""
    return conditioned(
        status,
        now,
        Ready=("False", reason, message),
        Reconciling=("True", reason, message),
        Stalled=("False", reason, ""),
    )


def stalled(status: KeyStatus, now: float, reason: str, message: str) -> KeyStatus:
    """It won't go on by itself: the declaration or the backend's set-up must change."""
    return conditioned(
        status,
        now,
        Ready=("False", reason, message),
        Reconciling=("False", reason, ""),
        Stalled=("True", reason, message),
    )


def retrying(status: KeyStatus, now: float, reason: str, message: str) -> KeyStatus:
    """A step failed for now; it will be tried again."""
    return reconciling(status, now, reason, message)


def unanswered(status: KeyStatus, now: float, reason: str, message: str) -> KeyStatus:
    """The backend doesn't answer: nothing is known, nothing is planned."""
    return conditioned(status, now, Ready=("Unknown", reason, message))


def drifted(status: KeyStatus, now: float, differences: Sequence[tuple[str, Any, Any]]) -> KeyStatus:
    """Observed differs from what was converged before on owned paths."""
    paths = ", ".join(path for path, _, _ in differences) or "/"
    status = replace(status, drift=plainly(differences))
    return conditioned(
        status, now, Drifted=("True", "OutOfBandChange", paths), Ready=("False", "Drifted", f"differs on {paths}")
    )


def plainly(found: Iterable[tuple[str, Any, Any]]) -> tuple[tuple[str, Any, Any], ...]:
    """Differences as a status holds them."""
    return tuple((path, plain(desired), plain(observed)) for path, desired, observed in found)


def remembering(status: KeyStatus, learnt: Mapping[str, str]) -> KeyStatus:
    """The status with what was learnt, which replaces what was known by the same names."""
    if not learnt:
        return status
    return replace(status, remembered=tuple(sorted({**dict(status.remembered), **learnt}.items())))


def undrifted(status: KeyStatus, now: float) -> KeyStatus:
    """What differs now is what was declared since, not drift."""
    if not status.drift and not status.holds("Drifted"):
        return status
    return conditioned(replace(status, drift=()), now, Drifted=("False", "Superseded", ""))


def plain(value: Any) -> Any:
    """The value as JSON, so that a status equals itself after a round trip through the journal."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(inner) for inner in value), key=repr)
    return str(value)


def public(status: KeyStatus) -> dict[str, Any]:
    """The status as the API answers it (`schemas.setting.Status`)."""
    return {
        "phase": str(status.phase),
        "observed_generation": status.observed_generation,
        "conditions": [c._asdict() for c in status.conditions],
        "external": status.external,
        "drift": differences(status.drift),
        "muted": differences(status.muted),
        "last_action": status.last_action._asdict() if status.last_action else None,
        "next_at": status.next_at,
    }


def differences(found: Iterable[tuple[str, Any, Any]]) -> list[dict[str, Any]]:
    """Differences as the API answers them."""
    return [{"path": path, "desired": desired, "observed": observed} for path, desired, observed in found]


def to_wire(status: KeyStatus) -> dict[str, Any]:
    """The status record in the journal: the public status and what a takeover needs."""
    return {
        "key": status.key,
        "revision": status.revision,
        "converged_generation": status.converged_generation,
        **public(status),
        "intent": status.intent._asdict() if status.intent else None,
        "unknown_since": status.unknown_since,
        "paused": status.paused,
        "retiring": status.retiring,
        "remembered": dict(status.remembered),
    }


class NotUnderstood(Exception):
    """A record of the status stream that isn't what it should be."""


def understood(key: str, record: Mapping[str, Any]) -> KeyStatus:
    """What a record of the key says. Raises `NotUnderstood`."""
    try:
        status = from_wire(record)
    except (LookupError, TypeError, ValueError, AttributeError) as exc:
        msg = f"{type(exc).__name__}: {exc}"
        raise NotUnderstood(msg) from exc
    if status.key != key:
        msg = f"it is of {status.key!r}"
        raise NotUnderstood(msg)
    return status


def from_wire(record: Mapping[str, Any]) -> KeyStatus:
    """The inverse of `to_wire`; fields of newer writers are ignored."""
    action, intent = record.get("last_action"), record.get("intent")
    return KeyStatus(
        key=record["key"],
        revision=record["revision"],
        observed_generation=record["observed_generation"],
        converged_generation=record.get("converged_generation", 0),
        conditions=tuple(
            Condition(c["type"], c["status"], c["reason"], c["message"], c["since"]) for c in record["conditions"]
        ),
        external=record.get("external"),
        drift=tuple((d["path"], d["desired"], d["observed"]) for d in record.get("drift", ())),
        muted=tuple((d["path"], d["desired"], d["observed"]) for d in record.get("muted", ())),
        last_action=_known(LastAction, action) if action else None,
        intent=_known(Intent, intent) if intent else None,
        unknown_since=record.get("unknown_since"),
        paused=record.get("paused", False),
        retiring=record.get("retiring", False),
        next_at=record.get("next_at"),
        remembered=tuple(sorted(record.get("remembered", {}).items())),
    )


def _known(of: type[_PartT], fields: Mapping[str, Any]) -> _PartT:
    """A part of the status, without the fields that only newer writers know."""
    return of(**{name: fields[name] for name in fields.keys() & of.__annotations__.keys()})
