"""The controller: owns shards, runs a loop per target, and hands each key to the loop of its target. One for all services.

Theory of operation. `own` says which shards this process should hold (all of them when it is alone). For each a keeper
takes the shard, starts the loops of its targets, and starts over with a new incarnation when the shard is lost. The
announcer and the statuses say which keys to look at; a loop is started when a target gets its first key and stopped when
it lost its last.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection
from collections.abc import Set as AbstractSet
from typing import Any

import structlog

from controlplane.config import RuntimeConfig
from controlplane.domain.fold import Entry
from controlplane.domain.sharding import shard_of
from controlplane.domain.status import KeyStatus
from controlplane.log.ports import Indeterminate, Journal, LogUnavailable
from controlplane.runtime.announcer import Announcer
from controlplane.runtime.backoff import Backoff
from controlplane.runtime.catalogue import Catalogue, TargetId
from controlplane.runtime.clock import Clock
from controlplane.runtime.desired import DesiredState
from controlplane.runtime.replica import Replica
from controlplane.runtime.shards import Shard, ShardLost
from controlplane.runtime.statuses import StatusView
from controlplane.runtime.supervisor import Supervisor
from controlplane.runtime.target import Parts, TargetLoop
from controlplane.telemetry.metrics import Metrics
from reconcilers.contract import Secrets

_log = structlog.get_logger()

ACTOR = "coreplane"
"""The controller's own name in records and events."""


