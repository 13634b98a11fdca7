"""Whose event, and why: subject, correlation and cause of what the controller says about a key. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from controlplane.domain.events import Fact, Subject, accepted_id
from controlplane.domain.fold import Entry
from controlplane.domain.status import KeyStatus
from schemas.event import EventType
from schemas.names import event_id, parse_key

ACTOR: Final = "coreplane"
"""The controller's own name in records and events."""


def subject_of(entry: Entry, before: KeyStatus, after: KeyStatus) -> Subject:
    """What was declared correlates with its request; one drift, from its detection to its end, with itself."""
    drifted = before if before.holds("Drifted") else after
    condition = drifted.condition("Drifted")
    correlation = entry.request_id
    if condition is not None and condition.status == "True":
        correlation = event_id(f"drift:{entry.key}:{condition.since}", 0)
    key = parse_key(entry.key)
    return Subject(key.tenant, key.service, entry.key, entry.generation, entry.revision, entry.actor, correlation)


def caused(fact: Fact, entry: Entry, before: KeyStatus) -> Fact:
    """Point the event at its cause: the accepted revision, unless it says what happened outside."""
    if fact.causation_id is not None or fact.event_type in (EventType.DRIFT_DETECTED, EventType.DRIFT_RESOLVED):
        return fact
    if before.holds("Drifted"):
        return fact
    return replace(fact, causation_id=accepted_id(entry.key, entry.revision))


def material(status: KeyStatus) -> KeyStatus:
    """The status without what isn't worth a commit of its own."""
    return replace(status, next_at=None)
