"""The planner of indices: in place, closed for a moment, or migrated. Pure.

    nothing there                      → CreateIndex
    the alias is gone                  → PointAlias
    as declared                        → nothing, but for the old generations, which go when their time is over
    the server takes it in place       → ChangeIndex, and BackfillFields when asked for
    only a closed index takes it       → ReopenIndex when `migration.allow_close`, else migrated
    anything else                      → migrated (when `migration.mode` is manual: once it is started)
    retired                            → DropIndex

A migration is the table in `migrating`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from reconcilers.contract import CONVERGED, Difference, ExternalId, Instant, Plan, Step, TerminalError
from reconcilers.search import migrating
from reconcilers.search.changes import Changes, classified
from reconcilers.search.definition import Body, Definition, differences, new_fields
from reconcilers.search.generations import Generation, generation_name
from reconcilers.search.migrating import Goal
from reconcilers.search.model import ObservedIndex, Verdict
from reconcilers.search.steps import (
    BackfillFields,
    ChangeIndex,
    CreateIndex,
    DropGeneration,
    DropIndex,
    OpenIndex,
    PointAlias,
    ReopenIndex,
)

FULL_RETRY_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Case:
    """One index that serves, and what is wanted of it."""

    external: ExternalId
    desired: Definition
    observed: ObservedIndex
    serving: Generation
    found: tuple[Difference, ...]

    @property
    def wanted(self) -> Body:
        """In the server's words."""
        return self.observed.canonical or self.desired.body


def plan_index(external: ExternalId, desired: Definition | None, observed: ObservedIndex | None, now: Instant) -> Plan:
    """See the table above."""
    if desired is None:
        names = tuple(one.name for one in observed.generations) if observed is not None else ()
        return Plan((DropIndex(external, names),)) if names else CONVERGED
    if observed is None or not observed.generations:
        name = generation_name(external.name, 1, desired.digest)
        missing = Difference("/index", external.name, None)
        return Plan((CreateIndex(external, name, desired.body, desired.digest),), (missing,), warnings=desired.notes)
    if observed.serving is None:
        return _lost_alias(external, observed)
    if observed.serving.is_closed:
        return Plan(
            (OpenIndex(external, observed.serving.name),), (Difference("/closed", desired=False, observed=True),)
        )
    return _standing(external, desired, observed, observed.serving, now)


def _lost_alias(external: ExternalId, observed: ObservedIndex) -> Plan:
    served = [one for one in observed.generations if one.mark.phase == "serving"]
    missing = Difference("/alias", external.name, None)
    if not served:
        names = ", ".join(one.name for one in observed.generations)
        message = f"no generation serves {external.name}; {names} may hold what is left of its documents: restore, or delete it"
        return Plan(blocked=TerminalError(message, reason="GenerationLost"), differences=(missing,))
    return Plan((PointAlias(external, served[-1].name, {external.name: {}}),), (missing,))


def _standing(
    external: ExternalId, desired: Definition, observed: ObservedIndex, serving: Generation, now: Instant
) -> Plan:
    wanted = observed.canonical or desired.body
    found = differences(wanted, serving.settings, serving.mappings, serving.aliases)
    warnings = [*desired.notes, *(f"pipeline {name} doesn't exist: writes fail" for name in observed.missing_pipelines)]
    newer = next((one for one in observed.generations[::-1] if one.mark.phase == "serving"), None)
    if serving.mark.phase == "old" and newer is not None:
        moved = Difference("/alias", newer.name, serving.name)
        return Plan((PointAlias(external, newer.name, {external.name: {}}),), (moved,))
    if serving.mark.phase not in ("serving", "old"):
        return migrating.after_switch(external, desired, observed, serving)
    if serving.is_held:
        return migrating.held(external, desired, observed, serving)
    if serving.mark.rollback:
        old = next((one for one in observed.generations if one.name == serving.mark.rollback), None)
        if old is not None and old is not serving:
            goal = Goal.back_to(old, desired)
            return migrating.plan(external, goal, observed, serving, found)
    case = _Case(external, desired, observed, serving, found)
    if serving.is_full:
        return _full(serving, found, warnings)
    if not found:
        return _kept(case, now, tuple(warnings))
    if serving.mark.pinned == desired.digest:
        message = (
            f"rolled back to {serving.name}; search.migrate action=start goes forward again, or declare what is there"
        )
        return Plan(blocked=TerminalError(message, reason="RolledBack"), differences=found)
    changes = classified(wanted, serving, observed.verdict or Verdict())
    return _changed(case, changes)


def _full(serving: Generation, found: tuple[Difference, ...], warnings: list[str]) -> Plan:
    said = f"{serving.name} takes no writes: the server blocked it because a disk is full; free space, it lifts the block itself"
    if not found:
        return Plan(warnings=(said, *warnings), requeue_after_s=FULL_RETRY_S)
    return Plan((), found, None, FULL_RETRY_S, said)


def _changed(case: _Case, changes: Changes) -> Plan:
    external, desired, observed, serving, found = case.external, case.desired, case.observed, case.serving, case.found
    if changes.refused is not None:
        return Plan(blocked=changes.refused, differences=found)
    reasons = list(changes.migrate)
    if changes.reopen and not desired.migration.allow_close:
        names = ", ".join(name.removeprefix("index.") for name in sorted(changes.reopen))
        reasons.append(f"{names}: only a closed index takes it, and migration.allow_close isn't given")
    if reasons:
        if serving.number == 0 and serving.name == external.name:
            message = f"{serving.name} is an index, not an alias, so it can't be migrated: {'; '.join(reasons)}"
            return Plan(blocked=TerminalError(message, reason="NotAnAlias"), differences=found)
        goal = Goal.forward(case.wanted, desired, serving, tuple(reasons))
        return migrating.plan(external, goal, observed, serving, found)
    if observed.building is not None:
        return Plan((DropGeneration(external, observed.building.name, "no migration is needed any more"),), found)
    steps: list[Step] = []
    if changes.reopen:
        steps.append(ReopenIndex(external, serving.name, changes.reopen))
    if changes.settings or changes.mappings or changes.aliases:
        steps.append(ChangeIndex(external, serving.name, changes.settings, changes.mappings, changes.aliases))
    if desired.backfill:
        fields = new_fields(case.wanted.mappings, serving.mappings)
        steps += [BackfillFields(external, serving.name, fields)] if fields else []
    return Plan(tuple(steps), found, warnings=desired.notes)


def _kept(case: _Case, now: Instant, warnings: tuple[str, ...]) -> Plan:
    """As declared: what is left over goes, old generations when their time is over."""
    if case.observed.building is not None:
        return Plan((DropGeneration(case.external, case.observed.building.name, "no migration is needed any more"),))
    waits: list[float] = []
    for old in case.observed.generations:
        if old is case.serving or old.mark.phase != "old":
            continue
        left_s = old.mark.since + case.desired.migration.keep_old_s - now
        if left_s <= 0:
            reason = f"kept for {case.desired.migration.keep_old_s:g} s after {case.serving.name} took over"
            return Plan((DropGeneration(case.external, old.name, reason),))
        waits.append(left_s)
    return Plan(requeue_after_s=min(waits) + 0.1 if waits else None, warnings=warnings)


__all__ = ["Body", "plan_index"]
