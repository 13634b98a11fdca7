"""Snapshots taken regularly, as many as declared kept. Desired, observed, planner. Pure.

The daemon takes them itself, so that policies work on servers without SLM. When the last one was taken says its name, so
that any process knows: `nightly-20261125t020000z`.

    one is under way                       → wait
    the newest failed just now             → blocked for a while, then tried again
    more successful ones than `keep`       → RemoveSnapshot, the oldest (first: however slow the server is, they go)
    the newest is older than `every_s`     → TakeSnapshot
    retired                                → nothing: the snapshots stay
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from reconcilers.contract import CONVERGED, Difference, ExternalId, Instant, Plan, Step, TerminalError
from schemas.search import SnapshotPolicy

SNAPSHOT_POLICY: Final = "search.snapshot_policy"
RETRY_S: Final = 300.0
LOOK_S: Final = 1.0
_STAMP: Final = "%Y%m%dt%H%M%Sz"


@dataclass(frozen=True, slots=True)
class Policy:
    """What is declared."""

    repository: str
    indices: tuple[str, ...]
    every_s: float
    keep: int


@dataclass(frozen=True, slots=True)
class Taken:
    """One snapshot of a policy."""

    name: str
    at: float
    state: str


@dataclass(frozen=True, slots=True)
class TakeSnapshot(Step):
    """Begin a snapshot; the server goes on by itself."""

    repository: str
    snapshot: str
    indices: tuple[str, ...]

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, "repository": self.repository, "snapshot": self.snapshot}


@dataclass(frozen=True, slots=True)
class RemoveSnapshot(Step):
    """Remove one that is more than are kept."""

    repository: str
    snapshot: str

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, "repository": self.repository, "snapshot": self.snapshot}


def policy(_name: str, value: SnapshotPolicy) -> Policy:
    """The declaration."""
    return Policy(value.repository, tuple(value.indices), value.every_s, value.keep)


def snapshot_name(policy_name: str, at: Instant) -> str:
    """`nightly-20261125t020000z`."""
    return f"{policy_name.lower()}-{datetime.fromtimestamp(at, UTC).strftime(_STAMP)}"


def taken_at(policy_name: str, snapshot: str) -> float | None:
    """When a snapshot of the policy was taken; None when it is none of it."""
    found = re.fullmatch(re.escape(policy_name.lower()) + r"-(\d{8}t\d{6}z)", snapshot)
    return datetime.strptime(found[1], _STAMP).replace(tzinfo=UTC).timestamp() if found else None


def plan_policy(external: ExternalId, desired: Policy | None, observed: Sequence[Taken] | None, now: Instant) -> Plan:
    """See the table above."""
    if desired is None or observed is None:
        return CONVERGED
    found = sorted(observed, key=lambda one: one.at)
    if any(one.state in ("IN_PROGRESS", "STARTED") for one in found):
        return Plan(wait_reason=f"snapshot {found[-1].name} is being taken", requeue_after_s=LOOK_S)
    good = [one for one in found if one.state == "SUCCESS"]
    newest = good[-1].at if good else 0.0
    if found and found[-1].state != "SUCCESS" and now - found[-1].at < min(desired.every_s, RETRY_S):
        message = f"snapshot {found[-1].name} ended {found[-1].state}"
        return Plan(blocked=TerminalError(message, reason="SnapshotFailed"))
    if len(good) > desired.keep:
        return Plan((RemoveSnapshot(external, desired.repository, good[0].name),))
    if now - newest >= desired.every_s:
        step = TakeSnapshot(external, desired.repository, snapshot_name(external.name, now), desired.indices)
        age = Difference("/every_s", desired.every_s, round(now - newest) if good else None)
        return Plan((step,), (age,) if good else ())
    return Plan(requeue_after_s=newest + desired.every_s - now + 0.01)
