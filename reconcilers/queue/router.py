"""The router: takes messages from the sources of routes and sends them on. One per replica and target.

Theory of operation. All routers of a target are members of one consumer group, which shares the partitions of all sources
among them. Each takes the messages of a partition in batches, by the table as it is between two batches; so a route that
is added, changed or removed interrupts nothing, and only another set of sources makes the group share anew. A batch ends
with its offset committed, beside which stands the progress (`routing.progress`).

at_least_once: which messages are about to be sent is committed beside the old offset, all sends are acknowledged, then the
new offset is committed. A crash in between repeats them, and whoever repeats them counts them; a router that is stopped
ends its batch before.
exactly_once: sends and offset are one transaction of a producer whose id belongs to the partition, so that a router that
lost the partition can't commit any more, and readers of committed messages see each once.

A message that a destination refuses for good goes to the dead letters of its route, after `retries`; without such a topic
its partition waits and tries again, and the others go on. What fails otherwise ends the router, whose supervisor starts
another one: it goes on at the last committed offset.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from reconcilers.contract import Connection, Unreachable
from reconcilers.queue import login, routing
from reconcilers.queue.route_table import CLOSE_S, TableReader
from reconcilers.queue.routing import Count, Installed, Message, Table

BATCH: Final = 500
POLL_MS: Final = 50
TABLE_MS: Final = 100
PAUSE_S: Final = (0.2, 10.0)
"""First and longest pause of a partition with a message that can't be delivered."""
METADATA_MS: Final = 5_000
MISSING_S: Final = (1.0, 5.0)
"""Longest wait for a destination that isn't known, and the time for which it is then deemed missing: meanwhile a message for it
is refused at once, and holds nobody else up."""
LAST_S: Final = 5.0
"""Longest time that a router which is stopped goes on with its batch."""


@dataclass(slots=True)
class _Part:
    """A partition that is ours."""

    place: Any
    at: int
    """Next offset."""
    counts: dict[str, Count] = field(default_factory=dict)
    again: int = 0
    """Messages before this offset may have been delivered by a router that crashed."""
    producer: Any = None
    """Its own, when the source is transactional."""
    done: set[tuple[int, str, str]] = field(default_factory=set)
    """(offset, topic, route) of what was delivered beyond the committed offset, so that it isn't sent a second time because
    another message of its batch was refused."""
    failures: int = 0
    resume_at: float = 0.0

    def pause(self) -> None:
        self.resume_at = time.monotonic() + min(PAUSE_S[0] * 2**self.failures, PAUSE_S[1])
        self.failures += 1


@dataclass(frozen=True, slots=True)
class _Send:
    """What a record leads to."""

    record: Any
    topics: tuple[tuple[str, Installed], ...]
    cause: str | None = None
    """Why it is a dead letter, when it is one."""


