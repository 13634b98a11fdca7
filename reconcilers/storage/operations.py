"""Operations of storage: presign, list, versions, restore, usage, empty. The order of things; requests are `listing`'s.

Emptying can't be undone, so the request names the bucket twice, and of a declared one the policy permits it. An operation
lasts a minute at most, so a large bucket takes several; each goes on where the last one ended.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Final

from reconcilers.contract import BackendError, ExternalId, Operation, OperationContext, TerminalError
from reconcilers.storage import listing
from reconcilers.storage.lifecycle import DAY_S
from reconcilers.storage.listing import Listed
from reconcilers.storage.model import BUCKET
from reconcilers.storage.s3 import Refused, Request, S3Client, object_path
from reconcilers.storage.steps import EmptyBucket
from schemas.names import timestamp
from schemas.storage import Empty, ListObjects, OfBucket, Presign, Restore, Usage, Versions

EMPTYING_S: Final = 40.0
AGES: Final = (("day", 1), ("week", 7), ("month", 30), ("year", 365))
"""Age classes: younger than so many days."""
MOST_PREFIXES: Final = 20


class _Open:
    """The fence of an operation: it runs under the shard's mark already."""

    token = (0, 0)

    def check(self) -> None:
        """Always open; the operation's own deadline ends it."""

    def still_ours(self) -> None:
        """As long as the operation runs."""


async def _client(ctx: OperationContext, request: OfBucket) -> S3Client:
    """Raises `TerminalError` for a bucket that isn't the tenant's, on a server that it shares."""
    prefix = ctx.prefix(request.target)
    if not request.bucket.startswith(prefix):
        raise TerminalError(f"buckets of yours on {request.target} begin with {prefix}", reason="NotShared")
    client: S3Client = (await ctx.backend(request.target)).client
    return client


async def presign(ctx: OperationContext, request: Presign) -> dict[str, Any]:
    """→ `{url, method, expires_at}`. Nothing is asked of the server: the URL counts from the start."""
    client = await _client(ctx, request)
    query = {"versionId": request.version} if request.version else {}
    url = client.presigned(request.method.upper(), object_path(request.bucket, request.key), query, request.expires_s)
    return {"url": url, "method": request.method.upper(), "expires_at": timestamp(time.time() + request.expires_s)}


async def list_objects(ctx: OperationContext, request: ListObjects) -> dict[str, Any]:
    """→ `{objects: [{key, size_bytes, modified, etag}], folders, next}`."""
    client = await _client(ctx, request)
    try:
        return await listing.objects(client, request)
    except Refused as exc:
        raise exc.translated(request.bucket) from exc


async def versions(ctx: OperationContext, request: Versions) -> dict[str, Any]:
    """→ `{versions: [{version, latest, deleted, size_bytes, modified, etag}]}`, newest first."""
    client = await _client(ctx, request)
    found: list[dict[str, Any]] = []
    try:
        async for page in listing.pages(client, request.bucket, request.key):
            mine = [one for one in page.versions if one.version.key == request.key]
            found += map(_told, mine)
            if len(mine) < len(page.versions) or len(found) >= request.limit:
                break
    except Refused as exc:
        raise exc.translated(request.bucket) from exc
    return {"versions": found[: request.limit]}


async def restore(ctx: OperationContext, request: Restore) -> dict[str, Any]:
    """→ `{version}`: of the copy that is the newest one now. Whoever reads meanwhile reads the old one or the new one."""
    client = await _client(ctx, request)
    path = object_path(request.bucket, request.key)
    source = f"{path}?versionId={request.version}"
    headers = {"x-amz-copy-source": source, "x-amz-metadata-directive": "COPY"}
    try:
        reply = await client.call(Request("PUT", path, (), headers, timeout_s=EMPTYING_S))
    except Refused as exc:
        raise exc.translated(f"{request.bucket}/{request.key}") from exc
    return {"version": reply.headers.get("x-amz-version-id"), "restored": request.version}


async def usage(ctx: OperationContext, request: Usage) -> dict[str, Any]:
    """→ `{objects, versions, size_bytes, noncurrent_bytes, by_prefix, by_age, complete}`."""
    client = await _client(ctx, request)
    sizes: Counter[str] = Counter()
    prefixes: Counter[str] = Counter()
    ages: Counter[str] = Counter()
    complete = True
    try:
        async for page in listing.pages(client, request.bucket, request.prefix):
            for one in page.versions:
                _count(one, request.prefix, sizes, prefixes, ages)
            complete = page.following is None
            if sizes["versions"] >= request.sample:
                break
    except Refused as exc:
        raise exc.translated(request.bucket) from exc
    fields = ("objects", "versions", "size_bytes", "noncurrent_bytes", "delete_markers")
    largest = [{"prefix": name, "size_bytes": size} for name, size in prefixes.most_common(MOST_PREFIXES)]
    return {**{name: sizes[name] for name in fields}, "by_prefix": largest, "by_age": dict(ages), "complete": complete}


def _count(one: Listed, below: str, sizes: Counter[str], prefixes: Counter[str], ages: Counter[str]) -> None:
    version = one.version
    sizes["versions"] += 1
    sizes["size_bytes"] += version.size_bytes
    if version.delete_marker:
        sizes["delete_markers"] += 1
        return
    sizes["objects"] += version.latest
    sizes["noncurrent_bytes"] += 0 if version.latest else version.size_bytes
    folder, slash, _ = version.key[len(below) :].partition("/")
    prefixes[f"{below}{folder}/" if slash else below or "/"] += version.size_bytes
    days = (time.time() - version.modified) / DAY_S
    ages[next((name for name, limit in AGES if days < limit), "older")] += version.size_bytes


async def empty(ctx: OperationContext, request: Empty) -> dict[str, Any]:
    """→ `{removed, empty}`; when it isn't empty yet, ask again. One that is declared must permit it."""
    client = await _client(ctx, request)
    allowed = ctx.allowed(request.target, ExternalId(BUCKET, request.bucket))
    if allowed is not None and EmptyBucket.__name__ not in allowed:
        message = f"{request.bucket} is declared, and its policy doesn't permit it: policy.allow: [EmptyBucket] does"
        raise TerminalError(message, reason="NotAllowed")
    ends, removed = time.monotonic() + EMPTYING_S, 0
    try:
        while time.monotonic() < ends:
            removed += await listing.empty(client, request.bucket, _Open())
            if await listing.first(client, request.bucket) is None:
                return {"removed": removed, "empty": True}
    except Refused as exc:
        raise exc.translated(request.bucket) from exc
    except BackendError as exc:
        message = f"{exc.message} ({removed} versions were removed before)"
        raise TerminalError(message, reason=exc.reason) from exc
    return {"removed": removed, "empty": False}


def _told(one: Listed) -> dict[str, Any]:
    version = one.version
    return {
        "version": one.version_id,
        "latest": version.latest,
        "deleted": version.delete_marker,
        "size_bytes": version.size_bytes,
        "modified": one.modified_text,
        "etag": one.etag,
    }


def _target(_ctx: OperationContext, request: Any) -> str:
    return str(request.target)


OPERATIONS: tuple[Operation, ...] = (
    Operation("presign", Presign, _target, presign, effect=False, confined=True),
    Operation("list", ListObjects, _target, list_objects, effect=False, confined=True),
    Operation("versions", Versions, _target, versions, effect=False, confined=True),
    Operation("restore", Restore, _target, restore, confined=True),
    Operation("usage", Usage, _target, usage, effect=False, confined=True),
    Operation("empty", Empty, _target, empty, confined=True),
)
