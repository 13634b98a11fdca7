"""What a reader of the journal in a consumer group needs beside the journal: where its group stands, and dead letters.

The positions are asked of the broker, not of the consumer that reads: a consumer that is stuck believes itself well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from controlplane.log import codec
from controlplane.log.kafka_clients import Clients, stop_admin, stop_producer
from controlplane.log.kafka_topics import DEAD_LETTERS
from controlplane.log.ports import LogUnavailable, Place, PutAside, Stream

SEND_S: Final = 10.0
ASK_S: Final = 10.0
SCHEMA: Final = "deadletter.v1"


class KafkaGroups:
    """Of one log. Clients are opened by the first call, and again after one that failed."""

    def __init__(self, clients: Clients, shards: int) -> None:
        self._clients = clients
        self._topic = clients.address.topic(DEAD_LETTERS)
        self._places = {
            (clients.address.topic(stream), shard): Place(stream, shard) for stream in Stream for shard in range(shards)
        }
        self._admin: AIOKafkaAdminClient | None = None
        self._producer: AIOKafkaProducer | None = None
        self._asking = asyncio.Lock()

    async def committed(self, group: str) -> Mapping[Place, int]:
        """What a group has committed, by place; none for a place without a commit. Raises `LogUnavailable`."""
        async with self._asking:
            try:
                if self._admin is None:
                    self._admin = await self._clients.admin()
                async with asyncio.timeout(ASK_S):
                    found = await self._admin.list_consumer_group_offsets(group)
            except (KafkaError, TimeoutError, OSError) as exc:
                await self._forget_admin()
                msg = f"Kafka doesn't tell where the group {group} stands: {str(exc) or type(exc).__name__}"
                raise LogUnavailable(msg) from exc
        places = {self._places.get((tp.topic, tp.partition)): told.offset for tp, told in found.items()}
        return {place: offset for place, offset in places.items() if place is not None and offset >= 0}

    async def put_aside(self, letters: Sequence[PutAside]) -> None:
        """Append dead letters to their topic; may be done again. Raises `LogUnavailable`."""
        async with self._asking:
            try:
                if self._producer is None:
                    self._producer = await self._clients.producer(self._topic)
                async with asyncio.timeout(SEND_S):
                    for letter in letters:
                        await self._producer.send_and_wait(self._topic, **_record(letter))
            except (KafkaError, TimeoutError, OSError) as exc:
                producer, self._producer = self._producer, None
                if producer is not None:
                    self._clients.end(stop_producer(producer))
                msg = f"a dead letter wasn't taken: {str(exc) or type(exc).__name__}"
                raise LogUnavailable(msg) from exc

    async def close(self) -> None:
        """Safe to call twice."""
        await self._forget_admin()
        producer, self._producer = self._producer, None
        if producer is not None:
            await stop_producer(producer)

    async def _forget_admin(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            self._clients.end(stop_admin(admin))


def _record(letter: PutAside) -> dict[str, Any]:
    """The record as it was, with where and why beside it."""
    content = {
        "stream": str(letter.place.stream),
        "shard": letter.place.shard,
        "offset": letter.offset,
        "key": letter.key,
        "reason": letter.reason,
        "data": letter.data,
    }
    headers = {"type": "DeadLetter", "stream": str(letter.place.stream), "schema": SCHEMA}
    return {
        "key": letter.key.encode(),
        "value": codec.encode(content),
        "headers": [(name, text.encode()) for name, text in headers.items()],
    }
