"""The compacted topic that holds the table of routes: see Note [The table of routes] in `routing`."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from reconcilers.queue.routing import Table

READ_S: Final = 10.0
"""Longest time that reading to the end may take."""
CLOSE_S: Final = 5.0


class TableReader:
    """Follows the topic. `options`: for aiokafka. Of one task at a time."""

    def __init__(self, options: dict[str, Any], topic: str) -> None:
        self.table = Table()
        self._options = options
        self._topic = topic
        self._place: Any = None
        self._consumer: Any = None

    async def read(self) -> Table:
        """The table as it is now. Raises aiokafka's errors and TimeoutError; the topic must be there."""
        async with asyncio.timeout(READ_S):
            consumer = await self._opened()
            end = (await consumer.end_offsets([self._place]))[self._place]
            while await consumer.position(self._place) < end:
                await self._take(consumer, 200)
        return self.table

    async def wait(self, timeout_ms: int) -> bool:
        """Take what comes meanwhile; True when the table changed."""
        return await self._take(await self._opened(), timeout_ms)

    async def close(self) -> None:
        """Safe to call twice."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            async with asyncio.timeout(CLOSE_S):
                await consumer.stop()

    async def _opened(self) -> Any:
        if self._consumer is None:
            from aiokafka import AIOKafkaConsumer, TopicPartition  # noqa: PLC0415 - loaded with the first route

            consumer = AIOKafkaConsumer(enable_auto_commit=False, auto_offset_reset="earliest", **self._options)
            try:
                await consumer.start()
                await self._check_there(consumer)
                self._place = TopicPartition(self._topic, 0)
                consumer.assign([self._place])
                await consumer.seek_to_beginning(self._place)
            except BaseException:
                await consumer.stop()
                raise
            self.table, self._consumer = Table(), consumer
        return self._consumer

    async def _check_there(self, consumer: Any) -> None:
        """Aiokafka asks for the offsets of a topic that isn't there again and again, without a pause."""
        if self._topic not in await consumer.topics():
            msg = f"{self._topic} isn't there yet"
            raise OSError(msg)

    async def _take(self, consumer: Any, timeout_ms: int) -> bool:
        before = self.table
        for records in (await consumer.getmany(self._place, timeout_ms=timeout_ms)).values():
            for one in records:
                self.table = self.table.changed((one.key or b"").decode(), one.value)
        return self.table is not before
