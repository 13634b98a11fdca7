"""One pass over some keys of one target: observe, plan, decide, record, act.

Theory of operation. All keys of a pass are observed by one call. Each is planned and decided by pure functions. What
changed is committed in one transaction; then the steps are taken (`acting`). A key that was acted on is looked at again: a
step that succeeded is not convergence, only the next observation is.

Nothing is decided about a revision that isn't announced yet: its event comes before what it causes, and whoever announces
it asks for a look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import structlog

from controlplane.domain import status as statuses
from controlplane.domain.events import Fact, Subject, transitions
from controlplane.domain.fold import Entry
from controlplane.domain.muting import mute_of
from controlplane.domain.status import KeyStatus
from controlplane.runtime import decisions
from controlplane.runtime.acting import Acting, Actions, Lost
from controlplane.runtime.attribution import caused, material, subject_of
from controlplane.runtime.catalogue import Resolved, TargetId, Unresolved
from controlplane.runtime.clock import Clock
from controlplane.runtime.decisions import Decision
from controlplane.runtime.desired import DesiredState
from controlplane.runtime.observing import observe
from controlplane.runtime.schedule import Schedule
from controlplane.runtime.shards import Shard
from controlplane.telemetry.metrics import Metrics
from reconcilers.contract import (
    Backend,
    BackendError,
    ExternalId,
    Plan,
    Service,
    TerminalError,
    TransientError,
    Unreachable,
)
from schemas.event import EventType
from schemas.names import parse_key

_log = structlog.get_logger()

YIELD_EVERY = 100
"""Keys decided between two moments in which other tasks may run."""


@dataclass(frozen=True, slots=True)
class Looked:
    """A key that needs the backend."""

    resolved: Resolved
    before: KeyStatus
    status: KeyStatus
    unmet: tuple[str, ...]

    @property
    def thing(self) -> ExternalId:
        """The object it is about."""
        return decisions.thing_of(self.resolved, self.status)

    @property
    def desired(self) -> Any:
        """What that should be; None when it should go, or is another one's business now."""
        gone = self.status.retiring or decisions.is_renamed(self.resolved, self.status)
        return None if gone else self.resolved.desired


class Judged(NamedTuple):
    """A key, what was known of it, and what to do."""

    resolved: Resolved | Unresolved
    before: KeyStatus
    decision: Decision


