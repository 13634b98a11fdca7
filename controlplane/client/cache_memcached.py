"""L3, or the authority of a namespace that has no Redis: values on Memcached.

Keys carry the namespace's floor, so that a flush of the whole is a new floor and nothing else. A fill reserves its key
first: `mg … N` leaves an empty placeholder and its CAS; the value is stored only over that CAS. An invalidation deletes
the placeholder, and the late value finds nothing to replace (`NF`) or somebody else's (`EX`): it is refused.

Without Redis the placeholder is the lease as well (`W` for the winner), and the floor lies in the registration, a
document that a process reads again after REGISTRATION_S: a flush takes that long to be seen everywhere, unless the event
stream tells earlier. When the document was evicted, a new floor is made: everything under the old one is lost, never
something stale found. Several nodes share the keys by their CRC; the registration lies on the first.

A value whose time is over by less than `stale_s` is stale as on Redis; the server's own expiry is when it is dead.
"""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.client.cache_codec import Entry, pack, unpack
from controlplane.client.cache_redis import LayerError
from controlplane.client.memcached import MemcachedClient, MemcachedError, Reply
from schemas import cache_layout as layout

REGISTRATION_S = 1.0
THIRTY_DAYS_S = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Slot:
    """A key as `reserve` found it. `cas` is what a fill may replace; `won`: nobody else is loading it."""

    entry: Entry | None
    cas: str | None = None
    won: bool = False


class MemcachedLayer:
    """One namespace on the servers of one target."""

    def __init__(self, nodes: Sequence[MemcachedClient], prefix: str) -> None:
        self._nodes = tuple(nodes)
        self._prefix = prefix
        self._floor: int | None = None
        self._floor_until = 0.0
        self._reading = asyncio.Lock()

    async def get(self, floor: int, key: str) -> Entry | None:
        """What lies there, fresh or stale."""
        name = layout.memcached_key(self._prefix, floor, key)
        (reply,) = await self._ask(name, f"mg {name} v\r\n".encode())
        return _entry(reply)

    async def reserve(self, floor: int, key: str, lease_s: float, stale_s: float) -> Slot:
        """What lies there, or a placeholder that only this fill (or another that saw it) may replace.

        A value with less than `stale_s` left is stale, and is won by the first that asks, like one that is absent.
        """
        name = layout.memcached_key(self._prefix, floor, key)
        again = f" R{round(stale_s)}" if stale_s >= 1 else ""
        (reply,) = await self._ask(name, f"mg {name} v c N{max(1, round(lease_s))}{again}\r\n".encode())
        return Slot(_entry(reply), reply.flags.get("c"), "W" in reply.flags)

    async def fill(self, floor: int, key: str, entry: Entry, cas: str, life_s: float) -> bool:
        """Replace the placeholder; False when it has been invalidated or filled meanwhile."""
        return await self._set(floor, key, entry, life_s, f" C{cas}")

    async def store(self, floor: int, key: str, entry: Entry, life_s: float) -> None:
        """Put the value, whatever lies there; fills under way are refused, for their CAS is gone."""
        await self._set(floor, key, entry, life_s, "")

    async def drop(self, floor: int, key: str) -> bool:
        """Delete the value or placeholder; True when there was one."""
        name = layout.memcached_key(self._prefix, floor, key)
        (reply,) = await self._ask(name, f"md {name}\r\n".encode())
        return reply.code == "HD"

    async def release(self, floor: int, key: str, cas: str) -> None:
        """Take the placeholder away without a value."""
        name = layout.memcached_key(self._prefix, floor, key)
        await self._ask(name, f"md {name} C{cas}\r\n".encode())

    async def floor(self) -> int:
        """The namespace's floor where no Redis has it; read at most every REGISTRATION_S."""
        if self._floor is not None and time.monotonic() < self._floor_until:
            return self._floor
        async with self._reading:
            if self._floor is None or time.monotonic() >= self._floor_until:
                self._floor = await self._read_floor()
                self._floor_until = time.monotonic() + REGISTRATION_S
            return self._floor

    def forget_floor(self) -> None:
        """Read it again next time: something was flushed."""
        self._floor_until = 0.0

    async def completed(self) -> int:
        """Revision of the last invalidation that ended; 0 when there was none or it isn't known any more."""
        return int((await self._registration()).get("completed", 0))

    async def close(self) -> None:
        """Close the connections."""
        for node in self._nodes:
            await node.close()

    async def _set(self, floor: int, key: str, entry: Entry, life_s: float, condition: str) -> bool:
        name, packed = layout.memcached_key(self._prefix, floor, key), pack(entry)
        head = f"ms {name} {len(packed)} T{_expiry(life_s)}{condition}\r\n"
        (reply,) = await self._ask(name, head.encode() + packed + b"\r\n")
        if reply.code == "HD":
            return True
        if reply.code in {"EX", "NF", "NS"}:
            return False
        msg = f"memcached refused {name}: {reply.code}"
        raise LayerError(msg)

    async def _registration(self) -> dict[str, int]:
        name = layout.registration_key(self._prefix)
        (reply,) = await self._request(self._nodes[0], f"mg {name} v\r\n".encode())
        document = {} if reply.value is None else json.loads(reply.value)
        return document if isinstance(document, dict) else {}

    async def _read_floor(self) -> int:
        known = (await self._registration()).get("floor")
        if known:
            return int(known)
        floor = time.time_ns() // 1000
        name, document = layout.registration_key(self._prefix), json.dumps({"floor": floor}).encode()
        # Mode E adds: of several processes that find none, one makes the floor and the others read it.
        head = f"ms {name} {len(document)} ME\r\n".encode()
        await self._request(self._nodes[0], head + document + b"\r\n")
        return int((await self._registration()).get("floor", floor))

    async def _ask(self, name: str, *requests: bytes) -> list[Reply]:
        return await self._request(self._nodes[zlib.crc32(name.encode()) % len(self._nodes)], *requests)

    async def _request(self, node: MemcachedClient, *requests: bytes) -> list[Reply]:
        try:
            return await node.request(*requests)
        except MemcachedError as exc:
            raise LayerError(str(exc)) from exc


def _expiry(life_s: float) -> int:
    """Memcached takes more than 30 days for a unix time."""
    return max(1, round(life_s)) if life_s < THIRTY_DAYS_S else round(time.time() + life_s)


def _entry(reply: Reply) -> Entry | None:
    return unpack(reply.value) if reply.value else None
