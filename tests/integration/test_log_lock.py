"""One process at a time has the log."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.log.ports import LogUnavailable
from controlplane.log.sqlite import open_sqlite

HOLDER = """
import asyncio, sys
from pathlib import Path
from controlplane.log.sqlite import open_sqlite


async def main():
    log = await open_sqlite(Path(sys.argv[1]), shards=2)
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await log.close()


asyncio.run(main())
"""


def test_another_process_is_refused_by_the_pid_of_the_one_that_has_it(tmp_path: Path):
    path = tmp_path / "log.db"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(LogUnavailable, match=rf"in use by process {holder.pid}\b"):
            asyncio.run(opened_and_closed(path))
        holder.communicate("done\n", timeout=30)
    asyncio.run(opened_and_closed(path))


async def opened_and_closed(path: Path, shards: int = 2) -> None:
    log = await open_sqlite(path, shards=shards)
    await log.close()


async def test_the_same_process_is_refused_as_well_and_the_first_keeps_it(tmp_path: Path):
    path = tmp_path / "log.db"
    log = await open_sqlite(path, shards=2)
    for _ in range(2):
        with pytest.raises(LogUnavailable, match="in use"):
            await open_sqlite(path, shards=2)
    await log.settings.append(b"still ours")
    await log.close()


async def test_another_number_of_shards_is_refused_with_both_numbers(tmp_path: Path):
    path = tmp_path / "log.db"
    await opened_and_closed(path, 4)
    with pytest.raises(LogUnavailable, match=r"made with 4 shards.*opened with 8.*log\.shards"):
        await opened_and_closed(path, 8)
    await opened_and_closed(path, 4)


async def test_a_place_where_nothing_can_be_written_is_unavailable(tmp_path: Path):
    file = tmp_path / "file"
    await asyncio.to_thread(file.write_text, "in the way")
    with pytest.raises(LogUnavailable, match="file"):
        await open_sqlite(file / "log.db", shards=2)
