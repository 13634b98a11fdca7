"""Other people's programs, run to their end with a deadline."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TERMINATE_S = 10.0
CHUNK_BYTES = 65_536


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


def unheard(_line: str) -> None:
    """Nobody listens to single lines."""


async def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    timeout_s: float,
    cwd: Path | None = None,
    line: Callable[[str], None] = unheard,
) -> Ran:
    """Run it without input; `line` is called with every line as it comes.

    TimeoutError after the deadline, OSError when it can't be started; it is ended then.
    """
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
            output = await _output(process, line)
            await process.wait()
    except BaseException:
        await _end(process)
        raise
    return Ran(process.returncode or 0, output.decode(errors="replace"))


async def _output(process: asyncio.subprocess.Process, line: Callable[[str], None]) -> bytes:
    stream, output, told = process.stdout, bytearray(), 0
    while stream is not None and (chunk := await stream.read(CHUNK_BYTES)):
        output += chunk
        *whole, _ = output[told:].split(b"\n")
        for text in whole:
            told += len(text) + 1
            line(text.decode(errors="replace"))
    return bytes(output)


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
