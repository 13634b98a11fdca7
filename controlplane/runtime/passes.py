"""One pass over some keys of one target: observe, plan, record the intent, apply, record the outcome.

Theory of operation. All keys of a pass are observed by one call. Each is planned and decided by pure functions. What
changed is committed in one transaction, intents together with it; then the steps are applied wave by wave (the first step
of every key, then the second …), each wave between the commit of its intents and the commit of its outcomes. A key that
was acted on is looked at again at once: a step that succeeded is not convergence, only the next observation is.

Note [The clock starts before the commit]. A process can be stopped between the commit of an intent and the send, wake
after a takeover and send then. So the start deadline counts from before the intent's commit, the backend checks it
directly before the write, and a takeover waits longer than deadline plus landing time. Taken after the commit, the clock
would look fresh to a process that was stopped while the commit's answer was on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog

from controlplane.domain import status as statuses
from controlplane.domain.events import Fact, Subject, accepted_id, transitions
from controlplane.domain.fold import Entry
from controlplane.domain.status import KeyStatus
from controlplane.runtime import decisions
from controlplane.runtime.catalogue import Resolved, Unresolved
from controlplane.runtime.clock import Clock
from controlplane.runtime.decisions import Decision
from controlplane.runtime.desired import DesiredState
from controlplane.runtime.shards import Shard, ShardLost
from controlplane.telemetry.metrics import Metrics
from reconcilers.contract import (
    Backend,
    BackendError,
    ExternalId,
    NotSent,
    Outcome,
    Plan,
    Result,
    Service,
    Step,
    TerminalError,
    Unreachable,
    failed,
    unknown,
)
from schemas.event import EventStatus, EventType
from schemas.names import event_id

_log = structlog.get_logger()

YIELD_EVERY = 100
"""Keys decided between two moments in which other tasks may run."""


class Effects:
    """The fence of one batch of steps (`reconcilers.contract.Fence`)."""

    def __init__(self, shard: Shard, number: int, started: float, *, deadline_s: float, clock: Clock) -> None:
        self._shard = shard
        self._number = number
        self._until = started + deadline_s
        self._clock = clock

    @property
    def token(self) -> tuple[int, int]:
        """(offset of our ShardTaken, number of the batch)."""
        return self._shard.token, self._number

    def check(self) -> None:
        """Raise `NotSent` when the batch may no longer begin."""
        if self._shard.lost.is_set() or self._clock.monotonic() > self._until:
            raise NotSent


class Scheduler(Protocol):
    """Where a pass says when to look again; the target's loop."""

    def again(self, key: str) -> None:
        """At once."""

    def later(self, key: str, pause_s: float) -> None:
        """After a pause."""

    def retry(self, key: str, pause_s: float | None) -> float:
        """After the next growing pause of this key, or the one given; the pause."""

    def hold(self, key: str) -> None:
        """Not before an effect of unknown outcome must have landed."""

    def settled(self, key: str) -> None:
        """Converged: pauses start anew."""

    def unreachable(self, error: BackendError) -> None:
        """The backend gave no answer."""


@dataclass(slots=True)
class Acting:
    """A key with steps to take."""

    resolved: Resolved
    status: KeyStatus
    steps: tuple[Step, ...]
    plan: str
    pace: float | None = None
    """Set when acting again and again: pause before the next look, seconds."""


@dataclass(frozen=True, slots=True)
class Looked:
    """A key that needs the backend."""

    resolved: Resolved
    before: KeyStatus
    status: KeyStatus


