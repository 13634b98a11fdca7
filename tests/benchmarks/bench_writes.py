"""What a write costs: embedded through the replica, and over HTTP; beside bare commits to SQLite. Run by `all.py`."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from controlplane.client.http import CoreplaneClient
from controlplane.log.sqlite import open_sqlite
from controlplane.runtime.clock import SystemClock
from controlplane.runtime.replica import Replica
from controlplane.telemetry.metrics import Metrics
from tests.benchmarks.figures import Figures, percentile
from tests.servers import DaemonProcess

WRITERS = 50
WRITES = 100
"""Of each writer."""
ROUNDS = 5

Write = Callable[[int, int], Awaitable[Any]]


async def run(figures: Figures) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        bare = await _rounds(lambda n: _bare(folder / f"bare{n}.db"))
        embedded = await _rounds(lambda n: _embedded(folder / f"embedded{n}.db"))
        http = await _http(folder)
        figures.group(f"one write, {WRITERS} at once, FULL, {ROUNDS} rounds of {WRITERS * WRITES:,}")
        note = f"a commit each, {WRITERS} threads in turn"
        for what, times, most in (("Replica.submit → own fold", embedded, 20), ("HTTP PUT → own fold", http, None)):
            figures.add(f"{what}, p50", _each(times, 50), "ms", bare=_each(bare, 50), note=f"bare: {note}")
            figures.add(f"{what}, p99", _each(times, 99), "ms", bare=_each(bare, 99), most=most)
            figures.add(f"{what}, rate", _rate(times), "/s", bare=_rate(bare))


Round = tuple[list[float], float]
"""Each write and the whole round, seconds."""


async def _rounds(one: Callable[[int], Awaitable[Round]]) -> list[Round]:
    return [await one(number) for number in range(ROUNDS)]


def _each(rounds: list[Round], percent: int) -> float:
    """The median round's percentile, ms."""
    return sorted(percentile(times, percent) for times, _ in rounds)[len(rounds) // 2] * 1000


def _rate(rounds: list[Round]) -> float:
    return sorted(len(times) / whole for times, whole in rounds)[len(rounds) // 2]


async def _writers(write: Write) -> Round:
    times: list[float] = []

    async def one(writer: int) -> None:
        for number in range(WRITES):
            begun = time.perf_counter()
            await write(writer, number)
            times.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*(one(writer) for writer in range(WRITERS)))
    return times, time.perf_counter() - begun


def body(writer: int, number: int) -> dict[str, Any]:
    value = {"target": "none", "commands": ["+@read", "-@dangerous"], "keys": [f"w{writer}:{number}:*"]}
    return {"value": value, "labels": {"team": "shop"}}


async def _bare(path: Path) -> Round:
    """As an application would without Coreplane: one connection, one commit a write."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE settings (key TEXT PRIMARY KEY, body TEXT)")
    with ThreadPoolExecutor(1) as thread:

        def commit(writer: int, number: int) -> None:
            text = str(body(writer, number))
            connection.execute("REPLACE INTO settings VALUES (?, ?)", (f"user-{writer}", text))

        loop = asyncio.get_running_loop()
        measured = await _writers(lambda writer, number: loop.run_in_executor(thread, commit, writer, number))
    connection.close()
    return measured


async def _embedded(path: Path) -> Round:
    log = await open_sqlite(path, shards=16)
    replica = Replica(log.settings, SystemClock(), Metrics())
    following = asyncio.create_task(replica.run())

    async def write(writer: int, number: int) -> None:
        made = {**body(writer, number), "depends_on": [], "policy": {}}
        change = {"op": "declare", "key": f"default/cache.redis_user/user-{writer}", "expected": None, "body": made}
        verdict = await replica.submit([change], actor="bench", request_id=f"{writer}-{number}")
        assert verdict.accepted

    measured = await _writers(write)
    await replica.close()
    await log.close()
    await following
    return measured


async def _http(folder: Path) -> list[Round]:
    """The daemon in a process of its own, and all clients in another one."""
    daemon = DaemonProcess(folder / "http", {"telemetry": {"log_level": "warning"}})
    await daemon.start()
    try:
        return await _rounds(lambda _: _clients(daemon.url))
    finally:
        await daemon.stop()


async def _clients(url: str) -> Round:
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmarks.bench_writes", url),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    printed, _ = await client.communicate()
    assert client.returncode == 0
    whole, *times = map(float, printed.split())
    return times, whole


async def _client(url: str) -> None:
    run_id = time.time_ns()
    async with CoreplaneClient(url) as client:

        async def write(writer: int, number: int) -> None:
            made = body(writer, number)
            made["value"]["keys"].append(f"{run_id}:*")
            await client.put_setting("cache.redis_user", f"user-{writer}", made)

        times, whole = await _writers(write)
    print(whole, *times)


if __name__ == "__main__":
    asyncio.run(_client(sys.argv[1]))
