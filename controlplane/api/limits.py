"""How often, and how many at once: counted by this replica for itself, by who or what is limited.

How often: a token bucket, which holds the calls of one second. How many at once: what is held is given back.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from controlplane.domain.errors import Reason, Refused

MOST_BUCKETS: Final = 10_000
"""The least recently used are forgotten, which gives their owners a full bucket again."""


HELD_RETRY_S: Final = 5.0
"""Nobody knows when somebody will have closed one."""


class Limits:
    """Everybody's buckets."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()
        """What is limited, and for whom → (calls left, when that was)."""
        self._held: Counter[tuple[str, str]] = Counter()

    def take(self, what: str, who: str, per_s: float | None, now: float) -> None:
        """Count one call of `who`. Raises `Refused` (TooManyRequests) when it comes too soon; None: nothing is counted.

        `now`: monotonic seconds.
        """
        if per_s is None:
            return
        most = max(1.0, per_s)
        left, since = self._buckets.pop((what, who), (most, now))
        left = min(most, left + (now - since) * per_s)
        if left < 1.0:
            self._buckets[what, who] = (left, now)
            detail = f"{who} may make {per_s:g} {what} a second"
            raise Refused(Reason.TOO_MANY_REQUESTS, detail, retry_after_s=(1.0 - left) / per_s)
        self._buckets[what, who] = (left - 1.0, now)
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)

    @contextmanager
    def holding(self, what: str, who: str, most: int) -> Iterator[None]:
        """Inside, `who` holds one more. Raises `Refused` (TooManyRequests) when that would be more than `most`."""
        if self._held[what, who] >= most:
            detail = f"{who} has {most} {what} open, which is as many as it may"
            raise Refused(Reason.TOO_MANY_REQUESTS, detail, retry_after_s=HELD_RETRY_S)
        self._held[what, who] += 1
        try:
            yield
        finally:
            self._held[what, who] -= 1
            if not self._held[what, who]:
                del self._held[what, who]
