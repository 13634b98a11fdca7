"""Consumer groups that are watched: how far they lag, and whether that is too far. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from reconcilers.contract import CONVERGED, Difference, ExternalId, Instant, Plan, TerminalError
from schemas import queue

GROUP: Final = "queue.group"
LOOK_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a group may lag."""

    max_lag: int | None
    max_lag_s: float | None


@dataclass(frozen=True, slots=True)
class ObservedGroup:
    """A group with offsets."""

    state: str
    members: int
    lag: int
    """Most messages of a partition that wait."""
    late: tuple[str, ...] = ()
    """Partitions whose next message is older than the bound."""


def group_name(setting: str, value: queue.Group) -> str:
    """The group's own name."""
    return value.group or setting


def bounds(_setting: str, value: queue.Group) -> Bounds:
    """What is watched."""
    return Bounds(value.max_lag, value.max_lag_s)


def plan_group(external: ExternalId, desired: Bounds | None, observed: ObservedGroup | None, _now: Instant) -> Plan:
    """Nothing is ever done: a lag over the bound is said, and said again when it is over."""
    if desired is None:
        return CONVERGED
    if observed is None:
        return Plan(requeue_after_s=LOOK_S, wait_reason=f"there is no group {external.name} yet")
    if desired.max_lag is not None and observed.lag > desired.max_lag:
        told = f"{observed.lag} messages of a partition wait, more than {desired.max_lag}"
        difference = Difference("/max_lag", desired.max_lag, observed.lag)
    elif observed.late:
        told = f"messages of {', '.join(observed.late[:5])} wait for more than {desired.max_lag_s:g} s"
        difference = Difference("/max_lag_s", desired.max_lag_s, list(observed.late[:5]))
    else:
        return Plan(requeue_after_s=LOOK_S)
    message = f"group {external.name} ({observed.state}, {observed.members} members) lags: {told}"
    return Plan((), (difference,), TerminalError(message, reason="LagTooHigh"), LOOK_S)
