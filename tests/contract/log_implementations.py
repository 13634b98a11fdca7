"""Every implementation of the log. One line here holds a new one to the whole contract."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from controlplane.log.kafka import open_kafka
from controlplane.log.memory import MemoryLog
from controlplane.log.ports import Log
from controlplane.log.sqlite import open_sqlite

SHARDS = 3


class Implementation(NamedTuple):
    """`open` may be given a directory of its own; a durable one finds there what an earlier one left.

    `server` names the fixture of the server it needs; `open` then is given its URL first, by `of`.
    """

    open: Callable[..., Awaitable[Log]]
    durable: bool
    server: str = ""


async def in_memory(_directory: Path) -> Log:
    return MemoryLog(shards=SHARDS)


async def in_sqlite(directory: Path) -> Log:
    return await open_sqlite(directory / "log.db", shards=SHARDS)


async def in_kafka(url: str, directory: Path) -> Log:
    """Under a prefix of its own, which the directory remembers."""
    remembered = directory / "prefix"
    if not remembered.exists():
        remembered.write_text(f"t{uuid.uuid4().hex}")
    return await open_kafka(f"{url}?prefix={remembered.read_text()}", shards=SHARDS)


def of(name: str, request: pytest.FixtureRequest) -> Implementation:
    """The implementation, with its server."""
    found = LOGS[name]
    if not found.server:
        return found
    return found._replace(open=partial(found.open, request.getfixturevalue(found.server).url))


LOGS = {
    "memory": Implementation(in_memory, durable=False),
    "sqlite": Implementation(in_sqlite, durable=True),
    "kafka": Implementation(in_kafka, durable=True, server="kafka_broker"),
}
DURABLE = [name for name, implementation in LOGS.items() if implementation.durable]
