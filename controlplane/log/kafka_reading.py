"""Reading from Kafka: questions about offsets, reads at an offset, and tails that notice when they stand still.

Theory of operation. A consumer that tails has a request of its own waiting at the broker, and every question on the same
connection waits behind it (half a second). So questions go to an unassigned consumer, reads to a few that are paused between
reads, and each tail has one to itself.

"Caught up" is `position >= end`: transaction markers and aborted records take offsets and are never delivered.

Note [A tail hears nothing of an outage]. `getmany` returns nothing, without an error, for as long as the broker is away, and
so does a consumer that is stuck (T6). A tail that got nothing for a while therefore asks the other consumer for the end: if
that fails, or there is more to read, the tail is in trouble; a stuck one is replaced. Trouble makes the daemon unready.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import ConsumerStoppedError, IllegalStateError, KafkaError, OffsetOutOfRangeError

from controlplane.log.feed import BATCH
from controlplane.log.kafka_clients import ASK_MS, Clients, stop_consumer
from controlplane.log.ports import LogCorrupt, LogUnavailable

_log = structlog.get_logger()

MOST_READERS: Final = 4
READ_S: Final = 10.0
"""Longest wait for records that are known to be there."""
READ_POLL_MS: Final = 10
READ_LOOK_MS: Final = 20
"""Between looks at how far a read has come: only markers may be left, of which nobody is told."""
POLL_MS: Final = 1000
FETCH_BYTES: Final = 4 << 20
WATCH_S: Final = 3.0
"""A tail that got nothing for so long asks whether there is something."""
RETRY_S: Final = 0.5


@dataclass(slots=True)
class Health:
    """What keeps the log from being followed, by tail."""

    troubles: dict[str, str] = field(default_factory=dict)

    @property
    def trouble(self) -> str | None:
        """For people; None while all is well."""
        return next(iter(self.troubles.values()), None)

    def tell(self, tail: str, trouble: str) -> None:
        """A tail can't go on."""
        if tail not in self.troubles:
            _log.warning("tail in trouble", tail=tail, error=trouble)
        self.troubles[tail] = trouble

    def well(self, tail: str) -> None:
        """It goes on."""
        if self.troubles.pop(tail, None) is not None:
            _log.info("tail goes on", tail=tail)


