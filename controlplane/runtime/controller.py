"""The controller: owns shards, runs a loop per target, and hands each key to the loop of its target. One for all services.

Theory of operation. `own` says which shards this process should hold (all of them when it is alone). For each a keeper
takes the shard, starts the loops of its targets, and starts over with a new incarnation when the shard is lost. The
announcer and the statuses say which keys to look at; a loop is started when a target gets its first key and closed when
it lost its last.

Note [Not behind the predecessor]. Owner A acts on revision 7 of a setting and dies; B takes the shard while its own fold
stands at 6 and puts the backend back. So a shard is worked on only when the fold has reached the end that the settings log
had after the take: later revisions A can't have acted on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

import structlog

from controlplane.config import RuntimeConfig
from controlplane.domain.errors import Refused
from controlplane.domain.fold import Entry
from controlplane.domain.sharding import shard_of
from controlplane.domain.status import KeyStatus
from controlplane.log.ports import Indeterminate, Journal, KeepAside, LogUnavailable
from controlplane.runtime.announcer import Announcer
from controlplane.runtime.attribution import ACTOR
from controlplane.runtime.backoff import Backoff
from controlplane.runtime.catalogue import Catalogue, TargetId
from controlplane.runtime.clock import Clock
from controlplane.runtime.companions import Companions
from controlplane.runtime.desired import DesiredState
from controlplane.runtime.link import Surrounded
from controlplane.runtime.ownership import MayTake, always
from controlplane.runtime.replica import Replica
from controlplane.runtime.secrets import TenantSecrets
from controlplane.runtime.shards import Shard, ShardLost, only_told
from controlplane.runtime.statuses import StatusView
from controlplane.runtime.supervisor import Supervisor
from controlplane.runtime.target import TargetLoop
from controlplane.telemetry.metrics import Metrics
from reconcilers.contract import ExternalId

_log = structlog.get_logger()

STEADY_S: Final = 60.0
"""A shard that was held for so long before it was lost is taken again at once."""


ANNOUNCE_S: Final = 2.0
"""How long a process that ends waits for the events of what it accepted; the next owner makes up for the rest."""

LOOK_AGAIN_S: Final = 0.1
"""Right after an assignment the group may not read as settled yet."""


class NotOurs(Exception):
    """The shard is to be owned by another replica, as far as is known."""


class Controller:
    """Drives the backends of the shards it owns."""

    def __init__(
        self,
        replica: Replica,
        journal: Journal,
        statuses: StatusView,
        catalogue: Catalogue,
        *,
        secrets: TenantSecrets,
        clock: Clock,
        metrics: Metrics,
        config: RuntimeConfig,
        may_take: MayTake = always,
        reserved: frozenset[str] = frozenset(),
        put_aside: KeepAside = only_told,
    ) -> None:
        """`may_take`: whether a shard is to be ours, asked before it is taken and after; it may raise `LogUnavailable`.
        `reserved`: see `reconcilers.contract.Connection`. `put_aside`: for records that aren't understood."""
        self._may_take = may_take
        self._put_aside = put_aside
        self._replica = replica
        self._journal = journal
        self._catalogue = catalogue
        self._clock = clock
        self._metrics = metrics
        self._config = config
        self._desired = DesiredState(replica.state, catalogue, statuses, secrets)
        self._announcer = Announcer(replica, self._desired, journal.shards, self._look_at_all)
        self._around = Surrounded(self._desired, secrets, clock, metrics, config, reserved)
        self._companions = Companions(self._desired, catalogue, secrets, clock, metrics)
        self._shards: dict[int, Shard] = {}
        self._kept: set[int] = set()
        """Shards that this process should hold."""
        self._loops: dict[TargetId, TargetLoop] = {}
        self._supervisor = Supervisor(metrics)
        self._loop_supervisor = Supervisor(metrics)
        self._backoff = Backoff(0.2, 5.0)
        self._stopping = False
        self._quiet = False
        statuses.listen(self._status_changed)

    # --- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Arrange what is desired; call when the replica has caught up. Owns nothing yet."""
        self._announcer.load()
        self._supervisor.start("announcer", self._announcer.run)
        if any(service.companion is not None for service in self._catalogue.services.values()):
            self._supervisor.start("companions", self._companions.run)

    async def own(self, indices: Collection[int]) -> None:
        """Hold exactly these shards from now on; those given up first end what they have under way."""
        if self._stopping:
            return
        gone, self._kept = self._kept - set(indices), set(indices)
        await asyncio.gather(*(self._give_up(index) for index in gone))
        for index in self._kept:
            name = f"shard-{index}"
            if not self._supervisor.running(name):
                self._supervisor.start(name, lambda index=index: self._keep_shard(index))  # type: ignore[misc]

    async def quiesce(self, timeout_s: float) -> None:
        """Begin nothing new until `resume`, and let what is under way end; shards stay ours."""
        self._quiet = True
        await asyncio.gather(*(loop.drain(timeout_s) for loop in self._loops.values()))

    def resume(self) -> None:
        """Go on after `quiesce`."""
        self._quiet = False
        if not self._stopping:
            for loop in self._loops.values():
                loop.resume()

    async def stop(self) -> None:
        """Begin nothing new, let effects under way end, announce what was accepted, give the shards up."""
        self._stopping = True
        await self._drain(self._loops.values())
        await self._loop_supervisor.stop()
        await self._announcer.finish(ANNOUNCE_S)
        await self._supervisor.stop()
        await self._companions.close()

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

    def elsewhere(self, target: TargetId) -> int | None:
        """The target's shard, when another replica drives it, or will in a moment."""
        index = self._index(target)
        return index if self._may_take is not always and index not in self._shards else None

    def home(self, key: str) -> int | None:
        """The same of a setting; None also when there is no such setting."""
        target = self._desired.target_of(key)
        return None if target is None else self.elsewhere(target)

    def policy_of(self, target: TargetId, external: ExternalId) -> Mapping[str, Any] | None:
        """The policy of whoever declares an object; None when nobody does."""
        return self._desired.policy_of(target, external)

    def report(self) -> dict[str, Any]:
        """For `/v1/status`."""
        return {
            "shards": sorted(self._shards),
            "targets": [
                loop.report() for id_, loop in sorted(self._loops.items()) if not self._catalogue.is_own(id_.service)
            ],
        }

    # --- shards --------------------------------------------------------------------------------------------------------

    async def _keep_shard(self, index: int) -> None:
        """Take the shard again whenever it is lost; after a growing pause when that happens again and again."""
        failures = 0
        while True:
            began = self._clock.monotonic()
            shard = Shard(
                self._journal,
                index,
                self._clock,
                self._metrics,
                commit_timeout_s=self._config.commit_timeout_s,
                contested=self._may_take is not always,
                put_aside=self._put_aside,
            )
            try:
                await self._check_mine(index)
                await shard.take()
                await self._check_mine(index)
                await self._catch_up()
                await self._hold(shard)
            except NotOurs:
                await asyncio.sleep(LOOK_AGAIN_S)
                continue
            except (ShardLost, LogUnavailable, Indeterminate) as exc:
                _log.warning("shard not taken", shard=index, error=str(exc))
            finally:
                await shard.close()
            failures = 1 if self._clock.monotonic() - began > STEADY_S else failures + 1
            await asyncio.sleep(self._backoff.pause_s(failures, random.random()))  # noqa: S311

    async def _check_mine(self, index: int) -> None:
        """A process that was stopped for a while may take a shard from its owner: it must notice, and leave it alone."""
        if not await self._may_take(index):
            msg = f"shard {index} isn't ours, or not yet"
            raise NotOurs(msg)

    async def _catch_up(self) -> None:
        """Note [Not behind the predecessor]: what the last owner of a shard acted on, its next owner must know."""
        if not await self._replica.newest(self._config.commit_timeout_s):
            msg = "the settings log isn't folded to its end yet"
            raise LogUnavailable(msg)

    async def _hold(self, shard: Shard) -> None:
        """Work on the shard until it is lost or given up."""
        await self._drop_strays(shard)
        self._shards[shard.index] = shard
        self._metrics.shard_owned(shard.index, owned=True)
        self._announcer.own(shard)
        try:
            for target in list(self._desired.targets()):
                self._tend(target)
            await shard.lost.wait()
        finally:
            self._announcer.disown(shard)
            del self._shards[shard.index]
            await asyncio.gather(*(self._loop_supervisor.stop_one(str(t)) for t in self._targets_of(shard.index)))
            self._metrics.shard_owned(shard.index, owned=False)

    async def _drop_strays(self, shard: Shard) -> None:
        """Drop the statuses of keys that are another shard's by now: their target was changed."""
        homes = {key: self._desired.target_of(key) for key in shard.statuses}
        strays = [key for key, home in homes.items() if home is not None and self._index(home) != shard.index]
        if strays:
            await shard.commit(gone=strays)

    async def _give_up(self, index: int) -> None:
        await self._drain([self._loops[target] for target in self._targets_of(index)])
        await self._supervisor.stop_one(f"shard-{index}")

    async def _drain(self, loops: Iterable[TargetLoop]) -> None:
        await asyncio.gather(*(loop.drain(self._config.shutdown_timeout_s) for loop in loops))

    def _index(self, target: TargetId) -> int:
        return shard_of(*target, self._journal.shards)

    def _targets_of(self, index: int) -> list[TargetId]:
        return [target for target in self._loops if self._index(target) == index]

    # --- targets -------------------------------------------------------------------------------------------------------

    def _tend(self, target: TargetId) -> TargetLoop | None:
        """The running loop of a target, started if need be; None when it isn't ours to run."""
        owned = self._index(target) in self._shards
        if owned and not self._stopping and target.service in self._catalogue.services:
            name = str(target)
            if not self._loop_supervisor.running(name):
                self._loop_supervisor.start(name, lambda: self._keep_loop(target))
        return self._loops.get(target)

    async def _keep_loop(self, target: TargetId) -> None:
        """Run a loop for as long as the shard is ours and the target has keys.

        A loop that was asked to close runs on until nothing is under way. Keys that come meanwhile get the next one.
        """
        index, service = self._index(target), self._catalogue.services[target.service]
        try:
            while (shard := self._shards.get(index)) and not shard.lost.is_set() and self._desired.keys_of(target):
                loop = self._loops[target] = TargetLoop(target, service, shard, self._around, self._forget)
                if self._quiet:
                    loop.pause()
                await loop.run()
        finally:
            self._loops.pop(target, None)
            self._metrics.target_gone(target.service, str(target))

    def _look_at_all(self, keys: AbstractSet[str]) -> None:
        for key in keys:
            target = self._desired.target_of(key)
            loop = self._tend(target) if target is not None else None
            if loop is not None:
                loop.look(key)
        for target, loop in self._loops.items():
            if not self._desired.keys_of(target):
                loop.close()

    def _status_changed(self, key: str, before: KeyStatus | None, after: KeyStatus | None) -> None:
        """A key that became Ready, for this or a newer generation, or is gone, lets others go on. A target may turn out to
        lead to the same server as another one."""
        if after is not None and (before is None or before.remembered != after.remembered):
            self._look_at_all(self._desired.told(key))
        if after is None or _readiness(before) != _readiness(after):
            waiting = self._desired.dependents(key)
            # The settings of a target hear of it from its connection; only those elsewhere wait for its status.
            self._look_at_all({k for k in waiting if (t := self._desired.target_of(k)) is None or t.key != key})

    # --- the log -------------------------------------------------------------------------------------------------------

    async def _forget(self, entry: Entry) -> bool:
        """Drop a retired key from the state; False: try again. The request_id is the same however often it is tried."""
        change = {"op": "forget", "key": entry.key, "expected": entry.revision}
        try:
            verdict = await self._replica.submit(
                [change],
                actor=ACTOR,
                request_id=f"forget-{entry.key}-{entry.revision}",
                reason="retired",
                timeout_s=self._config.commit_timeout_s,
            )
        except (LogUnavailable, Indeterminate, Refused) as exc:
            _log.warning("forget not stored", setting=entry.key, error=str(exc))
            return False
        return verdict.accepted


def _readiness(status: KeyStatus | None) -> int | None:
    """The generation for which it is Ready; None when it isn't."""
    return status.converged_generation if status is not None and status.holds("Ready") else None
