"""One backend: its connection, its queue of keys, and the loops that work on it.

Theory of operation. `connection` keeps a backend open and says when it goes up or down. Workers take due keys and make a
pass over them. The sweep observes everything the target holds with one call and only *enqueues* what differs: it never
acts and holds no key, so that a user's change goes ahead while a sweep runs. Hints from the backend cause a look at one key
or a sweep. While the target is down nothing is asked; when it is up again, the sweep finds what is to be done.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from controlplane.config import RuntimeConfig
from controlplane.domain import status as statuses
from controlplane.domain.events import Fact, Subject, transitions
from controlplane.domain.fold import Entry
from controlplane.domain.status import KeyStatus
from controlplane.log.ports import LogUnavailable
from controlplane.runtime import decisions
from controlplane.runtime.backoff import Backoff
from controlplane.runtime.catalogue import Resolved, TargetId
from controlplane.runtime.clock import Clock
from controlplane.runtime.desired import DesiredState
from controlplane.runtime.passes import YIELD_EVERY, Passes, material
from controlplane.runtime.shards import Shard, ShardLost
from controlplane.runtime.workqueue import Priority, WorkQueue
from controlplane.telemetry.metrics import Metrics
from reconcilers.contract import (
    Backend,
    BackendError,
    Connection,
    ExternalId,
    SecretNotFound,
    Secrets,
    Service,
    TerminalError,
    Unreachable,
)
from schemas.event import EventStatus, EventType
from schemas.names import timestamp

_log = structlog.get_logger()

PASSES = 2
"""Passes at once over one target: a slow one doesn't keep a user's change waiting."""

SLICE = 200
"""Statuses in one commit when a whole target changes."""

TICK_S = 0.001
"""Shortest wait for a key that isn't due yet: a timer may fire a little before its time, which would spin."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What every target's loop is built from."""

    desired: DesiredState
    secrets: Secrets
    clock: Clock
    metrics: Metrics
    config: RuntimeConfig
    forget: Callable[[Entry], Awaitable[None]]


class TargetLoop:
    """The work on one target, for as long as the shard is ours."""

    def __init__(self, target: TargetId, service: Service, shard: Shard, parts: Parts) -> None:
        self.id = target
        self.backend: Backend | None = None
        self.since = parts.clock.now()
        self.closing = False
        """Set by the controller when the loop has lost its last key."""
        self.down: BackendError | None = Unreachable("not connected yet", reason="Connecting")
        self._service = service
        self._shard = shard
        self._parts = parts
        self._clock = parts.clock
        self._queue = WorkQueue()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._lost = asyncio.Event()
        self._changed = asyncio.Event()
        self._sweep_due = asyncio.Event()
        self._backoff = Backoff(parts.config.backoff_initial_s, parts.config.backoff_cap_s)
        self._failures: dict[str, int] = {}
        self._held: dict[str, float] = {}
        self._draining = False
        self._incarnation: str | None = None
        self._passes = Passes(
            service,
            shard,
            parts.desired,
            self,
            clock=parts.clock,
            metrics=parts.metrics,
            start_deadline_s=parts.config.start_deadline_s,
            forget=parts.forget,
        )

    # --- what others tell it -------------------------------------------------------------------------------------------

    def look(self, key: str, priority: Priority = Priority.USER) -> None:
        """Look at the key as soon as it may be."""
        if key == self.id.key:
            self._changed.set()
        now = self._clock.monotonic()
        held = self._held.get(key, 0.0)
        self._failures.pop(key, None)
        if held > now:
            self._queue.postpone(key, priority, now, held)
        else:
            self._queue.add(key, priority, now)
        self._wake.set()

    def sweep_soon(self) -> None:
        """Sweep as soon as possible."""
        self._sweep_due.set()

    def report(self) -> dict[str, object]:
        """For `/v1/status`."""
        return {
            "tenant": self.id.tenant,
            "service": self.id.service,
            "target": self.id.target,
            "up": self.backend is not None,
            "since": timestamp(self.since),
            "reason": None if self.down is None else self.down.reason,
            "message": None if self.down is None else self.down.message,
            "incarnation": self._incarnation,
            "settings": len(self._parts.desired.keys_of(self.id)),
            "queued": len(self._queue),
            "busy": self._queue.out,
            "shard": self._shard.index,
        }

    async def drain(self, timeout_s: float) -> None:
        """Begin nothing new; wait for what runs."""
        self._draining = True
        deadline = self._clock.monotonic() + timeout_s
        while self._queue.out and (left_s := deadline - self._clock.monotonic()) > 0:
            self._idle.clear()
            await _wait(self._idle, left_s)

    # --- what a pass tells it (passes.Scheduler) -----------------------------------------------------------------------

    def again(self, key: str) -> None:
        """Look again at once: it was just acted on."""
        self._queue.add(key, Priority.USER, self._clock.monotonic())

    def later(self, key: str, pause_s: float) -> None:
        """Look again after a pause."""
        now = self._clock.monotonic()
        self._queue.add(key, Priority.RESYNC, now, due=now + pause_s)

    def retry(self, key: str, pause_s: float | None) -> float:
        """Look again after this key's next pause."""
        self._failures[key] = self._failures.get(key, 0) + 1
        if pause_s is None:
            pause_s = self._backoff.pause_s(self._failures[key], random.random())  # noqa: S311
        now = self._clock.monotonic()
        self._queue.postpone(key, Priority.USER, now, now + pause_s)
        self._parts.metrics.backed_off(self.id.service, pause_s)
        return pause_s

    def hold(self, key: str) -> None:
        """Keep off until an effect of unknown outcome must have landed."""
        now = self._clock.monotonic()
        until = now + self._parts.config.start_deadline_s + self._service.landing_s
        self._held[key] = until
        self._queue.postpone(key, Priority.USER, now, until)

    def settled(self, key: str) -> None:
        """Pauses start anew."""
        self._failures.pop(key, None)
        self._held.pop(key, None)

    def unreachable(self, error: BackendError) -> None:
        """Give the connection up."""
        if self.backend is not None:
            self.down = error
            self._lost.set()
            self._changed.set()

    # --- the loops -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled or the shard is lost."""
        self._enqueue_unfinished()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_connected())
                for _ in range(PASSES):
                    tasks.create_task(self._work())
                tasks.create_task(self._sweep_regularly())
                tasks.create_task(self._sample_regularly())
        except* ShardLost as lost:
            _log.info("target given up", target=str(self.id), reason=str(lost.exceptions[0]))
        finally:
            backend, self.backend = self.backend, None
            if backend is not None:
                await backend.close()

    def _enqueue_unfinished(self) -> None:
        """Keys the last owner left unfinished; those that were Ready wait for the first sweep."""
        for key in list(self._parts.desired.keys_of(self.id)):
            if key in self._shard.held:
                self.hold(key)
                continue
            entry, status = self._parts.desired.entry(key), self._shard.statuses.get(key)
            if entry is not None and (status is None or status.revision != entry.revision or not status.holds("Ready")):
                self.look(key)

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            now = self._clock.monotonic()
            keys = [] if self._draining else self._queue.take(self._service.batch, now)
            self._parts.metrics.queued(self.id.service, str(self.id), len(self._queue))
            if not keys:
                due = self._queue.next_due()
                await _wait(self._wake, None if due is None or self._draining else max(TICK_S, due - now))
                continue
            try:
                await self._passes.run(keys, self.backend, self.down)
            except LogUnavailable as exc:
                _log.warning("log unavailable", target=str(self.id), error=str(exc))
                for key in keys:
                    self.retry(key, None)
            finally:
                now = self._clock.monotonic()
                for key in keys:
                    self._queue.done(key, now)
                self._wake.set()
                self._idle.set()

    async def _keep_connected(self) -> None:
        failures = 0
        while True:
            self._changed.clear()
            setting = self._parts.desired.target_setting(self.id)
            if setting is None:
                self.down = Unreachable(f"declare {self.id.service}.target/{self.id.target}", reason="TargetNotFound")
                await self._changed.wait()
                continue
            connected = self._clock.monotonic()
            error = await self._connect(setting)
            if error is None:
                error = await self._stay_connected(setting)
            if error is None:
                failures = 0
                continue
            if self._clock.monotonic() - connected > self._parts.config.backoff_cap_s:
                failures = 0
            failures += 1
            await self._went_down(error)
            pause_s = self._backoff.pause_s(failures, random.random())  # noqa: S311
            self._parts.metrics.connect_failed(self.id.service, str(self.id))
            await _wait(self._changed, pause_s)

    async def _connect(self, setting: Resolved) -> BackendError | None:
        connection = Connection(self.id.tenant, self.id.target, setting.value, self._parts.secrets)
        try:
            async with asyncio.timeout(self._service.observe_timeout_s):
                self.backend = await self._service.connect(connection)
        except SecretNotFound as exc:
            return TerminalError(str(exc), reason="SecretNotFound")
        except TimeoutError:
            return Unreachable("no answer in time", reason="Timeout")
        except BackendError as exc:
            return exc
        return None

    async def _stay_connected(self, setting: Resolved) -> BackendError | None:
        """Until the connection is lost (the error) or the declaration changes (None)."""
        backend = self.backend
        if backend is None:
            return None
        self._lost.clear()
        self.down = None
        await self._went_up(backend)
        hints = asyncio.create_task(self._take_hints(backend))
        hints.add_done_callback(lambda _: self._changed.set())
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if self._lost.is_set():
                    return self.down or Unreachable("connection lost")
                if hints.done():
                    return hints.result()
                now = self._parts.desired.target_setting(self.id)
                if now is None or now.value != setting.value:
                    return None
        finally:
            hints.cancel()
            await asyncio.wait({hints})
            self.backend = None
            await backend.close()

    async def _take_hints(self, backend: Backend) -> BackendError:
        try:
            async for hint in backend.hints():
                self._parts.metrics.hinted(self.id.service)
                if backend.incarnation != self._incarnation:
                    self._incarnation = backend.incarnation
                    self._parts.metrics.incarnation_changed(self.id.service, str(self.id))
                    _log.info("target restarted", target=str(self.id), incarnation=self._incarnation)
                _log.info("hint", target=str(self.id), reason=hint.reason)
                if hint.external is None:
                    self._sweep_due.set()
                else:
                    self._look_at(hint.external)
        except BackendError as exc:
            return exc
        return Unreachable("the backend closed its stream of hints")

    def _look_at(self, external: ExternalId) -> None:
        for key in self._parts.desired.keys_of(self.id):
            entry = self._parts.desired.entry(key)
            resolved = None if entry is None else self._parts.desired.resolve(entry)
            if isinstance(resolved, Resolved) and resolved.external == external:
                self.look(key)

    # --- up and down ---------------------------------------------------------------------------------------------------

    async def _went_up(self, backend: Backend) -> None:
        self.since = self._clock.now()
        self._incarnation = backend.incarnation
        self._parts.metrics.target_up(self.id.service, str(self.id), up=True)
        fact = Fact(EventType.TARGET_UP, {"target": self.id.target, "incarnation": backend.incarnation})
        await self._target_status(fact, lambda s, now: statuses.converged(s, now, self.id.target))
        self._sweep_due.set()

    async def _went_down(self, error: BackendError) -> None:
        self.down = error
        self.since = self._clock.now()
        self._parts.metrics.target_up(self.id.service, str(self.id), up=False)

        def downed(status: KeyStatus, now: float) -> KeyStatus:
            change = statuses.stalled if isinstance(error, TerminalError) else statuses.unanswered
            return change(status, now, error.reason, error.message)

        details = {"target": self.id.target, "reason": error.reason, "message": error.message}
        before = self._shard.statuses.get(self.id.key)
        known = before.condition("Ready") if before is not None else None
        if known is None or (known.status, known.reason) != ("Unknown", error.reason):
            _log.warning("target down", target=str(self.id), reason=error.reason, message=error.message)
        await self._target_status(Fact(EventType.TARGET_DOWN, details, EventStatus.FAILED), downed)
        await self._mark_unanswered(error)

    async def _target_status(self, fact: Fact, change: Callable[[KeyStatus, float], KeyStatus]) -> None:
        entry = self._parts.desired.entry(self.id.key)
        if entry is None or entry.retiring:
            return
        now = self._clock.now()
        before = self._shard.statuses.get(entry.key) or KeyStatus(entry.key)
        after = change(decisions.taken_up(entry, before, now), now)
        same = before.condition("Ready"), after.condition("Ready")
        turned = same[0] is None or same[1] is None or same[0].status != same[1].status
        if not turned and material(before) == material(after):
            return
        subject = Subject(self.id.tenant, self.id.service, entry.key, entry.generation, entry.revision, "coreplane")
        facts = [*([fact] if turned else []), *transitions(before, after)]
        await self._shard.commit_surely([self._shard.record(fact, subject) for fact in facts], [after])

    async def _mark_unanswered(self, error: BackendError) -> None:
        """Nothing is known of a target's settings while it is down; say so for those that were Ready."""
        now = self._clock.now()
        marked = []
        for key in list(self._parts.desired.keys_of(self.id)):
            status = self._shard.statuses.get(key)
            if key != self.id.key and status is not None and status.holds("Ready"):
                marked.append(statuses.unanswered(status, now, error.reason, error.message))
        for start in range(0, len(marked), SLICE):
            await self._shard.commit_surely([], marked[start : start + SLICE])

    # --- sweeping and sampling -----------------------------------------------------------------------------------------

    async def _sweep_regularly(self) -> None:
        every_s = self._parts.config.sweep_s or self._service.sweep_s
        while True:
            await _wait(self._sweep_due, every_s * random.uniform(0.9, 1.1))  # noqa: S311 - targets spread out
            self._sweep_due.clear()
            backend = self.backend
            if backend is not None and not self._draining:
                started = self._clock.monotonic()
                await self._sweep(backend)
                self._parts.metrics.swept(self.id.service, self._clock.monotonic() - started)

    async def _sweep(self, backend: Backend) -> None:
        """Observe all, enqueue what differs."""
        found = [resolved for key in self._parts.desired.keys_of(self.id) if (resolved := self._sweepable(key))]
        if not found:
            return
        retiring = {resolved.entry.key for resolved in found if resolved.entry.retiring}
        wanted = {r.external: None if r.entry.key in retiring else r.desired for r in found}
        try:
            observed = await self._passes.observe(backend, wanted)
        except BackendError as exc:
            if isinstance(exc, Unreachable):
                self.unreachable(exc)
            _log.warning("sweep failed", target=str(self.id), reason=exc.reason, message=exc.message)
            return
        for index, resolved in enumerate(found):
            seen = observed.get(resolved.external)
            key = resolved.entry.key
            if self._differs(resolved, seen, retiring=key in retiring):
                self._queue.add(key, Priority.RESYNC, self._clock.monotonic())
                self._wake.set()
            if index % YIELD_EVERY == YIELD_EVERY - 1:
                await asyncio.sleep(0)

    def _sweepable(self, key: str) -> Resolved | None:
        entry = self._parts.desired.entry(key)
        if entry is None or key in self._queue or self._held.get(key, 0.0) > self._clock.monotonic():
            return None
        resolved = self._parts.desired.resolve(entry)
        if not isinstance(resolved, Resolved) or resolved.kind is None or entry.body.get("policy", {}).get("paused"):
            return None
        return resolved

    def _differs(self, resolved: Resolved, observed: object, *, retiring: bool) -> bool:
        status = self._shard.statuses.get(resolved.entry.key)
        if status is None or status.revision != resolved.entry.revision or not status.holds("Ready"):
            return True
        if isinstance(observed, BackendError):
            return True
        return not self._passes.plan(resolved, observed, retiring=retiring).converged

    async def _sample_regularly(self) -> None:
        every_s = self._parts.config.sample_s or self._service.sample_s
        while True:
            await asyncio.sleep(every_s * random.uniform(0.9, 1.1))  # noqa: S311
            backend = self.backend
            if backend is None:
                continue
            try:
                async with asyncio.timeout(self._service.observe_timeout_s):
                    measured = await backend.sample()
            except (BackendError, TimeoutError) as exc:
                _log.warning("sample failed", target=str(self.id), error=str(exc))
                continue
            records = []
            for m in measured:
                tags = {"target": self.id.target, **m.tags}
                self._parts.metrics.sampled(self.id.service, self.id.tenant, m.metric_type, m.value, tags)
                records.append(self._shard.metric(self.id.tenant, self.id.service, m.metric_type, m.value, tags))
            try:
                await self._shard.publish(records)
            except LogUnavailable as exc:
                _log.warning("sample not stored", target=str(self.id), error=str(exc))


async def _wait(event: asyncio.Event, timeout_s: float | None) -> None:
    """Until the event is set, at most so long."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return

