"""Batches are read on while one is handed on, and nothing is acknowledged before it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from controlplane.log.kafka_address import Address
from controlplane.log.ports import Entry
from controlplane.projection.faust_app import AHEAD, FaustApp

ADDRESS = Address(("nowhere:9092",))
TOPIC = ADDRESS.topic("events")
WITHIN_S = 30.0


def events(*offsets: int) -> list[Any]:
    return [
        SimpleNamespace(message=SimpleNamespace(topic=TOPIC, partition=0, offset=offset, key=b"k", value=b""))
        for offset in offsets
    ]


class Batches:
    """A stream of these batches that doesn't end, as Faust's doesn't; remembers what was asked for and acknowledged."""

    def __init__(self, *batches: list[Any]) -> None:
        self.read = 0
        self.acknowledged: list[int] = []
        self._batches = batches

    async def noack_take(self, most: int, within: float) -> AsyncIterator[list[Any]]:
        for batch in self._batches:
            self.read += 1
            yield batch
            await asyncio.sleep(0)  # reading suspends
        await asyncio.Event().wait()

    async def ack(self, event: Any) -> None:
        self.acknowledged.append(event.message.offset)


class Store:
    """Takes a batch each time it is let."""

    def __init__(self) -> None:
        self.taken: list[list[int]] = []
        self.let = asyncio.Semaphore(0)

    async def take(self, entries: Sequence[Entry]) -> None:
        self.taken.append([entry.offset for entry in entries])
        await self.let.acquire()


@asynccontextmanager
async def projecting(store: Store, stream: Batches) -> AsyncIterator[asyncio.Task[None]]:
    app = FaustApp(ADDRESS, "group", store.take)
    project = asyncio.create_task(app._project(stream))
    try:
        yield project
    finally:
        project.cancel()
        await asyncio.wait({project})
        app._folder.cleanup()


async def until(stream: Batches, *, read: int, acknowledged: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        while (stream.read, len(stream.acknowledged)) != (read, acknowledged):
            await asyncio.sleep(0)


async def test_what_was_read_meanwhile_goes_together_in_order_and_is_acknowledged_afterwards() -> None:
    store, stream = Store(), Batches(events(0, 1), events(2), events(3, 4))
    async with projecting(store, stream):
        await until(stream, read=3, acknowledged=0)
        assert store.taken == [[0, 1]]
        store.let.release()
        await until(stream, read=3, acknowledged=2)
        store.let.release()
        await until(stream, read=3, acknowledged=5)
    assert store.taken == [[0, 1], [2, 3, 4]]
    assert stream.acknowledged == [0, 1, 2, 3, 4]


async def test_a_few_batches_at_most_are_read_ahead() -> None:
    store, stream = Store(), Batches(*(events(number) for number in range(10)))
    async with projecting(store, stream):
        most = 1 + AHEAD + 1  # the one that is handed on, those that wait, and one that finds no room
        await until(stream, read=most, acknowledged=0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert stream.read == most


async def test_what_is_broken_off_is_not_acknowledged() -> None:
    store, stream = Store(), Batches(events(0), events(1))
    async with projecting(store, stream) as project:
        await until(stream, read=2, acknowledged=0)
    assert project.cancelled()
    assert stream.acknowledged == []
