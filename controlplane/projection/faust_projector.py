"""Follows a journal on Kafka into Elasticsearch, by Faust; any number of these share the work.

Theory of operation. Each generation of indices has a consumer group of its own, named by the identity that was given to the
generation when it was begun: indices that were lost are filled from the beginning, whatever a group of the same name once
reached. Every replica's projector is a member of the group of the live generation, and joins the next one's when the alias
moves. A batch is acknowledged when Elasticsearch has all of it:

- the store can't be reached, or has no room: the batch is tried again for ever, with growing pauses; the projection is
  *degraded* meanwhile, and nothing is acknowledged;
- a record is no document, or the store refuses it for good: it is appended to the topic of dead letters and noted among those
  of the store, and the others go on;
- Faust ends, or reads nothing although the journal holds more and the store takes everything: the reader is *stalled*; it is
  ended, and another one begun. Faust's own supervision doesn't notice that (see faust_app).

Where the group stands is asked of the broker. A position can stand below the end with nothing left to read: see projector.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from controlplane.log.kafka import KafkaLog
from controlplane.log.ports import Entry, LogUnavailable, Place, PutAside, Stream
from controlplane.projection.documents import Batch, DeadLetter, current, dead_letter, documents
from controlplane.projection.elasticsearch import ElasticsearchStore, Refused
from controlplane.projection.faust_app import FaustApp
from controlplane.projection.ports import DocumentRefused, StoreUnavailable
from controlplane.projection.projector import Behind, Lag, Pace, Retention, trim
from controlplane.telemetry.metrics import Metrics

_log = structlog.get_logger()

STALLED_S: Final = 60.0
"""More than a rebalance or the start of a consumer takes."""
KEPT: Final = Retention()
USUAL: Final = Pace()
_OUTAGES: Final = (StoreUnavailable, LogUnavailable, TimeoutError)


class FaustProjector:
    """One per process. `run` is for a supervisor; `lag` (of the whole group) and `degraded` may be read at any time."""

    def __init__(
        self,
        log: KafkaLog,
        store: ElasticsearchStore,
        metrics: Metrics,
        *,
        member: str = "",
        retention: Retention = KEPT,
        pace: Pace = USUAL,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.lag = Lag()
        self.degraded: str | None = None
        """Why the projection can't go on for now, for people; None while all is well."""
        self.position: Mapping[Place, int] = {}
        """Where the group stands, as the broker tells."""
        self.measured = 0
        """How often the lag was found out."""
        self._log = log
        self._beyond = Behind(log.journal)
        self._store = store
        self._metrics = metrics
        self._member = member
        self._retention = retention
        self._pace = pace
        self._now = now
        self._failures = 0
        self._last_at: float | None = None
        self._moved = 0.0
        self._trimmed = -float("inf")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._session()
            except Exception as exc:  # noqa: BLE001 - whatever Faust ends by: told, and begun again
                await self._outage(exc)

    async def _session(self) -> None:
        """Read for the live generation until another one is, or the reader must be replaced."""
        generation = (await self._store.generations.current()).generation
        group = group_of(self._log, await self._store.generations.identity(generation))
        self._moved = time.monotonic()
        async with FaustApp(self._log.address, group, self._take, member=self._member) as app:
            _log.info("projecting", group=group)
            seen = 0
            while app.trouble is None and await self._store_is_of(generation):
                seen = self._tell_rebalances(app.rebalances, seen)
                await self._watch(group)
                if time.monotonic() - self._moved > STALLED_S:
                    self._metrics.projection_stalled()
                    _log.warning(
                        "reader stalled, another one is begun", group=group, revision=sum(self.position.values())
                    )
                    return
                await asyncio.sleep(self._pace.watch_s)
            if app.trouble is not None:
                raise LogUnavailable(app.trouble)
            _log.info("another generation is live", group=group)

    async def _store_is_of(self, generation: int) -> bool:
        try:
            return (await self._store.generations.current()).generation == generation
        except StoreUnavailable:
            return True  # nobody knows; the batches tell of the outage

    # --- batches -------------------------------------------------------------------------------------------------------

    async def _take(self, entries: Sequence[Entry]) -> None:
        """One batch, until it is where it belongs. Never raises, so that the reader goes on: see faust_app."""
        written = await asyncio.to_thread(documents, entries)
        refused = await self._accepted(written._replace(dead_letters=()))
        letters = [*written.dead_letters, *_letters_of(entries, refused)]
        if letters:
            await self._put_aside(letters)
        gone = {one.id for one in refused}
        self._metrics.projected("events", sum(event.id not in gone for event in written.events))
        self._metrics.projected("metrics", sum(metric.id not in gone for metric in written.metrics))
        self._metrics.projected("status", sum(status.id not in gone for status in written.statuses))
        newest = [event.at_us for event in written.events[-1:]] + [metric.at_us for metric in written.metrics[-1:]]
        self._last_at = max(newest) / 1_000_000 if newest else self._last_at
        self._moved = time.monotonic()
        self._well()

    async def _accepted(self, batch: Batch) -> list[Refused]:
        """Try until the store has taken or refused each document."""
        while True:
            try:
                refused = await self._store.put(batch)
            except DocumentRefused as exc:
                return await self._singly(batch, str(exc))
            except Exception as exc:  # noqa: BLE001 - an outage, or a bug that must not end the reader: told, tried again
                await self._outage(exc)
            else:
                self._metrics.projection_wrote(self._now())
                return refused

    async def _singly(self, batch: Batch, reason: str) -> list[Refused]:
        """A document can't even be said: each by itself, and that one is refused."""
        single = [
            *(Batch(events=[one]) for one in batch.events),
            *(Batch(metrics=[one]) for one in batch.metrics),
            *(Batch(statuses=[one]) for one in batch.statuses),
        ]
        if len(single) > 1:
            return [refused for one in single for refused in await self._accepted(one)]
        return [Refused(ident, reason) for ident in _idents(batch)]

    async def _put_aside(self, letters: Sequence[DeadLetter]) -> None:
        while True:
            try:
                await self._log.groups.put_aside(list(map(_put_aside, letters)))
                await self._store.put(Batch(dead_letters=letters))
            except Exception as exc:  # noqa: BLE001 - as above
                await self._outage(exc)
            else:
                break
        for letter in letters:
            self._metrics.dead_letter(letter.stream)
            _log.warning("record put aside", shard=letter.shard, offset=letter.offset, reason=letter.reason)

    # --- outages, lag and retention ------------------------------------------------------------------------------------

    async def _outage(self, exc: Exception) -> None:
        """Say it and wait."""
        self._failures += 1
        self._metrics.projection_retried()
        if self.degraded is None:
            if isinstance(exc, _OUTAGES):
                _log.warning("projection degraded", error=repr(exc))
            else:
                _log.error("projection degraded by a bug", error=repr(exc), exc_info=exc)
            self._metrics.projection_degraded(degraded=True)
        self.degraded = str(exc) or type(exc).__name__
        self._moved = time.monotonic()  # it stands still for a reason
        whole = min(self._pace.retry_cap_s, self._pace.retry_initial_s * 2.0 ** min(self._failures - 1, 30))
        await asyncio.sleep(whole * random.uniform(0.5, 1.0))  # noqa: S311 - spreading

    def _well(self) -> None:
        self._failures = 0
        if self.degraded is not None:
            self.degraded = None
            self._metrics.projection_degraded(degraded=False)
            _log.info("projection goes on")

    async def _watch(self, group: str) -> None:
        """Measure lag; let the store forget."""
        try:
            async with asyncio.timeout(self._pace.journal_timeout_s):
                position = await self._log.groups.committed(group)
                records = await self._beyond.count(position)
        except _OUTAGES as exc:
            _log.debug("lag not known", error=repr(exc))
            self._moved = time.monotonic()
        else:
            if position != self.position or records == 0:
                self._moved = time.monotonic()
            self.position = position
            seconds = 0.0 if records == 0 or self._last_at is None else max(0.0, self._now() - self._last_at)
            self.lag = Lag(records, seconds)
            self.measured += 1
            self._metrics.projection_lag(*self.lag)
        if time.monotonic() - self._trimmed > self._pace.trim_s:
            self._trimmed = time.monotonic()
            await trim(self._store, self._retention, self._now())

    def _tell_rebalances(self, count: int, seen: int) -> int:
        if count > seen:
            self._metrics.projection_rebalanced(count - seen)
        return count


def group_of(log: KafkaLog, identity: str) -> str:
    """The consumer group of a generation."""
    return f"{log.address.prefix}-projection-{identity}"


def _letters_of(entries: Sequence[Entry], refused: Sequence[Refused]) -> list[DeadLetter]:
    """The records whose documents were refused."""
    reasons = {one.id: one.reason for one in refused}
    if not reasons:
        return []
    return [
        dead_letter(entry, f"refused by the store: {reasons[ident]}")
        for entry in current(entries)
        for ident in _idents(documents([entry]))
        if ident in reasons
    ]


def _idents(batch: Batch) -> list[str]:
    return [
        *(event.id for event in batch.events),
        *(metric.id for metric in batch.metrics),
        *(status.id for status in batch.statuses),
    ]


def _put_aside(letter: DeadLetter) -> PutAside:
    place = Place(Stream(letter.stream), letter.shard)
    return PutAside(place, letter.offset, letter.key, letter.reason, letter.data)
