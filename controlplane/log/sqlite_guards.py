"""The guards of the SQLite log, two small files beside it: who has it, and how much was acknowledged.

Beside `coreplane.db` (and SQLite's own `-wal` and `-shm`) stand `coreplane.db.lock`, held as long as the log is open, and
`coreplane.db.mark`, the number of the last acknowledged commit.

Note [The mark]. SQLite ends its write-ahead log at the first frame with a wrong checksum, because that is what a crash in
the middle of a write looks like. So frames of acknowledged commits that rotted are dropped without a word, and so are the
good ones behind them. Every commit therefore counts up `commits` in the database, and before it is acknowledged the count
is written to the mark, outside of SQLite. A database that counts less than its mark has lost commits, and isn't opened. The
mark isn't fsynced (that would double the price of a commit): after a power cut it may be behind. It is ahead of a sound
file only after a power cut with synchronous=NORMAL, and then commits are lost indeed.

Note [flock]. POSIX record locks belong to the process and vanish when *any* descriptor of the file is closed; `flock` belongs
to the descriptor, so a second log in the same process is refused, too.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from controlplane.log.ports import LogUnavailable

_MARK: Final = struct.Struct("<Q")


class FileLock:
    """The right to be the only process with this log; see Note [flock]. Raises `LogUnavailable` when it is held."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(_beside(path, "lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            msg = f"{path} is in use by process {holder}: stop it first, or use another data directory"
            raise LogUnavailable(msg) from exc
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let others have it. The file stays: removing it would let two processes lock different files."""
        os.close(self._descriptor)


class Mark:
    """Number of the last acknowledged commit; see Note [The mark]."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(_beside(path, "mark"), os.O_RDWR | os.O_CREAT, 0o644)

    def read(self) -> int:
        """0 when nothing was ever acknowledged, or the mark didn't outlive a power cut."""
        data = os.pread(self._descriptor, _MARK.size, 0)
        return int(_MARK.unpack(data)[0]) if len(data) == _MARK.size else 0

    def write(self, commits: int) -> None:
        """Eight bytes in place: no process ever sees half of it."""
        os.pwrite(self._descriptor, _MARK.pack(commits), 0)

    def sync(self) -> None:
        """Make it outlive a power cut."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self._descriptor)


def sync_directory(path: Path) -> None:
    """Make a new file in the directory outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f"{path.name}.{kind}")
