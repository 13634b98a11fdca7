"""The HTTP application over a real log in memory, without a controller: what the API does by itself."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from pydantic import BaseModel

from controlplane.api.parts import Parts
from controlplane.api.routes import create_app
from controlplane.api.stream import Streams
from controlplane.config import AuthConfig, Config, HttpConfig, Token
from controlplane.domain.events import Fact, Subject, event, headers
from controlplane.domain.status import KeyStatus, converged, to_wire
from controlplane.log import codec
from controlplane.log.memory import MemoryLog
from controlplane.log.ports import Commit, Outgoing
from controlplane.projection.projector import Projector
from controlplane.projection.sqlite import SqliteStore
from controlplane.runtime.administration import OWN
from controlplane.runtime.catalogue import Catalogue, TargetId
from controlplane.runtime.clock import SystemClock
from controlplane.runtime.directory import Directory
from controlplane.runtime.importing import Importing
from controlplane.runtime.past import Past
from controlplane.runtime.preview import Preview
from controlplane.runtime.replica import Replica
from controlplane.runtime.secrets import EnvironmentSecrets
from controlplane.runtime.statuses import StatusView
from controlplane.runtime.streams import Streams as ObjectStreams
from controlplane.runtime.supervisor import Supervisor
from controlplane.telemetry.metrics import Metrics
from reconcilers.contract import Service
from reconcilers.registry import SERVICES
from schemas.access import ACCESS_KINDS
from schemas.event import EventType
from schemas.kinds import KINDS
from schemas.names import event_id

BASE = "/v1/tenants/default"
TARGET = f"{BASE}/settings/cache.target/main"
USER = f"{BASE}/settings/cache.redis_user/app"

REDIS: dict[str, Any] = {"kind": "redis", "url": "redis://localhost:6379"}
APP: dict[str, Any] = {"target": "main", "commands": ["+@read"], "keys": ["app:*"]}


@dataclass
class Looked:
    """A controller that only remembers what it was asked to look at."""

    keys: list[str] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)

    def look(self, key: str) -> None:
        self.keys.append(key)

    def loop(self, target: TargetId) -> None:
        return None

    def elsewhere(self, target: TargetId) -> None:
        return None

    def home(self, key: str) -> None:
        return None

    def report(self) -> dict[str, Any]:
        return {"shards": [0], "targets": self.targets}


class Echo(BaseModel):
    """The request of an operation."""

    text: str = ""


@dataclass
class Ran:
    """Operations that answer with what they were given."""

    def requests(self) -> Mapping[str, type[BaseModel]]:
        return {"cache.echo": Echo}

    async def run(
        self, tenant: str, name: str, body: Mapping[str, Any], *, actor: str, request_id: str
    ) -> dict[str, Any]:
        return {"operation_id": request_id, "result": {"tenant": tenant, "name": name, "body": body, "actor": actor}}


@dataclass
class Api:
    """The application, a client to it, and the log below it."""

    client: TestClient[Any, Any]
    parts: Parts
    log: MemoryLog
    looked: Looked
    sequence: int = 0

    async def call(self, method: str, path: str, status: int | None = None, **more: Any) -> Any:
        """The JSON of the answer; fails when the status isn't the one expected."""
        response = await self.client.request(method, path, **more)
        text = await response.text()
        assert status is None or response.status == status, f"{response.status}: {text}"
        return json.loads(text)

    async def raw(self, method: str, path: str, **more: Any) -> ClientResponse:
        response = await self.client.request(method, path, **more)
        await response.read()
        return response

    async def put(self, path: str, value: Mapping[str, Any], status: int | None = None, **more: Any) -> Any:
        return await self.call("PUT", path, status, json={"value": value, **more})

    async def converge(self, key: str, generation: int) -> None:
        """Write the status that a controller would: this generation is observed as declared."""
        await self.observe(converged(KeyStatus(key, revision=1, observed_generation=generation), 0.0, key))

    async def observe(self, status: KeyStatus) -> None:
        """Write the status."""
        await self._commit(Commit(statuses=[Outgoing(status.key, codec.encode(to_wire(status)))]))

    async def forget(self, key: str) -> None:
        """Let the key have no status any more."""
        await self._commit(Commit(statuses=[Outgoing(key, None)]))

    async def happen(self, event_type: EventType, setting: str, shard: int = 0, **details: Any) -> str:
        """Write an event; its id."""
        self.sequence += 1
        ident = event_id("test", self.sequence)
        tenant, setting_type, _ = setting.split("/")
        subject = Subject(tenant, setting_type.partition(".")[0], setting)
        made = event(Fact(event_type, details), subject, event_id=ident, now=float(self.sequence), shard=shard)
        outgoing = Outgoing(setting, codec.encode(made), headers(str(event_type), subject.service, tenant))
        await self._commit(Commit(events=[outgoing]), shard)
        return ident

    async def _commit(self, commit: Commit, shard: int = 0) -> None:
        writer = await self.log.journal.open_shard(shard)
        await writer.commit(commit)
        await writer.close()


