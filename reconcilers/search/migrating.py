"""The decisions of a migration: from what the cluster shows to the next step. Pure.

    no generation is being made                 → CreateGeneration (manual: wait for `search.migrate`)
    one is made for another declaration         → DropGeneration
    held, the alias still at the old one        → ReleaseHold
    copying   no task, or a lost one            → StartCopy            (what is there already is skipped)
              running                           → RecordProgress at every tenth; ListDocuments meanwhile; wait
              failed                            → MarkGeneration refused
              done                              → MarkGeneration feeding
    feeding   not all listed                    → ListDocuments
              not compared                      → CompareDocuments
              passes aren't short               → FeedChanges
              else                              → VerifyGeneration
    verified  the process that listed is gone   → as when feeding
              copies are missing                → wait
              passes aren't short               → FeedChanges
              else                              → SwitchAlias
    the alias at the new one, not finished      → FinishSwitch, RetireGeneration
    refused                                     → blocked, until another declaration

Everything but the listing stands in the cluster, so any process goes on where another one was killed; a lost listing
is made anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reconcilers.contract import Difference, ExternalId, Plan, TerminalError
from reconcilers.search.definition import Body, Definition, carried, component_of, digest_of, makeable
from reconcilers.search.generations import (
    ALLOCATION_SETTING,
    WAIT_SETTING,
    Generation,
    Mark,
    generation_name,
)
from reconcilers.search.model import Feed, ObservedIndex
from reconcilers.search.steps import (
    CompareDocuments,
    CreateGeneration,
    DropGeneration,
    FeedChanges,
    FinishSwitch,
    ListDocuments,
    MarkGeneration,
    RecordProgress,
    ReleaseHold,
    RetireGeneration,
    StartCopy,
    SwitchAlias,
    VerifyGeneration,
)
from schemas.search import Migration

SHORT_S: Final = 0.4
"""A pass over the changes that takes no longer is short enough to be repeated while writers are held."""
LOOK_S: Final = 0.5
BUILDING: Final[Mapping[str, Any]] = {
    "index.refresh_interval": "-1",
    "index.number_of_replicas": "0",
    "index.auto_expand_replicas": "false",
    "index.gc_deletes": "0s",
    "index.final_pipeline": "_none",
}
"""How a generation is set while it is being made."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Where a migration leads to."""

    digest: str
    body: Body
    """What the new generation is made from, without what is set only while it is made."""
    migration: Migration
    reasons: tuple[str, ...]
    pinned: str = ""
    """Digest of the declaration that it stands against (a rollback)."""

    @classmethod
    def forward(cls, wanted: Body, desired: Definition, source: Generation, reasons: tuple[str, ...]) -> Goal:
        """To what is declared. What nobody declared is taken over from the old generation."""
        return cls(desired.digest, taken_over(wanted, source), desired.migration, reasons)

    @classmethod
    def back_to(cls, old: Generation, desired: Definition) -> Goal:
        """To what an old generation was: a new one with its definition, so that no write is lost."""
        body = Body(makeable(old.settings), unmarked(old.mappings), desired.body.aliases)
        return cls(f"back-{old.name}", body, desired.migration, (f"rollback to what {old.name} was",), desired.digest)


def taken_over(wanted: Body, source: Generation) -> Body:
    """The wanted definition with everything of the source that nobody declared."""
    settings = makeable(source.settings)
    components = {component for name in wanted.settings if (component := component_of(name))}
    kept = {name: value for name, value in settings.items() if component_of(name) not in components}
    if str(wanted.settings.get("index.number_of_shards", source.shards)) != str(source.shards):
        kept.pop("index.number_of_routing_shards", None)
    return Body({**kept, **wanted.settings}, carried(wanted.mappings, unmarked(source.mappings)), wanted.aliases)


