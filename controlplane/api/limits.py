"""How often: token buckets of this replica, by who or what is limited. A bucket holds the calls of one second."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from controlplane.domain.errors import Reason, Refused

MOST_BUCKETS: Final = 10_000
"""The least recently used are forgotten, which gives their owners a full bucket again."""


class Limits:
    """Everybody's buckets."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()
        """What is limited, and for whom → (calls left, when that was)."""

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