class Router:
    """Routes until it is cancelled or fails. `options`: for aiokafka's clients."""

    def __init__(self, options: dict[str, Any], tenant: str, target: str) -> None:
        self._options = options
        self._group = routing.router_group(tenant, target)
        self._reader = TableReader(options, routing.table_topic(tenant, target))
        self._table = Table()
        self._parts: dict[Any, _Part] = {}
        self._missing: dict[str, float] = {}
        """Destination → until when it is deemed missing."""
        self._consumer: Any = None
        self._producer: Any = None
        self._busy = asyncio.Lock()

    async def run(self) -> None:
        """Raises aiokafka's errors and TimeoutError."""
        from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # noqa: PLC0415 - loaded with the first route

        try:
            self._consumer = AIOKafkaConsumer(
                group_id=self._group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                metadata_max_age_ms=METADATA_MS,
                max_poll_records=BATCH,
                session_timeout_ms=10_000,
                heartbeat_interval_ms=1_000,
                **self._options,
            )
            self._producer = AIOKafkaProducer(enable_idempotence=True, linger_ms=5, **self._options)
            await self._reader.read()
            await self._consumer.start()
            await self._producer.start()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow())
                tasks.create_task(self._route_all())
        finally:
            await self._close()

    # --- the table -----------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            await self._reader.wait(TABLE_MS)

    async def _take_up(self) -> None:
        """Go by the newest table from here on: say so with each partition, then have others if the sources are others."""
        before, self._table = self._table, self._reader.table
        for part in list(self._parts.values()):
            if part.producer is None and self._table.transactional(part.place.topic):
                part.producer = await self._transactional(part.place)
        await self._commit(self._parts.values())
        if before.sources == self._table.sources:
            return
        await self.let_go(list(self._parts))
        if self._table.sources:
            self._consumer.subscribe(topics=sorted(self._table.sources), listener=_listener(self))
        else:
            self._consumer.unsubscribe()

    # --- partitions ----------------------------------------------------------------------------------------------------

    async def let_go(self, places: Collection[Any]) -> None:
        """They may be another router's now. What is under way with them is ended first."""
        async with self._busy:
            for place in places:
                part = self._parts.pop(place, None)
                if part is not None and part.producer is not None:
                    await part.producer.stop()

    async def _prepare(self, place: Any) -> None:
        """Begin where the group stands, or where the routes do. A producer that starts ends what its predecessor began, so
        the group's place is read after that."""
        producer = await self._transactional(place) if self._table.transactional(place.topic) else None
        coordinator = self._consumer._coordinator  # noqa: SLF001 - `committed` leaves out the metadata
        committed = (await coordinator.fetch_committed_offsets([place])).get(place)
        stood = committed.offset if committed is not None else -1
        part = _Part(place, max(stood, self._table.begin(place.topic, place.partition)), producer=producer)
        told = routing.progress_in(committed.metadata if committed is not None else None)
        part.counts, part.again = dict(told.counts), told.until
        part.at = max(part.at, (await self._consumer.beginning_offsets([place]))[place])
        self._consumer.seek(place, part.at)
        self._parts[place] = part
        await self._commit([part])

    async def _transactional(self, place: Any) -> Any:
        from aiokafka import AIOKafkaProducer  # noqa: PLC0415 - loaded already

        identity = routing.transactional_id(self._group, place.topic, place.partition)
        producer = AIOKafkaProducer(transactional_id=identity, linger_ms=5, **self._options)
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return producer

    async def _commit(self, parts: Iterable[_Part]) -> None:
        await self._committed({part.place: (part.at, self._progress(part)) for part in parts})

    async def _committed(self, offsets: Mapping[Any, tuple[int, str]]) -> None:
        if not offsets:
            return
        try:
            await self._consumer.commit(dict(offsets))
        except _outdated():  # the group is sharing anew: what is still ours afterwards is prepared again
            for place in offsets:
                self._parts.pop(place, None)

    def _progress(self, part: _Part, until: int = 0) -> str:
        until = max(until, part.again if part.again > part.at else 0)
        return routing.progress(self._table.of(part.place.topic), part.counts, until)

    # --- messages ------------------------------------------------------------------------------------------------------

    async def _route_all(self) -> None:
        while True:
            if self._reader.table is not self._table:
                await self._take_up()
            if not self._table.sources:
                await asyncio.sleep(POLL_MS / 1000)
                continue
            for place in self._consumer.assignment() - self._parts.keys():
                await self._prepare(place)
            ready = [part for part in self._parts.values() if part.resume_at <= time.monotonic()]
            await self._round(ready)

    async def _round(self, ready: Sequence[_Part]) -> None:
        mine = [part.place for part in ready if part.place in self._consumer.assignment()]
        if not mine:
            await asyncio.sleep(POLL_MS / 1000)
            return
        taken = await self._consumer.getmany(*mine, timeout_ms=POLL_MS, max_records=BATCH)
        if taken:
            await _to_its_end(self._deliver(taken))

    async def _deliver(self, taken: Mapping[Any, Sequence[Any]]) -> None:
        async with self._busy:
            await self._announce(taken)
        for place, records in taken.items():
            async with self._busy:
                part = self._parts.get(place)
                if part is not None and records and records[0].offset >= part.at:
                    await self._route(part, records)

    async def _announce(self, taken: Mapping[Any, Sequence[Any]]) -> None:
        """What is about to be sent, where no transaction takes it back after a crash."""
        parts = {place: part for place in taken if (part := self._parts.get(place)) is not None}
        offsets = {
            place: (part.at, self._progress(part, taken[place][-1].offset + 1))
            for place, part in parts.items()
            if part.producer is None and taken[place]
        }
        await self._committed(offsets)

    async def _route(self, part: _Part, records: Sequence[Any]) -> None:
        """One batch, or, when a part of it is refused, one message after the other."""
        plan = [self._decided(record) for record in records]
        if await self._tried(part, plan, records[-1].offset + 1) is None:
            part.failures = 0
            return
        for one in plan:
            if not await self._insisted(part, one):
                self._consumer.seek(part.place, part.at)
                part.pause()
                until = 0 if part.producer is not None else records[-1].offset + 1
                await self._committed({part.place: (part.at, self._progress(part, until))})
                return

    def _decided(self, record: Any) -> _Send:
        message = Message(record.key, record.value, record.headers)
        routes, unsure = routing.taking(self._table.of(record.topic), message)
        sends = [(topic, one) for one in routes for topic in one.route.to]
        if unsure is not None:
            return _Send(record, ((str(unsure.route.on_error.dead_letter), unsure),), "the message isn't JSON")
        return _Send(record, tuple(sends))

    async def _tried(self, part: _Part, plan: Sequence[_Send], end: int) -> Exception | None:
        """Deliver all of it and commit the offset; what a destination said of the first that it refuses."""
        counts = dict(part.counts)
        try:
            if part.producer is None:
                await self._send(self._producer, part, plan)
                part.at = end
                await self._commit([part])
            else:
                async with part.producer.transaction():
                    await self._send(part.producer, part, plan)
                    offset = {part.place: (end, self._progress(part))}
                    await part.producer.send_offsets_to_transaction(offset, self._group)
                part.at = end
        except _refusals() as exc:
            if part.producer is not None:  # nothing of it counts
                part.counts, part.done = counts, set()
                await self._renew(part)
            return exc
        part.done.clear()
        return None

    async def _send(self, producer: Any, part: _Part, plan: Sequence[_Send]) -> None:
        """Raises the first refusal when everything has been answered."""
        sent: list[tuple[tuple[int, str, str], _Send, Installed, Any]] = []
        refused: list[Exception] = await self._absent(producer, {topic for one in plan for topic, _ in one.topics})
        for one in plan:
            for topic, route in one.topics:
                mark = (one.record.offset, topic, route.name)
                if mark in part.done or topic in self._missing:
                    continue
                try:
                    sent.append((mark, one, route, await self._sent(producer, topic, one, route)))
                except _refusals() as exc:
                    refused.append(exc)
        await producer.flush()
        answers = await asyncio.gather(*(answer for *_, answer in sent), return_exceptions=True)
        for (mark, one, route, _), answer in zip(sent, answers, strict=True):
            if isinstance(answer, BaseException):
                refused.append(answer)  # type: ignore[arg-type]
                continue
            part.done.add(mark)
            _count(part, one, route)
        if refused:
            raise refused[0]

    async def _absent(self, producer: Any, topics: Iterable[str]) -> list[Exception]:
        """Look for the destinations that aren't known; a refusal for each that isn't there."""
        for topic in topics:
            if self._missing.get(topic, 0.0) > time.monotonic():
                continue
            self._missing.pop(topic, None)
            try:
                async with asyncio.timeout(MISSING_S[0]):
                    await producer.partitions_for(topic)
            except TimeoutError:
                self._missing[topic] = time.monotonic() + MISSING_S[1]
        return [_no_such_topic(topic) for topic in topics if topic in self._missing]

    async def _sent(self, producer: Any, topic: str, one: _Send, route: Installed) -> Any:
        """A future of the acknowledgement."""
        record, headers = one.record, one.record.headers
        if one.cause is not None:
            place = (record.topic, record.partition, record.offset)
            headers = routing.dead_letter(headers, route.name, one.cause, place, int(time.time() * 1000))
        return await producer.send(topic, record.value, record.key, headers=list(headers))

    async def _insisted(self, part: _Part, one: _Send) -> bool:
        """Deliver one message, or bury it after some tries; False when neither can be done now."""
        end = one.record.offset + 1
        if end <= part.at:
            return True
        retries = min((route.route.on_error.retries for _, route in one.topics), default=0)
        refusal: Exception | None = None
        for attempt in range(retries + 1):
            await asyncio.sleep(min(PAUSE_S[0] * attempt, 1.0))
            refusal = await self._tried(part, [one], end)
            if refusal is None:
                return True
            _count_failed(part, one)
        routes = {route.name: route for _, route in one.topics}
        graves = [(route.route.on_error.dead_letter, route) for route in routes.values()]
        if any(topic is None for topic, _ in graves):
            return False
        dead = _Send(one.record, tuple((str(topic), route) for topic, route in graves), _told(refusal))
        return await self._tried(part, [dead], end) is None

    async def _renew(self, part: _Part) -> None:
        """A transactional producer that was refused something is of no use any more."""
        if part.producer is not None:
            await part.producer.stop()
            part.producer = await self._transactional(part.place)

    async def _close(self) -> None:
        producers = [part.producer for part in self._parts.values() if part.producer is not None]
        parts = [self._consumer, self._producer, *producers]
        closing = [one.stop() for one in parts if one is not None]
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(*closing, self._reader.close(), return_exceptions=True)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """What has begun is ended, also when the router is stopped: else the next one would do it again."""
    batch = asyncio.ensure_future(work)
    try:
        await asyncio.shield(batch)
    except asyncio.CancelledError:
        await asyncio.wait([batch], timeout=LAST_S)
        batch.cancel()
        await asyncio.gather(batch, return_exceptions=True)
        raise


