"""The projector follows a journal into a real store, through everything that can happen to either."""

import asyncio
import contextlib
import importlib.util
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controlplane.log.memory import MemoryLog
from controlplane.log.ports import Commit, Outgoing, Place, Stream
from controlplane.log.sqlite import open_sqlite
from controlplane.projection.ports import DocumentRefused, StoreDamaged, StoreUnavailable
from controlplane.projection.projector import Pace, Projector, Retention, rebuild
from controlplane.projection.queries import EventFilter, MetricFilter, StatusFilter
from controlplane.projection.sqlite import SqliteStore
from controlplane.telemetry.metrics import Metrics
from schemas.names import timestamp

VICTIM = Path(__file__).with_name("projection_victim.py")
_spec = importlib.util.spec_from_file_location("projection_victim", VICTIM)
victim = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(victim)

PACE = Pace(retry_initial_s=0.01, retry_cap_s=0.05, watch_s=0.02)
FOR_EVER = victim.FOR_EVER


@pytest.fixture(params=["memory", "sqlite"])
async def log(request, tmp_path):
    if request.param == "memory":
        log = MemoryLog(shards=victim.SHARDS)
    else:
        log = await open_sqlite(tmp_path / "log.db", shards=victim.SHARDS, synchronous="NORMAL")
    yield log
    await log.close()


@pytest.fixture
async def store(tmp_path):
    store = SqliteStore(tmp_path / "projection.db")
    yield store
    await store.close()


@contextlib.asynccontextmanager
async def following(log, store, **options):
    projector = Projector(log.journal, store, Metrics(), **{"pace": PACE, "retention": FOR_EVER, **options})
    task = asyncio.create_task(projector.run())
    try:
        yield projector
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        await task


async def until(condition, what):
    deadline = time.monotonic() + 30
    while not await condition():
        assert time.monotonic() < deadline, f"not within 30 s: {what}"
        await asyncio.sleep(0.01)


async def commit(log, *events, metrics=(), shard=0):
    writer = await log.journal.open_shard(shard)
    await writer.commit(
        Commit(events=[victim.outgoing(e) for e in events], metrics=[victim.outgoing(m) for m in metrics])
    )


async def numbers(store, **wanted):
    page = await store.events(EventFilter("acme", limit=1000, **wanted))
    return [item["details"]["number"] for item in page.items]


async def stated(store, **fields):
    """The names of all settings whose status has these fields."""
    found, after = [], ""
    while after is not None:
        page = await store.statuses(StatusFilter("acme", limit=1000, after=after))
        found += [item["name"] for item in page.items if fields.items() <= item.items()]
        after = page.next_cursor
    return found


async def state(log, *statuses, gone=(), shard=0):
    writer = await log.journal.open_shard(shard)
    tombstones = [Outgoing(status.key, None) for status in gone]
    await writer.commit(Commit(statuses=[*map(victim.stated, statuses), *tombstones]))


async def states(store, *expected, **fields):
    async def same():
        with contextlib.suppress(StoreUnavailable):
            return await stated(store, **fields) == list(expected)

    await until(same, f"statuses of {expected} are found")


async def shows(store, *expected):
    async def same():
        with contextlib.suppress(StoreUnavailable):
            return sorted(await numbers(store)) == sorted(expected)

    await until(same, f"events {expected} are found")


async def content(store):
    """Everything a user can see, by questions."""
    answers, cursor = [], None
    while True:
        page = await store.events(EventFilter("acme", limit=1000, cursor=cursor))
        answers.append(page)
        cursor = page.next_cursor
        if cursor is None:
            break
    texts = ("word13", "shard2 Converged", "user-7")
    answers += [await store.events(EventFilter("acme", limit=1000, text=text)) for text in texts]
    shapes = ({}, {"interval_s": 60.0}, {"interval_s": 7.0, "aggregate": "p95"})
    answers += [await store.metrics(MetricFilter("acme", limit=1000, **shape)) for shape in shapes]
    answers += [await store.statuses(StatusFilter("acme", limit=1000, text=text)) for text in (None, "s3-7*")]
    answers.append(await store.metric_types("acme"))
    answers.append(await store.evidence("acme", "cache", 1_767_225_600.0, 1_767_325_600.0))
    answers.append(await store.dead_letters(1000))
    return answers, await store.positions()


# --- following ---------------------------------------------------------------------------------------------------------


async def test_what_is_committed_is_found_and_lag_goes_back_to_nothing(log, store):
    await commit(log, victim.event(1), metrics=[victim.metric(1)])
    async with following(log, store) as projector:
        await shows(store, 1)
        await commit(log, victim.event(2, shard=3), shard=3)
        await shows(store, 1, 2)
        assert len((await store.metrics(MetricFilter("acme"))).items) == 1

        async def caught_up():
            return projector.lag.records == 0 and projector.lag.seconds == 0

        await until(caught_up, "no lag")
        assert projector.degraded is None


