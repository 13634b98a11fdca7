"""All figures that Coreplane is measured by, beside the bare clients doing the same work in the same run, as one table.

    python tests/benchmarks/all.py            everything, some ten minutes
    python tests/benchmarks/all.py users up   only these

Machines differ and are shared: compare ratios, and look at the load in the title. What the log, the projection and the
layered cache cost by themselves: `bench_log.py`, `bench_projection.py` (SQLite), `bench_layered_cache.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

import structlog
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks import (
    bench_kafka,
    bench_past,
    bench_projector,
    bench_queue,
    bench_replay,
    bench_search,
    bench_storage,
    bench_up,
    bench_users,
    bench_writes,
)
from tests.benchmarks.figures import Figures

BENCHMARKS = {
    "writes": bench_writes.run,
    "replay": bench_replay.run,
    "past": bench_past.run,
    "users": bench_users.run,
    "queue": bench_queue.run,
    "storage": bench_storage.run,
    "search": bench_search.run,
    "kafka": bench_kafka.run,
    "projection": bench_projector.run,
    "up": bench_up.run,
}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name", help=f"any of: {', '.join(BENCHMARKS)}")
    chosen = parser.parse_args().names or list(BENCHMARKS)
    unknown = [name for name in chosen if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no {unknown[0]}; there are: {', '.join(BENCHMARKS)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    console = Console()
    figures = Figures(console)
    for name in chosen:
        await BENCHMARKS[name](figures)
    console.print(figures.table())


if __name__ == "__main__":
    asyncio.run(main())
