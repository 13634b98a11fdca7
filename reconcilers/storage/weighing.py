"""How much steps on buckets would touch, for plans. Reads only."""

from __future__ import annotations

from reconcilers.contract import NOTHING_TOLD, Affected, Step
from reconcilers.storage import listing
from reconcilers.storage.s3 import Refused, S3Client
from reconcilers.storage.steps import EmptyBucket, SetLifecycle


async def weigh(client: S3Client, step: Step) -> Affected:
    """Versions and bytes that would be gone: of a bucket that is emptied, and by what a rule removes today."""
    if isinstance(step, SetLifecycle):
        return _expiring(step)
    if not isinstance(step, EmptyBucket):
        return NOTHING_TOLD
    try:
        return await _held(client, step.external.name)
    except Refused as exc:
        raise exc.translated(step.external.name) from exc


def _expiring(step: SetLifecycle) -> Affected:
    found = [one for _, one in step.expiring]
    if not found:
        return NOTHING_TOLD
    counts = {"objects": sum(one.objects for one in found), "size_bytes": sum(one.size_bytes for one in found)}
    return Affected(counts, at_least=not all(one.complete for one in found))


async def _held(client: S3Client, bucket: str) -> Affected:
    objects, size_bytes, versions, following = 0, 0, 0, None
    async for page in listing.pages(client, bucket):
        objects += sum(one.version.latest and not one.version.delete_marker for one in page.versions)
        size_bytes += sum(one.version.size_bytes for one in page.versions)
        versions += len(page.versions)
        following = page.following
        if versions >= listing.MOST_PREVIEWED:
            break
    counts = {"objects": objects, "versions": versions, "size_bytes": size_bytes}
    return Affected(counts, at_least=following is not None)
