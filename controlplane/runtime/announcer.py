"""Folded records → events, each exactly once per shard, and only then the work they cause.

Theory of operation. The shard owner announces the changes of its keys: it reads the settings log from the shard's durable
position on, commits the events together with the new position, and then tells the controller which keys to look at. So an
accepted change has its event before any action that it causes, and after a crash nothing is announced twice or missed.
A forgotten key loses its status in the same commit that announces it.
"""

from __future__ import annotations

import asyncio
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

RETRY_S = 0.5


@dataclass(slots=True)
class _Round:
    """What one chunk of the log means for one shard."""

    events: list[Outgoing] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


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
        self._cursors: dict[int, int] = {}
        self._moved = asyncio.Event()
        replica.listen(lambda *_: self._moved.set())

    def own(self, shard: Shard) -> None:
        """Announce for this shard from its durable position on."""
        self._owned[shard.index] = shard
        self._cursors[shard.index] = shard.settings_position
        self._moved.set()

    def disown(self, index: int) -> None:
        """The shard is lost."""
        self._owned.pop(index, None)
        self._cursors.pop(index, None)

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

    async def _round(self) -> bool:
        """Announce one chunk for every shard that is behind; False when there is nothing to announce."""
        position = self._replica.state.position
        start = min(self._cursors.values(), default=position)
        if start >= position:
            return False
        stop = min(start + CHUNK, position)
        # A shard that is taken while this round runs begins with the next one: its own position may be before our start.
        behind = {index: shard for index, shard in self._owned.items() if self._cursors[index] < stop}
        records = await self._replica.records(start, stop)
        rounds, keys = await self._sorted(records, behind)
        for index, shard in behind.items():
            one = rounds.get(index)
            try:
                if one is not None:
                    await shard.commit(one.events, gone=one.gone, settings_position=stop)
            except ShardLost:
                self._drop(shard)
            if self._owned.get(index) is shard:
                self._cursors[index] = stop
        affected: set[str] = set()
        for key in keys:
            affected |= self._desired.update(key)
        self._look(affected)
        return True

    def _drop(self, shard: Shard) -> None:
        """Disown it, unless its next incarnation is here already."""
        if self._owned.get(shard.index) is shard:
            self.disown(shard.index)

    async def _sorted(
        self, records: Iterable[tuple[int, dict[str, Any]]], behind: Mapping[int, Shard]
    ) -> tuple[dict[int, _Round], list[str]]:
        rounds: defaultdict[int, _Round] = defaultdict(_Round)
        keys: dict[str, None] = {}
        targets: dict[str, TargetId] = {}
        for offset, record in records:
            outcomes = self._outcomes(offset, record)
            for change in record["changes"]:
                said = outcomes.get(change["key"])
                if said is None:
                    continue
                keys[change["key"]] = None
                target = await self._target(change, offset, targets)
                shard = behind.get(shard_of(*target, self._shards))
                if shard is None or offset < shard.settings_position:
                    continue
                one = rounds[shard.index]
                one.events.append(_announcement(shard, offset, record, change, said))
                if isinstance(said, ChangeOutcome) and said.outcome == "forgotten":
                    one.gone.append(change["key"])
                elif change["key"] in one.gone:
                    one.gone.remove(change["key"])
        return rounds, list(keys)

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

    async def _target(self, change: Mapping[str, Any], offset: int, targets: dict[str, TargetId]) -> TargetId:
        """Where the key was carried out at that offset."""
        key = parse_key(change["key"])
        if change["op"] == "declare":
            target = self._desired.catalogue.target_of(key, change["body"])
        else:
            target = (
                targets.get(change["key"])
                or self._desired.target_of(change["key"])
                or await self._last_target(key, offset)
            )
        targets[change["key"]] = target
        return target

    async def _last_target(self, key: Key, offset: int) -> TargetId:
        """From the key's last declaration before the offset: it left the state before this process began."""
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
