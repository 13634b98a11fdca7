"""Two tenants on one MinIO, by the real daemon: neither gets at what is the other's, by whichever way it asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from controlplane.client.errors import ApiError
from controlplane.client.http import CoreplaneClient
from reconcilers.storage.s3 import Refused, S3Client, bucket_path
from tests.integration.backend_world import DictSecrets
from tests.integration.storage_world import client_of, driven, fresh
from tests.servers import DaemonProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

PASSWORD = "the-app-of-acme"


@pytest.fixture
async def owner(daemon: DaemonProcess, minio_server: Any) -> AsyncIterator[CoreplaneClient]:
    async with driven(daemon, minio_server, "store") as client:
        yield client


@pytest.fixture
def prefix() -> str:
    """Of the tenant acme; no other test has it."""
    return f"{fresh('ac')}-"


@pytest.fixture
async def acme(daemon: DaemonProcess, owner: CoreplaneClient, prefix: str) -> AsyncIterator[CoreplaneClient]:
    """A tenant with whom the owner's server is shared."""
    share = {"target": "default/storage.target/store", "tenant": "acme", "prefix": prefix}
    async with daemon.client(tenant="system") as system:
        await system.put_setting("access.tenant", "acme", {"value": {}})
        await system.put_setting("access.share", "acme-store", {"value": share})
    async with daemon.client(tenant="acme") as client:
        yield client


async def made(client: CoreplaneClient, setting_type: str, name: str, value: dict[str, Any]) -> None:
    found = await client.put_setting(setting_type, name, {"value": value}, wait="Ready", wait_s=60)
    assert found["status"]["phase"] == "Ready", found["status"]


async def faults(client: CoreplaneClient, setting_type: str, name: str, value: dict[str, Any]) -> list[str]:
    """Paths within the value that are refused."""
    with pytest.raises(ApiError) as refused:
        await client.put_setting(setting_type, name, {"value": value})
    assert refused.value.status == 422, refused.value
    return [fault.path.partition("/value")[2] for fault in refused.value.errors]


def rights(prefix: str) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": ["s3:*"], "Resource": [f"arn:aws:s3:::{prefix}*"]}
    return {"target": "default/store", "document": {"Version": "2012-10-17", "Statement": [statement]}}


async def refused(client: S3Client, method: str, path: str) -> str:
    with pytest.raises(Refused) as told:
        await (client.get(path) if method == "GET" else client.put(path, (), b"", None))
    return told.value.code


async def test_a_user_of_another_tenant_gets_to_its_own_buckets_and_no_further(
    daemon: DaemonProcess, acme: CoreplaneClient, owner: CoreplaneClient, prefix: str, minio_server: Any
):
    shop = fresh("shop")
    await made(owner, "storage.bucket", shop, {"target": "store"})
    (daemon.data_dir / "secrets" / "app").write_text(PASSWORD)
    user = {"target": "default/store", "secret_key": {"from_file": "secrets/app"}, "policies": [f"{prefix}rw"]}
    await made(acme, "storage.policy", f"{prefix}rw", rights(prefix))
    await made(acme, "storage.user", f"{prefix}app", user)
    await made(acme, "storage.bucket", "files", {"target": "default/store", "bucket": f"{prefix}files"})
    app = client_of(minio_server.url, DictSecrets(KEY=f"{prefix}app", SECRET=PASSWORD))
    try:
        await app.put(f"/{prefix}files/a", (), b"1", None)
        assert await app.get(f"/{prefix}files/a") == b"1"
        assert shop.encode() not in await app.get("/"), "it isn't even told of"
        for method, path in (("GET", bucket_path(shop)), ("PUT", f"/{shop}/a"), ("PUT", f"/{shop}-new")):
            assert await refused(app, method, path) == "AccessDenied", path
    finally:
        await app.close()


async def test_what_would_reach_beyond_the_prefix_is_refused_with_its_path(acme: CoreplaneClient, prefix: str):
    at = {"target": "default/store"}
    user = {**at, "secret_key": {"from_file": "secrets/app"}}
    assert await faults(acme, "storage.bucket", "shop-images", at) == [""]
    assert await faults(acme, "storage.policy", f"{prefix}all", rights("")) == ["/document/Statement/0/Resource"]
    mine = f"{prefix}app"
    assert await faults(acme, "storage.user", mine, {**user, "policies": ["consoleAdmin"]}) == ["/policies/0"]
    assert await faults(acme, "storage.access_key", f"{prefix}key", {**user, "user": "coreplane"}) == ["/user"]
    assert await faults(acme, "storage.group", f"{prefix}g", {**at, "members": ["storefront"]}) == ["/members/0"]
    parameters = {**at, "subsystem": "api", "settings": {"requests_max": "1"}}
    assert await faults(acme, "storage.server_config", "api", parameters) == ["/target"]


async def test_the_owner_leaves_the_names_of_others_alone(acme: CoreplaneClient, owner: CoreplaneClient, prefix: str):
    assert await faults(owner, "storage.bucket", f"{prefix}files", {"target": "store"}) == [""]


async def test_objects_and_operations_stay_below_the_prefix_too(
    daemon: DaemonProcess, acme: CoreplaneClient, owner: CoreplaneClient, prefix: str
):
    shop, mine = fresh("shop"), f"{prefix}files"
    await made(owner, "storage.bucket", shop, {"target": "store"})
    await made(acme, "storage.bucket", mine, {"target": "default/store"})
    async with aiohttp.ClientSession(f"{daemon.url}/v1/tenants/") as http:
        async with http.put(f"acme/objects/default%2Fstore/{mine}/a", data=b"1") as put:
            assert put.status == 200, await put.text()
        async with http.get(f"acme/objects/default%2Fstore/{mine}/a") as got:
            assert await got.read() == b"1"
        for path in (f"{shop}/a", f"{mine}%2F..%2F..%2F{shop}/a"):
            async with http.get(f"acme/objects/default%2Fstore/{path}") as got:
                assert got.status in (403, 404, 422), path
                assert (await got.json())["reason"] in ("Forbidden", "Invalid"), path
        async with http.get(f"stranger/objects/default%2Fstore/{shop}/a") as got:
            assert got.status in (403, 404)
    listed = await acme.operate("storage.list", {"target": "default/store", "bucket": mine})
    assert [one["key"] for one in listed["result"]["objects"]] == ["a"]
    for operation, more in (("list", {}), ("presign", {"key": "a"}), ("empty", {"confirm": shop})):
        with pytest.raises(ApiError, match=f"begin with {prefix}"):
            await acme.operate(f"storage.{operation}", {"target": "default/store", "bucket": shop, **more})
