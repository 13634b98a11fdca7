"""Namespaces on Memcached servers: registrations, invalidation, and what lies there. I/O, used by `backend`.

A key's node is chosen by the applications, so a key is deleted on all of them; the registration lies on the first. It is
a JSON document that is only replaced over its CAS, because applications write it too (see `schemas.cache_layout`).
Every call opens connections of its own: invalidations are rare, and a dump occupies its connection. Dumps go in hash
order (1.6.18: `lru_crawler metadump hash`), so that one broken off early is a fair sample; the server runs one at a time
and answers BUSY to a second caller, which is tried again and then reported.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import unquote

from reconcilers.cache.census import Census, Sampled
from reconcilers.cache.keyspace import sliced
from reconcilers.cache.namespace import DeregisterNamespace, RegisterNamespace, Registration, parsed
from reconcilers.contract import (
    SUCCEEDED,
    BackendError,
    ExternalId,
    Fence,
    Outcome,
    Step,
    TerminalError,
    TransientError,
    Unreachable,
    failed,
    unknown,
)
from schemas import cache_layout as layout

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]

TRIES: Final = 5
BUSY_PAUSE_S: Final = 0.2


class MemcachedKeyspace:
    """What lies on the servers of one target. `connects` open a connection to each node."""

    kind: Final = "memcached"

    def __init__(self, connects: Sequence[Connect], timeout_s: float) -> None:
        self._connects = tuple(connects)
        self._timeout_s = timeout_s

    # Registrations

    async def observe(self, wanted: Iterable[ExternalId]) -> dict[ExternalId, Registration]:
        """The registrations there are, of the prefixes asked for."""
        found: dict[ExternalId, Registration] = {}
        async with self._open(self._connects[0]) as line:
            for external in wanted:
                document, _ = await _read(line, layout.registration_key(external.name))
                if "definition" in document:
                    held = parsed(json.dumps(document["definition"]))
                    found[external] = Registration(held, int(document.get("generation", 0)))
        return found

    async def apply(self, steps: Sequence[Step], fence: Fence) -> list[Outcome]:
        """Register and deregister, over the CAS of what is there."""
        return [await self._outcome(step, fence) for step in steps]

    async def _outcome(self, step: Step, fence: Fence) -> Outcome:
        try:
            if isinstance(step, DeregisterNamespace):
                async with self._open(self._connects[0]) as line:
                    fence.check()
                    await line.ask(f"md {layout.registration_key(step.external.name)}")
            elif isinstance(step, RegisterNamespace):
                document = json.loads(step.definition.document)
                await self._change(
                    step.external.name,
                    lambda held: held | {"definition": document, "digest": step.definition.digest},
                    fence,
                )
            else:
                return failed(TerminalError(f"{step.name} isn't a step of namespaces", reason="UnknownStep"))
        except Unreachable as exc:
            return unknown(exc)
        except BackendError as exc:
            return failed(exc)
        return SUCCEEDED

    # Invalidation

    async def stamp(
        self, prefix: str, revision: int, *, tags: Sequence[str] = (), flush: bool = False
    ) -> tuple[int, int]:
        """Begin an invalidation → (stamp, floor). A flush is a new floor: what lies under the old one is never read."""
        if tags:
            raise TerminalError("tags need a Redis layer: Memcached keeps no sets", reason="TagsNotSupported")
        stamp = time.time_ns() // 1000

        def raised(held: dict[str, Any]) -> dict[str, Any]:
            floor = int(held.get("floor", 0))
            generation = max(int(held.get("generation", 0)), revision)
            return held | {"generation": generation, "floor": max(stamp, floor + 1) if flush or not floor else floor}

        document = await self._change(prefix, raised)
        return stamp, int(document["floor"])

    async def drop_keys(self, prefix: str, floor: int, keys: Sequence[str]) -> int:
        """Delete values and placeholders on every node; how many there were."""
        dropped = 0
        for connect in self._connects:
            async with self._open(connect) as line:
                for part in sliced(keys):
                    replies = await line.ask(*(f"md {layout.memcached_key(prefix, floor, key)}" for key in part))
                    dropped += sum(reply.startswith("HD") for reply in replies)
        return dropped

    async def complete(self, prefix: str, revision: int) -> None:
        """End an invalidation."""
        await self._change(prefix, lambda held: held | {"completed": max(int(held.get("completed", 0)), revision)})

    async def _change(
        self, prefix: str, change: Callable[[dict[str, Any]], dict[str, Any]], fence: Fence | None = None
    ) -> dict[str, Any]:
        """Replace the registration; anew when somebody else has meanwhile."""
        name = layout.registration_key(prefix)
        async with self._open(self._connects[0]) as line:
            for _ in range(TRIES):
                held, cas = await _read(line, name)
                document = change(held)
                packed = json.dumps(document, sort_keys=True)
                if fence is not None:
                    fence.check()
                (reply,) = await line.ask(f"ms {name} {len(packed)} {f'C{cas}' if cas else 'ME'}\r\n{packed}")
                if reply.startswith("HD"):
                    return document
                if not reply.startswith(("EX", "NS", "NF")):
                    raise TransientError(f"{line.peer} refused {name}: {reply}", reason="Refused")
        raise TransientError(f"{name} changes too often", reason="Contention", retry_after_s=0.1)

    # What lies there

    async def census(self, sample: int, prefix: str | None = None) -> Census:
        """Look at up to `sample` keys of each node. TransientError `Busy` while somebody else's dump runs."""
        objects: list[Sampled] = []
        total, complete = 0, True
        for connect in self._connects:
            async with self._open(connect) as line:
                now, items = await line.figures("time", "curr_items")
                looked, whole = 0, True
                async for one in line.dump(now):
                    looked += 1
                    if prefix is None or one.key.startswith(prefix):
                        objects.append(one)
                    if looked >= sample:
                        whole = False
                        break
                total, complete = total + (items if prefix is None else 0), complete and whole
        return Census(tuple(objects), total or len(objects), complete)

    @asynccontextmanager
    async def _open(self, connect: Connect) -> AsyncIterator[_Line]:
        try:
            async with asyncio.timeout(self._timeout_s):
                reader, writer = await connect()
        except (OSError, TimeoutError) as exc:
            raise Unreachable(f"memcached: {exc or 'no connection in time'}") from exc
        try:
            yield _Line(reader, writer, self._timeout_s)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as exc:
            raise Unreachable(f"memcached: {str(exc) or type(exc).__name__}") from exc
        finally:
            writer.transport.abort()


