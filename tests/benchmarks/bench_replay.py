"""What starting costs: the settings log read, decoded and folded; beside the least that reads it. Run by `all.py`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks import bench_log
from tests.benchmarks.figures import Figures

RECORDS = 100_000
ROUNDS = 3


async def run(figures: Figures) -> None:
    with TemporaryDirectory() as name:
        path = Path(name) / "replay.db"
        await bench_log.fill(path, RECORDS)
        figures.group(f"replay of {RECORDS:,} records over {bench_log.KEYS:,} keys, best of {ROUNDS}")
        bare_us, _ = await asyncio.to_thread(bench_log.cost, lambda: bench_log.bare_replay(path), ROUNDS)
        ours_us, wall_us = await asyncio.to_thread(
            bench_log.cost, lambda: bench_log.through_tail(path, bench_log.folded), ROUNDS
        )
        figures.add(
            "read + decode + fold, CPU of all",
            ours_us / 1e3 * RECORDS,
            "ms",
            bare=bare_us / 1e3 * RECORDS,
            most_ratio=1.5,
        )
        figures.add("rate", 1e6 / wall_us, "/s")
