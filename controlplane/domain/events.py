"""The events, made from facts. Ids and times come in as arguments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controlplane.domain.status import KeyStatus
from schemas.event import SCHEMA, EventStatus, EventType
from schemas.names import event_id, parse_key, timestamp
from schemas.record import SCHEMA as RECORD_SCHEMA


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened, before it has an id and a time."""

    event_type: EventType
    details: Mapping[str, Any] = field(default_factory=dict)
    status: EventStatus = EventStatus.INFO
    causation_id: str | None = None
    id: str | None = None
    """Given when it must be known beforehand; else made from the writer's sequence."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What an event is about."""

    tenant: str
    service: str
    setting: str | None = None
    generation: int | None = None
    revision: int | None = None
    actor: str | None = None
    correlation_id: str | None = None


def event(fact: Fact, subject: Subject, *, event_id: str, now: float, shard: int) -> dict[str, Any]:
    """The event as it stands in the journal (`schemas.event.InfrastructureEvent`)."""
    return {
        "id": fact.id or event_id,
        "event_type": str(fact.event_type),
        "timestamp": timestamp(now),
        "service_name": subject.service,
        "details": dict(fact.details),
        "status": str(fact.status),
        "tenant": subject.tenant,
        "setting": subject.setting,
        "generation": subject.generation,
        "revision": subject.revision,
        "actor": subject.actor,
        "correlation_id": subject.correlation_id,
        "causation_id": fact.causation_id,
        "shard": shard,
    }


def headers(event_type: str, service: str, tenant: str) -> dict[str, str]:
    """Record headers by which consumers filter without decoding."""
    return {"type": event_type, "service": service, "tenant": tenant, "schema": SCHEMA}


def change_headers(changes: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, str]]:
    """Key and headers of a change request in the settings log: what its changes have in common, else nothing."""
    keys = {str(change["key"]) for change in changes}
    parsed = [parse_key(key) for key in keys]
    service, tenant = _common(key.service for key in parsed), _common(key.tenant for key in parsed)
    return _common(keys), {"type": "ChangeRequest", "service": service, "tenant": tenant, "schema": RECORD_SCHEMA}


def _common(values: Iterable[str]) -> str:
    found = set(values)
    return found.pop() if len(found) == 1 else ""


def accepted_id(key: str, revision: int) -> str:
    """Id of the event that announces a revision: known to whoever acts on the revision, as the cause."""
    return event_id(f"revision:{key}", revision)


def transitions(before: KeyStatus, after: KeyStatus) -> Iterator[Fact]:
    """What a change of status says: one event per transition, none for repeats."""
    if after.holds("Drifted") and not (before.holds("Drifted") and before.drift == after.drift):
        drift = [{"path": path, "desired": desired, "observed": observed} for path, desired, observed in after.drift]
        yield Fact(EventType.DRIFT_DETECTED, {"drift": drift})
    if before.holds("Drifted") and not after.holds("Drifted"):
        yield Fact(EventType.DRIFT_RESOLVED, {"paths": [path for path, _, _ in before.drift]})
    stalled, was = after.condition("Stalled"), before.condition("Stalled")
    if stalled is not None and stalled.status == "True":
        same = was is not None and (was.status, was.reason, was.message) == ("True", stalled.reason, stalled.message)
        if not same or before.observed_generation != after.observed_generation:
            yield Fact(
                EventType.STALLED, {"reason": stalled.reason, "message": stalled.message}, status=EventStatus.FAILED
            )
    newly = after.converged_generation != before.converged_generation
    if after.holds("Ready") and (newly or not (before.holds("Ready") or _merely_unanswered(before))):
        yield Fact(EventType.CONVERGED, {"external": after.external}, status=EventStatus.SUCCEEDED)


def _merely_unanswered(status: KeyStatus) -> bool:
    """True when it was Ready before its target went away: that is as it was is no news, and a target may have many keys."""
    ready = status.condition("Ready")
    unwell = any(status.holds(kind) for kind in ("Reconciling", "Stalled", "Drifted"))
    return ready is not None and ready.status == "Unknown" and not unwell and status.unknown_since is None
