"""`coreplane up` with MinIO, which comes later: the example converges, versions come back, and everybody may do just what is
declared."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controlplane.client.http import CoreplaneClient
from tests.e2e.conditions import all_ready
from tests.e2e.test_up_and_down import Shell, nothing_is_left
from tests.integration import storage_world

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture
async def shell(tmp_path: Path, minio_program: Any) -> AsyncIterator[Shell]:
    """Inside, `coreplane up` runs with MinIO alone."""
    shell = Shell(tmp_path / "data")
    await shell("up", "--detach", "--port", "0", "--services", "storage")
    yield shell
    await shell("down")


async def may(shell: Shell, name: str, method: str, path: str) -> str:
    """What somebody who is declared may do: `yes`, or the code of the refusal."""
    secret = (shell.data / "secrets" / f"shop-{name}").read_text().strip()
    return await storage_world.may(shell.url("minio"), name, secret, method, path)


async def test_the_files_of_the_example_converge_when_the_server_has_come_and_are_used(shell: Shell):
    async with CoreplaneClient(shell.record()["url"]) as client:
        await all_ready(client, 120)
        url = f"{client.url}/v1/tenants/default/objects/main/"
        async with aiohttp.ClientSession(url) as http:
            for image in (b"the right one", b"a mistake"):
                async with http.put("shop-images/mug.jpg", data=image) as put:
                    assert put.status == 200
            versions = json.loads(
                await shell("op", "storage.versions", "target=main", "bucket=shop-images", "key=mug.jpg", "-o", "json")
            )["result"]["versions"]
            older = versions[1]["version"]
            await shell("op", "storage.restore", "target=main", "bucket=shop-images", "key=mug.jpg", f"version={older}")
            async with http.get("shop-images/mug.jpg") as get:
                assert await get.read() == b"the right one"
            async with http.put("shop-invoices/1.pdf", data=b"signed") as put:
                version = put.headers["x-amz-version-id"]
            async with http.delete("shop-invoices/1.pdf", params={"version": version}) as locked:
                assert locked.status == 422, await locked.text()
        async with aiohttp.ClientSession() as anybody:
            async with anybody.get(f"{shell.url('minio')}/shop-images/mug.jpg") as image:
                assert image.status == 200
            async with anybody.get(f"{shell.url('minio')}/shop-invoices/1.pdf") as invoice:
                assert invoice.status == 403
    assert await may(shell, "media", "PUT", "/shop-images/cup.jpg") == "yes"
    assert await may(shell, "media", "GET", "/shop-invoices/1.pdf") == "AccessDenied"
    assert await may(shell, "accountant", "GET", "/shop-invoices/1.pdf") == "yes"
    assert await may(shell, "accountant", "PUT", "/shop-invoices/2.pdf") == "AccessDenied"
    assert await may(shell, "draft-uploader", "PUT", "/shop-images/drafts/new.jpg") == "yes"
    assert await may(shell, "draft-uploader", "PUT", "/shop-images/mug.jpg") == "AccessDenied"
    await shell("down")
    await nothing_is_left(shell.data)
    assert no_secret_in(shell.data)


def no_secret_in(data: Path) -> bool:
    """Logs, journal and projection name where secrets are, never what they are."""
    secrets = [path.read_bytes().strip() for path in (data / "secrets").iterdir() if path.name.startswith("shop-")]
    kept = [
        path
        for path in data.rglob("*")
        if path.is_file() and path.relative_to(data).parts[0] not in ("secrets", "minio")
    ]
    assert len(secrets) >= 3
    assert len(kept) >= 3
    return not any(secret in path.read_bytes() for secret in secrets for path in kept)
