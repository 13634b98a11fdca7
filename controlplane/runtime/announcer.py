"""Folded records → events, each exactly once per shard, and only then the work they cause.

Theory of operation. The shard owner announces the changes of its keys: it reads the settings log from the shard's durable
position on, commits the events together with the new position, and then tells the controller which keys to look at. So an
accepted change has its event before any action that it causes, and after a crash nothing is announced twice or missed.
A forgotten key loses its status in the same commit that announces it.

What is desired is arranged in the same go, by a position of its own: it follows the log also for shards that others own,
so that it is right when one of them is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import structlog

from controlplane.domain.events import Fact, Subject, accepted_id
from controlplane.domain.fold import ChangeOutcome, Refusal
from controlplane.domain.sharding import shard_of
from controlplane.log.ports import LogUnavailable, Outgoing
from controlplane.runtime.catalogue import TargetId
from controlplane.runtime.desired import DesiredState
from controlplane.runtime.replica import Replica
from controlplane.runtime.shards import Shard, ShardLost
from schemas.event import EventStatus, EventType
from schemas.names import Key, parse_key

_log = structlog.get_logger()

CHUNK = 500
"""Records announced in one round."""

MARK_EVERY = 5_000
"""A shard for which there is nothing to announce commits its position now and then, so that the next owner needn't read
the whole log."""

YIELD_EVERY = 200
"""Changes of one record between two moments in which other tasks may run: each is resolved here for the first time."""

RETRY_S = 0.5


@dataclass(slots=True)
class _Round:
    """What one chunk of the log means for one shard."""

    events: list[Outgoing] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    def add(self, key: str, said: ChangeOutcome | Refusal, event: Outgoing) -> None:
        """Announce what became of a change; a forgotten key loses its status, unless it is declared anew."""
        self.events.append(event)
        if isinstance(said, ChangeOutcome) and said.outcome == "forgotten":
            self.gone.append(key)
        elif key in self.gone:
            self.gone.remove(key)


class Announcer:
    """Announces for all shards that this process owns."""

    def __init__(
        self, replica: Replica, desired: DesiredState, shards: int, look: Callable[[AbstractSet[str]], None]
    ) -> None:
        self._replica = replica
        self._desired = desired
        self._shards = shards
        self._look = look
        self._owned: dict[int, Shard] = {}
        self._followed = 0
        """What is desired is arranged up to here."""
        self._affected: set[str] = set()
        """Keys to be looked at when the round is announced."""
        self._moved = asyncio.Event()
        self._announced = asyncio.Event()
        """A round is announced, or a shard is no longer ours."""
        replica.listen(lambda *_: self._moved.set())

    def load(self) -> None:
        """Arrange what is desired now; go on from here."""
        self._desired.load()
        self._followed = self._replica.state.position

    def own(self, shard: Shard) -> None:
        """Announce for this shard from its durable position on."""
        self._owned[shard.index] = shard
        self._moved.set()

    def disown(self, shard: Shard) -> None:
        """The shard is lost; its next incarnation may be here already."""
        if self._owned.get(shard.index) is shard:
            del self._owned[shard.index]
            self._announced.set()

    async def run(self) -> None:
        """Announce until cancelled."""
        while True:
            self._moved.clear()
            try:
                while await self._round():  # noqa: ASYNC110 - yields between chunks
                    await asyncio.sleep(0)
            except LogUnavailable as exc:
                _log.warning("announcing waits for the log", error=str(exc))
                await asyncio.sleep(RETRY_S)
                self._moved.set()
            await self._moved.wait()

    async def finish(self, timeout_s: float) -> None:
        """Wait until everything folded so far is announced, within bounds; for when nothing more is accepted."""
        position = self._replica.state.position
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while any(shard.announced < position for shard in self._owned.values()):
                    self._announced.clear()
                    await self._announced.wait()

    async def _round(self) -> bool:
        """Announce one chunk for every shard that is behind; False when there is nothing to announce."""
        position = self._replica.state.position
        start = min((shard.announced for shard in self._owned.values()), default=position)
        start = min(start, self._followed)
        if start >= position:
            return False
        stop = min(start + CHUNK, position)
        # A shard that is taken while this round runs begins with the next one: its own position may be before our start.
        behind = {index: shard for index, shard in self._owned.items() if shard.announced < stop}
        records = await self._replica.records(start, stop)
        rounds, keys = await self._sorted(records, behind)
        self._affected |= keys
        if stop > self._followed:
            for key in keys:
                self._affected |= self._desired.update(key)
            self._followed = stop
        for index, shard in behind.items():
            await self._announce(shard, rounds.get(index), stop)
        self._announced.set()
        affected, self._affected = self._affected, set()
        self._look(affected)
        return True

    async def _announce(self, shard: Shard, one: _Round | None, stop: int) -> None:
        try:
            if one is not None:
                await shard.commit(one.events, gone=one.gone, settings_position=stop)
            elif stop - shard.settings_position >= MARK_EVERY:
                await shard.commit(settings_position=stop)
        except ShardLost:
            self.disown(shard)
        else:
            shard.announced = stop

    async def _sorted(
        self, records: Iterable[tuple[int, dict[str, Any]]], behind: Mapping[int, Shard]
    ) -> tuple[dict[int, _Round], set[str]]:
        """By shard, and the keys that changed: those that are news to what is desired, or to their shard."""
        rounds: defaultdict[int, _Round] = defaultdict(_Round)
        keys: set[str] = set()
        targets: dict[str, TargetId] = {}
        for offset, record in records:
            outcomes = self._outcomes(offset, record)
            for number, change in enumerate(record["changes"]):
                if number % YIELD_EVERY == YIELD_EVERY - 1:
                    await asyncio.sleep(0)
                said, key = outcomes.get(change["key"]), change["key"]
                if said is None:
                    continue
                target = await self._target(change, offset, targets.get(key))
                shard = behind.get(shard_of(*target, self._shards))
                if shard is not None and offset >= shard.announced:
                    rounds[shard.index].add(key, said, _announcement(shard, offset, record, change, said))
                    keys.add(key)
                if offset >= self._followed:
                    keys.add(key)
                if not isinstance(said, ChangeOutcome):
                    continue
                targets[key] = target
                if self._is_newest(key, offset):
                    self._strays(key, target, behind, rounds)
        return rounds, keys

    def _strays(
        self, key: str, target: TargetId, behind: Mapping[int, Shard], rounds: defaultdict[int, _Round]
    ) -> None:
        """A key whose target was changed leaves no status in the shard of the old one, unless that must yet end it."""
        home = shard_of(*target, self._shards)
        for index, shard in behind.items():
            status = shard.statuses.get(key) if index != home else None
            if status is not None and status.intent is None:
                rounds[index].gone.append(key)

    def _is_newest(self, key: str, offset: int) -> bool:
        """True when no later record changed the key."""
        revisions = self._replica.state.history.get(key, ())
        return not revisions or revisions[-1] <= offset + 1

    def _outcomes(self, offset: int, record: Mapping[str, Any]) -> Mapping[str, ChangeOutcome | Refusal]:
        """What became of each key of the record; empty for repetitions and for what changed nothing."""
        verdict = self._replica.state.verdicts.get(record["request_id"])
        if verdict is None:
            return self._outcomes_of_old(offset, record)
        if verdict.offset != offset:
            return {}
        said: dict[str, ChangeOutcome | Refusal] = {refusal.key: refusal for refusal in verdict.refusals}
        return said | {outcome.key: outcome for outcome in verdict.outcomes if outcome.outcome != "unchanged"}

    def _outcomes_of_old(self, offset: int, record: Mapping[str, Any]) -> Mapping[str, ChangeOutcome | Refusal]:
        """Beyond the window of remembered requests only what was accepted can still be told."""
        said: dict[str, ChangeOutcome | Refusal] = {}
        for change in record["changes"]:
            revisions = self._replica.state.history.get(change["key"], ())
            index = bisect_left(revisions, offset + 1)
            if index < len(revisions) and revisions[index] == offset + 1:
                outcome = _OLD_OUTCOMES[change["op"]]
                said[change["key"]] = ChangeOutcome(change["key"], outcome, 0, offset + 1)
        return said

    async def _target(self, change: Mapping[str, Any], offset: int, before: TargetId | None) -> TargetId:
        """Where the key is carried out from that change on. `before`: where it was, if that is known."""
        key, entry = parse_key(change["key"]), self._desired.entry(change["key"])
        if change["op"] == "declare":
            if entry is not None and entry.revision == offset + 1:
                return self._desired.resolve(entry).target  # remembered, and asked for next anyway
            return self._desired.catalogue.target_of(key, change["body"])
        if before is None and self._is_newest(change["key"], offset):
            before = self._desired.target_of(change["key"])
        return before or await self._last_target(key, offset)

    async def _last_target(self, key: Key, offset: int) -> TargetId:
        """From the key's last declaration before the offset."""
        for revision in reversed(self._replica.state.history.get(str(key), ())):
            record = await self._replica.record(int(revision) - 1) if revision <= offset else None
            for change in record["changes"] if record else ():
                if change["key"] == str(key) and change["op"] == "declare":
                    return self._desired.catalogue.target_of(key, change["body"])
        return TargetId(key.tenant, key.service, "-")


