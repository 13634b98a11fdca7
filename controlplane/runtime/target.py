"""The work on one target: its queue of keys, and the loops that work on it.

Theory of operation. The link keeps a backend open. Workers take due keys and make a pass over them. The sweep observes
everything and enqueues what differs. Hints from the backend cause a look at one key or a sweep. While the target is down
nothing is asked: the keys that were Ready are looked at once, so that their status says so, and when it is up again the
sweep finds what is to be done.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from controlplane.domain.fold import Entry
from controlplane.log.ports import LogUnavailable
from controlplane.runtime.acting import longest_effect_s
from controlplane.runtime.backoff import Backoff
from controlplane.runtime.catalogue import Resolved, TargetId
from controlplane.runtime.link import Link, Surrounded
from controlplane.runtime.passes import Passes, interval_s
from controlplane.runtime.schedule import Schedule
from controlplane.runtime.shards import Shard, ShardLost
from controlplane.runtime.sweeps import Sweeps, happened
from reconcilers.contract import Backend, BackendError, ExternalId, Hint, Service
from schemas.names import timestamp

_log = structlog.get_logger()

PASSES: Final = 2
"""Passes at once over one target: a slow one doesn't keep a user's change waiting."""

TICK_S: Final = 0.001
"""Shortest wait for a key that isn't due yet: a timer may fire a little before its time, which would spin."""


class _Closed(Exception):
    """The loop was asked to end, and nothing is under way any more."""


