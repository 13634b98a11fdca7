"""Nothing acknowledged is lost when the process is killed at any moment."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from controlplane.log.ports import Place, Stream
from controlplane.log.sqlite import open_sqlite
from tests.contract.log_suites import all_entries, all_records

WORKER = Path(__file__).with_name("log_worker.py")
ROUNDS = 8


def acknowledged_until_killed(path: Path, run: str, after_lines: int, extra_bytes: int) -> set[tuple[str, str]]:
    """Let a worker write, kill it somewhere behind its nth acknowledgement, and return all that it printed."""
    command = [sys.executable, str(WORKER), str(path), run]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        lines = [worker.stdout.readline() for _ in range(after_lines)]
        lines.append(lines.pop() + worker.stdout.read(extra_bytes))  # so that the kill falls anywhere
        worker.kill()
        text = "".join(lines) + worker.stdout.read()
    whole = text[: text.rfind("\n") + 1]
    return {(line.split(" ")[0], line.split(" ")[1]) for line in whole.splitlines()}


async def test_every_acknowledged_write_is_there_after_each_of_many_kills(tmp_path: Path):
    path, rng = tmp_path / "log.db", random.Random(20260131)
    acknowledged: set[tuple[str, str]] = set()
    for run in range(ROUNDS):
        acknowledged |= acknowledged_until_killed(path, str(run), rng.randrange(1, 1500), rng.randrange(1, 200))
        log = await open_sqlite(path, shards=2)
        records = await all_records(log.settings)
        events = await all_entries(log.journal, Place(Stream.EVENTS, 0))
        statuses = await all_entries(log.journal, Place(Stream.STATUS, 0))
        await log.close()
        stored = [("s", record.data.decode().strip()) for record in records] + [("j", event.key) for event in events]
        assert len(stored) == len(set(stored))
        assert acknowledged <= set(stored)
        assert [record.offset for record in records] == list(range(len(records)))
        # Event and status of one commit: both or none, so each key's status is its last event.
        last = {f"key-{event.key.split('-')[1]}": event.key for event in events}
        assert {status.key: (status.data or b"").decode() for status in statuses} == last


async def test_a_killed_process_leaves_no_lock(tmp_path: Path):
    path = tmp_path / "log.db"
    acknowledged_until_killed(path, "0", 1, 1)
    log = await open_sqlite(path, shards=2)
    await log.close()
