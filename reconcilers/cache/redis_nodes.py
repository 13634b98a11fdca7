"""One Redis node: connections, pipelines whose errors are values, and the tally of our own administrative calls. I/O.

Theory of operation. redis-py supplies connections and the protocol; commands go out as one write per batch, so that the
fence can be checked directly before it, after the connection stands. Replies come back as values; errors of single commands
are `ResponseError` among them. What fails before the write certainly had no effect (`Unreachable`); what fails after it
raises `Interrupted` with the replies read so far, because the rest may have landed.

Note [Our own calls]. `INFO commandstats` counts CONFIG SET and ACL SETUSER of everybody. A call of ours is counted before
it is sent, so the server's count can exceed ours only by somebody else's calls. Calls that never arrived would hide as
many foreign ones: whenever no call of ours was under way during a poll, ours is set to the server's.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from redis import exceptions as fault
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection as Wire
from redis.asyncio.connection import SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from reconcilers.contract import BackendError, Connection, TerminalError, TransientError, Unreachable
from schemas.cache import DEFAULT_PORTS, Target

CONNECT_TIMEOUT_S: Final = 2.0
REPLY_TIMEOUT_S: Final = 8.0
"""One reply. Redis answers administration at once unless a script or a slow command holds it."""
CONNECTIONS: Final = 8
"""Per node: two passes, a sweep, a sample, hints, and operations on namespaces."""

MOST_LEARNT: Final = 20_000
"""Canonical forms and verdicts kept per node."""

WATCHED: Final = ("acl|setuser", "acl|deluser", "acl|load", "config|set", "config|rewrite", "config|resetstat")
"""Commands that change what is declared, as `INFO commandstats` names them."""

Command = Sequence[str | int]
Reply = Any
"""None, int, str, list of replies, or `fault.ResponseError`."""


class Interrupted(Exception):
    """The connection broke after commands were sent. `replies`: those that were read before."""

    def __init__(self, error: Unreachable, replies: Sequence[Reply]) -> None:
        super().__init__(error.message)
        self.error = error
        self.replies = replies


@dataclass(slots=True)
class Tally:
    """Counts of the watched commands: the server's at the last quiet moment, and what we sent since."""

    settled: Mapping[str, int] | None = None
    sent: Counter[str] = field(default_factory=Counter)
    under_way: int = 0
    batches: int = 0

    @contextmanager
    def sending(self, commands: Iterable[Command]) -> Iterator[None]:
        """A batch is about to be sent; at the end all its replies are there, or never will be."""
        watched = [name for command in commands if (name := _watched(command)) is not None]
        if not watched:
            yield
            return
        self.under_way += 1
        self.batches += 1
        self.sent.update(watched)
        try:
            yield
        finally:
            self.under_way -= 1

    def compare(self, counts: Mapping[str, int], *, quiet: bool) -> str | None:
        """What somebody else did, or None. `quiet`: none of our batches was under way while the counts were read."""
        before, sent = self.settled, Counter(self.sent)
        if quiet or before is None:
            self.settled, self.sent = dict(counts), Counter()
        if before is None:
            return None
        for name in WATCHED:
            if counts[name] < before[name]:
                self.settled = dict(counts)
                return "the server's counters were reset"
            if counts[name] > before[name] + sent[name]:
                self.settled = dict(counts)
                return f"{name.replace('|', ' ').upper()} by somebody else"
        return None


def _watched(command: Command) -> str | None:
    name = "|".join(str(word).lower() for word in command[:2])
    return name if name in WATCHED else None


class Learnt:
    """What this process of the server said to questions that cost it a write: bounded, and forgotten after a restart."""

    def __init__(self) -> None:
        self._rows: OrderedDict[Hashable, tuple[Any, float]] = OrderedDict()

    def get(self, question: Hashable) -> Any | None:
        """The answer, None when it isn't known (any more)."""
        row = self._rows.get(question)
        if row is None or row[1] < time.monotonic():
            return None
        self._rows.move_to_end(question)
        return row[0]

    def put(self, question: Hashable, answer: Any, life_s: float = math.inf) -> None:
        """Remember it."""
        self._rows[question] = (answer, time.monotonic() + life_s)
        self._rows.move_to_end(question)
        while len(self._rows) > MOST_LEARNT:
            self._rows.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._rows.clear()