class Controller:
    """Drives the backends of the shards it owns."""

    def __init__(
        self,
        replica: Replica,
        journal: Journal,
        statuses: StatusView,
        catalogue: Catalogue,
        *,
        secrets: Secrets,
        clock: Clock,
        metrics: Metrics,
        config: RuntimeConfig,
    ) -> None:
        self._replica = replica
        self._journal = journal
        self._catalogue = catalogue
        self._clock = clock
        self._metrics = metrics
        self._config = config
        self._desired = DesiredState(replica.state, catalogue, statuses, secrets)
        self._announcer = Announcer(replica, self._desired, journal.shards, self._look_at_all)
        self._parts = Parts(self._desired, secrets, clock, metrics, config, self._forget)
        self._shards: dict[int, Shard] = {}
        self._loops: dict[TargetId, TargetLoop] = {}
        self._supervisor = Supervisor(metrics)
        self._loop_supervisor = Supervisor(metrics)
        self._backoff = Backoff(0.2, 5.0)
        self._stopping = False
        statuses.listen(self._status_changed)

    # --- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Arrange what is desired; call when the replica has caught up. Owns nothing yet."""
        self._desired.load()
        self._supervisor.start("announcer", self._announcer.run)

    async def own(self, indices: Collection[int]) -> None:
        """Hold exactly these shards from now on."""
        for index in indices:
            name = f"shard-{index}"
            if not self._supervisor.running(name):
                self._supervisor.start(name, lambda index=index: self._keep_shard(index))  # type: ignore[misc]
        for index in set(self._shards) - set(indices):
            await self._supervisor.stop_one(f"shard-{index}")

    async def stop(self) -> None:
        """Begin nothing new, let effects under way end, give the shards up."""
        self._stopping = True
        timeout_s = self._config.shutdown_timeout_s
        await asyncio.gather(*(loop.drain(timeout_s) for loop in self._loops.values()))
        await self._loop_supervisor.stop()
        await self._supervisor.stop()

    # --- what others ask -----------------------------------------------------------------------------------------------

    def look(self, key: str) -> None:
        """Look at the key now."""
        self._look_at_all({key})

    def loop(self, target: TargetId) -> TargetLoop | None:
        """The running loop of a target, if its shard is ours."""
        return self._loops.get(target)

    def shard(self, target: TargetId) -> Shard | None:
        """The shard of a target, if it is ours."""
        return self._shards.get(shard_of(*target, self._journal.shards))

    def report(self) -> dict[str, Any]:
        """For `/v1/status`."""
        return {
            "shards": sorted(self._shards),
            "targets": [loop.report() for _, loop in sorted(self._loops.items())],
        }

    # --- shards --------------------------------------------------------------------------------------------------------

    async def _keep_shard(self, index: int) -> None:
        failures = 0
        while True:
            shard = Shard(
                self._journal, index, self._clock, self._metrics, commit_timeout_s=self._config.commit_timeout_s
            )
            try:
                await shard.take()
            except (ShardLost, LogUnavailable, Indeterminate) as exc:
                failures += 1
                _log.warning("shard not taken", shard=index, error=str(exc))
                await shard.close()
                await asyncio.sleep(self._backoff.pause_s(failures, random.random()))  # noqa: S311
                continue
            failures = 0
            await self._hold(shard)

    async def _hold(self, shard: Shard) -> None:
        """Work on the shard until it is lost or given up."""
        self._shards[shard.index] = shard
        self._metrics.shard_owned(shard.index, owned=True)
        self._announcer.own(shard)
        try:
            for target in self._desired.targets():
                self._start_loop(target)
            await shard.lost.wait()
        finally:
            self._announcer.disown(shard.index)
            del self._shards[shard.index]
            for target in [t for t in self._loops if self._index(t) == shard.index]:
                await self._stop_loop(target)
            self._metrics.shard_owned(shard.index, owned=False)
            await shard.close()

    def _index(self, target: TargetId) -> int:
        return shard_of(*target, self._journal.shards)

    # --- targets -------------------------------------------------------------------------------------------------------

    def _start_loop(self, target: TargetId) -> TargetLoop | None:
        loop = self._loops.get(target)
        shard = self._shards.get(self._index(target))
        service = self._catalogue.services.get(target.service)
        if loop is not None or shard is None or service is None or self._stopping:
            return loop
        loop = self._loops[target] = TargetLoop(target, service, shard, self._parts)
        self._loop_supervisor.start(str(target), loop.run)
        return loop

    async def _stop_loop(self, target: TargetId) -> None:
        await self._loop_supervisor.stop_one(str(target))
        self._loops.pop(target, None)
        self._metrics.target_gone(target.service, str(target))

    def _look_at_all(self, keys: AbstractSet[str]) -> None:
        for key in keys:
            target = self._desired.target_of(key)
            loop = self._start_loop(target) if target is not None else None
            if loop is not None:
                loop.look(key)
        for target in [t for t in self._loops if not self._desired.keys_of(t)]:
            loop = self._loops[target]
            if not loop.closing:
                loop.closing = True
                self._supervisor.start(f"close-{target}", lambda target=target: self._stop_loop(target))  # type: ignore[misc]

    def _status_changed(self, key: str, before: KeyStatus | None, after: KeyStatus | None) -> None:
        """A key that became Ready, or is gone, lets others go on."""
        was = before is not None and before.holds("Ready")
        now = after is not None and after.holds("Ready")
        if was != now or after is None:
            waiting = self._desired.dependents(key)
            if waiting and not key.partition("/")[2].partition("/")[0].endswith(".target"):
                self._look_at_all(set(waiting))

    # --- the log -------------------------------------------------------------------------------------------------------

    async def _forget(self, entry: Entry) -> None:
        """Drop a retired key from the state. The request_id is the same however often it is tried."""
        change = {"op": "forget", "key": entry.key, "expected": entry.revision}
        try:
            verdict = await self._replica.submit(
                [change],
                actor=ACTOR,
                request_id=f"forget-{entry.key}-{entry.revision}",
                reason="retired",
                timeout_s=self._config.commit_timeout_s,
            )
        except (LogUnavailable, Indeterminate) as exc:
            _log.warning("forget not stored", setting=entry.key, error=str(exc))
            accepted = False
        else:
            accepted = verdict.accepted
        target = self._desired.target_of(entry.key)
        loop = None if target is None else self._loops.get(target)
        if not accepted and loop is not None:
            loop.retry(entry.key, None)
