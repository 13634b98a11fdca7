"""Ends the servers when their parent can't: after a SIGKILL, a crash, a lost terminal.

Theory of operation. The guardian is a process in a session of its own that reads pids from a pipe whose write end only the
parent holds. When the parent is gone, however it went, the pipe ends, and the guardian terminates every process group that
was registered and still lives: SIGTERM, then after a while SIGKILL. A pid is used again by the system, so the process's
start time is kept beside it. The parent's death signal (`PR_SET_PDEATHSIG`) wouldn't do: it is cleared when a server
changes its user, as memcached does, and it follows the thread that forked, not the process.

Note [A server registers itself]. Were the parent to register a server after starting it, a parent killed in between would
leave an orphan. Instead the server is started by a shell whose standard input is the pipe: it writes its own pid there and
then becomes the server, with another standard input. Until it has, it holds the write end itself, so the guardian waits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

GRACE_S: Final = 5.0
"""After SIGTERM, before SIGKILL."""
LOOK_S: Final = 0.05
CLOSE_S: Final = 30.0
SAME_START_S: Final = 1.5
_REGISTER_AND_BECOME: Final = 'echo "$$" >&0 && exec "$@" </dev/null'


class Guardian:
    """The parent's side, a context. Leaving it ends the guardian, and whatever server is still registered and alive."""

    def __enter__(self) -> Self:
        reading, self._pipe = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", __name__],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                cwd=Path(__file__).parents[2],  # so that this package is found, wherever we were started
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(reading)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._pipe)
        self._process.wait(CLOSE_S)

    @property
    def stdin(self) -> int:
        """Standard input for a command of `guarded`."""
        return self._pipe

    @property
    def pid(self) -> int:
        """Of the guardian."""
        return self._process.pid

    @staticmethod
    def guarded(command: Sequence[str]) -> list[str]:
        """The command, which registers its process first. Start it as leader of a session, with `stdin`."""
        return ["/bin/sh", "-c", _REGISTER_AND_BECOME, "sh", *command]


def watch(lines: Iterator[str]) -> None:
    """Remember pids until the lines end, then end their process groups."""
    started: dict[int, float] = {}
    for line in lines:
        pid = int(line)
        for ended in [known for known, at in started.items() if not _lives(known, at)]:
            del started[ended]
        with contextlib.suppress(psutil.NoSuchProcess):
            started[pid] = psutil.Process(pid).create_time()
    _end(started)


def _end(started: dict[int, float]) -> None:
    _signal(started, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while any(_lives(pid, at) for pid, at in started.items()) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    _signal(started, signal.SIGKILL)


def _signal(started: dict[int, float], number: signal.Signals) -> None:
    for pid, at in started.items():
        if _lives(pid, at):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)


def _lives(pid: int, started_at: float) -> bool:
    """The process is still the one that was registered, and hasn't ended."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started_at) < SAME_START_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main() -> None:
    """The guardian's process. Signals to the parent's terminal or service aren't meant for it: it ends with the parent."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watch(iter(sys.stdin.readline, ""))


if __name__ == "__main__":
    main()
