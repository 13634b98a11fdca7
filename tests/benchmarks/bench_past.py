"""What a look into the past costs: all settings as of a place, the first time and with checkpoints. By `all.py`."""

from __future__ import annotations

import gc
import random
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from controlplane.log.sqlite import open_sqlite
from controlplane.runtime.clock import SystemClock
from controlplane.runtime.past import Past
from controlplane.runtime.replica import Replica
from controlplane.telemetry.metrics import Metrics
from schemas.names import parse_timestamp
from tests.benchmarks import bench_log
from tests.benchmarks.figures import Figures

RECORDS = 200_000
LOOKS = 50


async def run(figures: Figures) -> None:
    rng = random.Random(1)
    with TemporaryDirectory() as name:
        path = Path(name) / "past.db"
        await bench_log.fill(path, RECORDS)
        log = await open_sqlite(path, shards=16)
        try:
            replica = Replica(log.settings, SystemClock(), Metrics())
            await replica.catch_up()
            gc.freeze()  # as the daemon does when it has started
            past = Past(replica)
            figures.group(f"as of a place, of {RECORDS:,} records over {bench_log.KEYS:,} keys")
            began = time.perf_counter()
            await past.entries(RECORDS - 1)
            figures.add("the first look, which makes the checkpoints", (time.perf_counter() - began) * 1e3, "ms")
            looks = [await _look(past, rng.randrange(RECORDS)) for _ in range(LOOKS)]
            note = f"{past.spacing:,} records between two checkpoints"
            figures.add("any other place, p50", statistics.median(looks) * 1e3, "ms", note=note)
            figures.add("any other place, longest", max(looks) * 1e3, "ms")
            instants = [await _written(replica, rng.randrange(RECORDS)) for _ in range(LOOKS)]
            began = time.perf_counter()
            for instant in instants:
                await past.revision(instant)
            figures.add("the place of a time", (time.perf_counter() - began) / LOOKS * 1e3, "ms")
        finally:
            gc.unfreeze()
            await log.close()


async def _look(past: Past, revision: int) -> float:
    began = time.perf_counter()
    await past.entries(revision)
    return time.perf_counter() - began


async def _written(replica: Replica, offset: int) -> float:
    record = await replica.record(offset)
    assert record is not None
    return parse_timestamp(record["at"])
