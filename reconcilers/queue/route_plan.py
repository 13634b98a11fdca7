"""Planner and steps of routes. Pure.

gone, in the table → RemoveRoute     gone, still gone by → wait
wanted, not in the table or otherwise → InstallRoute
wanted, in the table → wait until every partition of the source is gone by it
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from reconcilers.contract import CONVERGED, Difference, ExternalId, Instant, Plan, Step

SOON_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class ObservedRoute:
    """A route that is in the table, or was a moment ago and is still gone by."""

    definition: str | None
    partitions: int = 0
    """Of its source; 0: the source isn't there."""
    going: int = 0
    """Those whose router goes by it."""
    routers: int = 0
    """Members of the routers' group."""


@dataclass(frozen=True, slots=True)
class InstallRoute(Step):
    """Write the route to the table; the routers take it up."""

    definition: str

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, "route": json.loads(self.definition)}


@dataclass(frozen=True, slots=True)
class RemoveRoute(Step):
    """Take the route from the table."""


def plan_route(external: ExternalId, desired: str | None, observed: ObservedRoute | None, _now: Instant) -> Plan:
    """See the table above."""
    if desired is None:
        return _retired(external, observed)
    if observed is None or observed.definition is None:
        missing = Difference("/", "a route", None)
        return Plan((InstallRoute(external, desired),), (missing,))
    if observed.definition != desired:
        return Plan((InstallRoute(external, desired),), tuple(_differences(desired, observed.definition)))
    if not observed.partitions:
        return Plan(requeue_after_s=5.0, wait_reason="its source isn't there")
    if not observed.routers:
        return Plan(requeue_after_s=SOON_S, wait_reason="no router is running yet")
    if observed.going < observed.partitions:
        reason = f"{observed.going} of {observed.partitions} partitions of its source go by it"
        return Plan(requeue_after_s=SOON_S, wait_reason=reason)
    return CONVERGED


def _retired(external: ExternalId, observed: ObservedRoute | None) -> Plan:
    if observed is None:
        return CONVERGED
    if observed.definition is not None:
        return Plan((RemoveRoute(external),))
    return Plan(requeue_after_s=SOON_S, wait_reason=f"{observed.going} partitions of its source still go by it")


def _differences(desired: str, held: str) -> list[Difference]:
    wanted, have = json.loads(desired), json.loads(held)
    names = sorted(name for name in wanted.keys() | have.keys() if wanted.get(name) != have.get(name))
    return [Difference(f"/{name}", wanted.get(name), have.get(name)) for name in names]
