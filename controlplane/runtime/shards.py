"""The right to act on a shard.

Theory of operation. A `Shard` is one incarnation of ownership and is never used again once it is dead. Taking a shard
fences the previous owner's writer, then appends `ShardTaken` (its offset is the fencing token for backends that can
compare), reads the statuses, and ends every open intent as `ActionUnknown`: the effect may have happened, may be
happening, or may land yet.

Note [Holds are durable]. An unknown outcome is a state in the status record, not a timer in memory. Without that: owner A
times out on a create, commits ActionUnknown, waits in memory and dies; B finds no open intent and creates at once; A's
create lands after B's. So every key whose intent is open or whose outcome is unknown is held after a takeover for the
whole wait, counted from our own ShardTaken.

Note [The owner before may be alive]. Where several replicas share a log, whoever lost a shard may be a process that was cut off
or stopped: its effect, begun in time, goes on until its own timeout, and then may take the backend's longest time to
land. After a takeover the timeout is therefore part of the wait. Alone on a data directory the owner before is dead.

Note [Commit before effect]. An intent is committed before its effect begins. A fenced owner can't commit, so it can't
begin. This protects the journal, never the backend; the deadline in `Effects` and the sweep cover what is left.

Note [A commit is never half known]. A commit lands although its caller was cancelled, so it runs in a task of its own that
also takes it into `statuses`. Else a loop that is stopped while its intent is being committed would leave the journal with
an open intent that this incarnation doesn't know of: its next commit of the key would overwrite it, and nobody would ever
end it.

Note [What can't be read is put aside]. A status of the last owner that isn't understood may have held an open intent: its key is
held like one whose outcome is unknown, and then looked at. The record goes to the dead letters, before the next status
of its key takes its place.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from controlplane.domain.events import Fact, Subject, event, headers
from controlplane.domain.status import KeyStatus, NotUnderstood, to_wire
from controlplane.log import codec
from controlplane.log.ports import (
    Commit,
    Entry,
    Fenced,
    Indeterminate,
    Journal,
    KeepAside,
    LogUnavailable,
    Outgoing,
    Place,
    PutAside,
    ShardWriter,
    Stream,
)
from controlplane.runtime.attribution import ACTOR
from controlplane.runtime.backoff import Backoff
from controlplane.runtime.clock import Clock
from controlplane.runtime.statuses import read_status
from controlplane.telemetry.metrics import Metrics
from schemas.event import EventStatus, EventType
from schemas.metric import SCHEMA as METRIC_SCHEMA
from schemas.names import event_id, parse_key, timestamp

_log = structlog.get_logger()

MARK = "#settings"
"""Key of the shard's own status record: how far the settings log is announced."""

SLICE = 200
"""Statuses in one commit when many are settled."""

OPERATION = "#operation/"
"""Prefix of the status records of operations under way."""

MOST_TOLD_BYTES = 2000
"""Of a record that isn't understood, in the daemon's own log."""

TAKEN = "#taken"
"""Key of a record without content: the first of an incarnation among the statuses, so that it settles what whoever was
before it may have left undecided there, too."""

STATUS_SCHEMA = "status.v1"

SYSTEM_TENANT = "#system"
"""Tenant of events that belong to no tenant (ShardTaken); never a legal name."""


async def only_told(letters: Sequence[PutAside]) -> None:
    """For a log without dead letters."""
    for letter in letters:
        _log.error(
            "record put aside",
            setting=letter.key,
            shard=letter.place.shard,
            offset=letter.offset,
            error=letter.reason,
            content=letter.data[:MOST_TOLD_BYTES].hex(),
        )


class ShardLost(Exception):
    """The incarnation can't commit any more; another one (ours or another replica's) goes on."""


