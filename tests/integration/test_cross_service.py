"""An application over several services: declared in one apply, in the order of what stands on what; taken away in one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from controlplane.client.http import CoreplaneClient
from controlplane.devstack import minio, secrets
from tests.conftest import RealServer
from tests.e2e.conditions import until
from tests.integration.storage_world import World, fresh, world
from tests.servers import DaemonProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DEADLINE_S = 120.0
APP = {"app": "shop"}


@pytest.fixture
async def client(daemon: DaemonProcess, minio_server: Any) -> AsyncIterator[CoreplaneClient]:
    """A daemon that finds the MinIO's credentials, and has no target yet."""
    folder = daemon.data_dir / "secrets"
    folder.mkdir(exist_ok=True)
    (folder / "name").write_text(minio.ADMIN)
    (folder / "secret").write_text(secrets.ensure(minio_server.place.data_dir, minio.ADMIN_SECRET))
    async with daemon.client() as client:
        yield client


@pytest.fixture
async def outside(minio_server: Any) -> AsyncIterator[World]:
    async with world(minio_server) as w:
        yield w


def setting(setting_type: str, name: str, value: dict[str, Any], *needs: str, **policy: str) -> dict[str, Any]:
    return {
        "type": setting_type,
        "name": name,
        "labels": APP,
        "depends_on": list(needs),
        "policy": policy,
        "value": value,
    }


def application(redis_url: str, minio_url: str, bucket: str) -> list[dict[str, Any]]:
    """What stands on something comes first, so that the order of the file isn't the order of the work."""
    credentials = {"access_key": {"from_file": "secrets/name"}, "secret_key": {"from_file": "secrets/secret"}}
    user = {"target": "redis", "commands": ["+@read"], "keys": ["page:*"], "passwords": []}
    namespace = {"prefix": "page:", "layers": [{"target": "redis", "ttl_s": 60}]}
    config = {"target": "redis", "parameters": {"maxmemory-samples": "7"}}
    return [
        setting("cache.namespace", "pages", namespace, "cache.redis_user/web"),
        setting("cache.redis_user", "web", user, "cache.redis_config/shop", f"storage.bucket/{bucket}"),
        setting("cache.redis_config", "shop", config),
        setting("storage.bucket", bucket, {"target": "minio", "versioning": "enabled"}, deletion="delete"),
        setting("cache.target", "redis", {"kind": "redis", "url": redis_url}),
        setting("storage.target", "minio", {"endpoint": minio_url, **credentials}),
    ]


async def first_of(client: CoreplaneClient, event_type: str) -> dict[str, str]:
    """Setting → when it first had an event of the type."""
    items = (await client.events(event_type=event_type, limit=1000))["items"]
    return {event["setting"].partition("/")[2]: event["timestamp"] for event in items}


async def phases(client: CoreplaneClient) -> dict[str, str]:
    return {
        f"{one['setting_type']}/{one['name']}": one["status"]["phase"] async for one in client.list_settings(labels=APP)
    }


async def test_an_application_comes_in_one_apply_and_goes_in_one_retire(
    client: CoreplaneClient, redis_server: RealServer, minio_server: Any, outside: World
):
    bucket = fresh("shop")
    declared = application(redis_server.url, minio_server.url, bucket)
    needs = {f"{one['type']}/{one['name']}": one["depends_on"] for one in declared}
    needs[f"storage.bucket/{bucket}"] = ["storage.target/minio"]
    await client.apply(declared, reason="opening")

    async def ready() -> bool:
        return set((await phases(client)).values()) == {"Ready"}

    await until(ready, DEADLINE_S, "everything is Ready")
    async with Redis.from_url(redis_server.url, decode_responses=True) as redis:
        assert "web" in await redis.execute_command("ACL", "USERS")
        assert bucket in await buckets(outside)

        async def projected() -> bool:
            return (
                needs.keys() - {"cache.target/redis", "storage.target/minio"}
                <= (await first_of(client, "Converged")).keys()
            )

        await until(projected, DEADLINE_S, "the events are projected")
        converged, started = await first_of(client, "Converged"), await first_of(client, "ActionStarted")
        for name in started:
            for needed in needs[name]:
                if needed in converged:
                    assert converged[needed] <= started[name], f"{name} began before {needed} was there"

        await client.apply([], prune=APP, allow_prune=True, reason="closing")

        async def gone() -> bool:
            return await phases(client) == {}

        await until(gone, DEADLINE_S, "everything is gone")
        assert "web" not in await redis.execute_command("ACL", "USERS")
        assert bucket not in await buckets(outside)

    forgotten = {name: await forgotten_at(client, name) for name in needs}
    for name, below in needs.items():
        assert all(forgotten[name] <= forgotten[needed] for needed in below), f"{name} went after what it stands on"


async def forgotten_at(client: CoreplaneClient, name: str) -> int:
    """The revision at which the setting left the state: the log's own order."""
    newest = (await client.history(*name.split("/")))[0]
    assert newest["op"] == "forget"
    return int(newest["revision"])


async def buckets(outside: World) -> set[str]:
    return {one.name for one in await outside.backend.discover("storage.bucket", "*")}


async def test_a_cycle_over_services_is_named(client: CoreplaneClient, redis_server: RealServer, minio_server: Any):
    bucket = fresh("cycle")
    declared = application(redis_server.url, minio_server.url, bucket)
    declared[3]["depends_on"] = ["cache.redis_user/web"]
    await client.apply(declared)

    async def named() -> bool:
        status = (await client.get_setting("storage.bucket", bucket))["status"]
        message = next((c["message"] for c in status["conditions"] if c["type"] == "Stalled"), "")
        return status["phase"] == "Stalled" and "cache.redis_user/web" in message and bucket in message

    await until(named, DEADLINE_S, "the cycle is named")
    await client.apply([], prune=APP, allow_prune=True)