class _Line:
    """One connection, one request at a time: the text protocol as far as it is needed here."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout_s: float) -> None:
        self._reader = reader
        self._writer = writer
        self._timeout_s = timeout_s
        self.peer = "{}:{}".format(*writer.get_extra_info("peername", ("memcached", "?"))[:2])
        self.value = b""
        """The block of the last `VA`."""

    async def ask(self, *requests: str) -> list[str]:
        """Send them in one write; the head of each reply."""
        async with asyncio.timeout(self._timeout_s):
            self._writer.write("".join(f"{request}\r\n" for request in requests).encode())
            await self._writer.drain()
            return [await self._reply() for _ in requests]

    async def figures(self, *names: str) -> list[int]:
        """Numbers of the general statistics."""
        found: dict[str, str] = {}
        async with asyncio.timeout(self._timeout_s):
            self._writer.write(b"stats\r\n")
            while (line := await self._line()) != "END":
                _, name, value = line.split(" ", 2)
                found[name] = value
        return [int(found[name]) for name in names]

    async def dump(self, now: int) -> AsyncIterator[Sampled]:
        """Items in hash order, until the end or until the connection is left."""
        first = await self._dump_begun()
        line = first
        while line != "END":
            fields = dict(field.partition("=")[::2] for field in line.split(" ") if "=" in field)
            if "key" in fields:
                yield _item(fields, now)
            async with asyncio.timeout(self._timeout_s):
                line = await self._line()

    async def _dump_begun(self) -> str:
        for _ in range(TRIES):
            async with asyncio.timeout(self._timeout_s):
                self._writer.write(b"lru_crawler metadump hash\r\n")
                line = await self._line()
            if not line.startswith("BUSY"):
                return line
            await asyncio.sleep(BUSY_PAUSE_S)
        raise TransientError(f"{self.peer}: another dump is running", reason="Busy", retry_after_s=1.0)

    async def _reply(self) -> str:
        head = await self._line()
        if head.startswith("VA "):
            size = int(head.split(" ")[1])
            self.value = (await self._reader.readexactly(size + 2))[:-2]
        return head

    async def _line(self) -> str:
        return (await self._reader.readuntil(b"\n")).decode("utf-8", "replace").strip()


async def _read(line: _Line, name: str) -> tuple[dict[str, Any], str | None]:
    """A registration and its CAS; empty and None when there is none."""
    (head,) = await line.ask(f"mg {name} v c")
    if not head.startswith("VA "):
        return {}, None
    cas = next((word[1:] for word in head.split(" ")[2:] if word.startswith("c")), None)
    document = json.loads(line.value or b"{}")
    return (document if isinstance(document, dict) else {}), cas


def _item(fields: dict[str, str], now: int) -> Sampled:
    expires = int(fields.get("exp", "-1"))
    return Sampled(
        unquote(fields["key"]),
        int(fields.get("size", "0")),
        None if expires < 0 else float(max(0, expires - now)),
        idle_s=float(max(0, now - int(fields.get("la", now)))),
        frequency=int(fields.get("fetch") == "yes"),
    )
