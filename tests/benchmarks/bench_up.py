"""From the README's first command to a converged example, servers being installed. Run by `all.py`."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.figures import Figures, median, spread

ROUNDS = 3


async def run(figures: Figures) -> None:
    took = []
    figures.group("coreplane up")
    for _ in range(ROUNDS):
        with TemporaryDirectory() as data:
            begun = time.perf_counter()
            await _coreplane("up", "--detach", "--port", "0", "--data", data)
            took.append(time.perf_counter() - begun)
            await _coreplane("down", "--data", data)
    figures.add("`coreplane up --detach` until all is Ready", median(took), "s", most=30, note=spread(took, "s"))


async def _coreplane(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "controlplane", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=Path(__file__).parents[2],
    )
    printed, _ = await process.communicate()
    if process.returncode != 0:
        msg = f"coreplane {arguments[0]} failed:\n{printed.decode()}"
        raise RuntimeError(msg)
