"""Follows the journal into a store.

Theory of operation. The projector tails the three streams of all shards from the positions that stand in the store,
and writes documents and the new positions together. Nothing is given up:

- the store or the journal can't be reached: the same batch is tried again for ever, with growing pauses; the projection is
  *degraded* meanwhile, which is said, and the daemon goes on without it;
- the store is damaged, or stands beyond the end of the journal (the journal was replaced): it is reset and projected anew;
- the journal was trimmed below our position: on from its oldest record; what is gone from there is gone from everywhere;
- a record that is no document, or that the store refuses, becomes a dead letter, and the next one is taken.

A position can stand below the end with nothing left to read, because the last offsets of a shard need hold no record: the
watch asks the journal, and only what is really there counts as lag.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple

import structlog

from controlplane.log.ports import Entry, Journal, LogCorrupt, LogUnavailable, Place, Stream
from controlplane.projection.documents import Batch, dead_letter, documents, positions_after
from controlplane.projection.ports import DocumentRefused, Store, StoreDamaged, StoreUnavailable
from controlplane.telemetry.metrics import Metrics

_log = structlog.get_logger()

DAY_S: Final = 86_400.0
_OUTAGES: Final = (StoreUnavailable, LogUnavailable, LogCorrupt, TimeoutError)


@dataclass(frozen=True, slots=True)
class Pace:
    """When the projector does things. The defaults: an outage is asked about at least every 10 s; lag is a second old."""

    retry_initial_s: float = 0.1
    retry_cap_s: float = 10.0
    watch_s: float = 1.0
    trim_s: float = 3600.0
    journal_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Retention:
    """How long documents are kept, days; not longer than the journal keeps its records, or a rebuild would lose some."""

    events_days: float = 90.0
    metrics_days: float = 7.0


class Lag(NamedTuple):
    """How far the projection is behind. `seconds`: age of the last projected record while there are others to come."""

    records: int = 0
    seconds: float = 0.0


class Projected(NamedTuple):
    """What a rebuild did."""

    records: int
    dead_letters: int


class Projector:
    """One per store. `run` is for a supervisor; the other members may be read at any time."""

    def __init__(
        self,
        journal: Journal,
        store: Store,
        metrics: Metrics,
        *,
        retention: Retention = Retention(),
        pace: Pace = Pace(),
        now: Callable[[], float] = time.time,
    ) -> None:
        self.lag = Lag()
        self.degraded: str | None = None
        """Why the projection can't go on for now, for people; None while all is well."""
        self._journal = journal
        self._beyond = Behind(journal)
        self._store = store
        self._metrics = metrics
        self._retention = retention
        self._pace = pace
        self._now = now
        self._positions: dict[Place, int] = {}
        self._last_at: float | None = None
        self._failures = 0

    async def run(self) -> None:
        """Until the journal is closed."""
        while (trouble := await self._session()) is not None:
            await self._outage(trouble)

    async def _session(self) -> Exception | None:
        """Follow the journal until it is closed (None) or something keeps us from going on; anything else is a bug."""
        trouble: Exception | None = None
        try:
            await self._begin()
            async with asyncio.TaskGroup() as tasks:
                others = [tasks.create_task(self._watch()), tasks.create_task(self._trim_regularly())]
                await self._follow()
                for task in others:
                    task.cancel()
        except* _OUTAGES as group:
            trouble = group.exceptions[0]
        return trouble

    # --- following -----------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        batches = self._journal.tail(self._positions)
        try:
            async for entries in batches:
                await self._project(entries)
        finally:
            if isinstance(batches, AsyncGenerator):
                await batches.aclose()

    async def _begin(self) -> None:
        """Where to go on, given what the store has and what the journal still has."""
        async with asyncio.timeout(self._pace.journal_timeout_s):
            starts, ends = await _starts(self._journal), await ends_of(self._journal)
        stored = await self._store.positions()
        beyond = [place for place, position in stored.items() if position > ends.get(place, position)]
        if beyond:
            _log.warning("projection is of another journal, begun anew", shard=beyond[0].shard)
            await self._reset()
            stored = {}
        for place, start in starts.items():
            if place in stored and stored[place] < start:
                _log.warning("journal trimmed below the projection", shard=place.shard, revision=start)
        self._positions = {place: max(start, stored.get(place, 0)) for place, start in starts.items()}

    async def _project(self, entries: Sequence[Entry]) -> None:
        """One batch, until it is written. Raises only `StoreDamaged` and bugs."""
        # In a thread: a full batch takes as long as several requests to the API.
        batch = await asyncio.to_thread(documents, entries)
        while True:
            try:
                self._count(await _write(self._store, entries, batch))
            except StoreDamaged:
                raise
            except StoreUnavailable as exc:
                await self._outage(exc)
            else:
                break
        self._positions.update(positions_after(entries))
        self._well()

    def _count(self, written: Batch) -> None:
        for letter in written.dead_letters:
            self._metrics.dead_letter(letter.stream)
            _log.warning("record put aside", shard=letter.shard, offset=letter.offset, reason=letter.reason)
        self._metrics.projected("events", len(written.events))
        self._metrics.projected("metrics", len(written.metrics))
        self._metrics.projected("status", len(written.statuses))
        newest = [d.at_us for d in written.events[-1:]] + [d.at_us for d in written.metrics[-1:]]
        if newest:
            self._last_at = max(newest) / 1_000_000

    # --- outages -------------------------------------------------------------------------------------------------------

    async def _outage(self, exc: Exception) -> None:
        """Say it, mend what can be mended, wait."""
        self._failures += 1
        self._metrics.projection_retried()
        if self.degraded is None:
            _log.warning("projection degraded", error=repr(exc))
            self._metrics.projection_degraded(degraded=True)
        self.degraded = str(exc) or type(exc).__name__
        if isinstance(exc, StoreDamaged):
            await self._mend()
        whole = min(self._pace.retry_cap_s, self._pace.retry_initial_s * 2.0 ** min(self._failures - 1, 30))
        await asyncio.sleep(whole * random.uniform(0.5, 1.0))  # noqa: S311 - spreading

    async def _mend(self) -> None:
        _log.warning("projection damaged, begun anew", error=self.degraded)
        try:
            await self._reset()
        except StoreUnavailable as exc:
            self.degraded = str(exc)

    async def _reset(self) -> None:
        await self._store.reset()
        self._metrics.projection_rebuilt()
        self._last_at = None

    def _well(self) -> None:
        self._failures = 0
        if self.degraded is not None:
            self.degraded = None
            self._metrics.projection_degraded(degraded=False)
            _log.info("projection goes on")

    # --- lag and retention ---------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Measures lag. Raises `StoreDamaged`, which a question may have found; other outages are said by `_follow`."""
        while True:
            try:
                async with asyncio.timeout(self._pace.journal_timeout_s):
                    await self._store.positions()
                    records = await self._behind()
            except StoreDamaged:
                raise
            except _OUTAGES as exc:
                _log.debug("lag not known", error=repr(exc))
            else:
                self._measured(records)
            await asyncio.sleep(self._pace.watch_s)

    def _measured(self, records: int) -> None:
        seconds = 0.0 if records == 0 or self._last_at is None else max(0.0, self._now() - self._last_at)
        self.lag = Lag(records, seconds)
        self._metrics.projection_lag(*self.lag)
        if records == 0:
            self._well()

    async def _behind(self) -> int:
        return await self._beyond.count(self._positions)

    async def _trim_regularly(self) -> None:
        while True:
            await trim(self._store, self._retention, self._now())
            await asyncio.sleep(self._pace.trim_s)


