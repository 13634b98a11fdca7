"""Every implementation of the log. One line here holds a new one to the whole contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from controlplane.log.memory import MemoryLog
from controlplane.log.ports import Log
from controlplane.log.sqlite import open_sqlite

SHARDS = 3


class Implementation(NamedTuple):
    """`open` may be given a directory of its own; a durable one finds there what an earlier one left."""

    open: Callable[[Path], Awaitable[Log]]
    durable: bool


async def in_memory(_directory: Path) -> Log:
    return MemoryLog(shards=SHARDS)


async def in_sqlite(directory: Path) -> Log:
    return await open_sqlite(directory / "log.db", shards=SHARDS)


LOGS = {
    "memory": Implementation(in_memory, durable=False),
    "sqlite": Implementation(in_sqlite, durable=True),
}
DURABLE = [name for name, implementation in LOGS.items() if implementation.durable]
