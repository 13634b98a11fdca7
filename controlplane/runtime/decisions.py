"""What to do with one key, given what is known. Pure: tables of circumstances → decisions, nothing else.

Two moments: before the backend is asked (`before_looking`: is there any point in asking?) and after (`after_looking`: what
does the observation say?). Then each step's beginning and end change the status (`begun`, `ended`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from controlplane.domain import status as statuses
from controlplane.domain.events import Fact
from controlplane.domain.fold import Entry
from controlplane.domain.status import Intent, KeyStatus, LastAction
from controlplane.runtime.catalogue import Resolved, Unresolved
from reconcilers.contract import Difference, ExternalId, Outcome, Plan, Result, Step, TerminalError, TransientError
from schemas.event import EventStatus, EventType
from schemas.names import Key, parse_key, timestamp

MOST_IRREVERSIBLE: Final = 25
"""Irreversible steps that one pass over a target takes; the rest wait for the next."""

MOST_REPEATS: Final = 3
"""After this many equal plans in a row that all succeeded and changed nothing, the key is reported NotConverging."""

NOT_CONVERGING: Final = "NotConverging"

SHORT_S: Final = 1.0
"""A shorter wait isn't told to people."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What matters for a key beyond its own declaration."""

    target_declared: bool
    unmet: tuple[str, ...] = ()
    """Keys it stands on that aren't Ready."""
    dependents: tuple[str, ...] = ()
    """Keys that stand on it."""
    cycle: tuple[str, ...] = ()
    owner: str | None = None
    """Key of the setting that has the external object already; of a retiring key's, the object that it made."""
    trespass: str | None = None
    """Why its object may not be on the target, which is another tenant's or shared with others."""
    missing_secret: str | None = None
    unsupported: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The new status, what to do, and when to look again (None: the sweep is enough)."""

    status: KeyStatus
    steps: tuple[Step, ...] = ()
    facts: tuple[Fact, ...] = ()
    plan: str = ""
    """Digest of the plan the steps belong to."""
    forget: bool = False
    retry: bool = False
    """Look again after a growing pause, or that of `look_again_s`."""
    look_again_s: float | None = None


def taken_up(entry: Entry, before: KeyStatus | None, now: float) -> KeyStatus:
    """The status as of the newest declaration. Drift against an older generation is no drift any more."""
    if before is None:
        before = KeyStatus(entry.key)
    policy = entry.body.get("policy", {})
    status = replace(
        before,
        revision=entry.revision,
        observed_generation=entry.generation,
        retiring=entry.retiring,
        paused=bool(policy.get("paused", False)),
    )
    if before.observed_generation != entry.generation or entry.retiring:
        status = statuses.undrifted(status, now)
    return status


def before_looking(
    resolved: Resolved | Unresolved, status: KeyStatus, around: Surroundings, now: float
) -> Decision | None:
    """The decision that needs no observation; None when the backend must be asked."""
    if status.paused:
        return Decision(status)
    if status.retiring:
        return _before_retiring(resolved, status, around, now)
    if isinstance(resolved, Unresolved):
        return Decision(statuses.stalled(status, now, resolved.reason, resolved.message))
    if around.cycle:
        path = " -> ".join((*around.cycle, around.cycle[0]))
        return Decision(statuses.stalled(status, now, "DependencyCycle", f"depends on itself: {path}"))
    if around.trespass is not None:
        return Decision(statuses.stalled(status, now, "NotShared", around.trespass))
    if around.owner is not None:
        message = _declared_twice(resolved, parse_key(around.owner))
        return Decision(statuses.stalled(status, now, "Conflict", message))
    if not around.target_declared:
        message = f"declare {resolved.target.service}.target/{resolved.target.target}"
        return Decision(statuses.pending(status, now, "TargetNotFound", message))
    if around.unmet and status.converged_generation != status.observed_generation:
        return _waiting(status, around.unmet, now)
    if around.missing_secret is not None:
        stalled = statuses.stalled(status, now, "SecretNotFound", f"no secret at {around.missing_secret}")
        return Decision(stalled, retry=True)
    if around.unsupported is not None:
        return Decision(statuses.stalled(status, now, "Unsupported", around.unsupported))
    return None


def _declared_twice(resolved: Resolved, owner: Key) -> str:
    # Who has a target with others isn't told what else they call theirs.
    other = str(owner) if owner.tenant == resolved.key.tenant else "another tenant"
    what = f"{resolved.external.name} of {resolved.target}"
    if owner.setting_type == resolved.key.setting_type:
        return f"{what} is declared by {other} already; retire one of them"
    return f"a part of {what} is declared by {other} already; retire one of them, or leave that part out"


def _waiting(status: KeyStatus, unmet: Sequence[str], now: float) -> Decision:
    return Decision(statuses.pending(status, now, "DependencyNotReady", "waits for " + ", ".join(unmet)))


def _renamed(resolved: Resolved, status: KeyStatus, observed: Any | None, now: float) -> Decision:
    """Another object is declared than the one it made: never replaced silently."""
    if observed is None:
        return Decision(replace(status, external=None, remembered=()), look_again_s=0.0)
    message = (
        f"{resolved.external.name} would take the place of {status.external}, which nobody would own any more; "
        f"declare it as a setting of its own and retire this one"
    )
    return Decision(statuses.stalled(status, now, "Renamed", message))


def _before_retiring(
    resolved: Resolved | Unresolved, status: KeyStatus, around: Surroundings, now: float
) -> Decision | None:
    if around.dependents:
        message = "still needed by " + ", ".join(around.dependents[:5])
        return Decision(statuses.reconciling(status, now, "WaitingForDependents", message))
    if _retained(resolved) or status.external is None or around.owner is not None or around.trespass is not None:
        return Decision(status, forget=True)
    if not around.target_declared:
        message = f"{resolved.target} is not declared, so what is there can't be removed; ?deletion=retain forgets it"
        return Decision(statuses.stalled(status, now, "TargetNotFound", message))
    return None


def _retained(resolved: Resolved | Unresolved) -> bool:
    """True when retiring leaves the backend alone. A target only says where a backend is."""
    if isinstance(resolved, Unresolved) or resolved.kind is None:
        return True
    chosen = resolved.entry.deletion or resolved.entry.body.get("policy", {}).get("deletion")
    return bool((chosen or ("retain" if resolved.kind.data_bearing else "delete")) == "retain")


def after_looking(
    resolved: Resolved, before: KeyStatus, unmet: Sequence[str], observed: Any | None, plan: Plan, *, now: float
) -> Decision:
    """The decision on an observation. `plan` was made from it: desired None when the entry is retiring.

    `unmet`: keys it stands on that aren't Ready. They keep what is missing from being made; what is there as declared
    stays Ready.
    """
    status = replace(before, unknown_since=None)
    if status.retiring:
        return _retire(resolved, status, observed, plan, now)
    if is_renamed(resolved, status):
        return _renamed(resolved, status, observed, now)
    policy = resolved.entry.body.get("policy", {})
    ours = resolved.kind is None or resolved.kind.preexisting or status.external is not None
    adopting = observed is not None and not ours
    adopt = policy.get("adopt", "if_matches")
    if adopting and (adopt == "never" or (adopt == "if_matches" and not plan.converged)):
        return _not_ours(resolved, status, plan, now)
    facts = (Fact(EventType.ADOPTED, {"external": resolved.external.name}),) if adopting else ()
    if plan.converged:
        done = statuses.remembering(statuses.converged(status, now, resolved.external.name), plan.remember)
        if plan.warnings:
            done = statuses.conditioned(done, now, Ready=("True", "Converged", "; ".join(plan.warnings)))
        return Decision(done, facts=facts, look_again_s=plan.requeue_after_s)
    if status.converged_generation == resolved.entry.generation and plan.differences:
        status = statuses.drifted(status, now, plan.differences)
        if policy.get("drift") == "report":
            return Decision(status)
    if not plan.steps:
        return _no_way(status, plan, now)
    if unmet:
        return _waiting(status, unmet, now)
    decision = _permitted(status, policy, plan, facts, now)
    if decision.steps:  # from now on it is ours, or may be
        decision = replace(decision, status=replace(decision.status, external=resolved.external.name))
    return decision


def _retire(resolved: Resolved, status: KeyStatus, observed: Any | None, plan: Plan, now: float) -> Decision:
    if observed is None or plan.converged:
        return Decision(status, forget=True)
    if not plan.steps:
        return _no_way(status, plan, now)
    return _permitted(status, resolved.entry.body.get("policy", {}), plan, (), now)


def _no_way(status: KeyStatus, plan: Plan, now: float) -> Decision:
    if plan.blocked is not None:
        return Decision(statuses.stalled(status, now, plan.blocked.reason, plan.blocked.message))
    waiting = statuses.reconciling(status, now, "Waiting", plan.wait_reason or "")
    return Decision(waiting, look_again_s=plan.requeue_after_s or 1.0)


def _not_ours(resolved: Resolved, status: KeyStatus, plan: Plan, now: float) -> Decision:
    paths = ", ".join(difference.path for difference in plan.differences[:5]) or "/"
    message = f"{resolved.external.name} exists and differs on {paths}; policy.adopt: always takes it over"
    return Decision(statuses.stalled(status, now, "AlreadyExists", message))


def _permitted(status: KeyStatus, policy: Any, plan: Plan, facts: Sequence[Fact], now: float) -> Decision:
    allowed = set(policy.get("allow", ()))
    refused = [step for step in plan.steps if step.irreversible and step.name not in allowed]
    if refused:
        names = ", ".join(sorted({step.name for step in refused}))
        message = f"{refused[0].summary()} can't be undone; policy.allow: [{names}] permits it"
        return Decision(statuses.stalled(status, now, "NotAllowed", message))
    summary = "; ".join(step.summary() for step in plan.steps[:3])
    status = statuses.reconciling(status, now, "Applying", summary)
    return Decision(status, steps=plan.steps, facts=tuple(facts), plan=digest(plan.steps))


def digest(steps: Sequence[Step]) -> str:
    """Identity of a plan: equal steps, equal digest."""
    return hashlib.sha256(repr(steps).encode()).hexdigest()[:16]


def still_stalled(before: KeyStatus, decision: Decision) -> Decision:
    """The decision to act again, without saying that what failed before is well now: only its success tells."""
    last, stalled = before.last_action, before.condition("Stalled")
    if stalled is None or stalled.status != "True" or last is None:
        return decision
    if last.status != "failed" and stalled.reason != NOT_CONVERGING:
        return decision
    if before.observed_generation != decision.status.observed_generation:
        return decision
    kept = [c for c in before.conditions if c.type != "Drifted"]
    drifted = [c for c in decision.status.conditions if c.type == "Drifted"]
    conditions = tuple(sorted((*kept, *drifted)))
    return replace(decision, status=replace(decision.status, conditions=conditions))


def not_converging(status: KeyStatus, differences: Sequence[Difference], now: float) -> KeyStatus:
    """The same steps succeed again and again and change nothing: say so instead of going round for ever."""
    paths = ", ".join(f"{d.path} (wanted {d.desired!r}, is {d.observed!r})" for d in differences[:3])
    message = f"the backend accepts the change but doesn't hold it: {paths or 'see the last action'}"
    return statuses.stalled(status, now, NOT_CONVERGING, message)


def is_renamed(resolved: Resolved, status: KeyStatus) -> bool:
    """True when the object that the key made isn't the one that is declared now."""
    return status.external not in (None, resolved.external.name)


