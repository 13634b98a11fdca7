"""What only a look at everything tells: what is cold, what the rules will remove, which uploads were never finished. I/O.

Buckets are walked in turns of a few pages, whoever waited longest first, and go on where they were: a look costs the same
however much there is, and a huge bucket holds nobody up. A bucket is told of when its walk has reached the end, and again now
and then until the next one has; of very many those with most in them. Versions of one key that are on two pages are counted
as if the second page's were those of another key. Uploads that were never finished are at least so many: MinIO lists those
that were begun since its own start (it keeps them in memory), and a thousand at most.
"""

from __future__ import annotations

import math
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from reconcilers.contract import Measurement
from reconcilers.storage import listing
from reconcilers.storage.lifecycle import DAY_S, Rule, Version, plain, removed
from reconcilers.storage.model import HeldBucket
from reconcilers.storage.s3 import Refused, S3Client, bucket_path

PAGES: Final = 10
"""Of a thousand versions, each time."""
TURN: Final = 2
"""Of them of one bucket."""
MOST_TOLD: Final = 100
AGAIN_S: Final = 600.0
"""A bucket isn't walked more often."""
TOLD_S: Final = 120.0
"""What is known is told again so often: values that nobody tells are forgotten."""
COLD_S: Final = 90 * DAY_S
AHEAD_S: Final = 7 * DAY_S

Held = tuple[str, HeldBucket]


@dataclass(slots=True)
class Walk:
    """What was counted of a bucket so far."""

    bucket: str
    rules: Sequence[Rule]
    following: tuple[str, str] | None = None
    looked: float = -math.inf
    """When its last turn was; once the walk has ended: when."""
    told: float | None = None
    """When it was told last."""
    values: dict[str, float] = field(
        default_factory=lambda: {
            "bucket_cold_objects": 0.0,
            "bucket_cold_bytes": 0.0,
            "bucket_expiring_versions": 0.0,
            "bucket_expiring_bytes": 0.0,
        }
    )

    def count(self, versions: Sequence[Version], now: float, cold_s: float) -> None:
        """Add a page. Only what is current may be cold."""
        current = [one for one in versions if one.latest and not one.delete_marker]
        cold = [one.size_bytes for one in current if one.modified <= now - cold_s]
        going = [one.size_bytes for one in removed(self.rules, versions, now + AHEAD_S)]
        self.values["bucket_cold_objects"] += len(cold)
        self.values["bucket_cold_bytes"] += sum(cold)
        self.values["bucket_expiring_versions"] += len(going)
        self.values["bucket_expiring_bytes"] += sum(going)


class Survey:
    """Walks of one server's buckets. `cold_s`: after so long without being written an object is cold."""

    def __init__(self, client: S3Client, *, cold_s: float = COLD_S, page: int = listing.PAGE) -> None:
        self._page = page
        self._client = client
        self._cold_s = cold_s
        self._open: dict[str, Walk] = {}
        self._done: dict[str, Walk] = {}

    async def look(self, held: Iterable[Held]) -> list[Measurement]:
        """Walk on for a moment; what is to be told now. Raises what the client raises."""
        buckets = dict(held)
        self._open = {name: walk for name, walk in self._open.items() if name in buckets}
        self._done = {name: walk for name, walk in self._done.items() if name in buckets}
        pages = PAGES
        for name in self._waiting(buckets)[:PAGES]:
            if pages <= 0:
                break
            pages -= await self._turn(self._walk_of(name, buckets[name]), min(TURN, pages))
        return self._news()

    def _news(self) -> list[Measurement]:
        now = time.monotonic()
        most = sorted(self._done.values(), key=lambda walk: -sum(walk.values.values()))[:MOST_TOLD]
        news = [walk for walk in most if walk.told is None or walk.told <= now - TOLD_S]
        for walk in news:
            walk.told = now
        return [Measurement(what, n, {"bucket": walk.bucket}) for walk in news for what, n in walk.values.items()]

    def _waiting(self, buckets: Iterable[str]) -> list[str]:
        """The buckets that weren't walked to the end lately, and first among them whose last turn is the longest ago."""
        due = time.monotonic() - AGAIN_S
        ended = {name: self._done[name].looked if name in self._done else -math.inf for name in buckets}
        waiting = {name: at for name, at in ended.items() if at <= due}
        waiting |= {name: walk.looked for name, walk in self._open.items()}
        return sorted(waiting, key=waiting.__getitem__)

    def _walk_of(self, name: str, held: HeldBucket) -> Walk:
        """The one that goes on; begun anew if its turn fails."""
        return self._open.pop(name, None) or Walk(name, [rule for rule in held.rules.rules.values() if rule.removes])

    async def _turn(self, walk: Walk, most: int) -> int:
        """Count the next pages; how many were read."""
        read = 0
        try:
            while read < most:
                page = await listing.page(self._client, walk.bucket, after=walk.following, most=self._page)
                read += 1
                walk.count([one.version for one in page.versions], time.time(), self._cold_s)
                walk.following = page.following
                if page.following is None:
                    walk.values |= await self._uploads(walk.bucket)
                    break
        except Refused:
            walk.values, walk.following = {}, None  # gone, or not ours to list
        walk.looked = time.monotonic()
        (self._done if walk.following is None else self._open)[walk.bucket] = walk
        return max(1, read)

    async def _uploads(self, bucket: str) -> dict[str, float]:
        """Uploads that were begun and neither ended nor given up, as far as the server knows; not how large they are."""
        root = plain(ET.fromstring(await self._client.get(bucket_path(bucket), {"uploads": ""})))  # noqa: S314 - our server
        return {"bucket_incomplete_uploads": float(len(root.findall("Upload")))}
