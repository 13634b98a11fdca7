"""What the SQLite log costs, beside SQLite itself: `python tests/benchmarks/bench_log.py [--directory DIR] [--records N]`.

Every figure is measured beside the bare client doing the same work in the same run, because machines differ. CPU is that of
the whole process, threads included.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgpack

from controlplane.domain.fold import State, fold, replay
from controlplane.domain.requests import read
from controlplane.log import codec
from controlplane.log.ports import Commit, Log, Outgoing
from controlplane.log.sqlite import open_sqlite

WRITERS = 50
KEYS = 10_000


def record(number: int) -> bytes:
    """A change request of about 320 bytes that changes one of 10,000 keys; those that change nothing stay out of the log."""
    key = f"default/cache.redis_user/service-{number % KEYS}"
    value = {
        "target": "redis",
        "commands": ["+@read", "+@write", "-@dangerous"],
        "keys": [f"shop:{number}:*"],
        "passwords": [{"from_env": "SHOP_PASSWORD"}],
        "enabled": True,
    }
    body = {"value": value, "labels": {"team": "shop"}, "depends_on": [], "policy": {}}
    return codec.encode(
        {
            "v": 1,
            "request_id": f"request-{number:012d}",
            "actor": "bench",
            "at": "2026-01-31T12:00:00.000000Z",
            "reason": "",
            "changes": [{"op": "declare", "key": key, "expected": None, "body": body}],
        }
    )


def percentiles(seconds: Sequence[float]) -> str:
    cuts = statistics.quantiles(seconds, n=100)
    return f"p50 {cuts[49] * 1000:6.2f} ms  p99 {cuts[98] * 1000:6.2f} ms  max {max(seconds) * 1000:6.1f} ms"


def line(what: str, figures: str) -> None:
    print(f"  {what:<58} {figures}")


# --- writing -----------------------------------------------------------------------------------------------------------


def bare_commits(path: Path, count: int, together: int) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, data BLOB)")
    data = record(1)
    times = []
    begun = time.perf_counter()
    for _ in range(count // together):
        started = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO t (data) VALUES (?)", [(data,)] * together)
        connection.execute("COMMIT")
        times.append(time.perf_counter() - started)
    rate = count / (time.perf_counter() - begun)
    line(f"bare sqlite3, FULL, {together} a commit", f"{rate:8,.0f}/s  {percentiles(times)}")
    connection.close()


async def appenders(log: Log, count: int, writers: int) -> None:
    """Append and wait for the own fold of it, as a write over HTTP does. Closes the log."""
    folded: dict[str, asyncio.Future[None]] = {}
    state = State()
    acknowledged: list[float] = []
    answered: list[float] = []

    async def follow() -> None:
        async for records in log.settings.tail(0):
            for offset, data in records:
                verdict = fold(state, offset, read(offset, data))
                folded[verdict.request_id].set_result(None)

    async def write(first: int) -> None:
        for number in range(first, first + count // writers):
            future = folded[f"request-{number:012d}"] = asyncio.get_running_loop().create_future()
            data = record(number)
            started = time.perf_counter()
            await log.settings.append(data)
            acknowledged.append(time.perf_counter() - started)
            await future
            answered.append(time.perf_counter() - started)

    tail = asyncio.create_task(follow())
    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(write(index * count) for index in range(writers)))
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    line(f"append, {writers} at once", f"{len(answered) / took:8,.0f}/s  {percentiles(acknowledged)}")
    line("  → own fold", f"{cpu / len(answered) * 1e6:6.1f} µs CPU  {percentiles(answered)}")
    await log.close()
    await tail


async def commits(log: Log, count: int, writers: int) -> None:
    """Event and status of one key in one commit, spread over the shards. Closes the log."""
    shards = [await log.journal.open_shard(shard) for shard in range(16)]
    data = record(1)
    times: list[float] = []

    async def write(index: int) -> None:
        for number in range(count // writers):
            key = f"default/cache.redis_user/service-{index}-{number % 20}"
            started = time.perf_counter()
            await shards[index % 16].commit(Commit(events=[Outgoing(key, data)], statuses=[Outgoing(key, data)]))
            times.append(time.perf_counter() - started)

    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(write(index) for index in range(writers)))
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    figures = f"{len(times) / took:8,.0f}/s  {percentiles(times)}  {cpu / len(times) * 1e6:6.1f} µs CPU"
    line(f"journal commit (event + status), {writers} at once", figures)
    await log.close()


# --- replay ------------------------------------------------------------------------------------------------------------


async def fill(path: Path, count: int) -> None:
    log = await open_sqlite(path, shards=16, synchronous="NORMAL")
    for first in range(0, count, 1000):
        await asyncio.gather(*(log.settings.append(record(n)) for n in range(first, min(count, first + 1000))))
    await log.close()


def bare_replay(path: Path) -> int:
    connection = sqlite3.connect(path)
    settings: dict[str, Any] = {}
    count = 0
    for offset, data in connection.execute("SELECT id, data FROM settings ORDER BY id"):
        request = msgpack.unpackb(data)
        for change in request["changes"]:
            settings[change["key"]] = (offset, change["body"])
        count += 1
    connection.close()
    return count


def through_tail(path: Path, take: Callable[[State, int, bytes], object]) -> int:
    async def replay() -> int:
        log = await open_sqlite(path, shards=16)
        end, state, position = await log.settings.end_offset(), State(), 0
        async for records in log.settings.tail(0):
            for offset, data in records:
                take(state, offset, data)
            position = records[-1].offset + 1
            await asyncio.sleep(0)
            if position >= end:
                break
        await log.close()
        return position

    return asyncio.run(replay())


def only_read(state: State, offset: int, data: bytes) -> None:
    """What the log itself costs."""


def decoded(state: State, offset: int, data: bytes) -> None:
    read(offset, data)


def replayed(state: State, offset: int, data: bytes) -> None:
    replay(state, offset, read(offset, data))


def cost(work: Callable[[], int], rounds: int) -> tuple[float, float]:
    """Best CPU and wall microseconds for a record."""
    cpus, walls = [], []
    for _ in range(rounds):
        begun, cpu = time.perf_counter(), time.process_time()
        count = work()
        cpus.append((time.process_time() - cpu) / count * 1e6)
        walls.append((time.perf_counter() - begun) / count * 1e6)
    return min(cpus), min(walls)


def replays(path: Path, rounds: int) -> None:
    bare, wall = cost(lambda: bare_replay(path), rounds)
    line("bare SELECT + msgpack + dict", f"{bare:5.2f} µs CPU  {1e6 / wall:9,.0f}/s")
    for name, take in (("tail", only_read), ("tail + decode", decoded), ("tail + decode + fold", replayed)):
        cpu, wall = cost(lambda take=take: through_tail(path, take), rounds)  # type: ignore[misc]
        line(name, f"{cpu:5.2f} µs CPU  {1e6 / wall:9,.0f}/s  {cpu / bare:4.2f} x bare")


async def writes(directory: Path, count: int) -> None:
    await appenders(await open_sqlite(directory / "one.db", shards=16), min(1000, count), 1)
    await appenders(await open_sqlite(directory / "many.db", shards=16), count, WRITERS)
    await commits(await open_sqlite(directory / "journal.db", shards=16), count, WRITERS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, help="where to write; the disk under it is what is measured")
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--appends", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        directory = Path(name)
        print(f"write, synchronous=FULL, records of {len(record(1))} bytes")
        bare_commits(directory / "bare.db", min(1000, options.appends), 1)
        bare_commits(directory / "bare.db", options.appends, WRITERS)
        asyncio.run(writes(directory, options.appends))
        print(f"replay of {options.records:,} records over {KEYS:,} keys, best of {options.rounds}")
        asyncio.run(fill(directory / "replay.db", options.records))
        replays(directory / "replay.db", options.rounds)


if __name__ == "__main__":
    main()