class Passes:
    """Passes over the keys of one target."""

    def __init__(
        self,
        target: TargetId,
        service: Service,
        shard: Shard,
        desired: DesiredState,
        schedule: Schedule,
        *,
        lost: Lost,
        clock: Clock,
        metrics: Metrics,
        start_deadline_s: float,
        forget: Callable[[Entry], Awaitable[bool]],
    ) -> None:
        self._target = target
        self._service = service
        self._shard = shard
        self._desired = desired
        self._schedule = schedule
        self._lost = lost
        self._clock = clock
        self._metrics = metrics
        self._forget = forget
        self._repeats: dict[str, tuple[str, int]] = {}
        """Plan that succeeded last, and how many times in a row it was the plan again."""
        self._actions = Actions(
            service, shard, schedule, lost, clock=clock, metrics=metrics, start_deadline_s=start_deadline_s
        )

    @property
    def most(self) -> int:
        """How many keys the next pass may take."""
        return self._actions.portion.size

    async def run(self, keys: Sequence[str], backend: Backend | None, down: BackendError | None) -> None:
        """Look at the keys and do what they need. `backend` None: the target is down, and why."""
        judged: list[Judged] = []
        looked: list[Looked] = []
        for key in keys:
            self._sort(key, backend, judged, looked)
        if looked and backend is None:
            judged += [self._unanswered(look, down or Unreachable("not connected yet")) for look in looked]
        elif looked and backend is not None:
            judged += await self._look(looked, backend)
        acting = await self._settle(judged)
        if not acting:
            self._actions.portion.grow()
        elif backend is not None:
            for one in await self._actions.take(acting, backend):
                self._applied(one)

    def keep(self, keys: AbstractSet[str]) -> None:
        """Forget what is remembered of all other keys."""
        self._repeats = {key: repeats for key, repeats in self._repeats.items() if key in keys}

    # --- before and after the observation ------------------------------------------------------------------------------

    def _sort(self, key: str, backend: Backend | None, judged: list[Judged], looked: list[Looked]) -> None:
        entry = self._desired.entry(key)
        if entry is None or entry.revision > self._shard.announced:
            return
        resolved = self._desired.resolve(entry)
        is_target = isinstance(resolved, Resolved) and resolved.kind is None
        if resolved.target != self._target or (is_target and not entry.retiring):
            return  # moved to another target; or said by the connection
        before = self._shard.statuses.get(key) or KeyStatus(key)
        status = decisions.taken_up(entry, before, self._clock.now())
        around = self._desired.surroundings(resolved, status.external, _unsupported(resolved, backend))
        if around.missing_secret is not None:
            self._metrics.secret_unresolved(self._service.name)
        decision = decisions.before_looking(resolved, status, around, self._clock.now())
        if decision is not None:
            judged.append(Judged(resolved, before, decision))
        elif isinstance(resolved, Resolved):
            looked.append(Looked(resolved, before, status, around.unmet))

    def _unanswered(self, look: Looked, error: BackendError) -> Judged:
        status = statuses.unanswered(look.status, self._clock.now(), error.reason, error.message)
        return Judged(look.resolved, look.before, Decision(status))

    async def _look(self, looked: Sequence[Looked], backend: Backend) -> list[Judged]:
        wanted: dict[ExternalId, Any] = {}
        for look in looked:  # of two that look at one thing, one gives it up: what the other wants counts
            if wanted.get(look.thing) is None:
                wanted[look.thing] = look.desired
        try:
            observed = await self.observe(backend, wanted)
        except BackendError as exc:
            if isinstance(exc, Unreachable):
                self._lost(backend, exc)
            return [self._erred(look, exc) for look in looked]
        muted = await self._look_at_muted(looked, backend)
        judged = []
        for index, look in enumerate(looked):
            one = self._decide(look, observed.get(look.thing))
            unowned = muted.get(look.resolved.entry.key, ())
            judged.append(
                one._replace(decision=replace(one.decision, status=replace(one.decision.status, muted=unowned)))
            )
            if index % YIELD_EVERY == YIELD_EVERY - 1:
                await asyncio.sleep(0)
        return judged

    async def _look_at_muted(self, looked: Sequence[Looked], backend: Backend) -> dict[str, tuple[Any, ...]]:
        """Key → what differs on paths that aren't owned. Looked at by itself: what the server is asked about owned paths
        stays what it was. Where it gives no answer, what was known stays."""
        mine = [look for look in looked if look.resolved.whole is not None and look.desired is not None]
        known = {look.resolved.entry.key: look.before.muted for look in mine}
        if not mine:
            return {}
        try:
            observed = await self.observe(backend, {look.thing: look.resolved.whole for look in mine})
        except BackendError:
            return known
        for look in mine:
            seen, mutes = observed.get(look.thing), look.resolved.mutes
            if not isinstance(seen, BackendError):
                plan = self.plan(look.resolved, look.thing, look.resolved.whole, seen)
                differing = [difference for difference in plan.differences if mute_of(difference.path, mutes)]
                known[look.resolved.entry.key] = statuses.plainly(differing)
        return known

    async def observe(self, backend: Backend, wanted: Mapping[ExternalId, Any]) -> Mapping[ExternalId, Any]:
        """What is there; it is measured how long that takes. Raises `BackendError`."""
        started = self._clock.monotonic()
        try:
            return await observe(backend, wanted, self._service, self._metrics)
        finally:
            self._metrics.observed(self._service.name, self._clock.monotonic() - started)

    def plan(self, resolved: Resolved, thing: ExternalId, desired: Any, observed: Any) -> Plan:
        """The plan of one key for what was observed. A fault in a planner stalls its key, not the pass."""
        if resolved.kind is None:
            return Plan()
        try:
            status = self._shard.statuses.get(resolved.entry.key)
            recalled = resolved.kind.recall(observed, dict(status.remembered) if status is not None else {})
            return resolved.kind.plan(thing, desired, recalled, self._clock.now())
        except Exception as exc:  # noqa: BLE001 - a bug: counted, said in the status
            self._metrics.bug("plan")
            _log.exception("plan failed", setting=resolved.entry.key)
            return Plan(blocked=TerminalError(f"plan: {exc!r}", reason="InternalError"))

    def _decide(self, look: Looked, observed: Any) -> Judged:
        if isinstance(observed, BackendError):
            return self._erred(look, observed)
        now = self._clock.now()
        plan = self.plan(look.resolved, look.thing, look.desired, observed)
        decision = decisions.after_looking(look.resolved, look.status, look.unmet, observed, plan, now=now)
        key = look.resolved.entry.key
        digest, count = self._repeats.get(key, ("", 0))
        if not decision.steps:
            self._repeats.pop(key, None)
        elif digest == decision.plan and count >= decisions.MOST_REPEATS:
            self._repeats[key] = (digest, count - 1)  # one more try after each pause
            decision = Decision(decisions.not_converging(decision.status, plan.differences, now), retry=True)
        else:
            decision = decisions.still_stalled(look.before, decision)
        return Judged(look.resolved, look.before, decision)

    def _erred(self, look: Looked, error: BackendError) -> Judged:
        if isinstance(error, Unreachable):
            return self._unanswered(look, error)
        change = statuses.stalled if isinstance(error, TerminalError) else statuses.retrying
        status = change(look.status, self._clock.now(), error.reason, error.message)
        asked_s = error.retry_after_s if isinstance(error, TransientError) else None
        return Judged(look.resolved, look.before, Decision(status, retry=True, look_again_s=asked_s))

    def _applied(self, one: Acting) -> None:
        """Look again: at once, or, when the same steps succeeded before and changed nothing, after a pause."""
        key = one.resolved.entry.key
        digest, count = self._repeats.get(key, ("", 0))
        count = count + 1 if digest == one.plan else 1
        self._repeats[key] = (one.plan, count)
        if count == 1:
            self._schedule.again(key)
        else:
            self._schedule.retry(key)

    # --- recording -----------------------------------------------------------------------------------------------------

    async def _settle(self, judged: Sequence[Judged]) -> list[Acting]:
        """Commit what changed; schedule; return what is to be acted on."""
        events, changed, facts_told = [], [], []
        acting, forgotten = [], []
        for resolved, before, decision in judged:
            entry = resolved.entry
            pause_s = self._scheduled(entry, decision)
            after = replace(decision.status, next_at=decisions.next_at(self._clock.now(), pause_s))
            facts = [*decision.facts, *transitions(before, after)]
            if facts or material(before) != material(after):
                subject = subject_of(entry, before, after)
                events += [self._shard.record(caused(fact, entry, before), subject) for fact in facts]
                facts_told += [(fact, subject) for fact in facts]
                changed.append(after)
            if decision.forget:
                forgotten.append(entry)
            elif decision.steps and isinstance(resolved, Resolved):
                acting.append(Acting(resolved, after, decision.steps, decision.plan))
        if events or changed:
            await self._shard.commit(events, changed)
        self._tell(facts_told)
        await self._forget_all(forgotten)
        return self._capped(acting)

    def _scheduled(self, entry: Entry, decision: Decision) -> float | None:
        """When the key is looked at again without a cause; None: with the next sweep, or at once."""
        if decision.retry:
            pause_s = self._schedule.retry(entry.key, decision.look_again_s)
            self._metrics.backed_off(self._service.name, pause_s)
            return pause_s
        if decision.status.holds("Ready"):
            self._schedule.settled(entry.key)
        pauses = [pause for pause in (decision.look_again_s, interval_s(entry)) if pause is not None]
        if not pauses or decision.steps or decision.forget or decision.status.paused:
            return None
        self._schedule.later(entry.key, min(pauses))
        return min(pauses)

    async def _forget_all(self, entries: Sequence[Entry]) -> None:
        forgotten = await asyncio.gather(*(self._forget(entry) for entry in entries))
        for entry, accepted in zip(entries, forgotten, strict=True):
            if not accepted:
                self._schedule.retry(entry.key)

    def _capped(self, acting: Sequence[Acting]) -> list[Acting]:
        taken, irreversible = [], 0
        for one in acting:
            is_irreversible = any(step.irreversible for step in one.steps)
            irreversible += is_irreversible
            if is_irreversible and irreversible > decisions.MOST_IRREVERSIBLE:
                self._schedule.again(one.resolved.entry.key)
            else:
                taken.append(one)
        return taken

    def _tell(self, told: Sequence[tuple[Fact, Subject]]) -> None:
        for fact, subject in told:
            if fact.event_type is EventType.DRIFT_DETECTED:
                self._metrics.drift(subject.service, parse_key(subject.setting or "").setting_type)
            _log.info(
                str(fact.event_type),
                setting=subject.setting,
                generation=subject.generation,
                revision=subject.revision,
                correlation_id=subject.correlation_id,
                **{name: fact.details[name] for name in ("reason", "message") if name in fact.details},
            )


def interval_s(entry: Entry) -> float | None:
    """The key's own sweep interval, None when it goes with its target."""
    interval: float | None = entry.body.get("policy", {}).get("interval_s")
    return interval


def _unsupported(resolved: Resolved | Unresolved, backend: Backend | None) -> str | None:
    """Why the backend can't hold the key. The target's own setting isn't held by its backend: it says where that is."""
    if backend is None or (isinstance(resolved, Resolved) and resolved.kind is None):
        return None
    return backend.unsupported(resolved.key.setting_type)
