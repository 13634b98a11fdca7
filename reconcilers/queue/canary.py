"""How long a message takes through the cluster, measured by one of our own. With aiokafka; its types and errors end here.

Only where the target asks for it (`canary: true`), for it needs a topic: `coreplane.canary.TENANT.TARGET`, one partition whose
messages are kept for an hour.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import suppress
from functools import partial
from typing import Any, Final

from reconcilers.contract import BackendError, Measurement, TransientError
from reconcilers.queue.admin import AdminThread
from reconcilers.queue.kafka_topics import MADE, ensure

CALL_S: Final = 10.0
CLOSE_S: Final = 5.0
POLL_MS: Final = 200
KEPT: Final = {"retention.ms": "3600000", "segment.ms": "3600000"}


class Canary:
    """`options`: for aiokafka. Of one task at a time."""

    def __init__(self, admin: AdminThread, options: dict[str, Any], topic: str) -> None:
        self._admin = admin
        self._options = options
        self._topic = topic
        self._clients: tuple[Any, Any] | None = None

    async def measured(self) -> list[Measurement]:
        """Seconds until one message was acknowledged, and until it was there; or that it was lost. New topic: nothing."""
        from aiokafka.errors import KafkaError  # noqa: PLC0415 - loaded already

        try:
            async with asyncio.timeout(CALL_S):
                acknowledged_s, delivered_s = await self._sent()
        except (BackendError, KafkaError, OSError, TimeoutError) as exc:
            await self.close()
            if isinstance(exc, TransientError) and exc.reason == MADE:
                return []
            return [Measurement("canary_lost", 1)]
        return [
            Measurement("canary_lost", 0),
            Measurement("acknowledged_s", acknowledged_s),
            Measurement("delivery_s", delivered_s),
        ]

    async def close(self) -> None:
        """Safe to call twice."""
        clients, self._clients = self._clients, None
        for client in clients or ():
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await client.stop()

    async def _sent(self) -> tuple[float, float]:
        producer, consumer = self._clients or await self._opened()
        mark, began = uuid.uuid4().bytes, time.perf_counter()
        await producer.send_and_wait(self._topic, mark, partition=0)
        acknowledged_s = time.perf_counter() - began
        while True:
            for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                if any(record.value == mark for record in records):
                    return acknowledged_s, time.perf_counter() - began

    async def _opened(self) -> tuple[Any, Any]:
        from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition  # noqa: PLC0415 - loaded when it is asked for

        await self._admin.call(partial(ensure, name=self._topic, config=KEPT), CALL_S)
        producer = AIOKafkaProducer(acks="all", enable_idempotence=True, **self._options)
        consumer = AIOKafkaConsumer(enable_auto_commit=False, **self._options)
        self._clients = producer, consumer
        await producer.start()
        await consumer.start()
        await asyncio.sleep(0)  # aiokafka 0.14: stopped before its tasks have begun, it raises their cancellation
        place = TopicPartition(self._topic, 0)
        consumer.assign([place])
        await consumer.seek_to_end(place)
        await consumer.position(place)
        return producer, consumer