class RedisNode:
    """One node. Safe for concurrent use."""

    def __init__(self, name: str, client: Redis) -> None:
        self.name = name
        self.client = client
        """For commands on keys (bytes in, bytes out); its exceptions are the library's."""
        self.tally = Tally()
        self.run_id: str | None = None
        self.version: tuple[int, ...] = ()
        self.learnt = Learnt()
        self.lines: Mapping[str, tuple[str, Any]] = {}
        """Lines of the last `ACL LIST`, and what they say: name and account."""
        self.unsaved: bool | None = None
        """Something of ours is set that isn't in the server's file; None: nobody knows."""

    async def ask(self, commands: Sequence[Command], *, before_send: Callable[[], None] | None = None) -> list[Reply]:
        """All replies, in order; errors of single commands are values. `before_send` is called directly before the write.

        Raises `Unreachable` (nothing was sent), `TerminalError` (wrong credentials), `Interrupted` (something was sent).
        """
        async with self._wire() as wire:
            packed = wire.pack_commands(commands)
            if before_send is not None:
                before_send()
            with self.tally.sending(commands):
                return await self._exchange(wire, packed, len(commands))

    async def read(self, *commands: Command) -> list[Reply]:
        """Like `ask`, for commands without effect: a broken connection is `Unreachable`."""
        try:
            return await self.ask(commands)
        except Interrupted as exc:
            raise exc.error from exc

    async def poll(self) -> str | None:
        """Why somebody should look at this node: a restart, or administration by somebody else. None: nothing new."""
        batches, idle = self.tally.batches, not self.tally.under_way
        server, stats = await self.read(("INFO", "server"), ("INFO", "commandstats"))
        restarted = self.identify(info(valued(server, "INFO server")))
        quiet = idle and batches == self.tally.batches
        foreign = self.tally.compare(calls(info(valued(stats, "INFO commandstats"))), quiet=quiet)
        return "the server was restarted" if restarted else foreign

    def identify(self, server: Mapping[str, str]) -> bool:
        """Take note of who answers; True when it is another process than before, so that nothing learnt holds any more."""
        before, self.run_id = self.run_id, server["run_id"]
        self.version = tuple(int(part) for part in server["redis_version"].split(".") if part.isdecimal())
        if before == self.run_id:
            return False
        self.learnt.clear()
        self.unsaved = None
        return before is not None

    async def close(self) -> None:
        """Close all connections."""
        await self.client.aclose()

    @asynccontextmanager
    async def _wire(self) -> AsyncIterator[Any]:
        pool: Any = self.client.connection_pool
        try:
            wire = await pool.get_connection()
        except (fault.RedisError, OSError, TimeoutError) as exc:
            raise self._connecting(exc) from exc
        try:
            yield wire
        finally:
            await pool.release(wire)

    async def _exchange(self, wire: Any, packed: Sequence[bytes], count: int) -> list[Reply]:
        replies: list[Reply] = []
        try:
            await wire.send_packed_command(packed, check_health=False)
            while len(replies) < count:
                replies.append(await _reply(wire))
        except (fault.RedisError, OSError, TimeoutError) as exc:
            await wire.disconnect(nowait=True)
            raise Interrupted(Unreachable(f"{self.name}: {_said(exc)}"), replies) from exc
        except asyncio.CancelledError:
            # Replies that nobody read would be taken for those of the next batch.
            await wire.disconnect(nowait=True)
            raise
        return replies

    def _connecting(self, exc: Exception) -> BackendError:
        if isinstance(exc, fault.AuthenticationError | fault.NoPermissionError) or "WRONGPASS" in str(exc):
            return TerminalError(
                f"{self.name}: {exc}; check the target's username and password", reason="AuthenticationFailed"
            )
        if isinstance(exc, fault.ResponseError) and not isinstance(exc, fault.ConnectionError):
            return refused(exc, f"{self.name}: connecting")
        return Unreachable(f"{self.name}: {_said(exc)}")


