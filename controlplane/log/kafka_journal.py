"""`Journal` on three topics with one partition a shard.

Note [Shown once, shown for ever]. A commit is answered when committed readers see past it, see `kafka_shard`. A partition whose
leader has just started, or changed, may tell an older end for a moment: who read then would miss what was answered, and a
projection would believe itself at the end. So the ends of places we wrote are only told once they are past what we wrote.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Final

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.admin import RecordsToDelete

from controlplane.log import kafka_admin
from controlplane.log.feed import BATCH
from controlplane.log.kafka_clients import READ_COMMITTED, Clients, stop_producer
from controlplane.log.kafka_reading import Health, Offsets, Readers, Tails
from controlplane.log.kafka_shard import COMMIT_S, KafkaShardWriter
from controlplane.log.ports import Entry, LogUnavailable, Place, Stream
from controlplane.log.tailing import check_place, check_shard
from schemas.names import parse_timestamp

MARKERS_S: Final = 5.0
MARKERS_LOOK_S: Final = 0.002
RETRY_S: Final = 0.1


class KafkaJournal:
    """See the port."""

    def __init__(self, clients: Clients, shards: int, health: Health, commit_timeout_s: float = COMMIT_S) -> None:
        self._clients = clients
        self._shards = shards
        self._commit_timeout_s = commit_timeout_s
        self._offsets = Offsets(clients, READ_COMMITTED)
        self._readers = Readers(clients, READ_COMMITTED)
        self._tails = Tails(clients, READ_COMMITTED, self._offsets, health)
        self._partitions = {
            Place(stream, shard): TopicPartition(clients.address.topic(stream), shard)
            for stream in Stream
            for shard in range(shards)
        }
        self._places = {partition: place for place, partition in self._partitions.items()}
        self._written: dict[Place, int] = {}
        """One past the last offset that we committed, and that was shown."""
        self._writers: set[KafkaShardWriter] = set()
        self._closed = False

    @property
    def shards(self) -> int:
        """See the port."""
        return self._shards

    async def open_shard(self, shard: int) -> KafkaShardWriter:
        """See the port."""
        check_shard(shard, self._shards)
        self._refuse_closed()
        producer = await self._clients.transactional(shard, [self._clients.address.topic(stream) for stream in Stream])
        if self._closed:
            await stop_producer(producer)
            self._refuse_closed()
        writer = KafkaShardWriter(self._clients, producer, shard, shown=self._shown, timeout_s=self._commit_timeout_s)
        self._writers.add(writer)
        return writer

    async def read(self, place: Place, start: int, limit: int = BATCH) -> Sequence[Entry]:
        """See the port."""
        check_place(place, self._shards)
        end = (await self._ends([place]))[place]
        if start >= end or limit <= 0:
            return ()
        return self._entries(await self._readers.read(self._partitions[place], start, end, limit))

    def tail(self, positions: Mapping[Place, int]) -> AsyncGenerator[Sequence[Entry], None]:
        """See the port."""
        for place in positions:
            check_place(place, self._shards)
        return self._tail({self._partitions[place]: position for place, position in positions.items()})

    async def start_offsets(self, stream: Stream) -> Mapping[int, int]:
        """See the port."""
        partitions = [self._partitions[place] for place in self._of(stream)]
        return {p.partition: offset for p, offset in (await self._offsets.starts(partitions)).items()}

    async def end_offsets(self, stream: Stream) -> Mapping[int, int]:
        """See the port."""
        return {place.shard: end for place, end in (await self._ends(self._of(stream))).items()}

    async def trim(self, stream: Stream, before: str) -> int:
        """See the port. The brokers trim by themselves, too, whole segments at a time; tombstones are theirs alone."""
        if stream is Stream.STATUS:
            return 0
        places = self._of(stream)
        partitions = [self._partitions[place] for place in places]
        starts = await self._offsets.starts(partitions)
        ends = await self._ends(places)
        found = await self._offsets.since(partitions, int(parse_timestamp(before) * 1000))
        first = {p: ends[self._places[p]] if at is None else at for p, at in found.items()}
        wanted = {p: offset for p, offset in first.items() if offset > starts[p]}
        if wanted:
            await kafka_admin.delete_records(self._clients, {p: RecordsToDelete(o) for p, o in wanted.items()})
        return sum(offset - starts[p] for p, offset in wanted.items())

    async def close(self) -> None:
        """Commit what was called, end tails and clients."""
        self._closed = True
        gone = LogUnavailable("the log is closed")
        await asyncio.gather(*(writer.end(gone) for writer in self._writers), self._tails.close())
        await asyncio.gather(self._readers.close(), self._offsets.close())

    async def _tail(self, positions: Mapping[TopicPartition, int]) -> AsyncGenerator[Sequence[Entry], None]:
        async with aclosing(self._tails.follow(positions, reset="earliest")) as following:
            async for records in following:
                yield self._entries(records)

    async def _ends(self, places: Collection[Place]) -> dict[Place, int]:
        """Note [Shown once, shown for ever]."""
        try:
            async with asyncio.timeout(MARKERS_S):
                while True:
                    ends = await self._told(places)
                    if all(end >= self._written.get(place, 0) for place, end in ends.items()):
                        return ends
                    await asyncio.sleep(MARKERS_LOOK_S)
        except TimeoutError as exc:
            msg = f"Kafka hasn't shown what was committed after {MARKERS_S:g} s"
            raise LogUnavailable(msg) from exc

    def _of(self, stream: Stream) -> list[Place]:
        return [Place(stream, shard) for shard in range(self._shards)]

    async def _told(self, places: Collection[Place]) -> dict[Place, int]:
        ends = await self._offsets.ends([self._partitions[place] for place in places])
        return {self._places[partition]: end for partition, end in ends.items()}

    async def _shown(self, wanted: Mapping[Place, int]) -> None:
        """The writer has a deadline for it, also for a broker that is away meanwhile."""
        while True:
            try:
                ends = await self._told(list(wanted))
            except LogUnavailable:
                await asyncio.sleep(RETRY_S)
                continue
            if all(ends[place] >= end for place, end in wanted.items()):
                self._written.update(wanted)
                return
            await asyncio.sleep(MARKERS_LOOK_S)

    def _entries(self, records: Sequence[ConsumerRecord]) -> list[Entry]:
        return [_entry(self._places[TopicPartition(record.topic, record.partition)], record) for record in records]

    def _refuse_closed(self) -> None:
        if self._closed:
            msg = "the log is closed"
            raise LogUnavailable(msg)


def _entry(place: Place, record: ConsumerRecord) -> Entry:
    return Entry(place.stream, place.shard, record.offset, (record.key or b"").decode(errors="replace"), record.value)