async def test_the_newest_status_of_each_setting_is_found_until_it_is_gone(log, store):
    first, second = victim.status(1), victim.status(2)
    await state(log, first, second)
    async with following(log, store) as projector:
        await states(store, "s0-1", "s0-2")
        await state(log, victim.status(1, observed_generation=3))
        await states(store, "s0-1", observed_generation=3)
        await state(log, gone=[first])
        await states(store, "s0-2")

        async def caught_up():
            return projector.lag.records == 0

        await until(caught_up, "no lag")
    await state(log, victim.status(4), gone=[second])
    async with following(log, store):
        await states(store, "s0-4")
    assert await store.dead_letters() == []


async def test_a_status_that_moved_to_another_shard_stays_when_the_old_one_forgets_it(log, store):
    await state(log, *(victim.status(9) for _ in range(5)))
    async with following(log, store):
        await states(store, "s0-9")
        await state(log, victim.status(9, revision=99), shard=3)
        await states(store, "s0-9", revision=99)
        await state(log, victim.status(1), gone=[victim.status(9)])
        await states(store, "s0-1", "s0-9")
        assert await stated(store, revision=99) == ["s0-9"]


async def test_a_second_projector_goes_on_where_the_first_stood(log, store):
    await commit(log, victim.event(1))
    async with following(log, store):
        await shows(store, 1)
    await commit(log, victim.event(2))
    await log.journal.trim(Stream.EVENTS, timestamp(0))
    async with following(log, store) as projector:
        await shows(store, 1, 2)
    assert projector._metrics.value("coreplane_projected_total", stream="events") == 1


async def test_the_projector_ends_when_the_journal_is_closed(log, store):
    await commit(log, victim.event(1))
    projector = Projector(log.journal, store, Metrics(), pace=PACE, retention=FOR_EVER)
    task = asyncio.create_task(projector.run())
    await shows(store, 1)
    await log.close()
    await asyncio.wait_for(task, 10)
    assert task.exception() is None


async def test_poison_is_put_aside_counted_and_passed(log, store):
    await commit(log, victim.event(1), victim.POISON, {"id": "half an event"}, victim.event(2))
    async with following(log, store) as projector:
        await shows(store, 1, 2)
    half, poison = await store.dead_letters()
    assert (half["offset"], half["reason"]) == (2, "event_type is None, not a text")
    assert (poison["offset"], poison["reason"][:17]) == (1, "not a msgpack map")
    assert projector._metrics.value("coreplane_projection_dead_letters_total", stream="events") == 2
    assert (await store.positions())[Place(Stream.EVENTS, 0)] == 4


async def test_records_older_than_the_retention_leave_the_projection(log, store):
    now = 1_767_225_600.0 + 100
    old = victim.event(1, timestamp=timestamp(now - 3 * 86_400))
    await commit(log, old, victim.event(2, timestamp=timestamp(now)))
    retention = Retention(events_days=2, metrics_days=2)
    async with following(log, store, pace=Pace(watch_s=0.02, trim_s=0.02), retention=retention, now=lambda: now):
        await shows(store, 2)


async def test_after_a_trim_below_the_position_it_goes_on_from_what_is_left(store):
    now = [1_000.0]
    log = MemoryLog(shards=victim.SHARDS, now=lambda: now[0])
    await commit(log, victim.event(0))
    async with following(log, store):
        await shows(store, 0)
    await commit(log, *(victim.event(n) for n in range(1, 5)))
    now[0] = 2_000.0
    await commit(log, victim.event(7))
    await log.journal.trim(Stream.EVENTS, timestamp(1_500))
    async with following(log, store):
        await shows(store, 0, 7)
    await log.close()


# --- faults ------------------------------------------------------------------------------------------------------------


class Faulty(SqliteStore):
    """The real store, with faults on demand."""

    unavailable = 0
    refuses = None

    async def write(self, batch, positions):
        if self.unavailable:
            self.unavailable -= 1
            raise StoreUnavailable("disk full")
        if any(document.id == self.refuses for document in batch.events):
            raise DocumentRefused("too odd")
        await super().write(batch, positions)


@pytest.fixture
async def faulty(tmp_path):
    store = Faulty(tmp_path / "projection.db")
    yield store
    await store.close()


async def test_an_outage_of_the_store_is_said_and_loses_nothing(log, faulty):
    faulty.unavailable = 10**9
    await commit(log, victim.event(1))
    async with following(log, faulty) as projector:

        async def degraded():
            return projector.degraded == "disk full" and projector.lag.records == 1 and projector.lag.seconds == 0

        await until(degraded, "degraded")
        assert projector._metrics.value("coreplane_projection_degraded") == 1
        await commit(log, victim.event(2))
        faulty.unavailable = 0
        await shows(faulty, 1, 2)
        assert projector.degraded is None
    assert projector._metrics.value("coreplane_projection_retries_total") > 0


async def test_a_document_that_the_store_refuses_is_put_aside_and_its_neighbours_are_not(log, faulty):
    faulty.refuses = victim.event(2)["id"]
    await commit(log, *(victim.event(n) for n in range(5)))
    async with following(log, faulty):
        await shows(faulty, 0, 1, 3, 4)
    assert [letter["reason"] for letter in await faulty.dead_letters()] == ["refused by the store: too odd"]