async def _reply(wire: Any) -> Reply:
    try:
        return decoded(await wire.read_response(disconnect_on_error=False))
    except fault.BusyLoadingError as exc:
        return fault.ResponseError(f"LOADING {exc}")
    except fault.AuthenticationError as exc:
        return fault.ResponseError(f"NOAUTH {exc}")
    except fault.ResponseError as exc:
        return exc


def decoded(reply: Any) -> Reply:
    """Bytes as text, all the way down."""
    if isinstance(reply, bytes):
        return reply.decode("utf-8", "backslashreplace")
    if isinstance(reply, list):
        return [decoded(inner) for inner in reply]
    return reply


def _said(exc: BaseException) -> str:
    """What the system says: redis-py puts host and port around it twice, and they stand in front already."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return str(exc) or type(exc).__name__


def refused(error: Exception, doing: str) -> BackendError:
    """An error reply as what the reader must do about it."""
    text = str(error)
    message = f"{doing}: {text}"
    if isinstance(error, fault.NoPermissionError) or "no permissions" in text or text.startswith("NOPERM"):
        return TerminalError(f"{message}; grant it to the target's user", reason="PermissionDenied")
    if text.startswith(("NOAUTH", "WRONGPASS")):
        return TerminalError(f"{message}; check the target's username and password", reason="AuthenticationFailed")
    if isinstance(error, fault.OutOfMemoryError | fault.ReadOnlyError | fault.TryAgainError) or text.startswith(
        ("LOADING", "BUSY", "MASTERDOWN", "OOM", "MISCONF", "CLUSTERDOWN", "TRYAGAIN", "EXECABORT", "Redis is busy")
    ):
        return TransientError(message)
    return TerminalError(message, reason="Refused")


def valued(reply: Reply, doing: str) -> Any:
    """The reply, or its error raised as ours."""
    if isinstance(reply, fault.ResponseError):
        raise refused(reply, doing) from reply
    return reply


def pairs(reply: Sequence[Any]) -> dict[str, Any]:
    """A flat list of names and values as a map."""
    return dict(zip(reply[::2], reply[1::2], strict=True))


def info(text: str) -> dict[str, str]:
    """The lines of `INFO`: name → text."""
    rows = (line.partition(":") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in rows}


def calls(rows: Mapping[str, str]) -> dict[str, int]:
    """How often each watched command was executed, from the lines of `INFO commandstats`."""
    return {name: int(fields(rows.get(f"cmdstat_{name}", "calls=0"))["calls"]) for name in WATCHED}


def fields(text: str) -> dict[str, str]:
    """`calls=3,usec=7` as a map."""
    rows = (part.partition("=") for part in text.split(",") if "=" in part)
    return {name: value for name, _, value in rows}


def node_at(url: str, connection: Connection) -> RedisNode:
    """The node at a URL, not connected yet. Raises `SecretNotFound`."""
    target: Target = connection.value
    split = urlsplit(url)
    port = split.port or DEFAULT_PORTS[split.scheme]
    options: dict[str, Any] = {
        "host": split.hostname,
        "port": port,
        "db": int(split.path[1:] or 0),
        "username": target.username,
        "password": None if target.password is None else connection.secrets.reveal(target.password),
        "protocol": 2,
        "client_name": f"coreplane-{connection.target}"[:64],
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": REPLY_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        "connection_class": Wire,
    }
    if split.scheme == "rediss":
        tls = target.tls
        options["connection_class"] = SSLConnection
        options["ssl_ca_certs"] = None if tls is None else tls.ca_file
        options["ssl_cert_reqs"] = "required" if tls is None or tls.verify else "none"
        options["ssl_check_hostname"] = tls is None or tls.verify
    pool = BlockingConnectionPool(max_connections=CONNECTIONS, timeout=REPLY_TIMEOUT_S, **options)
    return RedisNode(f"{split.hostname}:{port}", Redis.from_pool(pool))
