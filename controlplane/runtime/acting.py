"""Steps: record the intents, apply, record the outcomes. Wave by wave: the first step of every key, then the second …

Note [The clock starts before the commit]. A process can be stopped between the commit of an intent and the send, wake
after a takeover and send then. So the start deadline counts from before the intent's commit, the backend checks it
directly before the write, and a takeover waits longer than deadline plus landing time. Taken after the commit, the clock
would look fresh to a process that was stopped while the commit's answer was on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from controlplane.domain.events import Fact, Subject, accepted_id, transitions
from controlplane.domain.status import KeyStatus
from controlplane.log.ports import Outgoing
from controlplane.runtime import decisions
from controlplane.runtime.attribution import subject_of
from controlplane.runtime.catalogue import Resolved
from controlplane.runtime.clock import Clock
from controlplane.runtime.portion import Portion
from controlplane.runtime.schedule import Schedule
from controlplane.runtime.shards import Shard
from controlplane.telemetry.metrics import Metrics
from reconcilers.contract import (
    Backend,
    BackendError,
    NotSent,
    Outcome,
    Result,
    Service,
    Step,
    TerminalError,
    Unreachable,
    failed,
    unknown,
)
from schemas.event import EventStatus, EventType

_log = structlog.get_logger()

Lost = Callable[[Backend, BackendError], None]
"""Called when a backend gave no answer: its connection is to be given up."""


class Effects:
    """The fence of one batch of steps (`reconcilers.contract.Fence`)."""

    def __init__(self, shard: Shard, number: int, started: float, *, deadline_s: float, clock: Clock) -> None:
        self.began_s = 0.0
        """How long after the intents the last effect began, or would have."""
        self._shard = shard
        self._number = number
        self._started = started
        self._deadline_s = deadline_s
        self._clock = clock

    @property
    def token(self) -> tuple[int, int]:
        """(offset of our ShardTaken, number of the batch)."""
        return self._shard.token, self._number

    def still_ours(self) -> None:
        """Raise `NotSent` when the shard is lost."""
        if self._shard.lost.is_set():
            raise NotSent

    def check(self) -> None:
        """Raise `NotSent` when the batch may no longer begin."""
        self.began_s = self._clock.monotonic() - self._started
        if self._shard.lost.is_set() or self.began_s > self._deadline_s:
            raise NotSent


@dataclass(slots=True)
class Acting:
    """A key with steps to take."""

    resolved: Resolved
    status: KeyStatus
    steps: tuple[Step, ...]
    plan: str


class Actions:
    """The steps of one target."""

    def __init__(
        self,
        service: Service,
        shard: Shard,
        schedule: Schedule,
        lost: Lost,
        *,
        clock: Clock,
        metrics: Metrics,
        start_deadline_s: float,
    ) -> None:
        self._service = service
        self._shard = shard
        self._schedule = schedule
        self._lost = lost
        self._clock = clock
        self._metrics = metrics
        self._start_deadline_s = start_deadline_s
        self.portion = Portion(service.batch, start_deadline_s)

    async def take(self, acting: Sequence[Acting], backend: Backend) -> list[Acting]:
        """Take the steps; the keys whose steps all succeeded. The others are scheduled already."""
        going, done, wave = list(acting), [], 0
        while going:
            going = await self._wave(going, wave, backend)
            wave += 1
            done += [one for one in going if len(one.steps) <= wave]
            going = [one for one in going if len(one.steps) > wave]
        return done

    async def _wave(self, going: Sequence[Acting], wave: int, backend: Backend) -> list[Acting]:
        started = self._clock.monotonic()
        number = self._shard.next_batch()
        steps = [one.steps[wave] for one in going]
        intents = [self._begin(one, step, number) for one, step in zip(going, steps, strict=True)]
        await self._shard.commit(intents, [one.status for one in going])
        fence = Effects(self._shard, number, started, deadline_s=self._start_deadline_s, clock=self._clock)
        outcomes = await self._apply(backend, steps, fence)
        self.portion.began(fence.began_s, expired=any(one.result is Result.NOT_SENT for one in outcomes))
        return await self._end(going, steps, outcomes)

    def _begin(self, one: Acting, step: Step, number: int) -> Outgoing:
        entry, before = one.resolved.entry, one.status
        identity = self._shard.effect_id(entry.key, number)
        one.status = decisions.begun(before, step, one.plan, identity, self._clock.now())
        attempt = one.status.intent.attempt if one.status.intent else 1
        details = {"step": step.name, "summary": step.summary(), "attempt": attempt, "plan": one.plan, **_told(step)}
        cause = accepted_id(entry.key, entry.revision)
        fact = Fact(EventType.ACTION_STARTED, details, EventStatus.STARTED, causation_id=cause, id=identity)
        return self._shard.record(fact, subject_of(entry, before, before))

    async def _apply(self, backend: Backend, steps: Sequence[Step], fence: Effects) -> Sequence[Outcome]:
        """Outcomes of the steps, whatever happens: an effect always has an end."""
        try:
            async with asyncio.timeout(longest_effect_s(self._service, len(steps))):
                outcomes = list(await backend.apply(steps, fence))
        except NotSent:
            return [Outcome(Result.NOT_SENT)] * len(steps)
        except TimeoutError:
            late = unknown(Unreachable("no answer in time", reason="Timeout"))
            return [late] * len(steps)
        except BackendError as exc:
            if isinstance(exc, Unreachable):
                self._lost(backend, exc)
            return [failed(exc)] * len(steps)
        except Exception as exc:  # noqa: BLE001 - a bug: counted; the effect may have happened
            return self._of_bug(repr(exc), steps)
        if len(outcomes) != len(steps):
            return self._of_bug(f"{len(outcomes)} outcomes of {len(steps)} steps", steps)
        return outcomes

    def _of_bug(self, what: str, steps: Sequence[Step]) -> Sequence[Outcome]:
        self._metrics.bug("apply")
        _log.error("apply failed", service=self._service.name, error=what, exc_info=True)
        return [unknown(TerminalError(f"apply: {what}", reason="InternalError"))] * len(steps)

    async def _end(self, going: Sequence[Acting], steps: Sequence[Step], outcomes: Sequence[Outcome]) -> list[Acting]:
        events, succeeded, now = [], [], self._clock.now()
        for one, step, outcome in zip(going, steps, outcomes, strict=True):
            before, entry = one.status, one.resolved.entry
            after, fact = decisions.ended(before, outcome, now)
            pause_s = self._scheduled(entry.key, outcome)
            one.status = replace(after, next_at=decisions.next_at(now, pause_s))
            subject = subject_of(entry, before, one.status)
            events += [self._shard.record(fact, subject) for fact in (fact, *transitions(before, one.status))]
            self._metrics.step(self._service.name, one.resolved.key.setting_type, step.name, str(outcome.result))
            _log_end(step, outcome, subject)
            if outcome.result is Result.SUCCEEDED:
                succeeded.append(one)
        await self._shard.commit_surely(events, [one.status for one in going])
        return succeeded

    def _scheduled(self, key: str, outcome: Outcome) -> float | None:
        """When the key is looked at again: the pause, None when the step succeeded and more come."""
        if outcome.result is Result.SUCCEEDED:
            return None
        if outcome.result is Result.UNKNOWN:
            return self._schedule.hold(key)
        pause_s = self._schedule.retry(key, decisions.pause_s(outcome))
        self._metrics.backed_off(self._service.name, pause_s)
        return pause_s


def _told(step: Step) -> dict[str, Any]:
    paths = list(step.paths())
    return {**({"paths": paths} if paths else {}), **step.details()}


def longest_effect_s(service: Service, steps: int) -> float:
    """After that a batch of so many steps is given up."""
    return service.effect_timeout_s + steps / 500


def _log_end(step: Step, outcome: Outcome, subject: Subject) -> None:
    _log.info(
        "step ended",
        setting=subject.setting,
        generation=subject.generation,
        revision=subject.revision,
        step=step.name,
        outcome=str(outcome.result),
        correlation_id=subject.correlation_id,
        **({"reason": outcome.error.reason, "message": outcome.error.message} if outcome.error else {}),
    )