def token(name: str, role: Any, tenants: tuple[str, ...] = ("*",)) -> Token:
    """A token whose secret is `secret-{name}`."""
    return Token(name=name, sha256=hashlib.sha256(f"secret-{name}".encode()).hexdigest(), role=role, tenants=tenants)


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer secret-{name}"}


@asynccontextmanager
async def daemon(
    *,
    tokens: tuple[Token, ...] = (),
    http: HttpConfig | None = None,
    streams: Streams | None = None,
    services: Mapping[str, Service] | None = None,
    auth: Mapping[str, Any] | None = None,
    **other: Any,
) -> AsyncIterator[Api]:
    """The application, running. `other`: parts to be replaced."""
    config = Config(
        http=http or HttpConfig(), auth=AuthConfig(tokens=tokens, **(auth or {})), tenants=("default", "other")
    )
    log, clock, metrics = MemoryLog(shards=4), SystemClock(), Metrics()
    replica, statuses = Replica(log.settings, clock, metrics), StatusView(log.journal)
    directory = TemporaryDirectory(prefix="coreplane-api-")
    store = SqliteStore(Path(directory.name) / "projection.sqlite")
    projector = Projector(log.journal, store, metrics)
    looked = Looked()
    secrets = EnvironmentSecrets(Path(directory.name), b"key")
    foresight = Preview(
        replica.state, Catalogue({**SERVICES, **OWN}), statuses, looked, secrets=secrets, clock=clock, metrics=metrics
    )
    directory_of_access = Directory(replica.state, config.tenants)
    replica.listen(directory_of_access.follow)
    importing = Importing(
        replica.state, Catalogue({**SERVICES, **OWN}), looked, foresight, clock=clock, metrics=metrics
    )
    parts = Parts(
        config=config,
        replica=replica,
        statuses=statuses,
        journal=log.journal,
        queries=store,
        control=looked,
        operations=Ran(),
        streams=ObjectStreams(Catalogue({}), looked),  # nothing streams here
        kinds={**KINDS, **ACCESS_KINDS},
        services=services or {},
        metrics=metrics,
        clock=clock,
        past=Past(replica),
        preview=foresight,
        importing=importing,
        directory=directory_of_access,
        trespasses=Catalogue({**SERVICES, **OWN}, shares=directory_of_access).foreseen_trespasses,
    )
    parts = replace(parts, **other)
    supervisor = Supervisor(metrics)
    async with AsyncExitStack() as stack:
        stack.enter_context(directory)
        stack.push_async_callback(log.close)
        stack.push_async_callback(store.close)
        stack.push_async_callback(supervisor.stop)
        for name, run in (("replica", replica.run), ("statuses", statuses.run), ("projector", projector.run)):
            supervisor.start(name, run)
        client = await stack.enter_async_context(TestClient(TestServer(create_app(parts, streams))))
        yield Api(client, parts, log, looked)


async def until(condition: Any, timeout_s: float = 10.0) -> Any:
    """The first true result of the async `condition`; fails when there is none in time."""
    async with asyncio.timeout(timeout_s):
        while not (found := await condition()):
            await asyncio.sleep(0.01)
    return found