def _count(part: _Part, sent: _Send, route: Installed) -> None:
    before, dead = part.counts.get(route.digest, Count()), sent.cause is not None
    again = sent.record.offset < part.again
    part.counts[route.digest] = before._replace(
        routed=before.routed + (not dead), dead=before.dead + dead, repeated=before.repeated + again
    )


def _count_failed(part: _Part, sent: _Send) -> None:
    """For each route that it still has to go by."""
    left = {route.digest for topic, route in sent.topics if (sent.record.offset, topic, route.name) not in part.done}
    for digest in left:
        before = part.counts.get(digest, Count())
        part.counts[digest] = before._replace(failed=before.failed + 1)


def _told(refusal: Exception | None) -> str:
    return f"{type(refusal).__name__}: {refusal}"


def _outdated() -> tuple[type[Exception], ...]:
    """What a commit says when the group has gone on without us."""
    from aiokafka import errors  # noqa: PLC0415 - loaded already

    return (errors.CommitFailedError, errors.RebalanceInProgressError, errors.IllegalStateError)


def _refusals() -> tuple[type[Exception], ...]:
    """What a destination says that it will say again: anything else may be different for the next router."""
    from aiokafka import errors  # noqa: PLC0415 - loaded already

    return (
        errors.MessageSizeTooLargeError,
        errors.RecordListTooLargeError,
        errors.TopicAuthorizationFailedError,
        errors.UnknownTopicOrPartitionError,
        errors.InvalidTopicError,
        errors.PolicyViolationError,
        errors.CorruptRecordException,
    )


def _no_such_topic(topic: str) -> Exception:
    from aiokafka import errors  # noqa: PLC0415 - loaded already

    error: Exception = errors.UnknownTopicOrPartitionError(f"{topic} isn't there")
    return error


def _listener(router: Router) -> Any:
    """Tells the router what it loses; what it is given it sees by itself."""
    from aiokafka import ConsumerRebalanceListener  # noqa: PLC0415 - loaded already

    class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
        async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
            await router.let_go(revoked)

        async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
            """See `Router._prepare`."""

    return Listener()


async def run(connection: Connection) -> None:
    """The router of one target, in this replica. Raises `Unreachable`, also when another router took its partitions."""
    from aiokafka.errors import KafkaError  # noqa: PLC0415 - loaded with the first route

    options = login.client_options(connection.value, connection.secrets)
    try:
        await Router(options, connection.tenant, connection.target).run()
    except* (KafkaError, OSError, TimeoutError) as group:
        told = "; ".join(sorted({repr(exc) for exc in _leaves(group)}))
        msg = f"router: {told}"
        raise Unreachable(msg) from group


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _leaves(exc)
        else:
            yield exc
