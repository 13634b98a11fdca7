"""Objects streamed through the daemon, with memory that doesn't grow with their size. I/O.

Reading: the server's answer is passed on chunk by chunk; the reader's pace is the server's. Writing: a small body is passed
on as one request. Everything else goes in parts, two of them under way while the next one arrives.
The server's checksum of each part must be that of what was sent, and that of the whole what the sender said. Whatever ends
early, sender, server or daemon, leaves no object: one request is dropped by the server, an upload in parts is aborted.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from reconcilers.contract import StreamAnswer, StreamRequest, TerminalError, Unreachable
from reconcilers.storage.lifecycle import plain, tag
from reconcilers.storage.s3 import Refused, Request, S3Client, object_path, refused

SINGLE_BYTES: Final = 16 * 2**20
"""Bodies up to this are one request."""
PART_BYTES: Final = 8 * 2**20
MOST_PARTS: Final = 10_000
PARTS_AT_ONCE: Final = 2
SLICE_BYTES: Final = 512 * 1024
TIMEOUT_S: Final = 60.0
ABORT_S: Final = 10.0
PASSED_ON: Final = ("range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
KEPT: Final = ("content-type", "cache-control", "content-encoding", "content-language", "expires")
TOLD: Final = frozenset(
    {
        "content-type",
        "content-length",
        "content-range",
        "content-encoding",
        "content-language",
        "cache-control",
        "etag",
        "last-modified",
        "expires",
        "accept-ranges",
        "x-amz-version-id",
        "x-amz-delete-marker",
    }
)
REASONS: Final = {
    "NoSuchKey": "NotFound",
    "NoSuchVersion": "NotFound",
    "NoSuchBucket": "NotFound",
    "NotFound": "NotFound",
    "Http404": "NotFound",
    "MethodNotAllowed": "NotFound",  # a version that is a delete marker
    "Http405": "NotFound",
    "PreconditionFailed": "PreconditionFailed",
    "Http412": "PreconditionFailed",
    "InvalidRange": "RangeNotSatisfiable",
    "Http416": "RangeNotSatisfiable",
    "BadDigest": "Invalid",
    "InvalidDigest": "Invalid",
    "XMinioInvalidObjectName": "Invalid",
    "InvalidBucketName": "Invalid",
}


@asynccontextmanager
async def stream(client: S3Client, request: StreamRequest) -> AsyncIterator[StreamAnswer]:
    """Serve one request; the path is BUCKET/KEY."""
    bucket, _, key = request.path.partition("/")
    if not bucket or not key:
        raise TerminalError("the path is BUCKET/KEY", reason="NotFound")
    if any(part in (".", "..") for part in key.split("/")):
        raise TerminalError("no part of a key is . or ..", reason="Invalid")
    try:
        if request.method in ("GET", "HEAD"):
            async with _reading(client, object_path(bucket, key), request) as answer:
                yield answer
        elif request.method == "PUT":
            yield await _written(client, object_path(bucket, key), request)
        else:
            yield await _removed(client, object_path(bucket, key), request)
    except Refused as exc:
        if exc.status == 304:
            yield StreamAnswer(304, {})
            return
        error = exc.translated(f"{bucket}/{key}")
        reason = REASONS.get(exc.code, exc.code)
        raise (TerminalError(error.message, reason=reason) if isinstance(error, TerminalError) else error) from exc


@asynccontextmanager
async def _reading(client: S3Client, path: str, request: StreamRequest) -> AsyncIterator[StreamAnswer]:
    headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
    asked = Request(request.method, path, _version(request), headers, timeout_s=TIMEOUT_S)
    async with client.opened(asked) as response:
        told = _told(response.headers)
        body = client.chunks(response) if request.method == "GET" else None
        yield StreamAnswer(response.status, told, body)


async def _written(client: S3Client, path: str, request: StreamRequest) -> StreamAnswer:
    headers = {name: request.headers[name] for name in KEPT if name in request.headers}
    headers |= {name: value for name, value in request.headers.items() if name.startswith("x-amz-meta-")}
    conditions = {name: request.headers[name] for name in ("if-match", "if-none-match") if name in request.headers}
    body = request.body if request.body is not None else _nothing()
    digest = request.headers.get("content-md5")
    size = request.size_bytes
    parts = _parts(body, part_bytes(size))
    if size is None:
        begin = await anext(parts)
        following = await anext(parts, None)
        if following is None:
            body, size = _slices(begin), len(begin)
        else:
            parts = _again((begin, following), parts)
    if size is not None and size <= SINGLE_BYTES:
        whole = headers | conditions | ({"content-md5": digest} if digest else {})
        reply = await client.call(Request("PUT", path, (), whole, body if size else b"", size, TIMEOUT_S))
        return StreamAnswer(200, _stored(reply.headers))
    return await _Upload(client, path).run(parts, headers, conditions, digest)


async def _removed(client: S3Client, path: str, request: StreamRequest) -> StreamAnswer:
    reply = await client.call(Request("DELETE", path, _version(request), timeout_s=TIMEOUT_S))
    return StreamAnswer(204, {name: value for name, value in _told(reply.headers).items() if name.startswith("x-amz")})


def part_bytes(size_bytes: int | None) -> int:
    """How large the parts are, so that there aren't too many of them; twice as large when nobody knows how many."""
    if size_bytes is None:
        return 2 * PART_BYTES
    return max(PART_BYTES, -(-size_bytes // MOST_PARTS))


class _Upload:
    """One upload in parts."""

    def __init__(self, client: S3Client, path: str) -> None:
        self._client = client
        self._path = path
        self._etags: dict[int, str] = {}
        self._whole = hashlib.md5(usedforsecurity=False)

    async def run(
        self, parts: AsyncIterator[bytes], headers: Mapping[str, str], conditions: Mapping[str, str], digest: str | None
    ) -> StreamAnswer:
        """All of it, or nothing."""
        begun = await self._client.call(Request("POST", self._path, {"uploads": ""}, headers))
        upload = plain(ET.fromstring(begun.body)).findtext("UploadId") or ""  # noqa: S314 - of the server that we administer
        try:
            await self._send(upload, parts, counts=digest is not None)
            self._check(digest)
            return await self._complete(upload, conditions)
        except BaseException:
            await self._abort(upload)
            raise

    def _check(self, digest: str | None) -> None:
        if digest is not None and base64.b64encode(self._whole.digest()).decode() != digest:
            raise TerminalError("the body isn't what Content-MD5 says", reason="Invalid")

    async def _send(self, upload: str, parts: AsyncIterator[bytes], *, counts: bool) -> None:
        going: set[asyncio.Task[None]] = set()
        number = 0
        try:
            async for part in parts:
                number += 1
                if counts:
                    await asyncio.to_thread(self._whole.update, part)
                if len(going) == PARTS_AT_ONCE:
                    done, going = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                going.add(asyncio.create_task(self._put(upload, number, part), name=f"part {number}"))
            for task in list(going):
                await task
        finally:
            for task in going:
                task.cancel()
            if going:
                await asyncio.wait(going)

    async def _put(self, upload: str, number: int, part: bytes) -> None:
        query = {"partNumber": str(number), "uploadId": upload}
        request = Request("PUT", self._path, query, body=_slices(part), size_bytes=len(part), timeout_s=TIMEOUT_S)
        reply, digest = await asyncio.gather(self._client.call(request), asyncio.to_thread(_md5, part))
        etag = reply.headers.get("ETag", "").strip('"')
        if len(etag) == len(digest) and etag != digest:
            raise Unreachable(f"part {number} arrived damaged", reason="Damaged")
        self._etags[number] = etag

    async def _complete(self, upload: str, conditions: Mapping[str, str]) -> StreamAnswer:
        rows = "".join(
            f"<Part>{tag('PartNumber', number)}{tag('ETag', etag)}</Part>"
            for number, etag in sorted(self._etags.items())
        )
        body = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()
        request = Request("POST", self._path, {"uploadId": upload}, dict(conditions), body, timeout_s=TIMEOUT_S)
        reply = await self._client.call(request)
        root = plain(ET.fromstring(reply.body))  # noqa: S314 - of the server that we administer
        if root.tag == "Error":  # with status 200, since the server answers before it knows
            raise refused(500, reply.body)
        return StreamAnswer(200, _stored(reply.headers) | {"ETag": root.findtext("ETag") or ""})

    async def _abort(self, upload: str) -> None:
        """As far as possible: the server removes what is left after a day by itself."""
        request = Request("DELETE", self._path, {"uploadId": upload})
        with contextlib.suppress(Refused, Unreachable, TimeoutError):
            async with asyncio.timeout(ABORT_S):
                await self._client.call(request)


async def _parts(body: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """The body in parts of this size; at least one, which may be empty."""
    held = bytearray()
    count = 0
    async for chunk in body:
        held += chunk
        while len(held) >= size:
            yield bytes(memoryview(held)[:size])
            del held[:size]
            count += 1
    if held or not count:
        yield bytes(held)


async def _again(begin: tuple[bytes, ...], parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    for part in begin:
        yield part
    async for part in parts:
        yield part


async def _slices(part: bytes) -> AsyncIterator[bytes]:
    view = memoryview(part)
    for begin in range(0, len(part), SLICE_BYTES):
        yield bytes(view[begin : begin + SLICE_BYTES])


async def _nothing() -> AsyncIterator[bytes]:
    empty: tuple[bytes, ...] = ()
    for chunk in empty:
        yield chunk


def _md5(part: bytes) -> str:
    return hashlib.md5(part, usedforsecurity=False).hexdigest()


def _version(request: StreamRequest) -> dict[str, str]:
    return {"versionId": request.version} if request.version else {}


def _told(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in headers.items()
        if name.lower() in TOLD or name.lower().startswith(("x-amz-meta-", "x-amz-checksum-"))
    }


def _stored(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() in ("etag", "x-amz-version-id")}