def thing_of(resolved: Resolved, status: KeyStatus) -> ExternalId:
    """The object to be looked at: the one it made, as long as that is there, else the one that is declared."""
    name = status.external or resolved.external.name
    return ExternalId(resolved.external.setting_type, name)


def begun(status: KeyStatus, step: Step, plan: str, event_id: str, now: float) -> KeyStatus:
    """The status with an open intent."""
    last = status.last_action
    again = last is not None and last.step == step.name and last.status != "succeeded"
    attempt = last.attempt + 1 if last is not None and again else 1
    at = timestamp(now)
    return replace(
        status,
        intent=Intent(step.name, attempt, plan, at, event_id),
        last_action=LastAction(step.name, "started", at, attempt),
    )


def ended(status: KeyStatus, outcome: Outcome, now: float) -> tuple[KeyStatus, Fact]:
    """The status after a step's end, and the event that says how it ended."""
    intent = status.intent
    if intent is None:
        msg = f"{status.key} has no open intent"
        raise ValueError(msg)
    kind, event_status, word = _ENDS[outcome.result]
    at = timestamp(now)
    details: dict[str, Any] = {"step": intent.step, "attempt": intent.attempt, **outcome.details}
    if outcome.result is Result.NOT_SENT:
        details |= {"reason": "NotSent", "message": "the start deadline had passed; nothing was sent"}
    after = replace(status, intent=None, last_action=LastAction(intent.step, word, at, intent.attempt))
    after = statuses.remembering(after, outcome.remember)
    if outcome.result is Result.UNKNOWN:
        after = replace(after, unknown_since=at)
    elif outcome.result is Result.FAILED and outcome.error is not None:
        change = statuses.stalled if isinstance(outcome.error, TerminalError) else statuses.retrying
        after = change(after, now, outcome.error.reason, outcome.error.message)
    return after, Fact(kind, details, event_status, causation_id=intent.event_id)


def next_at(now: float, pause_s: float | None) -> str | None:
    """`next_at` of a status: when the key is looked at again, if that is worth saying."""
    return None if pause_s is None or pause_s <= SHORT_S else timestamp(now + pause_s)


def pause_s(outcome: Outcome) -> float | None:
    """The pause the backend asked for, if it did."""
    return outcome.error.retry_after_s if isinstance(outcome.error, TransientError) else None


_ENDS: Final = {
    Result.SUCCEEDED: (EventType.ACTION_SUCCEEDED, EventStatus.SUCCEEDED, "succeeded"),
    Result.FAILED: (EventType.ACTION_FAILED, EventStatus.FAILED, "failed"),
    Result.NOT_SENT: (EventType.ACTION_FAILED, EventStatus.FAILED, "failed"),
    Result.UNKNOWN: (EventType.ACTION_UNKNOWN, EventStatus.UNKNOWN, "unknown"),
}
