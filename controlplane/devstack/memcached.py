"""Memcached: no files, no users. As root it wants to be told whom to become."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, Final

from controlplane.devstack.backend import Backend, Place, Recipe
from controlplane.devstack.ports import LOOPBACK

MEMORY_MB: Final = 64


def prepare(place: Place) -> None:
    """A directory to run in."""
    place.home.mkdir(parents=True, exist_ok=True)


def command(place: Place, program: Path) -> list[str]:
    """TCP on loopback only; two threads are plenty for one machine."""
    identity = ["-u", "nobody"] if os.geteuid() == 0 else []
    sizes = ["-m", str(MEMORY_MB), "-t", "2"]
    return [str(program), *identity, "-l", LOOPBACK, "-p", str(place.port), "-U", "0", *sizes]


async def probe(port: int) -> int:
    """Asks the server for its pid; EOFError when it isn't Memcached."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(b"stats\r\n")
        while line := await reader.readline():
            if line.startswith(b"STAT pid "):
                return int(line.split()[2])
            if not line.startswith(b"STAT "):
                break
        raise EOFError(line.decode(errors="replace"))
    finally:
        writer.close()


def target(url: str) -> dict[str, Any]:
    """There is nothing but the address."""
    return {"kind": "memcached", "url": url}


MEMCACHED: Final = Backend(
    recipe=Recipe("memcached", "memcached", ("memcached",)),
    scheme="memcached",
    preferred_port=11211,
    prepare=prepare,
    command=command,
    probe=probe,
    target=target,
    given_target=target,
)