class Behind:
    """How much of a journal stands beyond some positions. Offsets without a record don't count.

    What was found to hold no record is remembered: on Kafka each such question takes half a second, and a commit leaves a
    marker at the end of a shard where nothing may follow for days.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._empty: dict[Place, tuple[int, int]] = {}

    async def count(self, positions: Mapping[Place, int], ends: Mapping[Place, int] | None = None) -> int:
        """Records up to the ends (None: those of now)."""
        there = await ends_of(self._journal) if ends is None else ends
        spans = {place: (positions.get(place, 0), end) for place, end in there.items()}
        return sum(
            await asyncio.gather(*(self._of(place, *span) for place, span in spans.items() if span[0] < span[1]))
        )

    async def _of(self, place: Place, position: int, end: int) -> int:
        if self._empty.get(place) == (position, end):
            return 0
        found = await self._journal.read(place, position, 1)
        if found and found[0].offset < end:
            return end - position
        self._empty[place] = position, end
        return 0


async def trim(store: Store, retention: Retention, now: float) -> None:
    """Let the store forget what is older. An outage is only told; raises `StoreDamaged`."""
    try:
        gone = await store.trim(now - retention.events_days * DAY_S, now - retention.metrics_days * DAY_S)
        if any(gone):
            _log.info("projection trimmed", events=gone.events, metrics=gone.metrics)
    except StoreDamaged:
        raise
    except StoreUnavailable as exc:
        _log.warning("projection not trimmed", error=str(exc))


async def rebuild(
    journal: Journal, store: Store, progress: Callable[[int], Awaitable[None]] | None = None
) -> Projected:
    """Throw the projection away and project what the journal holds now. Raises whatever goes wrong.

    `progress` is told the number of records so far after each batch.
    """
    await store.reset()
    starts, ends = await _starts(journal), await ends_of(journal)
    records = dead = 0
    for place, start in starts.items():
        position = start
        while position < ends[place]:
            entries = await journal.read(place, position)
            if not entries:
                break
            written = await _write(store, entries, await asyncio.to_thread(documents, entries))
            position = entries[-1].offset + 1
            records, dead = records + len(entries), dead + len(written.dead_letters)
            if progress is not None:
                await progress(records)
    return Projected(records, dead)


async def _write(store: Store, entries: Sequence[Entry], batch: Batch) -> Batch:
    """Write the documents of the entries and move past them; what was written in the end.

    When the store refuses, each record is written by itself: the one that is refused alone is the one to blame.
    """
    try:
        await store.write(batch, positions_after(entries))
    except DocumentRefused as exc:
        if len(entries) > 1:
            singly = [await _write(store, [entry], documents([entry])) for entry in entries]
            return Batch(*(list(chain.from_iterable(rows)) for rows in zip(*singly, strict=True)))
        batch = Batch(dead_letters=[dead_letter(entries[0], f"refused by the store: {exc}")])
        await store.write(batch, positions_after(entries))
    return batch


async def _starts(journal: Journal) -> dict[Place, int]:
    """The oldest offset of every place."""
    kept = {stream: await journal.start_offsets(stream) for stream in Stream}
    return {Place(stream, shard): kept[stream].get(shard, 0) for stream in Stream for shard in range(journal.shards)}


async def ends_of(journal: Journal) -> dict[Place, int]:
    """One past the last offset of every place."""
    ends = {stream: await journal.end_offsets(stream) for stream in Stream}
    return {Place(stream, shard): ends[stream].get(shard, 0) for stream in Stream for shard in range(journal.shards)}
