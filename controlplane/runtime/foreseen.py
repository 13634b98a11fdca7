"""What would happen to each setting of a proposal, and the identity of all of it together. Pure.

A plan isn't kept: its id is made of what it was made from, so the same proposal in the same world has the same id, however
often it is planned. The id has four parts: where the settings log stood, and digests of what was asked for, of the
revisions of all settings concerned, and of what the backends made of it. So it can be said which of these moved.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from controlplane.domain import placing
from controlplane.domain.changes import changed_paths
from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.domain.status import plain
from controlplane.domain.writes import Trial
from controlplane.runtime.decisions import Decision
from reconcilers.contract import NOTHING_TOLD, Affected, BackendError, Difference, Plan, Step, TerminalError

_PLAN_ID = re.compile(r"(\d{1,18})-([0-9a-f]{16})-([0-9a-f]{16})-([0-9a-f]{16})")


class Why(NamedTuple):
    """A reason as it would stand in the status, and what to do about it."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What would become of one setting."""

    trial: Trial
    steps: tuple[Step, ...] = ()
    differences: tuple[Difference, ...] = ()
    """Between what would be desired and what is observed now."""
    waits_for: tuple[str, ...] = ()
    """Keys that come first: those it stands on, or, when it is retired, those that stand on it."""
    unknown: Why | None = None
    """Nothing can be said, because nothing could be observed."""
    refused: Why | None = None
    """Nothing would be done, although there is something to do."""
    elsewhere: int | None = None
    """The shard of its target, when another replica drives that and must be asked."""
    warnings: tuple[str, ...] = ()
    """What people should know of what is declared, whether it is done already or not."""
    affected: tuple[Affected, ...] = ()
    """Of each step, how much it touches; none: that can't be told."""

    @property
    def unchanged(self) -> bool:
        """Declared as it is, and nothing to do."""
        return self.trial.outcome == "unchanged" and not (self.steps or self.unknown or self.refused)


def decided(trial: Trial, decision: Decision, plan: Plan = Plan(), waits_for: Iterable[str] = ()) -> Foreseen:  # noqa: B008 - frozen
    """What the controller's decision means for people. Its status began without conditions, so all it has are new."""
    status, ready = decision.status, decision.status.condition("Ready")
    one = Foreseen(trial, decision.steps, plan.differences, tuple(waits_for), warnings=plan.warnings)
    if decision.steps:
        return one
    if status.paused:
        return replace(one, refused=Why("Paused", "policy.paused is set: nothing is looked at and nothing is done"))
    if decision.forget or ready is None or ready.status == "True":
        return one
    if ready.reason == "Drifted":
        return replace(one, refused=Why("Drifted", f"{ready.message}; policy.drift is report"))
    why = Why(ready.reason, ready.message)
    return replace(one, refused=why) if status.holds("Stalled") else replace(one, unknown=why)


def unobserved(trial: Trial, error: BackendError) -> Foreseen:
    """No observation: the backend gave no answer, or will go on refusing what is declared."""
    why = Why(error.reason, error.message)
    return Foreseen(trial, refused=why) if isinstance(error, TerminalError) else Foreseen(trial, unknown=why)


# --- identity ----------------------------------------------------------------------------------------------------------


class PlanId(NamedTuple):
    """`position`: the offset where the settings log ended; it only serves to tell what came after."""

    position: int
    asked: str
    revisions: str
    world: str

    def __str__(self) -> str:
        return f"{self.position}-{self.asked}-{self.revisions}-{self.world}"

    def same(self, other: PlanId) -> bool:
        """True when both are plans of the same request in the same world."""
        return self[1:] == other[1:]


def parse_plan_id(text: str) -> PlanId:
    """Raises `Refused` (Malformed)."""
    match = _PLAN_ID.fullmatch(text)
    if match is None:
        message = "isn't the plan_id of an answer to plan"
        raise Refused(Reason.MALFORMED, f"plan {message}", [Fault("?plan", message)])
    return PlanId(int(match[1]), *match.groups()[1:])


@dataclass(frozen=True, slots=True)
class Previewed:
    """The whole of a plan. `revisions`: of every setting concerned, 0 for those that aren't there."""

    plan_id: PlanId
    settings: tuple[Foreseen, ...]
    revisions: Mapping[str, int]
    told: Mapping[str, Any]
    """What is said of the settings, JSON: by ourselves, or by the replicas that drive their targets."""

    def document(self) -> dict[str, Any]:
        """As the API answers it."""
        return {"plan_id": str(self.plan_id), **self.told}

    def elsewhere(self) -> dict[int, set[str]]:
        """Shard → settings that only its owner can say something of."""
        found: dict[int, set[str]] = {}
        for one in self.settings:
            if one.elsewhere is not None:
                found.setdefault(one.elsewhere, set()).add(one.trial.key)
        return found