class Passes:
    """Passes over the keys of one target."""

    def __init__(
        self,
        service: Service,
        shard: Shard,
        desired: DesiredState,
        scheduler: Scheduler,
        *,
        clock: Clock,
        metrics: Metrics,
        start_deadline_s: float,
        forget: Callable[[Entry], Awaitable[None]],
    ) -> None:
        self._service = service
        self._shard = shard
        self._desired = desired
        self._scheduler = scheduler
        self._clock = clock
        self._metrics = metrics
        self._start_deadline_s = start_deadline_s
        self._forget = forget
        self._batches = 0
        self._repeats: dict[str, tuple[str, int]] = {}

    async def run(self, keys: Sequence[str], backend: Backend | None, down: BackendError | None) -> None:
        """Look at the keys and do what they need. `backend` None: the target is down, and why."""
        started = self._clock.monotonic()
        settled: list[tuple[Resolved | Unresolved, KeyStatus, Decision]] = []
        looked: list[Looked] = []
        for key in keys:
            entry = self._desired.entry(key)
            if entry is None:
                continue
            self._sort(entry, backend, settled, looked)
        if looked and backend is None:
            settled += [self._unanswered(look, down or Unreachable("not connected yet")) for look in looked]
        elif looked and backend is not None:
            settled += await self._look(looked, backend)
        acting = await self._settle(settled)
        if acting and backend is not None:
            await self._act(acting, backend)
        self._metrics.reconciled(self._service.name, len(keys), self._clock.monotonic() - started)

    # --- before and after the observation ------------------------------------------------------------------------------

    def _sort(
        self,
        entry: Entry,
        backend: Backend | None,
        settled: list[tuple[Resolved | Unresolved, KeyStatus, Decision]],
        looked: list[Looked],
    ) -> None:
        now = self._clock.now()
        resolved = self._desired.resolve(entry)
        before = self._shard.statuses.get(entry.key) or KeyStatus(entry.key)
        status = decisions.taken_up(entry, before, now)
        around = self._desired.surroundings(resolved, _unsupported(resolved, backend))
        decision = decisions.before_looking(resolved, status, around, now)
        if decision is not None:
            settled.append((resolved, before, decision))
        elif isinstance(resolved, Resolved) and resolved.kind is not None:
            looked.append(Looked(resolved, before, status))
        elif isinstance(resolved, Resolved) and backend is not None:
            done = statuses.converged(status, now, resolved.external.name)
            settled.append((resolved, before, Decision(done)))

    def _unanswered(self, look: Looked, error: BackendError) -> tuple[Resolved, KeyStatus, Decision]:
        status = statuses.unanswered(look.status, self._clock.now(), error.reason, error.message)
        return look.resolved, look.before, Decision(status)

    async def _look(
        self, looked: Sequence[Looked], backend: Backend
    ) -> list[tuple[Resolved | Unresolved, KeyStatus, Decision]]:
        wanted = {look.resolved.external: None if look.status.retiring else look.resolved.desired for look in looked}
        try:
            observed = await self.observe(backend, wanted)
        except BackendError as exc:
            if isinstance(exc, Unreachable):
                self._scheduler.unreachable(exc)
            return [self._erred(look, exc) for look in looked]
        except Exception as exc:  # noqa: BLE001 - a bug: counted, said in the status, tried again
            self._metrics.bug("observe")
            _log.exception("observe failed", service=self._service.name)
            error = TerminalError(f"observe: {exc!r}", reason="InternalError")
            return [self._erred(look, error) for look in looked]
        settled: list[tuple[Resolved | Unresolved, KeyStatus, Decision]] = []
        for index, look in enumerate(looked):
            settled.append(self._decide(look, observed.get(look.resolved.external)))
            if index % YIELD_EVERY == YIELD_EVERY - 1:
                await asyncio.sleep(0)
        return settled

    async def observe(self, backend: Backend, wanted: Mapping[ExternalId, Any]) -> Mapping[ExternalId, Any]:
        """What is there. Raises `Unreachable` at the deadline, which grows with the number of objects."""
        timeout_s = self._service.observe_timeout_s + len(wanted) / 500
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                return await backend.observe(wanted)
        except TimeoutError as exc:
            msg = f"no answer within {timeout_s:g} s"
            raise Unreachable(msg, reason="Timeout") from exc
        finally:
            self._metrics.observed(self._service.name, self._clock.monotonic() - started)

    def plan(self, resolved: Resolved, observed: Any, *, retiring: bool) -> Plan:
        """The plan of one key for what was observed. A fault in a planner stalls its key, not the pass."""
        if resolved.kind is None:
            return Plan()
        desired = None if retiring else resolved.desired
        try:
            return resolved.kind.plan(resolved.external, desired, observed, self._clock.now())
        except Exception as exc:  # noqa: BLE001 - a bug: counted, said in the status
            self._metrics.bug("plan")
            _log.exception("plan failed", setting=resolved.entry.key)
            return Plan(blocked=TerminalError(f"plan: {exc!r}", reason="InternalError"))

    def _decide(self, look: Looked, observed: Any) -> tuple[Resolved | Unresolved, KeyStatus, Decision]:
        if isinstance(observed, BackendError):
            return self._erred(look, observed)
        now = self._clock.now()
        plan = self.plan(look.resolved, observed, retiring=look.status.retiring)
        decision = decisions.after_looking(look.resolved, look.status, observed, plan, now)
        key = look.resolved.entry.key
        digest, count = self._repeats.get(key, ("", 0))
        if not decision.steps:
            self._repeats.pop(key, None)
        elif digest == decision.plan and count >= decisions.MOST_REPEATS:
            self._repeats[key] = (digest, count - 1)
            status = decisions.not_converging(decision.status, plan.differences, now)
            decision = Decision(status, retry=True)
        elif look.before.holds("Stalled") and look.before.observed_generation == look.status.observed_generation:
            decision = replace(decision, status=replace(decision.status, conditions=look.before.conditions))
        return look.resolved, look.before, decision

    def _erred(self, look: Looked, error: BackendError) -> tuple[Resolved | Unresolved, KeyStatus, Decision]:
        if isinstance(error, Unreachable):
            return self._unanswered(look, error)
        change = statuses.stalled if isinstance(error, TerminalError) else statuses.retrying
        status = change(look.status, self._clock.now(), error.reason, error.message)
        return look.resolved, look.before, Decision(status, retry=True)

    # --- recording -----------------------------------------------------------------------------------------------------

    async def _settle(self, settled: Sequence[tuple[Resolved | Unresolved, KeyStatus, Decision]]) -> list[Acting]:
        """Commit what changed; schedule; return what is to be acted on."""
        events, changed, acting, forgotten = [], [], [], []
        for resolved, before, decision in settled:
            key, after = resolved.entry.key, decision.status
            if decision.retry:
                pause_s = self._scheduler.retry(key, None)
                _log.debug("retry later", setting=key, pause_s=round(pause_s, 2))
            elif decision.look_again_s is not None:
                self._scheduler.later(key, decision.look_again_s)
            if after.holds("Ready"):
                self._scheduler.settled(key)
            facts = [*decision.facts, *transitions(before, after)]
            if facts or material(before) != material(after):
                subject = self._subject(resolved.entry, before, after)
                events += [self._shard.record(_caused(fact, resolved.entry, before), subject) for fact in facts]
                changed.append(after)
                self._log_facts(facts, subject)
            if decision.forget:
                forgotten.append(resolved.entry)
            elif decision.steps and isinstance(resolved, Resolved):
                acting.append(Acting(resolved, after, decision.steps, decision.plan))
        if events or changed:
            await self._shard.commit(events, changed)
        for entry in forgotten:
            await self._forget(entry)
        return self._capped(acting)

    def _capped(self, acting: Sequence[Acting]) -> list[Acting]:
        taken, irreversible = [], 0
        for one in acting:
            irreversible += any(step.irreversible for step in one.steps)
            if irreversible > decisions.MOST_IRREVERSIBLE:
                self._scheduler.again(one.resolved.entry.key)
            else:
                taken.append(one)
        return taken

    def _log_facts(self, facts: Sequence[Fact], subject: Subject) -> None:
        for fact in facts:
            if fact.event_type is EventType.DRIFT_DETECTED:
                self._metrics.drift(subject.service, (subject.setting or "").split("/")[1])
            _log.info(
                str(fact.event_type),
                setting=subject.setting,
                generation=subject.generation,
                revision=subject.revision,
                correlation_id=subject.correlation_id,
                **{name: fact.details[name] for name in ("reason", "message") if name in fact.details},
            )

    @staticmethod
    def _subject(entry: Entry, before: KeyStatus, after: KeyStatus) -> Subject:
        drifted = before if before.holds("Drifted") else after
        condition = drifted.condition("Drifted")
        correlation = entry.request_id
        if condition is not None and condition.status == "True":
            correlation = event_id(f"drift:{entry.key}:{condition.since}", 0)
        tenant, setting_type, _ = entry.key.split("/")
        return Subject(
            tenant,
            setting_type.partition(".")[0],
            entry.key,
            entry.generation,
            entry.revision,
            entry.actor,
            correlation,
        )

    # --- acting --------------------------------------------------------------------------------------------------------

    async def _act(self, acting: Sequence[Acting], backend: Backend) -> None:
        """Take the steps, wave by wave; keys whose step didn't succeed drop out."""
        going = list(acting)
        wave = 0
        try:
            while going:
                going = await self._wave(going, wave, backend)
                wave += 1
                finished = [one for one in going if len(one.steps) <= wave]
                for one in finished:
                    self._applied(one)
                going = [one for one in going if len(one.steps) > wave]
        except ShardLost:
            raise
        except Exception:
            for one in going:
                self._scheduler.retry(one.resolved.entry.key, None)
            raise

    def _applied(self, one: Acting) -> None:
        key = one.resolved.entry.key
        digest, count = self._repeats.get(key, ("", 0))
        self._repeats[key] = (one.plan, count + 1 if digest == one.plan else 1)
        self._scheduler.again(key)

    async def _wave(self, going: Sequence[Acting], wave: int, backend: Backend) -> list[Acting]:
        started = self._clock.monotonic()
        steps = [one.steps[wave] for one in going]
        events = []
        for one, step in zip(going, steps, strict=True):
            intent = self._begin(one, step)
            events.append(intent)
        await self._shard.commit(events, [one.status for one in going])
        self._batches += 1
        fence = Effects(self._shard, self._batches, started, deadline_s=self._start_deadline_s, clock=self._clock)
        outcomes = await self._apply(backend, steps, fence)
        return await self._end(going, steps, outcomes)

    def _begin(self, one: Acting, step: Step) -> Any:
        before = one.status
        subject = self._subject(one.resolved.entry, before, before)
        identity = event_id(
            f"intent:{self._shard.token}:{one.resolved.entry.key}", self._batches * 1000 + len(one.steps)
        )
        one.status = decisions.begun(before, step, one.plan, identity, self._clock.now())
        attempt = one.status.intent.attempt if one.status.intent else 1
        details = {"step": step.name, "summary": step.summary(), "attempt": attempt, "plan": one.plan, **step.details()}
        fact = Fact(
            EventType.ACTION_STARTED,
            details,
            EventStatus.STARTED,
            causation_id=accepted_id(one.resolved.entry.key, one.resolved.entry.revision),
            id=identity,
        )
        return self._shard.record(fact, subject)

    async def _apply(self, backend: Backend, steps: Sequence[Step], fence: Effects) -> Sequence[Outcome]:
        """Outcomes of the steps, whatever happens: an effect always has an end."""
        try:
            async with asyncio.timeout(self._service.effect_timeout_s + len(steps) / 500):
                return list(await backend.apply(steps, fence))
        except NotSent:
            return [Outcome(Result.NOT_SENT)] * len(steps)
        except TimeoutError:
            late = unknown(Unreachable("no answer in time", reason="Timeout"))
            return [late] * len(steps)
        except BackendError as exc:
            if isinstance(exc, Unreachable):
                self._scheduler.unreachable(exc)
            return [failed(exc)] * len(steps)
        except Exception as exc:  # noqa: BLE001 - a bug: counted; the effect may have happened
            self._metrics.bug("apply")
            _log.exception("apply failed", service=self._service.name)
            return [unknown(TerminalError(f"apply: {exc!r}", reason="InternalError"))] * len(steps)

    async def _end(self, going: Sequence[Acting], steps: Sequence[Step], outcomes: Sequence[Outcome]) -> list[Acting]:
        events, succeeded, now = [], [], self._clock.now()
        for one, step, outcome in zip(going, steps, outcomes, strict=True):
            before = one.status
            entry = one.resolved.entry
            one.status, fact = decisions.ended(before, outcome, now)
            subject = self._subject(entry, before, one.status)
            facts = [fact, *transitions(before, one.status)]
            events += [self._shard.record(fact, subject) for fact in facts]
            self._metrics.step(self._service.name, one.resolved.key.setting_type, step.name, str(outcome.result))
            _log.info(
                "step ended",
                setting=entry.key,
                step=step.name,
                outcome=str(outcome.result),
                correlation_id=subject.correlation_id,
                **({"reason": outcome.error.reason, "message": outcome.error.message} if outcome.error else {}),
            )
            if outcome.result is Result.SUCCEEDED:
                succeeded.append(one)
            elif outcome.result is Result.UNKNOWN:
                self._scheduler.hold(entry.key)
            else:
                self._scheduler.retry(entry.key, decisions.pause_s(outcome))
        await self._shard.commit_surely(events, [one.status for one in going])
        return succeeded


def _unsupported(resolved: Resolved | Unresolved, backend: Backend | None) -> str | None:
    """Why the backend can't hold the key. The target's own setting isn't held by its backend: it says where that is."""
    if backend is None or (isinstance(resolved, Resolved) and resolved.kind is None):
        return None
    return backend.unsupported(resolved.key.setting_type)


def material(status: KeyStatus) -> KeyStatus:
    """The status without what isn't worth a commit of its own."""
    return replace(status, next_at=None)


def _caused(fact: Fact, entry: Entry, before: KeyStatus) -> Fact:
    """Point the event at its cause: the accepted revision, unless it says what happened outside."""
    if fact.causation_id is not None or fact.event_type in (EventType.DRIFT_DETECTED, EventType.DRIFT_RESOLVED):
        return fact
    if before.holds("Drifted"):
        return fact
    return replace(fact, causation_id=accepted_id(entry.key, entry.revision))
