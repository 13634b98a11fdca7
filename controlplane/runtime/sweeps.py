"""Sweeps and samples of one target: everything observed with one call; what differs is only *enqueued*.

A sweep never acts and holds no key, so that a user's change goes ahead while it runs. What it saw may be old when it is
done: the pass that follows looks again. Keys with an interval of their own are looked at by the queue; they take part in
sweeps that have a cause (a hint, a connection).
"""

from __future__ import annotations

import asyncio
import random

import structlog

from controlplane.domain.status import KeyStatus
from controlplane.log.ports import LogUnavailable
from controlplane.runtime.catalogue import Resolved, TargetId
from controlplane.runtime.link import Link, Surrounded
from controlplane.runtime.passes import YIELD_EVERY, Looked, Passes, interval_s
from controlplane.runtime.schedule import Schedule
from controlplane.runtime.shards import Shard
from reconcilers.contract import Backend, BackendError, Service, Unreachable

_log = structlog.get_logger()


class Sweeps:
    """The regular looks at a whole target."""

    def __init__(
        self,
        target: TargetId,
        service: Service,
        shard: Shard,
        around: Surrounded,
        *,
        link: Link,
        schedule: Schedule,
        passes: Passes,
    ) -> None:
        self._id = target
        self._service = service
        self._shard = shard
        self._around = around
        self._link = link
        self._schedule = schedule
        self._passes = passes
        self._due = asyncio.Event()

    def soon(self) -> None:
        """Sweep as soon as possible."""
        self._due.set()

    async def run(self) -> None:
        """Sweep, regularly and when there is a cause, until cancelled."""
        every_s = self._around.config.sweep_s or self._service.sweep_s
        while True:
            caused = await happened(self._due, every_s * random.uniform(0.9, 1.1))  # noqa: S311 - targets spread out
            self._due.clear()
            keys = self._around.desired.keys_of(self._id)
            self._schedule.keep(keys)
            self._passes.keep(keys)
            if self._link.backend is not None:
                started = self._around.clock.monotonic()
                await self._sweep(self._link.backend, caused=caused)
                self._around.metrics.swept(self._id.service, self._around.clock.monotonic() - started)

    async def sample(self) -> None:
        """Sample regularly, until cancelled."""
        every_s = self._around.config.sample_s or self._service.sample_s
        while True:
            await asyncio.sleep(every_s * random.uniform(0.9, 1.1))  # noqa: S311
            if self._link.backend is None:
                continue
            try:
                await self._sample(self._link.backend)
            except (BackendError, TimeoutError, LogUnavailable) as exc:
                _log.warning("sample failed", target=str(self._id), error=repr(exc))

    async def _sweep(self, backend: Backend, *, caused: bool) -> None:
        keys = sorted(self._around.desired.keys_of(self._id))
        found = [looked for key in keys if (looked := self._looked(key, caused=caused))]
        if not found:
            return
        try:
            observed = await self._passes.observe(backend, {looked.thing: looked.desired for looked in found})
        except BackendError as exc:
            if isinstance(exc, Unreachable):
                self._link.lost(backend, exc)
            _log.warning("sweep failed", target=str(self._id), reason=exc.reason, message=exc.message)
            return
        for index, looked in enumerate(found):
            if self._differs(looked, observed.get(looked.thing)):
                self._schedule.resync(looked.resolved.entry.key)
            if index % YIELD_EVERY == YIELD_EVERY - 1:
                await asyncio.sleep(0)

    def _looked(self, key: str, *, caused: bool) -> Looked | None:
        """What the sweep looks at for the key; None when it has no business with it."""
        entry = self._around.desired.entry(key)
        if caused and self._schedule.is_out(key):
            self._schedule.resync(key)
        if entry is None or not self._schedule.may_resync(key):
            return None
        resolved = self._around.desired.resolve(entry)
        if not isinstance(resolved, Resolved) or resolved.kind is None or self._around.desired.contested(key):
            return None
        policy = entry.body.get("policy", {})
        if policy.get("paused"):
            return None
        interval = interval_s(entry)
        if interval is not None and not self._schedule.is_planned(key):
            self._schedule.later(key, interval)
        if interval is not None and not caused:
            return None
        status = self._shard.statuses.get(key) or KeyStatus(key)
        return Looked(resolved, status, status, ())

    def _differs(self, looked: Looked, observed: object) -> bool:
        resolved, status = looked.resolved, looked.status
        if status.revision != resolved.entry.revision or not status.holds("Ready"):
            return True
        if isinstance(observed, BackendError):
            return True
        return not self._passes.plan(resolved, looked.thing, looked.desired, observed).converged

    async def _sample(self, backend: Backend) -> None:
        try:
            async with asyncio.timeout(self._service.observe_timeout_s):
                measured = await backend.sample()
        except (BackendError, TimeoutError):
            raise
        except Exception:  # noqa: BLE001 - a bug: counted
            self._around.metrics.bug("sample")
            _log.exception("sample failed", target=str(self._id))
            return
        records = []
        for m in measured:
            tags = {"target": self._id.target, **m.tags}
            self._around.metrics.sampled(self._id.service, self._id.tenant, m.metric_type, m.value, tags)
            records.append(self._shard.metric(self._id.tenant, self._id.service, m.metric_type, m.value, tags))
        if records:
            await self._shard.publish(records)


async def happened(event: asyncio.Event, timeout_s: float | None) -> bool:
    """Wait for the event; False when it didn't happen in time."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
