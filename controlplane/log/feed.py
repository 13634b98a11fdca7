"""The newest records of a log, shared by all its tails, and the wake-up when there are more.

Theory of operation. The writer publishes what it committed; every tail keeps a cursor into the feed and its positions in
the log. A tail first reads from the store until that is empty, then lives on the feed. The feed is bounded, in records and
bytes: a tail that falls behind it goes back to the store, so a slow reader costs no memory and loses nothing.

Note [From store to feed without a hole]. The cursor is taken *before* the store is read: what was published earlier is
committed and so in the store, what comes later is in the feed at or behind the cursor. Records that are in both are told
by their offsets, and given once. The cursor taken afterwards would miss what was published between the last read and it.

Lives in one event loop; not thread safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from controlplane.log.ports import Record, Take

BATCH: Final = 500
"""Most records a tail gives at once, so that decoding them doesn't hold the event loop for long."""

_MOST_ITEMS: Final = 2048
_MOST_BYTES: Final = 2 << 20


class Stored(Protocol):
    """A record of either port."""

    @property
    def data(self) -> bytes | None:
        """The bytes; None is a tombstone."""


StoredT = TypeVar("StoredT", bound=Stored)


class Feed(Generic[StoredT]):
    """The newest records in order of commit."""

    def __init__(self) -> None:
        self.end = 0
        """Cursor behind the newest record; cursors count published records, they aren't offsets."""
        self._closed = False
        self._items: list[StoredT] = []
        self._size_bytes = 0
        self._moved = asyncio.Event()

    def publish(self, items: Sequence[StoredT]) -> None:
        """Add committed records and wake the tails."""
        self._items += items
        self.end += len(items)
        self._size_bytes += sum(map(_size, items))
        if len(self._items) > _MOST_ITEMS or self._size_bytes > _MOST_BYTES:
            self._drop_oldest()
        self._wake()

    def skip(self) -> None:
        """Send all tails back to the store: something was stored that wasn't published."""
        self._items.clear()
        self._size_bytes = 0
        self.end += 1
        self._wake()

    def is_closed(self) -> bool:
        """True when nothing will be published any more."""
        return self._closed

    def close(self) -> None:
        """Let the tails end once they have given what was published."""
        self._closed = True
        self._wake()

    def since(self, cursor: int) -> Sequence[StoredT] | None:
        """Up to `BATCH` records from the cursor on; None when some of them are gone from here."""
        index = cursor - (self.end - len(self._items))
        return None if index < 0 else self._items[index : index + BATCH]

    async def moved(self, cursor: int) -> None:
        """Wait for records behind the cursor, or for the end."""
        while self.end <= cursor and not self._closed:
            await self._moved.wait()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    def _drop_oldest(self) -> None:
        """Down to half of both limits, so that dropping costs little for each record."""
        gone = 0
        while len(self._items) - gone > _MOST_ITEMS // 2 or self._size_bytes > _MOST_BYTES // 2:
            self._size_bytes -= _size(self._items[gone])
            gone += 1
        del self._items[:gone]


async def follow(
    feed: Feed[StoredT],
    stored: Callable[[], Awaitable[Sequence[StoredT]]],
    admit: Callable[[Sequence[StoredT]], Sequence[StoredT]],
) -> AsyncGenerator[Sequence[StoredT], None]:
    """Batches for a tail, until the feed is closed.

    `stored` reads the next batch at the tail's positions, empty at the end; `admit` gives those of the records that are
    wanted at the tail's positions, and moves the positions behind them.
    """
    while not feed.is_closed():
        cursor = feed.end  # Note [From store to feed without a hole]
        while not feed.is_closed() and (items := admit(await stored())):
            yield items
        while (found := feed.since(cursor)) is not None:
            cursor += len(found)
            if items := admit(found):
                yield items
            elif not found:
                if feed.is_closed():
                    return
                await feed.moved(cursor)


def _size(item: Stored) -> int:
    return len(item.data or b"") + 100


async def scan(read: Callable[[int], Awaitable[Sequence[Record]]], start: int, stop: int, take: Take) -> None:
    """`SettingsLog.scan` for a log that is read in the caller's own thread; others have their turn between two batches."""
    while start < stop:
        records = [record for record in await read(start) if record.offset < stop]
        if not records or not take(records):
            return
        start = records[-1].offset + 1
        await asyncio.sleep(0)
