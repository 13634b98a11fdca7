"""A backend of the storage service without the daemon, on the run's MinIO: declare, converge, look again."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from controlplane.client.http import CoreplaneClient
from controlplane.devstack import minio, secrets
from reconcilers.contract import Connection, Plan, TransientError
from reconcilers.storage.backend import StorageBackend, connect
from reconcilers.storage.s3 import Refused, Request, S3Client, bucket_path
from schemas.storage import Target
from tests.integration.backend_world import BackendWorld, DictSecrets
from tests.servers import DaemonProcess

BUCKET = "storage.bucket"
STARTED_S = 30.0
POLICY, USER, GROUP, KEY = "storage.policy", "storage.user", "storage.group", "storage.access_key"
CONFIG = "storage.server_config"
FIRST, SECOND = {"from_env": "FIRST"}, {"from_env": "SECOND"}
"""Passwords for users: `with_passwords` has them."""
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


def with_passwords(server: Any) -> DictSecrets:
    """The administrator's login, and passwords to declare."""
    found = login(server)
    found.known |= {"FIRST": "first-secret-1", "SECOND": "second-secret-2"}
    return found


def reads(bucket: str, prefix: str = "") -> dict[str, Any]:
    """May read a bucket. The spelling isn't the canonical one."""
    statement = {
        "Sid": "",
        "Effect": "Allow",
        "Action": ["s3:ListBucket", "s3:GetObject", "s3:GetObject", "s3:GetBucketLocation", "s3:GetBucketTagging"],
        "Resource": [f"arn:aws:s3:::{bucket}/{prefix}*", f"arn:aws:s3:::{bucket}"],
    }
    return {"Version": "2012-10-17", "Statement": statement}


async def may(url: str, name: str, secret: str, method: str, path: str) -> str:
    """`yes`, or the code of the refusal. Logging in needs no right of its own."""
    client = client_of(url, DictSecrets(KEY=name, SECRET=secret))
    try:
        await client.call(Request(method, path, body=b"x" if method == "PUT" else b""))
    except Refused as exc:
        return exc.code
    finally:
        await client.close()
    return "yes"


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
    ours = login(server).known
    (folder / "name").write_text(ours["KEY"])
    (folder / "secret").write_text(ours["SECRET"])


@asynccontextmanager
async def driven(daemon: DaemonProcess, server: Any, name: str = "main") -> AsyncIterator[CoreplaneClient]:
    """A daemon that has a server as its target, which it logs in to as the administrator."""
    keep_login(daemon, server)
    async with daemon.client() as client:
        await client.put_setting("storage.target", name, {"value": target(server.url)}, wait="Ready", wait_s=60)
        yield client


class World(BackendWorld):
    """One open target."""

    backend: StorageBackend

    def __init__(self, backend: StorageBackend, known: DictSecrets) -> None:
        super().__init__(backend, known)
        self.client: S3Client = backend.client

    async def drop(self, plan: Plan) -> int:
        """Take the one step that drops a bucket, as soon as the server has started; how often it was too early."""
        early = 0
        async with asyncio.timeout(STARTED_S):
            while (outcome := (await self.take(plan))[0]).error is not None:
                assert (type(outcome.error), outcome.error.reason) == (TransientError, "Starting"), outcome
                early += 1
                await asyncio.sleep(outcome.error.retry_after_s)
        return early

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


def as_user(server: Any, name: str, secret: str) -> AbstractAsyncContextManager[World]:
    """The server as a declared user sees it."""
    return world(server, DictSecrets(KEY=name, SECRET=secret))