_OLD_OUTCOMES = {"declare": "updated", "retire": "retired", "forget": "forgotten"}

_EVENTS = {
    "created": EventType.SETTING_ACCEPTED,
    "updated": EventType.SETTING_ACCEPTED,
    "retired": EventType.SETTING_RETIRED,
    "forgotten": EventType.SETTING_FORGOTTEN,
}


def _announcement(
    shard: Shard, offset: int, record: Mapping[str, Any], change: Mapping[str, Any], said: ChangeOutcome | Refusal
) -> Outgoing:
    key = parse_key(change["key"])
    request_id = record["request_id"]
    if isinstance(said, Refusal):
        details = {"reason": said.reason, "expected": said.expected, "revision": said.revision, "op": change["op"]}
        fact = Fact(EventType.SETTING_REJECTED, details, EventStatus.FAILED, causation_id=request_id)
        subject = Subject(key.tenant, key.service, str(key), None, said.revision, record["actor"], request_id)
    else:
        details = {"outcome": said.outcome, "reason": record.get("reason", ""), "at": record["at"]}
        fact = Fact(_EVENTS[said.outcome], details, causation_id=request_id, id=accepted_id(str(key), offset + 1))
        generation = said.generation or None
        subject = Subject(key.tenant, key.service, str(key), generation, said.revision, record["actor"], request_id)
    return shard.record(fact, subject)
