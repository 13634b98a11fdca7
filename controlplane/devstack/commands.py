"""Other people's programs, run to their end with a deadline."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TERMINATE_S = 10.0


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended. `output`: standard output and errors together."""

    code: int
    output: str

    @property
    def told(self) -> str:
        """The last line it said, for a message."""
        lines = [line for line in self.output.splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"exit code {self.code}"


async def run(
    command: Sequence[str | Path], *, env: Mapping[str, str], timeout_s: float, cwd: Path | None = None
) -> Ran:
    """Run it without input. TimeoutError after the deadline, OSError when it can't be started; it is ended then."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(env),
        cwd=cwd,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    except BaseException:
        await _end(process)
        raise
    return Ran(process.returncode or 0, output.decode(errors="replace"))


async def _end(process: asyncio.subprocess.Process) -> None:
    """A package client that is killed at once leaves its database half written: ask first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is None:
            os.killpg(process.pid, number)
            try:
                async with asyncio.timeout(TERMINATE_S):
                    await process.communicate()
            except TimeoutError:
                continue
