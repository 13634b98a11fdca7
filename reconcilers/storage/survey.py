"""What only a look at everything tells: what is cold, what the rules will remove, which uploads were never finished. I/O.

Buckets are walked one after the other, a few pages at a time, so that a look costs the same however much there is. A bucket
is told of when its walk has reached the end, and again now and then until the next one has; of very many those with most in
them. Versions of one key that are on two pages are counted as if the second page's were those of another key.
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

PAGES: Final = 2
"""Of a thousand versions, each time."""
MOST_LOOKED_AT: Final = 10
"""Buckets that are walked each time, if they are small."""
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
    ended: float = 0.0
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
        self._walk: Walk | None = None
        self._done: dict[str, Walk] = {}

    async def look(self, held: Iterable[Held]) -> list[Measurement]:
        """Walk on for a moment; what is to be told now. Raises what the client raises."""
        buckets = dict(held)
        self._done = {name: walk for name, walk in self._done.items() if name in buckets}
        pages = PAGES
        for _ in range(MOST_LOOKED_AT):
            walk = self._walk or self._next(buckets)
            if walk is None or pages <= 0:
                break
            pages = await self._go_on(walk, pages)
        return self._news()

    def _news(self) -> list[Measurement]:
        now = time.monotonic()
        most = sorted(self._done.values(), key=lambda walk: -sum(walk.values.values()))[:MOST_TOLD]
        news = [walk for walk in most if walk.told is None or walk.told <= now - TOLD_S]
        for walk in news:
            walk.told = now
        return [Measurement(what, n, {"bucket": walk.bucket}) for walk in news for what, n in walk.values.items()]

    def _next(self, buckets: dict[str, HeldBucket]) -> Walk | None:
        """The bucket whose last walk is the longest ago; None while all were walked lately."""
        due = time.monotonic() - AGAIN_S
        ended = {name: self._done[name].ended if name in self._done else -math.inf for name in buckets}
        name = min(ended, key=ended.__getitem__, default=None)
        if name is None or ended[name] > due:
            return None
        rules = [rule for rule in buckets[name].rules.rules.values() if rule.removes]
        return Walk(name, rules)

    async def _go_on(self, walk: Walk, pages: int) -> int:
        """Count the next pages; how many may still be read."""
        self._walk = None  # begun anew if this fails
        try:
            while pages > 0:
                page = await listing.page(self._client, walk.bucket, after=walk.following, most=self._page)
                walk.count([one.version for one in page.versions], time.time(), self._cold_s)
                pages, walk.following = pages - (1 if page.following else 0), page.following
                if page.following is None:
                    walk.values |= await self._uploads(walk.bucket)
                    break
        except Refused:
            walk.values, walk.following = {}, None  # gone, or not ours to list
        if walk.following is not None:
            self._walk = walk
            return 0
        walk.ended = time.monotonic()
        self._done[walk.bucket] = walk
        return pages

    async def _uploads(self, bucket: str) -> dict[str, float]:
        """Uploads that were begun and neither ended nor given up; how large they are isn't told."""
        root = plain(ET.fromstring(await self._client.get(bucket_path(bucket), {"uploads": ""})))  # noqa: S314 - our server
        return {"bucket_incomplete_uploads": float(len(root.findall("Upload")))}
