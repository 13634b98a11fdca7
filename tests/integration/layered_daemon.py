"""What a LayeredCache needs of the daemon, in this process: settings, operations on the real servers, and a stream with
cursors that can be cut, replayed and forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from controlplane.client.errors import ApiError, Gone
from controlplane.client.memcached import address
from controlplane.client.stream import StreamEvent, Watcher
from reconcilers.cache.keyspace import RedisKeyspace
from reconcilers.cache.keyspace_memcached import MemcachedKeyspace
from reconcilers.cache.operations import OPERATIONS
from reconcilers.contract import ExternalId
from schemas.cache import Namespace

TENANT = "default"


class Open:
    """A fence that never closes."""

    token = (1, 1)

    def check(self) -> None:
        return


def memcached_keyspace(url: str, timeout_s: float = 2.0) -> MemcachedKeyspace:
    host, port = address(url)
    return MemcachedKeyspace([lambda: asyncio.open_connection(host, port)], timeout_s)


@dataclass
class FakelessBackend:
    """A backend as far as operations look at one."""

    keyspace: Any


@dataclass
class Daemon:
    """One tenant of a daemon. Satisfies CacheTransport."""

    targets: dict[str, str]
    namespaces: dict[str, dict[str, Any]]
    journal: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    oldest: int = 0
    up: bool = True
    """Streams can be had; calls always can."""
    revision: int = 0
    clients: list[Redis] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    # the transport

    async def get_setting(self, setting_type: str, name: str) -> dict[str, Any]:
        if setting_type == "cache.target" and name in self.targets:
            url = self.targets[name]
            return {"value": {"kind": url.partition(":")[0], "url": url}}
        if setting_type == "cache.namespace" and name in self.namespaces:
            return {"value": self.namespaces[name]}
        raise ApiError(404, {"title": "Not Found", "reason": "NotFound"})

    async def operate(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        operation = next(one for one in OPERATIONS if f"cache.{one.name}" == name)
        self.revision += 1
        context = Context(self, self.revision)
        request = operation.request.model_validate(dict(body))
        details = {"operation": name, "operation_id": str(self.revision), "request": operation.announce(request)}
        self.append("OperationStarted", details, self.revision)
        try:
            result = await operation.run(context, request)
        except BaseException as exc:
            self.append("OperationFailed", details | {"message": str(exc)}, self.revision)
            raise
        self.append("OperationSucceeded", details | {"result": result}, self.revision)
        return {"operation_id": str(self.revision), "result": result}

    async def stream(
        self, *, service_name: str, last_event_id: str | None, watcher: Watcher
    ) -> AsyncIterator[StreamEvent]:
        at = len(self.journal) if last_event_id is None else int(last_event_id)
        if at < self.oldest:
            raise Gone(410, {"oldest": str(self.oldest)})
        while True:
            while not self.up:
                await self._wait(self._news)
            watcher(True)
            while self.up:
                while at < len(self.journal) and self.up:
                    event, data = self.journal[at]
                    at += 1
                    yield StreamEvent(str(at), event, data)
                await self._wait(self._news)
            watcher(False)
            if at < self.oldest:
                raise Gone(410, {"oldest": str(self.oldest)})

    # the world

    def append(
        self, event: str, details: dict[str, Any], revision: int | None = None, setting: str | None = None
    ) -> None:
        self.journal.append((event, {"details": details, "revision": revision, "setting": setting}))
        self._tell()

    def declare(self, name: str, value: dict[str, Any]) -> None:
        self.namespaces[name] = value
        self.append("SettingAccepted", {}, 1, f"{TENANT}/cache.namespace/{name}")

    def cut(self) -> None:
        """Break every stream, and refuse new ones."""
        self.up = False
        self._tell()

    def mend(self) -> None:
        self.up = True
        self._tell()

    def forget(self) -> None:
        """Retention drops all there is."""
        self.oldest = len(self.journal)
        self.journal = [("Dropped", {})] * len(self.journal)

    def backend(self, target: str) -> FakelessBackend:
        url = self.targets[target]
        if url.startswith("memcached:"):
            return FakelessBackend(memcached_keyspace(url))
        self.clients.append(Redis.from_url(url, socket_timeout=2.0, socket_connect_timeout=2.0))
        return FakelessBackend(RedisKeyspace(self.clients[-1]))

    async def close(self) -> None:
        for client in self.clients:
            await client.aclose()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    @staticmethod
    async def _wait(event: asyncio.Event) -> None:
        await asyncio.wait_for(event.wait(), 60)


@dataclass
class Context:
    """OperationContext over the Daemon."""

    daemon: Daemon
    revision: int
    tenant: str = TENANT

    def setting(self, setting_type: str, name: str) -> Any:
        return Namespace.model_validate(self.daemon.namespaces[name])

    def settings(self, _setting_type: str) -> dict[str, Any]:
        return {name: Namespace.model_validate(value) for name, value in self.daemon.namespaces.items()}

    async def backend(self, target: str) -> Any:
        return self.daemon.backend(target)

    def prefix(self, _target: str) -> str:
        return ""

    def allowed(self, _target: str, _external: ExternalId) -> frozenset[str] | None:
        return None


async def until(condition: Any, deadline_s: float = 10.0) -> None:
    """Wait for a condition of the world."""
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.005)
