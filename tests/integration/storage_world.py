"""A backend of the storage service without the daemon, on the run's MinIO: declare, converge, look again."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from controlplane.client.http import CoreplaneClient
from controlplane.devstack import minio, secrets
from reconcilers.contract import Connection, ExternalId, Kind, Outcome, Plan
from reconcilers.registry import SERVICES
from reconcilers.storage.backend import StorageBackend, connect
from reconcilers.storage.s3 import S3Client, bucket_path
from schemas.storage import Target
from tests.integration.cache_world import DictSecrets, OpenFence
from tests.servers import DaemonProcess

KINDS: Mapping[str, Kind[Any, Any, Any]] = {kind.setting_type: kind for kind in SERVICES["storage"].kinds}
BUCKET = "storage.bucket"
_NUMBERS = itertools.count(1)


def fresh(what: str = "b") -> str:
    """A name that no other test has."""
    return f"{what}-{os.getpid() % 10_000}-{next(_NUMBERS)}"


def login(server: Any) -> DictSecrets:
    """The administrator of a server of the devstack."""
    return DictSecrets(KEY=minio.ADMIN, SECRET=secrets.ensure(server.place.data_dir, minio.ADMIN_SECRET))


def client_of(url: str, known: DictSecrets) -> S3Client:
    """Somebody's own login, which needs no right."""
    value = Target.model_validate(
        {"endpoint": url, "access_key": {"from_env": "KEY"}, "secret_key": {"from_env": "SECRET"}}
    )
    return S3Client(Connection("default", "main", value, known))


def target(url: str, secret: str = "secret") -> dict[str, Any]:
    """A target's value; the login is in the daemon's folder for secrets."""
    return {
        "endpoint": url,
        "access_key": {"from_file": "secrets/name"},
        "secret_key": {"from_file": f"secrets/{secret}"},
    }


def keep_login(daemon: DaemonProcess, server: Any) -> None:
    """Where `target` looks for it."""
    folder = daemon.data_dir / "secrets"
    folder.mkdir(exist_ok=True)
    (folder / "name").write_text(minio.ADMIN)
    (folder / "secret").write_text(secrets.ensure(server.place.data_dir, minio.ADMIN_SECRET))


@asynccontextmanager
async def driven(daemon: DaemonProcess, server: Any, name: str = "main") -> AsyncIterator[CoreplaneClient]:
    """A daemon that has a server as its target, which it logs in to as the administrator."""
    keep_login(daemon, server)
    async with daemon.client() as client:
        await client.put_setting("storage.target", name, {"value": target(server.url)}, wait="Ready", wait_s=60)
        yield client


class World:
    """One open target. What is remembered between looks is kept as the controller keeps it."""

    def __init__(self, backend: StorageBackend, known: DictSecrets) -> None:
        self.backend = backend
        self.client: S3Client = backend.client
        self.secrets = known
        self.fence: Any = OpenFence()
        self._memory: dict[ExternalId, dict[str, str]] = {}

    async def look(
        self, setting_type: str, value: Mapping[str, Any], name: str = "n", *, retiring: bool = False
    ) -> Plan:
        """The plan for one declaration. Errors of the object are raised."""
        kind = KINDS[setting_type]
        model = kind.value.model_validate({"target": "main", **value})
        external = ExternalId(setting_type, kind.identify(name, model))
        desired = None if retiring else kind.desired(name, model)
        observed = (await self.backend.observe({external: desired})).get(external)
        if isinstance(observed, Exception):
            raise observed
        memory = self._memory.setdefault(external, {})
        plan = kind.plan(external, desired, kind.recall(observed, memory), 0.0)
        if plan.converged:
            memory |= plan.remember
        return plan

    async def take(self, plan: Plan) -> list[Outcome]:
        """Take the steps of a plan, one after the other."""
        outcomes = []
        for step in plan.steps:
            (outcome,) = await self.backend.apply([step], self.fence)
            self._memory.setdefault(step.external, {}).update(outcome.remember)
            outcomes.append(outcome)
        return outcomes

    async def declare(self, setting_type: str, value: Mapping[str, Any], name: str = "n") -> list[Outcome]:
        """Take the steps of one plan."""
        return await self.take(await self.look(setting_type, value, name))

    async def settled(self, setting_type: str, value: Mapping[str, Any], name: str = "n") -> None:
        """Declare it: every step succeeds, and then there is nothing left to do."""
        for outcome in await self.declare(setting_type, value, name):
            assert outcome.error is None, outcome.error
        again = await self.look(setting_type, value, name)
        assert again.steps == ()
        assert again.differences == ()
        assert again.converged, again

    async def raw(self, bucket: str, query: str) -> bytes:
        """A document as the server holds it."""
        return await self.client.get(bucket_path(bucket), {query: ""})

    async def put_raw(self, bucket: str, query: str, document: str | Mapping[str, Any]) -> None:
        """Put a document as somebody else would."""
        text = document if isinstance(document, str) else json.dumps(document)
        await self.client.put(bucket_path(bucket), {query: ""}, text.encode(), None)

    async def put_object(self, bucket: str, key: str, body: bytes = b"x") -> None:
        """Put an object."""
        await self.client.put(f"{bucket_path(bucket)}/{key}", (), body, None)


@asynccontextmanager
async def world(server: Any, known: DictSecrets | None = None, **more: Any) -> AsyncIterator[World]:
    """The server as its administrator, or as somebody else, sees it."""
    known = known or login(server)
    value = Target.model_validate(
        {"endpoint": server.url, "access_key": {"from_env": "KEY"}, "secret_key": {"from_env": "SECRET"}, **more}
    )
    backend: Any = await connect(Connection("default", "main", value, known))
    try:
        yield World(backend, known)
    finally:
        await backend.close()
