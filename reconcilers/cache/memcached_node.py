"""One Memcached node over the text protocol: administrative commands, statistics, settings. I/O.

Every administrative command is answered by one line, whatever it says (`OK`, `ERROR …`, `MEMLIMIT_TOO_SMALL …`): the
node reads lines and knows no list of them. Statistics go on until `END`. One connection, one command at a time; it is opened
when it is needed, and given up after any fault, because a late reply would be taken for the next one's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from reconcilers.cache import memcached_settings
from reconcilers.cache.model import HeldSettings
from reconcilers.cache.parameters import Verdict
from reconcilers.contract import (
    BackendError,
    Fence,
    NotSent,
    Outcome,
    Result,
    TerminalError,
    TransientError,
    Unreachable,
    failed,
    unknown,
)
from schemas.cache import DEFAULT_PORTS, Target, Tls

CONNECT_TIMEOUT_S: Final = 2.0
REPLY_TIMEOUT_S: Final = 5.0
REFUSAL_LIFE_S: Final = 300.0
LINE_BYTES: Final = 64 * 1024

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class MemcachedNode:
    """One node. Safe for concurrent use: callers take turns."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self.name = f"{host}:{port}"
        self.incarnation: str | None = None
        """Process id and start time; they change when everything set at run time is gone."""
        self._host = host
        self._port = port
        self._tls = tls
        self._streams: Streams | None = None
        self._turn = asyncio.Lock()
        self._refusals: dict[tuple[str, str], tuple[Verdict, float]] = {}

    async def connect(self) -> Streams:
        """A new connection of the caller's own. Raises `Unreachable`."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=LINE_BYTES)
        except (OSError, TimeoutError) as exc:
            raise Unreachable(f"{self.name}: {exc or 'no answer in time'}") from exc

    async def command(self, line: str, *, before_send: Callable[[], None] | None = None) -> str:
        """The one line that answers. `before_send` is called directly before the write. Raises `Unreachable`."""
        async with self._talking() as (reader, writer):
            if before_send is not None:
                before_send()
            writer.write(line.encode("ascii") + b"\r\n")
            await writer.drain()
            return _line(await reader.readuntil(b"\r\n"))

    async def stats(self, *words: str) -> dict[str, str]:
        """`stats`, `stats settings`, `stats slabs` …: name → text."""
        found: dict[str, str] = {}
        async with self._talking() as (reader, writer):
            writer.write(" ".join(("stats", *words)).encode("ascii") + b"\r\n")
            await writer.drain()
            while (line := _line(await reader.readuntil(b"\r\n"))) != "END":
                if not line.startswith("STAT "):
                    raise TransientError(f"{self.name}: stats {' '.join(words)}: {line}")
                _, name, value = (*line.split(" ", 2), "")[:3]
                found[name] = value
        return found

    async def identify(self) -> bool:
        """Take note of who answers; True when it is another process than before."""
        stats = await self.stats()
        before, self.incarnation = self.incarnation, f"{stats['pid']}-{int(stats['time']) - int(stats['uptime'])}"
        if before in (None, self.incarnation):
            return False
        self._refusals.clear()
        return True

    async def close(self) -> None:
        """Close the connection."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            with contextlib.suppress(OSError):
                await streams[1].wait_closed()

    @contextlib.asynccontextmanager
    async def _talking(self) -> AsyncIterator[Streams]:
        async with self._turn:
            if self._streams is None or self._streams[0].at_eof():
                await self.close()
                self._streams = await self.connect()
            streams = self._streams
            whole = False
            try:
                async with asyncio.timeout(REPLY_TIMEOUT_S):
                    yield streams
                whole = True
            except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as exc:
                raise Unreachable(f"{self.name}: {exc or 'no answer in time'}", reason="Unreachable") from exc
            finally:
                if not whole:
                    self._streams = None
                    streams[1].transport.abort()

    # --- settings ------------------------------------------------------------------------------------------------------

    async def observe_settings(self, wanted: Mapping[str, str] | None) -> HeldSettings:
        """What is set. Raises `BackendError`."""
        await self.identify()
        held = memcached_settings.held(await self.stats("settings"))
        now = time.monotonic()
        rows = {path: self._refusals.get((path, text)) for path, text in (wanted or {}).items()}
        return HeldSettings(held, {path: row[0] for path, row in rows.items() if row is not None and row[1] > now})

    async def change_settings(self, changes: Mapping[str, str], fence: Fence) -> Outcome:
        """Command by command; a refused one doesn't keep the others from being set."""
        errors: list[BackendError] = []
        sent = False

        def before_send() -> None:
            nonlocal sent
            fence.check()
            sent = True

        for paths, line in memcached_settings.commands(changes):
            try:
                reply = await self.command(line, before_send=before_send)
            except Unreachable as exc:
                # Only a first command that wasn't sent certainly leaves no trace.
                if sent:
                    return unknown(exc)
                raise
            except NotSent:
                if not sent:
                    raise
                errors.append(TransientError(f"{line}: the start deadline had passed", reason="NotSent"))
                break
            if reply != "OK":
                errors.append(self._refused(paths, changes, f"{line}: {reply}"))
        return failed(errors[0]) if errors else Outcome(Result.SUCCEEDED)

    def _refused(self, paths: Sequence[str], changes: Mapping[str, str], message: str) -> BackendError:
        if "BUSY" in message:
            return TransientError(f"{self.name}: {message}")
        error = TerminalError(message, reason="Refused")
        for path in paths:
            self._refusals[path, changes[path]] = (
                Verdict(reason=error.reason, message=message),
                time.monotonic() + REFUSAL_LIFE_S,
            )
        return error


def _line(line: bytes) -> str:
    return line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")


def node_at(url: str, target: Target) -> MemcachedNode:
    """The node at a URL, not connected yet. Raises `TerminalError` when the authorities' file can't be read."""
    split = urlsplit(url)
    context = None if target.tls is None else _context(target.tls)
    return MemcachedNode(split.hostname or "", split.port or DEFAULT_PORTS[split.scheme], context)


def _context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise TerminalError(f"tls.ca_file {tls.ca_file}: {exc}", reason="InvalidTls") from exc
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