def unmarked(mappings: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping without our mark."""
    meta = {name: value for name, value in mappings.get("_meta", {}).items() if name != "coreplane"}
    rest = {name: value for name, value in mappings.items() if name != "_meta"}
    return {**rest, "_meta": meta} if meta else rest


def restored(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What ends the making of a generation and the hold: the settings that it shall have; null is the default."""
    ended = {name: settings.get(name) for name in BUILDING}
    return {**ended, WAIT_SETTING: settings.get(WAIT_SETTING), ALLOCATION_SETTING: settings.get(ALLOCATION_SETTING)}


def plan(
    external: ExternalId,
    goal: Goal,
    observed: ObservedIndex,
    serving: Generation,
    found: Sequence[Difference],
) -> Plan:
    """See the table above; the alias is still at the old generation."""
    building = observed.building
    differing = tuple(found)
    if building is None:
        return _begin(external, goal, observed, serving, differing)
    if building.mark.digest != goal.digest or building.mark.source != serving.name:
        reason = f"it was made for another declaration ({building.mark.digest})"
        return Plan((DropGeneration(external, building.name, reason),), differing)
    if building.is_held:
        return Plan((ReleaseHold(external, serving.name, building.name, restored(goal.body.settings)),), differing)
    match building.mark.phase:
        case "refused":
            reason = building.mark.reason
            message = (
                f"{reason}; {serving.name} serves as before. Declare something else, or search.migrate action=start"
            )
            return Plan(blocked=TerminalError(message, reason="MigrationRefused"), differences=differing)
        case "copying":
            return _copying(external, observed, building, differing)
        case _:
            return _feeding(external, goal, observed, building, differing)


def _begin(
    external: ExternalId, goal: Goal, observed: ObservedIndex, serving: Generation, found: tuple[Difference, ...]
) -> Plan:
    if serving.mark.aborted == goal.digest:
        message = "the migration was aborted; search.migrate action=start begins it again"
        return Plan(blocked=TerminalError(message, reason="MigrationAborted"), differences=found)
    if goal.migration.mode == "manual" and serving.mark.approved != goal.digest and not goal.pinned:
        message = f"needs a migration ({'; '.join(goal.reasons)}): search.migrate action=start begins it"
        return Plan(blocked=TerminalError(message, reason="MigrationNeeded"), differences=found)
    problem = unmovable(serving)
    if problem is not None:
        return Plan(blocked=problem, differences=found)
    number = max(one.number for one in observed.generations) + 1
    mark = Mark(
        "copying",
        goal.digest,
        serving.name,
        requests_per_second=goal.migration.requests_per_second,
        pinned=goal.pinned,
    )
    name = generation_name(external.name, number, goal.digest if not goal.pinned else digest_of(goal.body))
    body = Body({**goal.body.settings, **BUILDING}, goal.body.mappings, {})
    return Plan((CreateGeneration(external, serving.name, name, body, mark, goal.reasons),), found)


def unmovable(serving: Generation) -> TerminalError | None:
    """Why documents can't be copied out of a generation."""
    source = serving.mappings.get("_source", {})
    if source.get("enabled") is False or source.get("excludes") or source.get("includes"):
        message = (
            f"{serving.name} doesn't keep the whole _source of its documents, so they can't be copied: index them anew"
        )
        return TerminalError(message, reason="SourceIncomplete")
    return None


def _copying(
    external: ExternalId, observed: ObservedIndex, building: Generation, found: tuple[Difference, ...]
) -> Plan:
    copy, source, mark = observed.copy, building.mark.source, building.mark
    if copy is None or copy.state == "lost":
        return Plan((StartCopy(external, source, building.name, mark.task, mark.requests_per_second),), found)
    if copy.state == "failed":
        return Plan((MarkGeneration(external, source, building.name, "refused", copy.message),), found)
    if copy.state == "done":
        return Plan((MarkGeneration(external, source, building.name, "feeding"),), found)
    if copy.percent > mark.percent:
        return Plan((RecordProgress(external, source, building.name, copy.percent),), found)
    feed = observed.feed or Feed()
    if not feed.is_listed:
        return Plan((ListDocuments(external, source, building.name, feed.listed),), found)
    waiting = f"{building.name}: {copy.copied} of {copy.total} documents copied"
    return Plan((), found, None, LOOK_S, waiting)


def _feeding(
    external: ExternalId, goal: Goal, observed: ObservedIndex, building: Generation, found: tuple[Difference, ...]
) -> Plan:
    source, feed = building.mark.source, observed.feed or Feed()
    if not feed.is_listed:
        return Plan((ListDocuments(external, source, building.name, feed.listed),), found)
    if not feed.is_compared:
        return Plan((CompareDocuments(external, source, building.name, feed.compared),), found)
    if not is_short(feed, goal.migration.hold_s):
        if feed.passes and not feed.shrinks:
            message = (
                f"{building.name}: a pass over what is written meanwhile takes {feed.last_s:.1f} s, more than writers may "
                f"be held (migration.hold_s {goal.migration.hold_s:g}): going on until there is less to carry over"
            )
            if feed.passes % 2:
                return Plan((), found, None, LOOK_S, message)
        return Plan((FeedChanges(external, source, building.name, feed.passes),), found)
    if building.mark.phase == "feeding":
        return Plan((VerifyGeneration(external, source, building.name, feed.passes, goal.migration),), found)
    if not observed.is_building_well:
        return Plan((), found, None, LOOK_S, f"{building.name}: copies are being made")
    switch = SwitchAlias(
        external, source, building.name, feed.passes, restored(goal.body.settings), goal.migration.hold_s
    )
    return Plan((switch,), found)


def is_short(feed: Feed, hold_s: float) -> bool:
    """True when a pass fits well into the time that writers may be held."""
    if not feed.passes:
        return False
    return feed.last_s <= SHORT_S or (not feed.shrinks and feed.last_s <= hold_s / 2)


# --- the alias has moved -----------------------------------------------------------------------------------------------


def after_switch(external: ExternalId, desired: Definition, observed: ObservedIndex, serving: Generation) -> Plan:
    """The alias is at a generation whose mark doesn't say so yet."""
    source = next((one for one in observed.generations if one.name == serving.mark.source), None)
    if source is None:
        message = f"{external.name} points to {serving.name}, whose source {serving.mark.source} is gone"
        if serving.is_held:
            return Plan((ReleaseHold(external, serving.mark.source, serving.name, restored(desired.body.settings)),))
        return Plan((RetireGeneration(external, serving.mark.source, serving.name),), warnings=(message,))
    if serving.is_held or not source.is_blocked:
        settings = _settings_of(observed, desired, source, serving)
        return Plan((FinishSwitch(external, source.name, serving.name, restored(settings)),))
    return Plan((RetireGeneration(external, source.name, serving.name, serving.mark.pinned),))


def _settings_of(
    observed: ObservedIndex, desired: Definition, source: Generation, serving: Generation
) -> Mapping[str, Any]:
    """The settings that a generation shall have once it is finished."""
    if not serving.mark.pinned:
        return taken_over(observed.canonical or desired.body, source).settings
    back_to = serving.mark.digest.removeprefix("back-")
    return next((makeable(one.settings) for one in observed.generations if one.name == back_to), {})


def held(external: ExternalId, desired: Definition, observed: ObservedIndex, serving: Generation) -> Plan:
    """The serving generation is finished, and writers wait all the same."""
    wanted = observed.canonical or desired.body
    return Plan((ReleaseHold(external, serving.mark.source, serving.name, restored(wanted.settings)),))