class Offsets:
    """Questions about offsets. All raise `LogUnavailable` when nobody answers."""

    def __init__(self, clients: Clients, isolation: str) -> None:
        self._clients = clients
        self._isolation = isolation
        self._consumer: AIOKafkaConsumer | None = None
        self._lock = asyncio.Lock()

    async def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """One past the last record; for committed readers, before the first open transaction."""
        found: dict[TopicPartition, int] = await self._ask("end", lambda consumer: consumer.end_offsets(partitions))
        return found

    async def starts(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The oldest that is kept."""
        found: dict[TopicPartition, int] = await self._ask(
            "beginning", lambda consumer: consumer.beginning_offsets(partitions)
        )
        return found

    async def since(self, partitions: Collection[TopicPartition], at_ms: int) -> dict[TopicPartition, int | None]:
        """The first record of that time or later; None when all are older."""
        times = dict.fromkeys(partitions, at_ms)
        found = await self._ask("offsets", lambda consumer: consumer.offsets_for_times(times))
        return {partition: None if at is None else at.offset for partition, at in found.items()}

    async def close(self) -> None:
        """End the consumer."""
        async with self._lock:
            if self._consumer is not None:
                await stop_consumer(self._consumer)
                self._consumer = None

    async def _ask(self, what: str, question: Callable[[AIOKafkaConsumer], Awaitable[Any]]) -> Any:
        async with self._lock:
            if self._consumer is None:
                self._consumer = await self._clients.consumer(self._isolation, request_timeout_ms=ASK_MS)
            consumer = self._consumer
        try:
            async with asyncio.timeout(2 * ASK_MS / 1000):
                return await question(consumer)
        except (KafkaError, TimeoutError) as exc:
            msg = f"Kafka doesn't tell the {what} of the log: {exc!r}"
            raise LogUnavailable(msg) from exc


class _Reader:
    """A consumer for reads; between them it is paused, and keeps what it fetched too much."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self.consumer = consumer
        self.at: tuple[TopicPartition, int] | None = None
        """What it would give next without being moved."""

    async def read(self, partition: TopicPartition, start: int, end: int, limit: int) -> list[ConsumerRecord]:
        if self.at is None or self.at[0] != partition:
            self.consumer.assign([partition])
        if self.at != (partition, start):
            self.consumer.seek(partition, start)
        self.consumer.resume(partition)
        self.at = None
        found: list[ConsumerRecord] = []
        while not found and await self.consumer.position(partition) < end:
            fetched = await self.consumer.getmany(partition, timeout_ms=READ_LOOK_MS, max_records=limit)
            found = fetched.get(partition, [])
        self.consumer.pause(partition)
        self.at = (partition, found[-1].offset + 1 if found else end)
        return found


class Readers:
    """Reads at an offset, by a few consumers that are used again: whoever stands at the offset goes first."""

    def __init__(self, clients: Clients, isolation: str) -> None:
        self._clients = clients
        self._isolation = isolation
        self._idle: list[_Reader] = []
        self._places = asyncio.Semaphore(MOST_READERS)
        self._closed = False

    async def read(self, partition: TopicPartition, start: int, end: int, limit: int) -> list[ConsumerRecord]:
        """Up to `limit` records from `start` to before `end`, which must be known to be there. Raises `LogUnavailable`."""
        async with self._places:
            reader = await self._take(partition, start)
            try:
                async with asyncio.timeout(READ_S):
                    found = await reader.read(partition, start, end, limit)
            except (KafkaError, TimeoutError) as exc:
                self._clients.end(stop_consumer(reader.consumer))
                msg = f"can't read {partition.topic}/{partition.partition} from offset {start}: {exc!r}"
                raise LogUnavailable(msg) from exc
            except BaseException:
                self._clients.end(stop_consumer(reader.consumer))
                raise
            if self._closed:
                self._clients.end(stop_consumer(reader.consumer))
            else:
                self._idle.append(reader)
            return found

    async def close(self) -> None:
        """End the consumers."""
        self._closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*(stop_consumer(reader.consumer) for reader in idle))

    async def _take(self, partition: TopicPartition, start: int) -> _Reader:
        if self._closed:
            msg = "the log is closed"
            raise LogUnavailable(msg)
        for reader in self._idle:
            if reader.at == (partition, start):
                self._idle.remove(reader)
                return reader
        if self._idle:
            return self._idle.pop()
        consumer = await self._clients.consumer(
            self._isolation,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=READ_POLL_MS,
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        return _Reader(consumer)


class Tails:
    """Tails of one isolation level. `close` ends them all."""

    def __init__(self, clients: Clients, isolation: str, offsets: Offsets, health: Health) -> None:
        self._clients = clients
        self._isolation = isolation
        self._offsets = offsets
        self._health = health
        self._running: set[AIOKafkaConsumer] = set()
        self._closed = asyncio.Event()
        self._count = 0

    async def follow(
        self, positions: Mapping[TopicPartition, int], *, reset: str
    ) -> AsyncGenerator[Sequence[ConsumerRecord], None]:
        """Batches (≤ 500) from the positions on; ends when the log is closed.

        `reset`: what to do with a position that is gone: `earliest` reads on from the oldest, `none` raises `LogCorrupt`.
        """
        self._count += 1
        name = f"{'/'.join(sorted({partition.topic for partition in positions}))}#{self._count}"
        wanted = dict(positions)
        while not self._closed.is_set():
            try:
                consumer = await self._opened(wanted, reset)
            except LogUnavailable as exc:
                self._health.tell(name, str(exc))
                await self._pause()
                continue
            try:
                async with aclosing(self._batches(consumer, wanted, name)) as batches:
                    async for batch in batches:
                        yield batch
            finally:
                await self._release(consumer)
        self._health.troubles.pop(name, None)

    async def close(self) -> None:
        """Every tail ends."""
        self._closed.set()
        running, self._running = self._running, set()
        await asyncio.gather(*map(stop_consumer, running))

    async def _batches(
        self, consumer: AIOKafkaConsumer, wanted: dict[TopicPartition, int], name: str
    ) -> AsyncGenerator[Sequence[ConsumerRecord], None]:
        """Until the log is closed or the consumer is given up; `wanted` moves along."""
        heard, suspect = time.monotonic(), False
        while not self._closed.is_set():
            fetched = await self._fetch(consumer, name)
            if fetched is None:
                return
            if fetched:
                heard, suspect = time.monotonic(), False
                self._health.well(name)
                for partition, records in fetched.items():
                    wanted[partition] = records[-1].offset + 1
                yield [record for records in fetched.values() for record in records]
            elif suspect or time.monotonic() - heard > WATCH_S:
                behind = await self._behind(consumer, wanted, name)
                if behind is not None and suspect:
                    self._health.tell(name, f"stands still before {behind}, begun anew")
                    return
                heard, suspect = time.monotonic(), behind is not None

    async def _fetch(self, consumer: AIOKafkaConsumer, name: str) -> dict[TopicPartition, list[ConsumerRecord]] | None:
        """What comes within a poll; None when this consumer is to be given up."""
        try:
            return dict(await consumer.getmany(timeout_ms=POLL_MS, max_records=BATCH))
        except (ConsumerStoppedError, IllegalStateError):
            return None
        except OffsetOutOfRangeError as exc:
            told = ", ".join(f"{p.topic}/{p.partition} from offset {offset}" for p, offset in exc.args[0].items())
            msg = f"records that were there are gone: {told}"
            raise LogCorrupt(msg) from exc
        except KafkaError as exc:
            self._health.tell(name, f"can't read on: {exc!r}")
            await self._pause()
            return None

    async def _behind(self, consumer: AIOKafkaConsumer, wanted: Mapping[TopicPartition, int], name: str) -> str | None:
        """A partition with records that the consumer hasn't given: Note [A tail hears nothing of an outage]."""
        try:
            ends = await self._offsets.ends(list(wanted))
            async with asyncio.timeout(ASK_MS / 1000):
                positions = {partition: await consumer.position(partition) for partition in wanted}
        except (LogUnavailable, KafkaError, TimeoutError) as exc:
            self._health.tell(name, str(exc) or type(exc).__name__)
            return None  # the broker is away; the consumer goes on by itself when it is back
        behind = [f"{p.topic}/{p.partition}" for p, end in ends.items() if positions[p] < end]
        if not behind:
            self._health.well(name)
        return behind[0] if behind else None

    async def _opened(self, wanted: Mapping[TopicPartition, int], reset: str) -> AIOKafkaConsumer:
        consumer = await self._clients.consumer(
            self._isolation, auto_offset_reset=reset, max_partition_fetch_bytes=FETCH_BYTES
        )
        if self._closed.is_set():
            await stop_consumer(consumer)
            return consumer
        consumer.assign(list(wanted))
        for partition, position in wanted.items():
            consumer.seek(partition, position)
        self._running.add(consumer)
        return consumer

    async def _release(self, consumer: AIOKafkaConsumer) -> None:
        """Without any wait when the log was closed: nobody may be there to wait."""
        if consumer in self._running:
            self._running.discard(consumer)
            await stop_consumer(consumer)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(RETRY_S):
                await self._closed.wait()
        except TimeoutError:
            return
