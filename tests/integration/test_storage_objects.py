"""Objects through the whole daemon: any size, memory that stays flat, nothing half written, versions that come back."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import psutil
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from controlplane.api.passing import passed_on
from controlplane.client.errors import ApiError
from controlplane.client.http import CoreplaneClient
from reconcilers.storage import objects
from reconcilers.storage.model import Versioning, versioning_document
from reconcilers.storage.s3 import Request, bucket_path
from tests.e2e.conditions import until
from tests.integration.storage_world import World, driven, fresh, world
from tests.servers import DaemonProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

MIB = 2**20
CHUNK = bytes(range(256)) * 1024


@pytest.fixture
async def client(daemon: DaemonProcess, minio_server: Any) -> AsyncIterator[CoreplaneClient]:
    async with driven(daemon, minio_server) as client:
        yield client


@pytest.fixture
async def outside(minio_server: Any) -> AsyncIterator[World]:
    async with world(minio_server) as w:
        yield w


@pytest.fixture
async def bucket(outside: World) -> str:
    """A bucket with versions, made by somebody else."""
    name = fresh("objects")
    await outside.client.call(Request("PUT", bucket_path(name)))
    await outside.put_raw(name, "versioning", versioning_document(Versioning("enabled")).decode())
    return name


@pytest.fixture
async def http(daemon: DaemonProcess, client: CoreplaneClient) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"{daemon.url}/v1/tenants/default/objects/main/") as session:
        yield session


async def body_of(size: int) -> AsyncIterator[bytes]:
    for begin in range(0, size, len(CHUNK)):
        yield CHUNK[: min(len(CHUNK), size - begin)]


def digest_of(size: int) -> str:
    found = hashlib.md5(usedforsecurity=False)
    for begin in range(0, size, len(CHUNK)):
        found.update(CHUNK[: min(len(CHUNK), size - begin)])
    return base64.b64encode(found.digest()).decode()


async def read_digest(http: aiohttp.ClientSession, path: str) -> tuple[int, str]:
    found, size = hashlib.md5(usedforsecurity=False), 0
    async with http.get(path) as response:
        assert response.status == 200
        async for chunk in response.content.iter_any():
            found.update(chunk)
            size += len(chunk)
    return size, base64.b64encode(found.digest()).decode()


@pytest.mark.parametrize("known", [True, False], ids=["size known", "size unknown"])
@pytest.mark.parametrize("size", [0, 1, 5 * MIB, objects.SINGLE_BYTES + 1, 3 * 16 * MIB])
async def test_what_is_written_is_read_again_whatever_its_size(
    http: aiohttp.ClientSession, bucket: str, size: int, known: bool
):
    headers = {"Content-Length": str(size)} if known else {}
    headers |= {"Content-MD5": digest_of(size), "x-amz-meta-origin": "test", "Content-Type": "text/html"}
    async with http.put(
        f"{bucket}/a folder/über&%2F+?".replace("?", "%3F"), data=body_of(size), headers=headers
    ) as put:
        assert put.status == 200, await put.text()
        assert put.headers["ETag"]
        assert put.headers["x-amz-version-id"]
    path = f"{bucket}/a folder/über&%2F+%3F"
    assert await read_digest(http, path) == (size, digest_of(size))
    async with http.head(path) as head:
        assert (head.status, head.headers["Content-Length"]) == (200, str(size))
        assert head.headers["x-amz-meta-origin"] == "test"
        assert head.headers["Content-Type"] == "text/html"
        assert "sandbox" in head.headers["Content-Security-Policy"], "what somebody stored is no page of the daemon"


async def test_a_range_is_a_part_and_conditions_count(http: aiohttp.ClientSession, bucket: str):
    async with http.put(f"{bucket}/o", data=b"0123456789") as put:
        etag = put.headers["ETag"]
    async with http.get(f"{bucket}/o", headers={"Range": "bytes=2-4"}) as part:
        assert (part.status, await part.read(), part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    async with http.get(f"{bucket}/o", headers={"Range": "bytes=50-"}) as beyond:
        assert (beyond.status, (await beyond.json())["reason"]) == (416, "RangeNotSatisfiable")
    async with http.get(f"{bucket}/o", headers={"If-None-Match": etag}) as same:
        assert same.status == 304
    async with http.get(f"{bucket}/o", headers={"If-Match": '"other"'}) as other:
        assert other.status == 412
    async with http.put(f"{bucket}/o", data=b"x", headers={"If-None-Match": "*"}) as exists:
        assert exists.status == 412


async def test_what_is_not_there_is_404_and_what_is_damaged_is_not_stored(http: aiohttp.ClientSession, bucket: str):
    async with http.get(f"{bucket}/none") as none:
        assert (none.status, (await none.json())["reason"]) == (404, "NotFound")
    async with http.get("no-such-bucket/none") as none:
        assert none.status == 404
    for size in (10, objects.SINGLE_BYTES + 1):
        headers = {"Content-MD5": digest_of(3), "Content-Length": str(size)}
        async with http.put(f"{bucket}/damaged", data=body_of(size), headers=headers) as damaged:
            assert damaged.status == 422, await damaged.text()
        async with http.head(f"{bucket}/damaged") as head:
            assert head.status == 404


async def test_an_object_is_removed_and_its_versions_are_listed_and_restored(
    http: aiohttp.ClientSession, client: CoreplaneClient, bucket: str
):
    for body in (b"first", b"second"):
        async with http.put(f"{bucket}/doc", data=body) as put:
            assert put.status == 200
    async with http.delete(f"{bucket}/doc") as gone:
        assert gone.status == 204
        assert gone.headers["x-amz-delete-marker"] == "true"
    async with http.get(f"{bucket}/doc") as none:
        assert none.status == 404
    asked = {"target": "main", "bucket": bucket, "key": "doc"}
    found = (await client.operate("storage.versions", asked))["result"]["versions"]
    assert [(one["deleted"], one["size_bytes"]) for one in found] == [(True, 0), (False, 6), (False, 5)]
    async with http.get(f"{bucket}/doc", params={"version": found[2]["version"]}) as old:
        assert await old.read() == b"first"
    restored = await client.operate("storage.restore", {**asked, "version": found[2]["version"]})
    async with http.get(f"{bucket}/doc") as now:
        assert (await now.read(), now.headers["x-amz-version-id"]) == (b"first", restored["result"]["version"])
    async with http.delete(f"{bucket}/doc", params={"version": found[1]["version"]}) as gone:
        assert gone.status == 204
    found = (await client.operate("storage.versions", asked))["result"]["versions"]
    assert [one["size_bytes"] for one in found] == [5, 0, 5]


async def test_a_presigned_url_lets_anybody_do_just_that(client: CoreplaneClient, bucket: str):
    asked = {"target": "main", "bucket": bucket, "key": "shared/report 1.txt"}
    put = (await client.operate("storage.presign", {**asked, "method": "put", "expires_s": 60}))["result"]
    get = (await client.operate("storage.presign", {**asked, "expires_s": 60}))["result"]
    async with aiohttp.ClientSession() as session:
        async with session.put(URL(put["url"], encoded=True), data=b"by anybody") as stored:
            assert stored.status == 200, await stored.text()
        async with session.get(URL(get["url"], encoded=True)) as read:
            assert await read.read() == b"by anybody"
        async with session.put(URL(get["url"], encoded=True), data=b"x") as refused:
            assert refused.status == 403


async def test_objects_are_listed_counted_and_a_bucket_is_emptied_only_when_it_is_named_twice(
    http: aiohttp.ClientSession, client: CoreplaneClient, bucket: str
):
    for key in ("a/1", "a/2", "b/1", "top"):
        async with http.put(f"{bucket}/{key}", data=b"12345") as put:
            assert put.status == 200
    async with http.put(f"{bucket}/top", data=b"1") as put:
        assert put.status == 200
    where = {"target": "main", "bucket": bucket}
    listed = (await client.operate("storage.list", {**where, "folders": True}))["result"]
    assert ([one["key"] for one in listed["objects"]], listed["folders"]) == (["top"], ["a/", "b/"])
    page = (await client.operate("storage.list", {**where, "limit": 3}))["result"]
    rest = (await client.operate("storage.list", {**where, "limit": 3, "after": page["next"]}))["result"]
    assert [one["key"] for one in page["objects"] + rest["objects"]] == ["a/1", "a/2", "b/1", "top"]
    usage = (await client.operate("storage.usage", where))["result"]
    assert (usage["objects"], usage["versions"], usage["size_bytes"], usage["noncurrent_bytes"]) == (4, 5, 21, 5)
    assert usage["by_prefix"][0] == {"prefix": "a/", "size_bytes": 10}
    assert usage["by_age"] == {"day": 21}
    with pytest.raises(ApiError, match="not valid"):
        await client.operate("storage.empty", {**where, "confirm": "other-name"})
    await client.put_setting("storage.bucket", bucket, {"value": {"target": "main"}}, wait="Ready", wait_s=30)
    with pytest.raises(ApiError, match=r"policy.allow: \[EmptyBucket\]"):
        await client.operate("storage.empty", {**where, "confirm": bucket})
    permitted = {"value": {"target": "main"}, "policy": {"allow": ["EmptyBucket"]}}
    await client.put_setting("storage.bucket", bucket, permitted)
    emptied = (await client.operate("storage.empty", {**where, "confirm": bucket}))["result"]
    assert emptied == {"removed": 5, "empty": True}


async def test_memory_stays_flat_however_much_is_streamed(
    http: aiohttp.ClientSession, daemon: DaemonProcess, bucket: str
):
    process = psutil.Process(daemon.pid)
    async with http.put(f"{bucket}/warm", data=body_of(32 * MIB)) as put:
        assert put.status == 200
    before = process.memory_info().rss
    size = 256 * MIB
    async with http.put(f"{bucket}/big", data=body_of(size), headers={"Content-Length": str(size)}) as put:
        assert put.status == 200
    assert (await read_digest(http, f"{bucket}/big"))[0] == size
    assert process.memory_info().rss - before < 100 * MIB


async def test_a_reader_that_takes_nothing_is_cut_and_one_that_waits_for_us_is_not():
    cut = asyncio.Event()

    async def paused() -> AsyncIterator[bytes]:
        for _ in range(2):
            yield b"x" * MIB
            await asyncio.sleep(0.8)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * MIB

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            await passed_on(paused() if request.path == "/paused" else endless(), response, 0.4)
        except TimeoutError:
            cut.set()
            raise
        return response

    app = web.Application()
    app.router.add_get("/{what}", handle)
    async with TestServer(app) as server, aiohttp.ClientSession(server.make_url("/")) as session:
        async with session.get("paused") as slow:
            assert len(await slow.read()) == 2 * MIB
        async with session.get("endless"):
            await asyncio.wait_for(cut.wait(), 30)


async def uploads_of(w: World, bucket: str) -> bytes:
    return await w.client.get(bucket_path(bucket), {"uploads": "", "prefix": "broken"})


@pytest.mark.parametrize("size", [4 * MIB, 64 * MIB], ids=["one request", "in parts"])
async def test_a_sender_that_leaves_half_way_leaves_no_object_and_no_upload(
    daemon: DaemonProcess, client: CoreplaneClient, outside: World, bucket: str, size: int
):
    host, port = "127.0.0.1", int(daemon.url.rpartition(":")[2])
    _, writer = await asyncio.open_connection(host, port)
    head = f"PUT /v1/tenants/default/objects/main/{bucket}/broken HTTP/1.1\r\nHost: {host}:{port}\r\n"
    writer.write(f"{head}Content-Length: {size}\r\n\r\n".encode())
    for _ in range(size // len(CHUNK) // 2):
        writer.write(CHUNK)
        await writer.drain()
    writer.close()

    async def aborted() -> bool:
        return b"<UploadId>" not in await uploads_of(outside, bucket)

    await until(aborted, 30, "the upload is aborted")
    listed = (await client.operate("storage.versions", {"target": "main", "bucket": bucket, "key": "broken"}))["result"]
    assert listed["versions"] == []


async def test_a_server_that_is_killed_mid_upload_is_told_to_the_sender_and_leaves_no_object(
    daemon: DaemonProcess, own_minio: Any
):
    async with driven(daemon, own_minio, "own") as client:
        await client.put_setting("storage.bucket", "fragile", {"value": {"target": "own"}}, wait="Ready", wait_s=30)

        async def dying() -> AsyncIterator[bytes]:
            for number in range(160):
                if number == 100:
                    await own_minio.kill()
                yield CHUNK

        url = f"{daemon.url}/v1/tenants/default/objects/own/fragile/half"
        async with aiohttp.ClientSession() as session, session.put(url, data=dying()) as put:
            assert put.status == 503, await put.text()
        await own_minio.start()

        async def read() -> int:
            async with aiohttp.ClientSession() as session, session.get(url) as get:
                return get.status if get.status != 503 else 0

        assert await until(read, 60, "the target is up again") == 404


def test_parts_are_never_too_many():
    for size in (objects.SINGLE_BYTES + 1, 10**9, 5 * 10**12):
        assert objects.part_bytes(size) * objects.MOST_PARTS >= size
    assert objects.part_bytes(None) > objects.part_bytes(10**9)
