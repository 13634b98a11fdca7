"""How long messages have waited, told from where their partition ended when. Pure.

Nothing but offsets is asked of the brokers for it: a look now and then at the end of a partition tells when a message came,
to the time between two looks. How long what was there before the first look has waited is known to be at least as long.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

MOST_POINTS: Final = 60


@dataclass(slots=True)
class Ends:
    """When one partition ended where: (Unix seconds, offset), oldest first, MOST_POINTS at most."""

    points: list[tuple[float, int]] = field(default_factory=list)

    def look(self, now: float, end: int, unread: Iterable[int]) -> None:
        """One more look. `unread`: where its groups stand; what is before all of them needn't be known any more."""
        self.points.append((now, end))
        first = min(unread, default=end)
        while len(self.points) > 1 and self.points[1][1] <= first:
            del self.points[0]
        if len(self.points) > MOST_POINTS:
            self.points = [*self.points[:-1:2], self.points[-1]]

    def waited_s(self, now: float, offset: int) -> float:
        """How long the message with this offset has been there; 0 when there is none yet."""
        if not self.points or offset >= self.points[-1][1]:
            return 0.0
        before = self.points[0]
        if offset < before[1]:
            return now - before[0]
        for point in self.points[1:]:
            if offset < point[1]:
                share = (offset + 1 - before[1]) / (point[1] - before[1])
                return now - (before[0] + share * (point[0] - before[0]))
            before = point
        return 0.0
