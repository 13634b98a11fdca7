"""What starting costs: the settings log read, decoded and folded by a replica; beside the least that reads it. By `all.py`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from controlplane.log.sqlite import open_sqlite
from controlplane.runtime.clock import SystemClock
from controlplane.runtime.replica import Replica
from controlplane.telemetry.metrics import Metrics
from tests.benchmarks import bench_log
from tests.benchmarks.figures import Figures

RECORDS = 200_000
ROUNDS = 5


async def run(figures: Figures) -> None:
    with TemporaryDirectory() as name:
        path = Path(name) / "replay.db"
        await bench_log.fill(path, RECORDS)
        figures.group(f"replay of {RECORDS:,} records over {bench_log.KEYS:,} keys, best of {ROUNDS}")
        bare_us, _ = await asyncio.to_thread(bench_log.cost, lambda: bench_log.bare_replay(path), ROUNDS)
        ours_us, wall_us = await asyncio.to_thread(bench_log.cost, lambda: caught_up(path), ROUNDS)
        figures.add(
            "open + read + decode + fold, CPU of all",
            ours_us / 1e3 * RECORDS,
            "ms",
            bare=bare_us / 1e3 * RECORDS,
            most_ratio=1.5,
        )
        figures.add("rate", 1e6 / wall_us, "/s")


def caught_up(path: Path) -> int:
    """A replica starts: how many records it folded."""

    async def start() -> int:
        log = await open_sqlite(path, shards=16)
        try:
            replica = Replica(log.settings, SystemClock(), Metrics())
            await replica.catch_up()
            return replica.state.position
        finally:
            await log.close()

    return asyncio.run(start())