def previewed(position: int, asked: Any, revisions: Mapping[str, int], settings: Sequence[Foreseen]) -> Previewed:
    """The plan with its id. `asked`: the request in its normal form, JSON."""
    told = {
        "results": [_result(one) for one in settings],
        "steps": [step for one in settings for step in _steps(one)],
        "unchanged": [one.trial.key for one in settings if one.unchanged],
        "unknown": [_why(one, one.unknown) for one in settings if one.unknown],
        "refused": [_why(one, one.refused) for one in settings if one.refused],
        "warnings": [{"setting": one.trial.key, "message": message} for one in settings for message in one.warnings],
    }
    identity = PlanId(position, _digest(asked), _digest(revisions), _digest(_seen(told)))
    return Previewed(identity, tuple(settings), revisions, told)


def merged(own: Previewed, theirs: Mapping[str, Mapping[str, Any]]) -> Previewed:
    """The plan with what other replicas say of some settings. `theirs`: key → the answer of its target's owner.

    An owner that saw other revisions than we did, because one of us is behind, isn't believed: its settings stay unknown.
    """
    fitting = {key: document for key, document in theirs.items() if _fits(own.plan_id, str(document["plan_id"]))}
    said = {key: fitting.get(key, own.told) for key in (row["setting"] for row in own.told["results"])}
    told: dict[str, Any] = {
        part: [row for key, document in said.items() for row in document[part] if row["setting"] == key]
        for part in ("results", "steps", "unknown", "refused", "warnings")
    }
    told["unchanged"] = [key for key, document in said.items() if key in document["unchanged"]]
    return replace(own, plan_id=own.plan_id._replace(world=_digest(_seen(told))), told=told)


def _fits(own: PlanId, other: str) -> bool:
    theirs = parse_plan_id(other)
    return (theirs.asked, theirs.revisions) == (own.asked, own.revisions)


def moved(before: PlanId, now: Previewed) -> list[Fault]:
    """What is different from the plan with that id, which isn't kept; empty when nothing is."""
    faults = []
    if before.asked != now.plan_id.asked:
        faults.append(Fault("/settings", "is another document than the one that was planned"))
    if before.revisions != now.plan_id.revisions:
        later = [(key, revision) for key, revision in now.revisions.items() if revision > before.position]
        faults += [Fault(f"/{key}", f"was declared since, at revision {revision}") for key, revision in later]
        if not later:
            faults.append(Fault("/settings", "other settings are concerned now, or some are gone"))
    if before.world != now.plan_id.world:
        told = list(_now(now.told))
        faults += told or [Fault("/settings", "the backends are as declared now: nothing is left to be done there")]
    return faults


def _now(told: Mapping[str, Any]) -> Iterator[Fault]:
    for step in told["steps"]:
        yield Fault(f"/{step['setting']}", f"now to be done: {step['summary']}")
    for why in told["unknown"]:
        yield Fault(f"/{why['setting']}", f"is unknown now: {why['message']}")
    for why in told["refused"]:
        yield Fault(f"/{why['setting']}", f"would be {why['reason']} now: {why['message']}")


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_PASSING: Final = frozenset({"waits_for", "affects", "at_least"})


def _seen(told: Mapping[str, Any]) -> list[Any]:
    """Not what it waits for, nor how much it touches: that a dependency became ready meanwhile, or that somebody wrote one
    more document, makes it no other plan."""
    steps = [{name: part for name, part in step.items() if name not in _PASSING} for step in told["steps"]]
    differences = [[row["setting"], row["differences"]] for row in told["results"]]
    reasons = [[part, row["setting"], row["reason"]] for part in ("unknown", "refused") for row in told[part]]
    # By setting: the order of the changes says nothing, that of a setting's steps does.
    return [sorted(steps, key=lambda step: str(step["setting"])), sorted(differences, key=str), sorted(reasons)]


# --- as JSON -----------------------------------------------------------------------------------------------------------


def _result(one: Foreseen) -> dict[str, Any]:
    before, after = one.trial
    changed = (
        []
        if after.retiring
        else changed_paths(placing.declared(None if before is None else before.body), placing.declared(after.body))
    )
    differences = [_difference(difference) for difference in one.differences]
    return {"setting": one.trial.key, "outcome": one.trial.outcome, "changed": changed, "differences": differences}


def _steps(one: Foreseen) -> list[dict[str, Any]]:
    waits = {"waits_for": list(one.waits_for)} if one.waits_for else {}
    affected = one.affected or (NOTHING_TOLD,) * len(one.steps)
    return [
        {
            "setting": one.trial.key,
            "step": step.name,
            "summary": step.summary(),
            "irreversible": step.irreversible,
            "details": plain(step.details()),
            **_touched(touched),
            **waits,
        }
        for step, touched in zip(one.steps, affected, strict=True)
    ]


def _touched(affected: Affected) -> dict[str, Any]:
    told: dict[str, Any] = {"affects": dict(affected.counts)} if affected.counts else {}
    return told | ({"at_least": True} if affected.counts and affected.at_least else {})


def _difference(difference: Difference) -> dict[str, Any]:
    return {
        "path": difference.path,
        "desired": plain(difference.desired),
        "observed": plain(difference.observed),
    }


def _why(one: Foreseen, why: Why | None) -> dict[str, Any]:
    return {"setting": one.trial.key, **({} if why is None else why._asdict())}