class TargetLoop:
    """The work on one target, for as long as the shard is ours and the target has keys. Runs once."""

    def __init__(
        self,
        target: TargetId,
        service: Service,
        shard: Shard,
        around: Surrounded,
        forget: Callable[[Entry], Awaitable[bool]],
    ) -> None:
        self.id = target
        self._service = service
        self._shard = shard
        self._around = around
        self._clock = around.clock
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._closing = asyncio.Event()
        self._draining = False
        config = around.config
        backoff = Backoff(config.backoff_initial_s, config.backoff_cap_s)
        hold_s = config.start_deadline_s + service.landing_s
        self._schedule = Schedule(around.clock, backoff, random.random, hold_s=hold_s, wake=self._wake.set)
        self._link = Link(target, service, shard, around, turned=self._turned, heard=self._heard)
        self._passes = Passes(
            target,
            service,
            shard,
            around.desired,
            self._schedule,
            lost=self._link.lost,
            clock=around.clock,
            metrics=around.metrics,
            start_deadline_s=config.start_deadline_s,
            forget=forget,
        )
        self._sweeps = Sweeps(
            target, service, shard, around, link=self._link, schedule=self._schedule, passes=self._passes
        )

    # --- what others ask and tell --------------------------------------------------------------------------------------

    @property
    def backend(self) -> Backend | None:
        """The open backend, None while the target is down."""
        return self._link.backend

    @property
    def down(self) -> BackendError | None:
        """Why the target is down, None while it is up."""
        return self._link.down

    def look(self, key: str) -> None:
        """Look at the key as soon as it may be."""
        if key == self.id.key:
            self._link.declared()
        self._schedule.look(key)

    def sweep_soon(self) -> None:
        """Sweep as soon as possible."""
        self._sweeps.soon()

    def report(self) -> dict[str, object]:
        """For `/v1/status`."""
        down = self._link.down
        return {
            "tenant": self.id.tenant,
            "service": self.id.service,
            "target": self.id.target,
            "up": self._link.backend is not None,
            "since": timestamp(self._link.since),
            "reason": None if down is None else down.reason,
            "message": None if down is None else down.message,
            "incarnation": self._link.incarnation,
            "settings": len(self._around.desired.keys_of(self.id)),
            "queued": self._schedule.waiting,
            "busy": self._schedule.out,
            "shard": self._shard.index,
        }

    async def drain(self, timeout_s: float) -> None:
        """Begin nothing new; wait for what runs."""
        self.pause()
        deadline = self._clock.monotonic() + timeout_s
        while self._schedule.out and (left_s := deadline - self._clock.monotonic()) > 0:
            self._idle.clear()
            await happened(self._idle, left_s)

    def pause(self) -> None:
        """Begin nothing new."""
        self._draining = True

    def resume(self) -> None:
        """Go on after `drain` or `pause`."""
        self._draining = False
        self._wake.set()

    def close(self) -> None:
        """End once nothing is under way: the target has lost its last key."""
        self._closing.set()

    # --- the loops -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until closed, cancelled or the shard is lost."""
        try:
            await self._take_up()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._link.run())
                for _ in range(PASSES):
                    tasks.create_task(self._work())
                tasks.create_task(self._sweeps.run())
                tasks.create_task(self._sweeps.sample())
                tasks.create_task(self._until_closed())
        except* ShardLost as lost:
            _log.info("target given up", target=str(self.id), reason=str(lost.exceptions[0]))
        except* _Closed:
            _log.info("target closed", target=str(self.id))
        finally:
            await self._link.close()

    async def _take_up(self) -> None:
        """What the last loop or the last owner left unfinished; what was Ready waits for the first sweep."""
        keys = sorted(self._around.desired.keys_of(self.id))
        await self._shard.settle(keys)
        for key in keys:
            entry, status = self._around.desired.entry(key), self._shard.statuses.get(key)
            if entry is None:
                continue
            if status is not None and status.unknown_since is not None:
                self._schedule.hold(key, self._still_running_s())
            elif status is None or status.revision != entry.revision or not status.holds("Ready"):
                self._schedule.look(key)
            elif (interval := interval_s(entry)) is not None:
                self._schedule.later(key, interval)

    def _still_running_s(self) -> float:
        """Note [The owner before may be alive]."""
        return longest_effect_s(self._service, self._service.batch) if self._shard.contested else 0.0

    async def _until_closed(self) -> None:
        await self._closing.wait()
        await self.drain(self._around.config.shutdown_timeout_s)
        raise _Closed

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            keys = [] if self._draining else self._schedule.take(self._passes.most, self._waited)
            self._around.metrics.queued(self.id.service, str(self.id), self._schedule.waiting)
            if keys:
                await self._pass(keys)
                continue
            due_s = None if self._draining else self._schedule.next_s()
            await happened(self._wake, None if due_s is None else max(TICK_S, due_s))

    async def _pass(self, keys: Sequence[str]) -> None:
        backend, started, result = self._link.backend, self._clock.monotonic(), "failed"
        try:
            await self._passes.run(keys, backend, self._link.down)
            result = "done"
        except LogUnavailable as exc:
            _log.warning("log unavailable", target=str(self.id), error=str(exc))
            self._retry(keys)
        except ShardLost:
            raise
        except Exception:  # noqa: BLE001 - a bug: counted; what was begun is ended, the keys are tried again
            self._around.metrics.bug("pass")
            _log.exception("pass failed", target=str(self.id))
            await self._abandon(keys)
        finally:
            if backend is None and self._link.backend is not None:
                self._again(keys)  # it went up meanwhile, and its sweep left out what was in a pass
            self._schedule.done(keys)
            self._around.metrics.reconciled(self.id.service, len(keys), self._clock.monotonic() - started, result)
            self._idle.set()

    def _waited(self, seconds: float) -> None:
        self._around.metrics.waited(self.id.service, seconds)

    def _again(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._schedule.again(key)

    def _retry(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._schedule.retry(key)

    async def _abandon(self, keys: Sequence[str]) -> None:
        await self._shard.settle(keys)
        for key in keys:
            status = self._shard.statuses.get(key)
            if status is not None and status.unknown_since is not None:
                self._schedule.hold(key)
        self._retry(keys)

    # --- what the link tells -------------------------------------------------------------------------------------------

    def _turned(self) -> None:
        """Up: see what is to be done. Down: nothing is known any more of what was Ready, and why is said anew."""
        if self._link.backend is not None:
            self._sweeps.soon()
            return
        for key in self._around.desired.keys_of(self.id):
            status = self._shard.statuses.get(key)
            ready = None if status is None else status.condition("Ready")
            if key != self.id.key and ready is not None and ready.status != "False":
                self._schedule.resync(key)

    def _heard(self, hint: Hint) -> None:
        if hint.external is None:
            self._sweeps.soon()
        else:
            self._look_at(hint.external)

    def _look_at(self, external: ExternalId) -> None:
        for key in self._around.desired.keys_of(self.id):
            entry = self._around.desired.entry(key)
            resolved = None if entry is None else self._around.desired.resolve(entry)
            if isinstance(resolved, Resolved) and resolved.external == external:
                self._schedule.resync(key)
