"""What every settings log and every journal does, whatever it is made of.

Nothing here assumes that offsets are without holes or begin at 0: on Kafka they needn't be.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.log.ports import (
    Commit,
    Committed,
    Entry,
    Fenced,
    Indeterminate,
    Journal,
    Log,
    LogUnavailable,
    Outgoing,
    Place,
    Record,
    SettingsLog,
    ShardWriter,
    Stream,
)
from tests.contract.log_implementations import SHARDS, Implementation

DEADLINE_S = 20.0
OUTCOMES = (Committed, Fenced, Indeterminate)
LONG_AGO = "2001-01-01T00:00:00.000000Z"
FAR_FUTURE = "2999-01-01T00:00:00.000000Z"


async def gathered(tail: AsyncIterator[Sequence], count: int) -> list:
    """The next `count` items of a tail, or more when the last batch has more."""
    found: list = []
    async with asyncio.timeout(DEADLINE_S):
        while len(found) < count:
            found += await anext(tail)
    return found


async def drained(tail: AsyncIterator[Sequence]) -> list:
    """Everything up to the end of a tail."""
    found: list = []
    async with asyncio.timeout(DEADLINE_S):
        async for batch in tail:
            found += batch
    return found


async def all_records(log: SettingsLog) -> list[Record]:
    found: list[Record] = []
    while batch := await log.read(found[-1].offset + 1 if found else 0):
        found += batch
    return found


async def all_entries(journal: Journal, place: Place) -> list[Entry]:
    found: list[Entry] = []
    while batch := await journal.read(place, found[-1].offset + 1 if found else 0):
        found += batch
    return found


async def live_statuses(journal: Journal, shard: int) -> dict[str, bytes]:
    """The last status of every key that has one: older ones of the key may come before it."""
    last = {entry.key: entry.data for entry in await all_entries(journal, Place(Stream.STATUS, shard))}
    return {key: data for key, data in last.items() if data is not None}


async def appended(log: SettingsLog, count: int) -> list[bytes]:
    data = [f"record {number}".encode() for number in range(count)]
    for one in data:
        await log.append(one)
    return data


def events(*names: str) -> Commit:
    return Commit(events=[Outgoing(name, name.encode(), {"type": "Converged"}) for name in names])


def begun(writer: ShardWriter, names: Sequence[str]) -> dict[str, asyncio.Future]:
    """Commits under way, each of an event and a status of its name."""
    return {
        name: asyncio.ensure_future(writer.commit(Commit(events(name).events, statuses(**{name: name}).statuses)))
        for name in names
    }


def by_outcome(outcomes: Mapping[str, object]) -> tuple[set[str], set[str], set[str]]:
    """Names of the commits that were acknowledged, fenced, and nobody knows: the port allows these three."""
    found = [{name for name, outcome in outcomes.items() if isinstance(outcome, kind)} for kind in OUTCOMES]
    return found[0], found[1], found[2]


def statuses(**data: str | None) -> Commit:
    return Commit(statuses=[Outgoing(key, None if text is None else text.encode()) for key, text in data.items()])


class SettingsLogSuite:
    async def test_an_empty_log_has_nothing_to_read_and_is_caught_up(self, log: Log):
        assert list(await log.settings.read(0)) == []
        assert list(await log.settings.read(17)) == []
        assert await log.settings.end_offset() == 0

    async def test_records_are_read_back_in_the_order_of_their_appends(self, log: Log):
        data = await appended(log.settings, 7)
        records = await log.settings.read(0)
        assert [record.data for record in records] == data
        assert [record.offset for record in records] == sorted({record.offset for record in records})

    async def test_a_read_begins_at_its_offset_and_ends_at_its_limit(self, log: Log):
        await appended(log.settings, 7)
        records = await log.settings.read(0)
        assert list(await log.settings.read(records[2].offset, 3)) == records[2:5]

    async def test_a_scan_hands_over_every_record_of_its_span_once_and_in_order(self, log: Log):
        await appended(log.settings, 1203)
        records = await all_records(log.settings)
        taken: list[Record] = []
        await log.settings.scan(records[1].offset, records[1201].offset, lambda batch: taken.extend(batch) or True)
        assert taken == records[1:1201]
        await log.settings.scan(await log.settings.end_offset(), 9999, lambda batch: pytest.fail("there is nothing"))

    async def test_a_scan_ends_where_it_is_told_to(self, log: Log):
        await appended(log.settings, 1203)
        batches: list[Sequence[Record]] = []

        def two(batch: Sequence[Record]) -> bool:
            batches.append(batch)
            return len(batches) < 2

        await log.settings.scan(0, await log.settings.end_offset(), two)
        assert len(batches) == 2

    async def test_what_a_scan_stumbles_over_comes_back_to_who_asked(self, log: Log):
        await appended(log.settings, 3)

        def stumble(batch: Sequence[Record]) -> bool:
            raise KeyError(batch[0].offset)

        with pytest.raises(KeyError):
            await log.settings.scan(0, 3, stumble)

    async def test_a_scan_that_is_given_up_takes_no_more(self, log: Log):
        await appended(log.settings, 1203)
        begun, batches = asyncio.Event(), []
        loop = asyncio.get_running_loop()

        def slow(batch: Sequence[Record]) -> bool:
            batches.append(batch)
            loop.call_soon_threadsafe(begun.set)
            time.sleep(0.01)
            return True

        end = await log.settings.end_offset()
        while True:
            begun.clear()
            scanning = asyncio.ensure_future(log.settings.scan(0, end, slow))
            await begun.wait()
            scanning.cancel()
            await asyncio.wait({scanning})
            taken = len(batches)
            await log.settings.read(0)
            assert len(batches) == taken
            if scanning.cancelled():
                break

    async def test_the_end_offset_lies_behind_the_last_record(self, log: Log):
        await appended(log.settings, 3)
        records = await log.settings.read(0)
        end = await log.settings.end_offset()
        assert end > records[-1].offset
        assert list(await log.settings.read(end)) == []

    async def test_an_acknowledged_append_can_be_read_at_once(self, log: Log):
        for number in range(20):
            await log.settings.append(b"%d" % number)
            assert (await log.settings.read(0))[-1].data == b"%d" % number

    async def test_concurrent_appends_are_all_kept_exactly_once(self, log: Log):
        data = [f"{number}".encode() for number in range(700)]
        await asyncio.gather(*map(log.settings.append, data))
        kept = [record.data for record in await all_records(log.settings)]
        assert sorted(kept) == sorted(data)

    async def test_a_tail_gives_what_was_there_and_then_what_comes(self, log: Log):
        before = await appended(log.settings, 3)
        tail = log.settings.tail(0)
        assert [record.data for record in await gathered(tail, 3)] == before
        waiting = asyncio.ensure_future(anext(tail))
        await asyncio.sleep(0)
        assert not waiting.done()
        await log.settings.append(b"later")
        assert [record.data for record in await asyncio.wait_for(waiting, DEADLINE_S)] == [b"later"]

    async def test_a_tail_begins_at_its_offset_even_when_that_is_still_to_come(self, log: Log):
        await appended(log.settings, 2)
        end = await log.settings.end_offset()
        tail = log.settings.tail(end)
        waiting = asyncio.ensure_future(gathered(tail, 2))
        await log.settings.append(b"x")
        await log.settings.append(b"y")
        assert [record.data for record in await waiting] == [b"x", b"y"]

    async def test_a_tail_gives_every_record_once_while_others_append(self, log: Log):
        await appended(log.settings, 600)
        tails = [asyncio.ensure_future(gathered(log.settings.tail(0), 1800)) for _ in range(3)]
        await asyncio.gather(*(log.settings.append(b"c%d" % number) for number in range(1200)))
        expected = await all_records(log.settings)
        for records in await asyncio.gather(*tails):
            assert records == expected

    async def test_the_batches_of_a_tail_are_bounded(self, log: Log):
        await asyncio.gather(*(log.settings.append(b"%d" % number) for number in range(1300)))
        tail = log.settings.tail(0)
        sizes = [len(await anext(tail)) for _ in range(3)]
        assert max(sizes) <= 500

    async def test_a_tail_that_stood_still_misses_nothing(self, log: Log):
        tail = log.settings.tail(0)
        await log.settings.append(b"first")
        first = await gathered(tail, 1)
        big = b"x" * 200_000
        for start in range(0, 120, 40):
            await asyncio.gather(*(log.settings.append(b"%d" % n + big) for n in range(start, start + 40)))
        assert first + await gathered(tail, 120) == await all_records(log.settings)

    async def test_a_record_of_a_megabyte_comes_back_as_it_was(self, log: Log):
        data = bytes(range(256)) * 4000
        await log.settings.append(data)
        assert (await log.settings.read(0))[0].data == data

    async def test_caught_up_is_a_position_at_the_end_offset(self, log: Log):
        await appended(log.settings, 5)
        end, position = await log.settings.end_offset(), 0
        async with asyncio.timeout(DEADLINE_S):
            async for records in log.settings.tail(0):
                position = records[-1].offset + 1
                if position >= end:
                    break
        assert position >= end

    async def test_an_append_whose_caller_gave_up_stores_the_record_once_or_not_at_all(self, log: Log):
        task = asyncio.ensure_future(log.settings.append(b"given up"))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await log.settings.append(b"next")
        kept = [record.data for record in await all_records(log.settings)]
        assert kept in ([b"next"], [b"given up", b"next"])

    async def test_closing_ends_the_tails_and_refuses_appends(self, log: Log):
        tail = asyncio.ensure_future(drained(log.settings.tail(0)))
        await log.settings.append(b"last")
        await log.close()
        assert [record.data for record in await tail] in ([b"last"], [])
        with pytest.raises(LogUnavailable):
            await log.settings.append(b"too late")

    async def test_closing_ends_a_tail_that_is_still_catching_up(self, log: Log):
        await asyncio.gather(*(log.settings.append(b"%d" % number) for number in range(3000)))
        tails = [asyncio.ensure_future(drained(log.settings.tail(0))) for _ in range(3)]
        await asyncio.sleep(0)
        await log.close()
        everything = [b"%d" % number for number in range(3000)]
        for records in await asyncio.gather(*tails):
            assert [record.data for record in records] == everything[: len(records)]

    async def test_closing_twice_is_harmless(self, log: Log):
        await log.close()
        await log.close()

    async def test_what_was_accepted_before_closing_is_answered(self, log: Log):
        appends = [asyncio.ensure_future(log.settings.append(b"%d" % number)) for number in range(50)]
        await asyncio.sleep(0)
        await log.close()
        answers = await asyncio.gather(*appends, return_exceptions=True)
        assert all(answer is None or isinstance(answer, LogUnavailable) for answer in answers)


class JournalSuite:
    async def test_the_number_of_shards_is_that_of_its_making(self, log: Log):
        assert log.journal.shards == SHARDS

    async def test_offsets_are_given_per_place_and_in_the_order_of_the_commit(self, log: Log):
        one, two = await log.journal.open_shard(0), await log.journal.open_shard(1)
        committed = await one.commit(Commit(events=events("a", "b").events, statuses=statuses(k="1").statuses))
        await two.commit(events("c"))
        read = await log.journal.read(Place(Stream.EVENTS, 0), 0)
        assert [(entry.key, entry.offset) for entry in read] == [
            ("a", committed.events[0]),
            ("b", committed.events[1]),
        ]
        assert [entry.offset for entry in await log.journal.read(Place(Stream.STATUS, 0), 0)] == list(
            committed.statuses
        )
        assert [entry.data for entry in await log.journal.read(Place(Stream.EVENTS, 1), 0)] == [b"c"]

    async def test_an_entry_says_where_it_stands(self, log: Log):
        writer = await log.journal.open_shard(2)
        commit = Commit(metrics=[Outgoing("default/cache/keys", b"7", {"service": "cache"})])
        await writer.commit(commit)
        (entry,) = await log.journal.read(Place(Stream.METRICS, 2), 0)
        assert entry == Entry(Stream.METRICS, 2, entry.offset, "default/cache/keys", b"7")

    async def test_concurrent_commits_of_one_writer_land_in_the_order_of_their_calls(self, log: Log):
        writer = await log.journal.open_shard(0)
        committed = await asyncio.gather(*(writer.commit(events(f"{n}a", f"{n}b")) for n in range(100)))
        entries = await all_entries(log.journal, Place(Stream.EVENTS, 0))
        assert [entry.key for entry in entries] == [f"{n}{half}" for n in range(100) for half in "ab"]
        assert [entry.offset for entry in entries] == [offset for one in committed for offset in one.events]

    async def test_an_empty_commit_stores_nothing(self, log: Log):
        writer = await log.journal.open_shard(0)
        committed = await writer.commit(Commit())
        assert list(committed.events) == list(committed.statuses) == []
        assert await all_entries(log.journal, Place(Stream.EVENTS, 0)) == []

    async def test_a_commit_that_cannot_be_stored_leaves_nothing_and_fails_alone(self, log: Log):
        writer = await log.journal.open_shard(0)
        bad = Commit(events=[Outgoing("a", b"1")], metrics=[Outgoing("b", None)])
        answers = await asyncio.gather(
            writer.commit(events("before")), writer.commit(bad), writer.commit(events("after")), return_exceptions=True
        )
        assert isinstance(answers[1], ValueError)
        entries = await all_entries(log.journal, Place(Stream.EVENTS, 0))
        assert [entry.key for entry in entries] == ["before", "after"]

    async def test_a_shard_that_is_taken_fences_its_former_writer(self, log: Log):
        old = await log.journal.open_shard(0)
        await old.commit(events("old"))
        new = await log.journal.open_shard(0)
        with pytest.raises(Fenced):
            await old.commit(events("zombie"))
        await new.commit(events("new"))
        with pytest.raises(Fenced):
            await old.commit(events("still a zombie"))
        entries = await all_entries(log.journal, Place(Stream.EVENTS, 0))
        assert [entry.key for entry in entries] == ["old", "new"]

    async def test_a_fenced_writer_leaves_nothing_in_any_stream(self, log: Log):
        old = await log.journal.open_shard(1)
        await log.journal.open_shard(1)
        with pytest.raises(Fenced):
            await old.commit(Commit(events("e").events, statuses(k="s").statuses, [Outgoing("m", b"1")]))
        for stream in Stream:
            assert await all_entries(log.journal, Place(stream, 1)) == []

    async def test_taking_a_shard_fences_no_other(self, log: Log):
        other = await log.journal.open_shard(0)
        await log.journal.open_shard(1)
        await other.commit(events("unharmed"))
        assert len(await all_entries(log.journal, Place(Stream.EVENTS, 0))) == 1

    async def test_among_commits_and_takeovers_at_once_none_of_an_older_writer_follows_one_of_a_newer(self, log: Log):
        writers = [await log.journal.open_shard(0)]
        commits: dict[str, asyncio.Future] = {}
        for generation in range(1, 6):
            commits |= begun(writers[-1], [f"{generation - 1}/{number}" for number in range(5)])
            writers.append(await log.journal.open_shard(0))
            commits |= begun(writers[-2], [f"{generation - 1}/{number}" for number in range(5, 10)])
        outcomes = dict(zip(commits, await asyncio.gather(*commits.values(), return_exceptions=True), strict=True))
        stored = [entry.key for entry in await all_entries(log.journal, Place(Stream.EVENTS, 0))]
        assert stored == sorted(stored), "neither generations nor the commits of one change places"
        acknowledged, fenced, unknown = by_outcome(outcomes)
        assert acknowledged | fenced | unknown == set(outcomes)
        assert acknowledged <= set(stored) <= acknowledged | unknown, "fenced: certainly not stored; unknown: either"
        pairs = [entry.key for entry in await all_entries(log.journal, Place(Stream.STATUS, 0))]
        assert set(pairs) == set(stored), "of each commit all or nothing"

    async def test_a_closed_writer_commits_no_more(self, log: Log):
        writer = await log.journal.open_shard(0)
        await writer.close()
        await writer.close()
        with pytest.raises(Fenced):
            await writer.commit(events("late"))

    async def test_the_status_stream_keeps_the_last_of_each_key_at_a_risen_offset(self, log: Log):
        writer = await log.journal.open_shard(0)
        first = await writer.commit(statuses(a="1", b="1"))
        second = await writer.commit(statuses(a="2"))
        assert second.statuses[0] > max(first.statuses)
        live = {e.key: e for e in await all_entries(log.journal, Place(Stream.STATUS, 0))}
        assert {key: entry.data for key, entry in live.items()} == {"a": b"2", "b": b"1"}
        assert live["a"].offset == second.statuses[0]

    async def test_of_one_key_twice_in_a_commit_the_later_stays(self, log: Log):
        writer = await log.journal.open_shard(0)
        await writer.commit(Commit(statuses=[Outgoing("k", b"1"), Outgoing("k", b"2")]))
        entries = await all_entries(log.journal, Place(Stream.STATUS, 0))
        assert entries[-1].data == b"2"

    async def test_a_key_is_kept_per_shard(self, log: Log):
        for shard in (0, 1):
            writer = await log.journal.open_shard(shard)
            await writer.commit(statuses(k=str(shard)))
        for shard in (0, 1):
            (entry,) = await all_entries(log.journal, Place(Stream.STATUS, shard))
            assert entry.data == b"%d" % shard

    async def test_a_tombstone_takes_its_key_away(self, log: Log):
        writer = await log.journal.open_shard(0)
        await writer.commit(statuses(a="1", b="1"))
        await writer.commit(statuses(a=None))
        assert await live_statuses(log.journal, 0) == {"b": b"1"}

    async def test_a_live_tail_sees_the_tombstone(self, log: Log):
        writer = await log.journal.open_shard(0)
        await writer.commit(statuses(a="1"))
        tail = log.journal.tail({Place(Stream.STATUS, 0): 0})
        assert [entry.data for entry in await gathered(tail, 1)] == [b"1"]
        await writer.commit(statuses(a=None))
        assert [(entry.key, entry.data) for entry in await gathered(tail, 1)] == [("a", None)]

    async def test_a_live_tail_sees_every_status_and_not_only_the_last(self, log: Log):
        writer = await log.journal.open_shard(0)
        await writer.commit(statuses(a="0"))
        tail = log.journal.tail({Place(Stream.STATUS, 0): 0})
        assert len(await gathered(tail, 1)) == 1
        waiting = asyncio.ensure_future(gathered(tail, 9))
        await asyncio.sleep(0)
        for number in range(1, 10):
            await writer.commit(statuses(a=str(number)))
        assert [entry.data for entry in await waiting] == [b"%d" % number for number in range(1, 10)]

    async def test_a_tail_gives_each_place_in_order_whatever_happens_in_the_others(self, log: Log):
        writers = [await log.journal.open_shard(shard) for shard in range(SHARDS)]
        places = {Place(stream, shard): 0 for stream in (Stream.EVENTS, Stream.METRICS) for shard in range(SHARDS)}
        tail = asyncio.ensure_future(gathered(log.journal.tail(places), 600))
        one = Commit(events=[Outgoing("e", b"e")], metrics=[Outgoing("m", b"m")])
        await asyncio.gather(*(writers[number % SHARDS].commit(one) for number in range(300)))
        entries = await tail
        for place in places:
            mine = [entry for entry in entries if (entry.stream, entry.shard) == place]
            assert mine == await all_entries(log.journal, place)

    async def test_a_tail_gives_only_the_places_it_asked_for_from_its_positions_on(self, log: Log):
        writer, other = await log.journal.open_shard(0), await log.journal.open_shard(1)
        first = await writer.commit(Commit(events=events("a", "b").events, statuses=statuses(k="1").statuses))
        await other.commit(events("elsewhere"))
        tail = log.journal.tail({Place(Stream.EVENTS, 0): first.events[1]})
        assert [entry.key for entry in await gathered(tail, 1)] == ["b"]
        await other.commit(events("elsewhere"))
        await writer.commit(events("c"))
        assert [entry.key for entry in await gathered(tail, 1)] == ["c"]

    async def test_end_offsets_are_the_positions_of_who_has_read_all(self, log: Log):
        writer = await log.journal.open_shard(1)
        await writer.commit(events("a", "b", "c"))
        ends = await log.journal.end_offsets(Stream.EVENTS)
        assert set(ends) == set(range(SHARDS))
        assert ends[1] > (await all_entries(log.journal, Place(Stream.EVENTS, 1)))[-1].offset
        assert ends[0] == 0

    async def test_a_trim_drops_what_is_older_and_start_offsets_rise(self, log: Log):
        writer = await log.journal.open_shard(0)
        await writer.commit(events(*(f"{number}" for number in range(1200))))
        assert await log.journal.trim(Stream.EVENTS, LONG_AGO) == 0
        assert await log.journal.trim(Stream.EVENTS, FAR_FUTURE) >= 1200
        assert await log.journal.trim(Stream.EVENTS, FAR_FUTURE) == 0
        assert await all_entries(log.journal, Place(Stream.EVENTS, 0)) == []
        starts, ends = await log.journal.start_offsets(Stream.EVENTS), await log.journal.end_offsets(Stream.EVENTS)
        assert starts[0] == ends[0] > 0
        assert starts[1] == 0

    async def test_after_a_trim_offsets_go_on_rising_and_old_positions_read_on(self, log: Log):
        writer = await log.journal.open_shard(0)
        before = await writer.commit(events("a", "b"))
        await log.journal.trim(Stream.EVENTS, FAR_FUTURE)
        after = await writer.commit(events("c"))
        assert after.events[0] > before.events[-1]
        assert [entry.key for entry in await all_entries(log.journal, Place(Stream.EVENTS, 0))] == ["c"]
        tail = log.journal.tail({Place(Stream.EVENTS, 0): 0})
        assert [entry.key for entry in await gathered(tail, 1)] == ["c"]

    async def test_a_trim_of_one_stream_leaves_the_others(self, log: Log):
        writer = await log.journal.open_shard(0)
        await writer.commit(Commit(events("e").events, statuses(k="s").statuses, [Outgoing("m", b"1")]))
        await log.journal.trim(Stream.METRICS, FAR_FUTURE)
        assert len(await all_entries(log.journal, Place(Stream.EVENTS, 0))) == 1
        assert await all_entries(log.journal, Place(Stream.METRICS, 0)) == []

    async def test_a_trim_of_the_status_stream_never_takes_a_status(self, log: Log):
        writer = await log.journal.open_shard(0)
        await writer.commit(statuses(a="1", b="1", c="1"))
        await writer.commit(statuses(a=None))
        await writer.commit(statuses(b="2"))
        await log.journal.trim(Stream.STATUS, FAR_FUTURE)
        assert await live_statuses(log.journal, 0) == {"b": b"2", "c": b"1"}

    async def test_a_shard_that_does_not_exist_is_refused(self, log: Log):
        with pytest.raises(ValueError, match="shard"):
            await log.journal.open_shard(SHARDS)
        with pytest.raises(ValueError, match="shard"):
            await log.journal.read(Place(Stream.EVENTS, -1), 0)

    async def test_closing_ends_the_tails_and_refuses_commits(self, log: Log):
        writer = await log.journal.open_shard(0)
        tail = asyncio.ensure_future(drained(log.journal.tail({Place(Stream.EVENTS, 0): 0})))
        await writer.commit(events("last"))
        await log.close()
        assert [entry.key for entry in await tail] in (["last"], [])
        with pytest.raises(LogUnavailable):
            await writer.commit(events("too late"))
        with pytest.raises(LogUnavailable):
            await log.journal.open_shard(0)

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(
            st.tuples(
                st.integers(0, SHARDS - 1),
                st.lists(st.sampled_from("ab"), max_size=3),
                st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, b"1", b"2"])), max_size=3),
            ),
            max_size=20,
        )
    )
    def test_whatever_is_committed_the_events_are_all_there_and_the_statuses_are_the_last_of_their_keys(
        self, implementation: Implementation, commits: list
    ):
        expected_events: dict[int, list[str]] = {shard: [] for shard in range(SHARDS)}
        expected_statuses: dict[int, dict[str, bytes | None]] = {shard: {} for shard in range(SHARDS)}

        async def scenario(directory: Path) -> None:
            log = await implementation.open(directory)
            writers = [await log.journal.open_shard(shard) for shard in range(SHARDS)]
            for shard, names, changed in commits:
                await writers[shard].commit(Commit(events(*names).events, [Outgoing(*one) for one in changed]))
                expected_events[shard] += names
                expected_statuses[shard].update(changed)
            for shard in range(SHARDS):
                found = await all_entries(log.journal, Place(Stream.EVENTS, shard))
                assert [entry.key for entry in found] == expected_events[shard]
                wanted = {key: data for key, data in expected_statuses[shard].items() if data is not None}
                assert await live_statuses(log.journal, shard) == wanted
            await log.close()

        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(scenario(Path(directory)))


class DurableLogSuite:
    async def test_everything_is_there_again_after_reopening(self, implementation: Implementation, tmp_path: Path):
        log = await implementation.open(tmp_path)
        data = await appended(log.settings, 30)
        writer = await log.journal.open_shard(1)
        await writer.commit(Commit(events("a", "b").events, statuses(k="1", gone="1").statuses, [Outgoing("m", b"1")]))
        await writer.commit(statuses(k="2", gone=None))
        before = {stream: await all_entries(log.journal, Place(stream, 1)) for stream in Stream}
        ends = {stream: dict(await log.journal.end_offsets(stream)) for stream in Stream}
        await log.close()
        log = await implementation.open(tmp_path)
        assert [record.data for record in await all_records(log.settings)] == data
        assert {stream: dict(await log.journal.end_offsets(stream)) for stream in Stream} == ends
        for stream in (Stream.EVENTS, Stream.METRICS):
            assert await all_entries(log.journal, Place(stream, 1)) == before[stream]
        assert await live_statuses(log.journal, 1) == {"k": b"2"}
        await log.close()

    async def test_offsets_go_on_where_they_ended(self, implementation: Implementation, tmp_path: Path):
        log = await implementation.open(tmp_path)
        await log.settings.append(b"1")
        first = await (await log.journal.open_shard(0)).commit(Commit(events("a").events, statuses(k="1").statuses))
        await log.close()
        log = await implementation.open(tmp_path)
        await log.settings.append(b"2")
        second = await (await log.journal.open_shard(0)).commit(Commit(events("b").events, statuses(k="2").statuses))
        assert second.events[0] > first.events[0]
        assert second.statuses[0] > first.statuses[0]
        one, two = await log.settings.read(0)
        assert two.offset > one.offset
        await log.close()

    async def test_a_trimmed_place_stays_trimmed_and_keeps_its_offsets(
        self, implementation: Implementation, tmp_path: Path
    ):
        log = await implementation.open(tmp_path)
        await (await log.journal.open_shard(0)).commit(events("a", "b", "c"))
        await log.journal.trim(Stream.EVENTS, FAR_FUTURE)
        starts = dict(await log.journal.start_offsets(Stream.EVENTS))
        await log.close()
        log = await implementation.open(tmp_path)
        assert dict(await log.journal.start_offsets(Stream.EVENTS)) == starts
        after = await (await log.journal.open_shard(0)).commit(events("d"))
        assert after.events[0] >= starts[0]
        await log.close()
