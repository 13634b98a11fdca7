"""The feed of the tails: bounded, and without a hole between store and feed."""

from __future__ import annotations

import asyncio

import looptime
from hypothesis import given
from hypothesis import strategies as st

from controlplane.log.feed import BATCH, Feed, follow
from controlplane.log.ports import Record
from controlplane.log.tailing import SettingsPosition


def records(start: int, count: int, size: int = 1) -> list[Record]:
    return [Record(offset, b"x" * size) for offset in range(start, start + count)]


def test_a_cursor_gets_what_was_published_behind_it():
    feed: Feed[Record] = Feed()
    feed.publish(records(0, 3))
    assert feed.since(1) == records(1, 2)
    assert feed.since(3) == []


def test_what_one_look_gives_is_bounded():
    feed: Feed[Record] = Feed()
    feed.publish(records(0, 3 * BATCH))
    assert feed.since(0) == records(0, BATCH)


def test_a_cursor_that_fell_behind_is_told_so():
    feed: Feed[Record] = Feed()
    feed.publish(records(0, 9000))
    assert feed.since(0) is None
    assert feed.since(9000) == []


def test_big_records_are_let_go_by_their_bytes():
    feed: Feed[Record] = Feed()
    for offset in range(40):
        feed.publish(records(offset, 1, 1_000_000))
    assert feed.since(0) is None
    assert sum(len(record.data) for record in feed.since(39)) == 1_000_000
    held = next(count for count in range(40) if feed.since(39 - count) is None)
    assert held <= 9


def test_after_a_skip_every_cursor_must_look_into_the_store():
    feed: Feed[Record] = Feed()
    feed.publish(records(0, 3))
    feed.skip()
    assert feed.since(3) is None
    assert feed.since(feed.end) == []


STEPS = st.lists(st.sampled_from(["store", "publish", "skip", "read"]), max_size=40)


@given(STEPS, st.integers(0, 5))
def test_however_storing_publishing_and_reading_interleave_a_tail_gives_each_record_once_in_order(steps, start):
    """`store` commits a record, `publish` tells the tails of all that aren't told yet; a tail may read in between."""
    stored: list[Record] = []

    async def scenario() -> list[Record]:
        feed: Feed[Record] = Feed()
        position, told, found = SettingsPosition(start), 0, []

        async def read() -> list[Record]:
            await asyncio.sleep(0)
            return stored[position.offset : position.offset + 2]

        async def collect() -> None:
            async for batch in follow(feed, read, position.admit):
                found.extend(batch)

        task = asyncio.ensure_future(collect())
        for step in steps:
            if step == "store":
                stored.append(Record(len(stored), b""))
            elif step == "publish":
                feed.publish(stored[told:])
                told = len(stored)
            elif step == "skip":
                feed.skip()
                told = len(stored)
            else:
                await asyncio.sleep(0)
        feed.publish(stored[told:])
        for _ in range(200):
            await asyncio.sleep(0)
        feed.close()
        await task
        return found

    loop = looptime.patch_event_loop(asyncio.new_event_loop(), start=0)
    try:
        assert loop.run_until_complete(scenario()) == stored[start:]
    finally:
        loop.close()
