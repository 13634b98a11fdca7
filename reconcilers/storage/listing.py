"""Listings of versions, and what is made of them: what a bucket holds, what rules would remove, emptying it. I/O."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from reconcilers.contract import Fence, TerminalError
from reconcilers.storage.lifecycle import Expiring, Rule, Version, expiring, plain, tag
from reconcilers.storage.s3 import S3Client, bucket_path
from schemas.storage import ListObjects

PAGE: Final = 1_000
MOST_PREVIEWED: Final = 5_000
"""Versions that are looked at for what a rule would remove today."""
PREVIEW_S: Final = 2.0
EMPTYING_S: Final = 4.0
"""Of one step that empties a bucket; the next one goes on."""
NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass(frozen=True, slots=True)
class Listed:
    """One version, or one delete marker. `version_id` is `null` for what was written without versioning."""

    version: Version
    version_id: str
    etag: str = ""
    modified_text: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Some versions, and where the next page begins; None when there is none."""

    versions: Sequence[Listed]
    following: tuple[str, str] | None = None


async def page(
    client: S3Client, bucket: str, prefix: str = "", *, after: tuple[str, str] | None = None, most: int = PAGE
) -> Page:
    """Versions and delete markers, newest first for each key."""
    query = {"versions": "", "max-keys": str(most), "prefix": prefix}
    if after is not None:
        query |= {"key-marker": after[0], "version-id-marker": after[1]}
    root = plain(ET.fromstring(await client.get(bucket_path(bucket), query)))  # noqa: S314 - of the server we administer
    found = [_listed(element) for element in root if element.tag in ("Version", "DeleteMarker")]
    if root.findtext("IsTruncated") != "true":
        return Page(found)
    return Page(found, (root.findtext("NextKeyMarker") or "", root.findtext("NextVersionIdMarker") or ""))


async def pages(client: S3Client, bucket: str, prefix: str = "") -> AsyncIterator[Page]:
    """All pages."""
    after = None
    while True:
        found = await page(client, bucket, prefix, after=after)
        yield found
        after = found.following
        if after is None:
            return


async def first(client: S3Client, bucket: str) -> tuple[str, str] | None:
    """Key and version of the first that a bucket holds; None when it is empty, of delete markers too."""
    found = await page(client, bucket, most=1)
    return next(((one.version.key, one.version_id) for one in found.versions), None)


async def objects(client: S3Client, request: ListObjects) -> dict[str, Any]:
    """A page of current objects: `{objects, folders, next}`."""
    query = {"list-type": "2", "max-keys": str(request.limit), "prefix": request.prefix}
    query |= {"delimiter": "/"} if request.folders else {}
    query |= {"continuation-token": request.after} if request.after else {}
    root = plain(ET.fromstring(await client.get(bucket_path(request.bucket), query)))  # noqa: S314 - our own server
    found = [
        {
            "key": element.findtext("Key"),
            "size_bytes": int(element.findtext("Size") or 0),
            "modified": element.findtext("LastModified"),
            "etag": (element.findtext("ETag") or "").strip('"'),
        }
        for element in root.iterfind("Contents")
    ]
    folders = [element.findtext("Prefix") for element in root.iterfind("CommonPrefixes")]
    return {"objects": found, "folders": folders, "next": root.findtext("NextContinuationToken")}


async def preview(client: S3Client, bucket: str, rules: Sequence[Rule]) -> dict[str, Expiring]:
    """What each rule would remove today, of so many versions as can be looked at in a moment."""
    ends = time.monotonic() + PREVIEW_S
    found: dict[str, Expiring] = {}
    for rule in rules:
        versions: list[Version] = []
        complete = True
        async for one in pages(client, bucket, rule.prefix):
            versions += [listed.version for listed in one.versions]
            if one.following is not None and (len(versions) >= MOST_PREVIEWED or time.monotonic() > ends):
                complete = False
                break
        found[rule.id] = expiring(rule, versions, time.time(), complete=complete)
    return found


async def empty(client: S3Client, bucket: str, fence: Fence) -> int:
    """Remove versions from the beginning, until none is left or the time is over; how many were removed.

    TerminalError ObjectLocked for what can't be removed yet, naming it.
    """
    ends, removed = time.monotonic() + EMPTYING_S, 0
    while time.monotonic() < ends:
        found = await page(client, bucket)
        if not found.versions:
            break
        removed += await _remove(client, bucket, found.versions, fence)
    return removed


async def _remove(client: S3Client, bucket: str, versions: Sequence[Listed], fence: Fence) -> int:
    rows = "".join(
        f"<Object>{tag('Key', one.version.key)}{tag('VersionId', one.version_id)}</Object>" for one in versions
    )
    body = f'<Delete xmlns="{NAMESPACE}"><Quiet>true</Quiet>{rows}</Delete>'.encode()
    headers = {"x-amz-bypass-governance-retention": "true"}
    reply = await client.put(bucket_path(bucket), {"delete": ""}, body, fence, method="POST", headers=headers)
    failures = list(plain(ET.fromstring(reply.body)).iterfind("Error"))  # noqa: S314 - of the server we administer
    if failures:
        worst = failures[0]
        msg = f"{worst.findtext('Key')} can't be removed: {worst.findtext('Message') or worst.findtext('Code')}"
        raise TerminalError(msg, reason="ObjectLocked" if "WORM" in msg or "lock" in msg.lower() else "NotRemoved")
    return len(versions)


def _listed(element: ET.Element) -> Listed:
    modified = element.findtext("LastModified") or "1970-01-01T00:00:00Z"
    version = Version(
        key=element.findtext("Key") or "",
        size_bytes=int(element.findtext("Size") or 0),
        modified=datetime.fromisoformat(modified).timestamp(),
        latest=element.findtext("IsLatest") == "true",
        delete_marker=element.tag == "DeleteMarker",
    )
    return Listed(
        version, element.findtext("VersionId") or "null", (element.findtext("ETag") or "").strip('"'), modified
    )
