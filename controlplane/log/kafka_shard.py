"""`ShardWriter` on Kafka: one transactional producer, whose fixed transactional id is the fence.

Theory of operation. `commit` queues; one task takes everything that is queued into one transaction over the topics of events,
statuses and metrics, while the next commits gather: a transaction of fifty costs what one of one costs. Starting another
producer with the same transactional id aborts our open transaction and fences us: the next send or commit fails.

Note [An empty transaction proves nothing]. Beginning a transaction asks nobody, and committing an empty one neither: a zombie
doesn't notice. An empty commit is therefore answered without one, and says nothing about the fence.

Note [One error, one writer]. After any error or deadline the writer is dead: whether its last transaction was committed is
told by the shard's partitions alone, once a new writer has settled it by its start. After a fence only `stop` may be called
on the producer (T8). A transaction that outlived its timeout looks like a fence, and is treated as one.

Note [Fenced while committing]. A takeover that comes while a commit is asked for is answered by UnknownServerError or by a fence,
and the fence may answer the second attempt of a commit whose first succeeded unheard. So only a fence before the commit was
asked for means that nothing is stored; later the outcome is unknown.

Note [Committed, and shown]. The coordinator says that a transaction is committed when it has decided so; the markers that make it
so in each partition are written a moment later. A coordinator that knows of no leader for a partition leaves its marker out for
ever (seen with Kafka 4.3.1: a node that shuts down withdraws from partitions that nobody else has, while it still takes
records): the records then belong to whatever the producer's next transaction comes to, and are lost when that is aborted.
So a commit is answered when committed readers see past it; what isn't shown in time has an unknown outcome.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    IllegalOperation,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidTxnState,
    ProducerFenced,
)
from aiokafka.structs import RecordMetadata

from controlplane.log.kafka_clients import MOST_BYTES, Clients, stop_producer
from controlplane.log.ports import Commit, Committed, Fenced, Indeterminate, LogUnavailable, Outgoing, Place, Stream
from controlplane.log.tailing import check_commit

_log = structlog.get_logger()

COMMIT_S: Final = 6.0
"""Less than the transaction's timeout and than the shard's: who waits hears from us, not from its own clock."""
MOST_TOGETHER: Final = 200
MOST_WAITING: Final = 4096
_SPARE_BYTES: Final = 64 << 10
_FENCES: Final = (
    ProducerFenced,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidTxnState,
    IllegalOperation,
    AssertionError,
)


class _Waiting(NamedTuple):
    commit: Commit
    answer: asyncio.Future[Committed]


class KafkaShardWriter:
    """See the port."""

    def __init__(
        self,
        clients: Clients,
        producer: AIOKafkaProducer,
        shard: int,
        *,
        shown: Callable[[Mapping[Place, int]], Awaitable[None]],
        timeout_s: float = COMMIT_S,
    ) -> None:
        """`shown` returns when committed readers of the places see up to before these offsets."""
        self._clients = clients
        self._producer = producer
        self._shard = shard
        self._shown = shown
        self._timeout_s = timeout_s
        self._topics = {stream: clients.address.topic(stream) for stream in Stream}
        self._queue: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None
        self._refusal: Exception | None = None
        """Why nothing is committed any more."""
        self._decided = False
        """Whether the commit of the transaction under way was asked for: Note [Fenced while committing]."""

    async def commit(self, commit: Commit) -> Committed:
        """See the port."""
        check_commit(commit)
        _check_size(commit)
        if self._refusal is not None:
            raise self._refusal
        if not (commit.events or commit.statuses or commit.metrics):
            return Committed()
        if len(self._queue) >= MOST_WAITING:
            msg = f"{MOST_WAITING} commits of shard {self._shard} wait for Kafka"
            raise LogUnavailable(msg)
        waiting = _Waiting(commit, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._task is None:
            self._task = asyncio.create_task(self._write())
        return await waiting.answer

    async def close(self) -> None:
        """See the port. Commits that were called are answered first."""
        await self.end(Fenced(f"this writer of shard {self._shard} was closed"))

    async def end(self, refusal: Exception) -> None:
        """Commit what was called, then refuse with this."""
        if self._refusal is None:
            self._refusal = refusal
            if self._task is not None:
                await asyncio.wait({self._task})
            await stop_producer(self._producer)
        elif isinstance(refusal, LogUnavailable):
            self._refusal = refusal

    async def _write(self) -> None:
        try:
            while self._queue:
                group = [self._queue.popleft() for _ in range(min(len(self._queue), MOST_TOGETHER))]
                await self._settle(group)
        finally:
            self._task = None

    async def _settle(self, group: Sequence[_Waiting]) -> None:
        """Answer every commit of the group, one way or the other."""
        try:
            async with asyncio.timeout(self._timeout_s):
                answers = await self._transaction([waiting.commit for waiting in group])
        except Exception as exc:  # noqa: BLE001 - Note [One error, one writer]
            self._die(exc, group)
            return
        for waiting, answer in zip(group, answers, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(answer)

    async def _transaction(self, commits: Sequence[Commit]) -> list[Committed]:
        self._decided = False
        await self._producer.begin_transaction()
        sends = [[await self._send(stream, records) for stream, records in _streams(commit)] for commit in commits]
        await asyncio.wait([future for sent in sends for stream in sent for future in stream])
        offsets = [[[_offset(future) for future in stream] for stream in sent] for sent in sends]
        self._decided = True
        await self._producer.commit_transaction()
        await self._shown(self._ends(offsets))
        return [Committed(events, statuses) for events, statuses, _ in offsets]

    def _ends(self, offsets: Sequence[Sequence[Sequence[int]]]) -> dict[Place, int]:
        """One past the last offset that the commits gave, by place; they are in order."""
        return {
            Place(stream, self._shard): given[-1] + 1
            for commit in offsets
            for stream, given in zip(Stream, commit, strict=True)
            if given
        }

    async def _send(self, stream: Stream, records: Sequence[Outgoing]) -> list[asyncio.Future[RecordMetadata]]:
        sent = []
        for key, data, headers in records:
            future = await self._producer.send(
                self._topics[stream],
                data,
                key=key.encode(),
                partition=self._shard,
                headers=[(name, text.encode()) for name, text in headers.items()],
            )
            future.add_done_callback(_heard)
            sent.append(future)
        return sent

    def _die(self, exc: Exception, group: Sequence[_Waiting]) -> None:
        fenced = isinstance(exc, _FENCES)
        reason = f"shard {self._shard} was taken by another writer" if fenced else f"shard {self._shard}: {exc!r}"
        _log.info("shard writer ended", shard=self._shard, error=repr(exc))
        closing = self._refusal is not None
        if not closing:
            self._refusal = Fenced(reason)
            self._clients.end(stop_producer(self._producer))
        for waiting in group:
            _refuse(
                waiting,
                Fenced(reason)
                if fenced and not self._decided
                else Indeterminate(f"{reason}: it may be committed or not"),
            )
        while self._queue:
            _refuse(self._queue.popleft(), Fenced(reason))


def _streams(commit: Commit) -> list[tuple[Stream, Sequence[Outgoing]]]:
    """In the order of `Stream`."""
    return [(Stream.EVENTS, commit.events), (Stream.STATUS, commit.statuses), (Stream.METRICS, commit.metrics)]


def _offset(future: asyncio.Future[RecordMetadata]) -> int:
    """Raises what the send failed with. A duplicate is reported as sent, without an offset: then nobody knows."""
    offset: int = future.result().offset
    if offset < 0:
        msg = "a record was taken without being given an offset"
        raise RuntimeError(msg)
    return offset


def _refuse(waiting: _Waiting, exc: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(exc)


def _heard(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


def _check_size(commit: Commit) -> None:
    """Found before it is grouped with the commits of others."""
    for _, records in _streams(commit):
        for outgoing in records:
            size = len(outgoing.key) * 4 + len(outgoing.data or b"")
            if size > MOST_BYTES - _SPARE_BYTES:
                msg = f"{outgoing.key}: {size} bytes are more than a record may have"
                raise ValueError(msg)
