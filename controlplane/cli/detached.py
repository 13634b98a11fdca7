"""A `coreplane up` in the background."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from controlplane.cli import printing, upfile
from controlplane.cli.failure import ExitCode, Failure

OUTPUT_NAME = "up.log"
READY_S = 600.0
"""A first start may install packages."""
LOOK_S = 0.1
TAIL_LINES = 20
STOP_S = 30.0


def start(data: Path, arguments: Sequence[str]) -> str:
    """Start it and wait for its record; the daemon's URL. Failure with the end of its output when it ends before."""
    output = data / OUTPUT_NAME
    command = [sys.executable, "-m", "controlplane", "up", *arguments]
    with output.open("wb") as sink:
        process = subprocess.Popen(  # noqa: S603 - ourselves
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        with printing.stderr().status(f"starting in the background, output in {output}"):
            return _await(process, data, output)
    except BaseException:
        _end(process)
        raise


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """The last lines of an output."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def _await(process: subprocess.Popen[bytes], data: Path, output: Path) -> str:
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        running = upfile.alive(data)
        if running is not None and running.pid == process.pid:
            return running.url
        if process.poll() is not None:
            printing.stderr().print(tail(output.read_text(errors="replace")), markup=False)
            msg = f"coreplane didn't come up (exit code {process.returncode})"
            raise Failure(msg, hint=f"all of its output is in {output}")
        time.sleep(LOOK_S)
    msg = f"not ready after {READY_S:g} s"
    raise Failure(msg, hint=f"its output is in {output}", code=ExitCode.TIMED_OUT)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
