"""`SettingsLog` on a topic with one partition.

Theory of operation. Records go out by an idempotent producer with `acks=all`: aiokafka sends each until it is taken, through
restarts of the broker, and the broker drops what comes twice. Nobody writes here in a transaction: an open one would hold
up the readers, and aborted records would be folded.

Note [A producer is never used after an error]. A partition without a leader for longer than the request timeout fails a send
whose sequence number is then used up, though nothing was sent: every later send of that producer fails, too, for ever (T1). So
after any error of a send, a send without an answer included (T2), the producer is replaced; a send that failed isn't
repeated here, since it may have been stored: whoever asked repeats it under the same request_id.

Note [A send outlives its caller]. A caller that is cancelled or out of time doesn't stop the send (T3): it goes on in a task of
its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError

from controlplane.log.feed import BATCH, scan
from controlplane.log.kafka_clients import READ_UNCOMMITTED, Clients, stop_producer
from controlplane.log.kafka_reading import Health, Offsets, Readers, Tails
from controlplane.log.ports import NOTHING, About, Indeterminate, LogCorrupt, LogUnavailable, Record, Take

_log = structlog.get_logger()

SEND_S: Final = 30.0
"""After that a send is given up: longer than a broker's restart, since what waits for it needn't be asked again."""
CLOSE_S: Final = 5.0
MOST_PENDING: Final = 4096


class Sender:
    """Sends records by a producer that is replaced whenever it may be broken."""

    def __init__(self, clients: Clients, topic: str, timeout_s: float) -> None:
        self._clients = clients
        self._topic = topic
        self._timeout_s = timeout_s
        self._producer: AIOKafkaProducer | None = None
        self._lock = asyncio.Lock()
        self._closed = False

    async def send(self, data: bytes, about: About = NOTHING) -> None:
        """Until it is stored. Raises `LogUnavailable` (certainly not) or `Indeterminate`."""
        producer: AIOKafkaProducer | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                producer = await self._ready()
                headers = [(name, text.encode()) for name, text in about.headers.items()]
                key = about.key.encode() or None
                stored = await producer.send(self._topic, data, key=key, partition=0, headers=headers)
                stored.add_done_callback(_heard)
                await asyncio.shield(stored)
        except asyncio.CancelledError as exc:
            if not self._closed:
                raise
            msg = "the record may be stored or not: the log was closed before Kafka answered"
            raise Indeterminate(msg) from exc
        except MessageSizeTooLargeError as exc:
            raise LogUnavailable(str(exc)) from exc
        except LogUnavailable:
            raise
        except Exception as exc:
            if producer is None:
                msg = f"no answer from Kafka within {self._timeout_s:g} s, nothing was sent"
                raise LogUnavailable(msg) from exc
            self._replace(producer, exc)
            msg = f"the record may be stored or not: {exc or type(exc).__name__!r}"
            raise Indeterminate(msg) from exc

    async def start(self) -> None:
        """Be ready for the first record. Raises `LogUnavailable`."""
        await self._ready()

    async def close(self) -> None:
        """End the producer. Whoever cancels a send afterwards makes it end in an unknown outcome."""
        self._closed = True
        async with self._lock:
            if self._producer is not None:
                await stop_producer(self._producer)
                self._producer = None

    async def _ready(self) -> AIOKafkaProducer:
        async with self._lock:
            if self._producer is None:
                self._producer = await self._clients.producer(self._topic)
            return self._producer

    def _replace(self, producer: AIOKafkaProducer, exc: Exception) -> None:
        """Note [A producer is never used after an error]."""
        if self._producer is producer:
            _log.warning("settings producer replaced", error=repr(exc))
            self._producer = None
            self._clients.end(stop_producer(producer))


class KafkaSettingsLog:
    """See the port."""

    def __init__(self, clients: Clients, topic: str, health: Health, send_timeout_s: float = SEND_S) -> None:
        self._place = TopicPartition(topic, 0)
        self._sender = Sender(clients, topic, send_timeout_s)
        self._offsets = Offsets(clients, READ_UNCOMMITTED)
        self._readers = Readers(clients, READ_UNCOMMITTED)
        self._tails = Tails(clients, READ_UNCOMMITTED, self._offsets, health)
        self._pending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self) -> None:
        """Raises `LogUnavailable`, and `LogCorrupt` when the log doesn't begin at its beginning."""
        starts = await self._offsets.starts([self._place])
        if starts[self._place] > 0:
            msg = f"{self._place.topic} begins at offset {starts[self._place]}: what was before is gone"
            raise LogCorrupt(msg)
        await self._sender.start()

    async def append(self, data: bytes, about: About = NOTHING) -> None:
        """See the port. Note [A send outlives its caller]."""
        if self._closed:
            msg = "the log is closed"
            raise LogUnavailable(msg)
        if len(self._pending) >= MOST_PENDING:
            msg = f"{MOST_PENDING} records wait for Kafka"
            raise LogUnavailable(msg)
        task = asyncio.create_task(self._sender.send(bytes(data), about))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        task.add_done_callback(_ended)
        await asyncio.shield(task)

    async def read(self, start: int, limit: int = BATCH) -> Sequence[Record]:
        """See the port."""
        end = await self.end_offset()
        if start >= end or limit <= 0:
            return ()
        found = await self._readers.read(self._place, start, end, limit)
        return [Record(record.offset, record.value or b"") for record in found]

    async def scan(self, start: int, stop: int, take: Take) -> None:
        """See the port."""
        await scan(self.read, start, stop, take)

    async def tail(self, start: int) -> AsyncGenerator[Sequence[Record], None]:
        """See the port."""
        async with aclosing(self._tails.follow({self._place: start}, reset="none")) as following:
            async for records in following:
                yield [Record(record.offset, record.value or b"") for record in records]

    async def end_offset(self) -> int:
        """See the port."""
        return (await self._offsets.ends([self._place]))[self._place]

    async def close(self) -> None:
        """Answer what was accepted, end the tails and the clients."""
        self._closed = True
        if self._pending:
            await asyncio.wait(set(self._pending), timeout=CLOSE_S)
        await asyncio.gather(self._sender.close(), self._tails.close())
        for task in self._pending:
            task.cancel()
        if self._pending:
            await asyncio.wait(set(self._pending))
        await asyncio.gather(self._readers.close(), self._offsets.close())


def _heard(stored: asyncio.Future[object]) -> None:
    """Mark the exception as seen: nobody waits for a send that was given up."""
    if not stored.cancelled():
        stored.exception()


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