class Shard:
    """One incarnation of the ownership of one shard."""

    def __init__(
        self,
        journal: Journal,
        index: int,
        clock: Clock,
        metrics: Metrics,
        *,
        commit_timeout_s: float,
        contested: bool = False,
        put_aside: KeepAside = only_told,
    ) -> None:
        self.index = index
        self.contested = contested
        """Other processes may own it, too: Note [The owner before may be alive]."""
        self.statuses: dict[str, KeyStatus] = {}
        self.token = -1
        """Offset of our ShardTaken."""
        self.operations: dict[str, dict[str, Any]] = {}
        """Operations that were begun and not ended, by id: details of their OperationStarted."""
        self.settings_position = 0
        """Records of the settings log before this offset are announced, by what stands in the journal."""
        self.announced = 0
        """The same by what this process knows: it moves on also where there was nothing to announce for the shard.
        Nothing is done about a revision that isn't announced yet."""
        self.lost = asyncio.Event()
        self._journal = journal
        self._put_aside = put_aside
        self._clock = clock
        self._metrics = metrics
        self._timeout_s = commit_timeout_s
        self._writer: ShardWriter | None = None
        self._incarnation = uuid.uuid4().hex
        self._sequence = 0
        self._batches = 0
        self._commits: set[asyncio.Task[Sequence[int]]] = set()
        self._backoff = Backoff(0.1, 5.0)

    async def take(self) -> None:
        """Take over: fence, announce, read, settle. Raises `ShardLost` or `LogUnavailable`."""
        self._writer = await self._journal.open_shard(self.index)
        taken = self.record(
            Fact(EventType.SHARD_TAKEN, {"incarnation": self._incarnation}), Subject(SYSTEM_TENANT, "coreplane")
        )
        committed = await self._commit(Commit(events=(taken,), statuses=(Outgoing(TAKEN, None),)))
        self.token = committed[0]
        await self._read_statuses()
        self.announced = self.settings_position
        await self._settle("Takeover", list(self.statuses), self.commit)
        for name, begun in list(self.operations.items()):
            await self.commit([self._abandoned(begun)], operations={name: None})

    async def settle(self, keys: Iterable[str]) -> None:
        """End the intents of these keys that whoever worked on them left open."""
        await self._settle("Interrupted", keys, self.commit_surely)

    def next_batch(self) -> int:
        """Number of a batch of effects: rises for as long as the shard is ours, whatever becomes of the loops in it."""
        self._batches += 1
        return self._batches

    def effect_id(self, what: str, number: int) -> str:
        """Id of the event that begins an effect, known before it is committed: a mark in the status refers to it."""
        return event_id(f"effect:{self.index}:{self.token}:{what}", number)

    def record(self, fact: Fact, subject: Subject) -> Outgoing:
        """The event as a journal record of this shard."""
        self._sequence += 1
        made = event(
            fact,
            subject,
            event_id=event_id(self._incarnation, self._sequence),
            now=self._clock.now(),
            shard=self.index,
        )
        key = subject.setting or f"{subject.tenant}/{subject.service}"
        self._metrics.event(str(fact.event_type))
        return Outgoing(key, codec.encode(made), headers(str(fact.event_type), subject.service, subject.tenant))

    def metric(self, tenant: str, service: str, metric_type: str, value: float, tags: dict[str, str]) -> Outgoing:
        """A measurement as a journal record of this shard."""
        self._sequence += 1
        made = {
            "id": event_id(self._incarnation, self._sequence),
            "metric_type": metric_type,
            "timestamp": timestamp(self._clock.now()),
            "service_name": service,
            "value": value,
            "tags": tags,
            "tenant": tenant,
        }
        key = f"{tenant}/{service}/{metric_type}"
        about = {"type": metric_type, "service": service, "tenant": tenant}
        return Outgoing(key, codec.encode(made), {**about, "schema": METRIC_SCHEMA})

    async def commit(
        self,
        events: Sequence[Outgoing] = (),
        statuses: Sequence[KeyStatus] = (),
        *,
        gone: Sequence[str] = (),
        settings_position: int | None = None,
        operations: Mapping[str, dict[str, Any] | None] | None = None,
    ) -> Sequence[int]:
        """Commit events and statuses together; offsets of the events.

        `gone`: keys whose status is dropped. `operations`: begun (details) and ended (None) ones. Raises
        `LogUnavailable` (nothing stored, try again) or `ShardLost`.
        """
        records = [Outgoing(s.key, codec.encode(to_wire(s)), _about(s.key)) for s in statuses]
        records += [Outgoing(key, None, _about(key)) for key in gone]
        if settings_position is not None:
            records.append(Outgoing(MARK, codec.encode({"settings_position": settings_position})))
        for name, begun in (operations or {}).items():
            records.append(Outgoing(OPERATION + name, None if begun is None else codec.encode(begun)))
        commit = Commit(events=tuple(events), statuses=tuple(records))
        # Note [A commit is never half known]
        task = asyncio.create_task(self._store(commit, statuses, gone, settings_position, dict(operations or {})))
        self._commits.add(task)
        task.add_done_callback(self._stored)
        return await asyncio.shield(task)

    async def _store(
        self,
        commit: Commit,
        statuses: Sequence[KeyStatus],
        gone: Sequence[str],
        settings_position: int | None,
        operations: Mapping[str, dict[str, Any] | None],
    ) -> Sequence[int]:
        offsets = await self._commit(commit)
        self.statuses.update((status.key, status) for status in statuses)
        for key in gone:
            self.statuses.pop(key, None)
        if settings_position is not None:
            self.settings_position = settings_position
        for name, begun in operations.items():
            self.operations.pop(name, None)
            if begun is not None:
                self.operations[name] = begun
        return offsets

    def _stored(self, task: asyncio.Task[Sequence[int]]) -> None:
        self._commits.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            _log.debug("commit failed", shard=self.index, error=str(exc))  # who waits for it hears of it, too

    async def commit_surely(
        self,
        events: Sequence[Outgoing] = (),
        statuses: Sequence[KeyStatus] = (),
        *,
        operations: Mapping[str, dict[str, Any] | None] | None = None,
    ) -> None:
        """Commit what must not be dropped (the end of an effect): tries until it is stored or the shard is lost."""
        failures = 0
        while True:
            try:
                await self.commit(events, statuses, operations=operations)
            except LogUnavailable as exc:
                failures += 1
                _log.warning("commit refused", shard=self.index, error=str(exc))
                await asyncio.sleep(self._backoff.pause_s(failures, random.random()))  # noqa: S311
            else:
                return

    async def publish(self, metrics: Sequence[Outgoing]) -> None:
        """Commit measurements."""
        await self._commit(Commit(metrics=tuple(metrics)))

    async def close(self) -> None:
        """Give up the right to act; what is being committed ends first."""
        self.lost.set()
        if self._commits:
            await asyncio.wait(self._commits, timeout=self._timeout_s)
        if self._writer is not None:
            await self._writer.close()

    async def _commit(self, commit: Commit) -> Sequence[int]:
        if self._writer is None or self.lost.is_set():
            msg = f"shard {self.index} is lost"
            raise ShardLost(msg)
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                committed = await self._writer.commit(commit)
        except (Fenced, Indeterminate, TimeoutError) as exc:
            self.lost.set()
            _log.warning("shard lost", shard=self.index, error=repr(exc))
            msg = f"shard {self.index}: {exc!r}"
            raise ShardLost(msg) from exc
        self._metrics.committed(self._clock.monotonic() - started)
        return committed.events

    async def _read_statuses(self) -> None:
        place, position = Place(Stream.STATUS, self.index), 0
        unread: dict[str, PutAside] = {}
        end = (await self._journal.end_offsets(Stream.STATUS)).get(self.index, 0)
        while position < end and (entries := await self._journal.read(place, position)):
            for entry in entries:
                self._read(place, entry, unread)
            position = entries[-1].offset + 1
        if unread:
            await self._put_aside(list(unread.values()))
            for key in unread:
                if not key.startswith("#"):
                    self.statuses[key] = unknown_outcome(KeyStatus(key), self._clock.now())

    def _read(self, place: Place, entry: Entry, unread: dict[str, PutAside]) -> None:
        """Take a record in; what isn't understood counts as long as nothing later of its key is."""
        unread.pop(entry.key, None)
        try:
            self._take_in(entry.key, entry.data)
        except NotUnderstood as exc:
            unread[entry.key] = PutAside(place, entry.offset, entry.key, str(exc), entry.data or b"")

    def _take_in(self, key: str, data: bytes | None) -> None:
        if data is None:
            self.statuses.pop(key, None)
        elif key == MARK:
            self.settings_position = int(_decoded(data, "settings_position")["settings_position"])
        elif key.startswith(OPERATION):
            begun = _decoded(data, "details", "event_id", "tenant", "service", "actor", "correlation_id")
            self.operations[key.removeprefix(OPERATION)] = begun
        elif not key.startswith("#"):
            self.statuses[key] = read_status(key, data)

    async def _settle(self, reason: str, keys: Iterable[str], commit: Callable[..., Awaitable[object]]) -> None:
        found = (self.statuses.get(key) for key in keys)
        unsettled = [status for status in found if status is not None and status.intent is not None]
        for start in range(0, len(unsettled), SLICE):
            some = unsettled[start : start + SLICE]
            events = [self._unknown(status, reason) for status in some]
            await commit(events, [unknown_outcome(status, self._clock.now()) for status in some])

    def _unknown(self, status: KeyStatus, reason: str) -> Outgoing:
        key, intent = parse_key(status.key), status.intent
        details = {"reason": reason} | ({"step": intent.step, "attempt": intent.attempt} if intent else {})
        cause = intent.event_id if intent else None
        fact = Fact(EventType.ACTION_UNKNOWN, details, EventStatus.UNKNOWN, causation_id=cause)
        subject = Subject(key.tenant, key.service, status.key, status.observed_generation, status.revision, ACTOR)
        return self.record(fact, subject)

    def _abandoned(self, begun: dict[str, Any]) -> Outgoing:
        message = "its owner went away: it may have happened in part; repeat it"
        details = {**begun["details"], "reason": "Takeover", "message": message}
        fact = Fact(EventType.OPERATION_FAILED, details, EventStatus.UNKNOWN, causation_id=begun["event_id"])
        subject = Subject(
            begun["tenant"], begun["service"], actor=begun["actor"], correlation_id=begun["correlation_id"]
        )
        return self.record(fact, subject)


def _decoded(data: bytes, *wanted: str) -> dict[str, Any]:
    """A record of the shard's own, which has these fields. Raises `NotUnderstood`."""
    try:
        found = codec.decode(data)
    except codec.Undecodable as exc:
        raise NotUnderstood(str(exc)) from exc
    if missing := [name for name in wanted if name not in found]:
        msg = f"without {', '.join(missing)}"
        raise NotUnderstood(msg)
    return found


def _about(key: str) -> dict[str, str]:
    """Headers of a status: consumers filter by them without decoding."""
    parts = parse_key(key)
    return {"type": parts.setting_type, "service": parts.service, "tenant": parts.tenant, "schema": STATUS_SCHEMA}


def unknown_outcome(status: KeyStatus, now: float) -> KeyStatus:
    """The status of a key whose intent was found open: held until the effect must have landed."""
    at = timestamp(now)
    action = status.last_action._replace(status="unknown", at=at) if status.last_action else None
    return replace(status, intent=None, unknown_since=at, last_action=action)