async def test_a_journal_that_was_replaced_is_projected_anew(log, store):
    await commit(log, *(victim.event(n) for n in range(9)))
    async with following(log, store):
        await shows(store, *range(9))
    other = MemoryLog(shards=victim.SHARDS)
    await commit(other, victim.event(100))
    async with following(other, store):
        await shows(store, 100)
    await other.close()


def damage(path):
    """Overwrite the pages behind the first, as a bad disk would."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(4096)
        file.write(random.Random(7).randbytes(size - 4096))


async def projected(log, path, count=300):
    await commit(log, *(victim.event(n) for n in range(count)))
    store = SqliteStore(path)
    async with following(log, store):
        await shows(store, *range(count))
    await store.close()


@pytest.mark.parametrize("spoil", ["garbage", "another version", "another program", "damaged pages", "truncated"])
async def test_a_file_that_cannot_be_used_is_dropped_and_projected_anew(log, tmp_path, spoil):
    path = tmp_path / "projection.db"
    await projected(log, path)
    if spoil == "garbage":
        path.write_bytes(b"garbage " * 1000)
    elif spoil == "truncated":
        path.write_bytes(path.read_bytes()[:9000])
    elif spoil == "damaged pages":
        damage(path)
    else:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 99" if spoil == "another version" else "PRAGMA application_id = 1")
        connection.close()
    store = SqliteStore(path)
    async with following(log, store):
        await shows(store, *range(300))
    await store.close()


async def test_damage_that_only_a_question_finds_is_mended_without_anything_new(log, store, tmp_path):
    await commit(log, *(victim.event(n) for n in range(300)))
    async with following(log, store) as projector:
        await shows(store, *range(300))
        with pytest.raises(StoreDamaged):
            store._translated(_not_a_database)
        await shows(store, *range(300))

        async def rebuilt():
            return projector._metrics.value("coreplane_projection_rebuilds_total") == 1

        await until(rebuilt, "rebuilt once")
        await shows(store, *range(300))


def _not_a_database():
    connection = sqlite3.connect(":memory:")
    try:
        connection.deserialize(b"x" * 8192)
        connection.execute("SELECT * FROM sqlite_schema")
    finally:
        connection.close()


async def test_a_place_that_cannot_be_written_keeps_the_projection_degraded_and_the_rest_alive(log, tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = SqliteStore(tmp_path / "file" / "projection.db")
    async with following(log, store) as projector:

        async def degraded():
            return projector.degraded is not None

        await until(degraded, "degraded")
        with pytest.raises(StoreUnavailable):
            await store.events(EventFilter("acme"))
        (tmp_path / "file").unlink()
        await commit(log, victim.event(1))
        await shows(store, 1)
    await store.close()


# --- rebuilding and crashing -------------------------------------------------------------------------------------------


async def test_a_rebuild_gives_identical_answers(tmp_path):
    log = await victim.journal_with(4000, 2000)
    store = SqliteStore(tmp_path / "projection.db")
    async with following(log, store) as projector:

        async def all_there():
            return sum((await store.positions()).values()) == 6000 + victim.STATUSES

        await until(all_there, "all projected")
    before = await content(store)
    done = await rebuild(log.journal, store)
    marks = victim.SHARDS
    assert tuple(done) == (6000 + victim.SETTINGS + marks, 8)
    assert await content(store) == before
    assert len(await stated(store, observed_generation=7)) == 50 * victim.SHARDS
    assert len(await stated(store)) == 450 * victim.SHARDS
    assert projector.degraded is None
    await store.close()
    await log.close()


async def test_killed_between_and_inside_batches_nothing_is_lost_and_nothing_doubled(tmp_path):
    events, metrics, path = 12_000, 6_000, tmp_path / "projection.db"
    total = events + metrics + victim.STATUSES
    draw = random.Random(11)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        await asyncio.to_thread(_run_until_killed, path, events, metrics, int(total * share), draw.uniform(0, 0.02))
    reached = _position(path)
    assert reached > 0
    subprocess.run([sys.executable, VICTIM, path, str(events), str(metrics)], check=True, timeout=60)  # noqa: ASYNC221
    survivor, fresh = SqliteStore(path), SqliteStore(tmp_path / "fresh.db")
    log = await victim.journal_with(events, metrics)
    await rebuild(log.journal, fresh)
    assert await content(survivor) == await content(fresh)
    for store in (survivor, fresh, log):
        await store.close()


def _run_until_killed(path, events, metrics, position, delay_s):
    process = subprocess.Popen([sys.executable, VICTIM, path, str(events), str(metrics)])
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and _position(path) < position:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(delay_s)
    finally:
        process.kill()
        process.wait()


def _position(path):
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return connection.execute("SELECT coalesce(sum(position), 0) FROM positions").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.OperationalError:
        return 0
