"""How many keys a pass takes, by how soon recent effects began after their intents. Pure.

Theory of operation. All intents of a pass are committed together, and its effects must begin within the start deadline, which
counts from before that commit. On a machine with too much to do the commit and what precedes the send take longer, the more
keys there are. What would have begun too late was not sent, has to be ended, waited for and tried again, and makes the machine
busier still. So a pass takes half as many keys once effects began late, and twice as many again when they begin early.
"""

from __future__ import annotations

from typing import Final

FIRST: Final = 100
"""Of a target that nothing is known of."""
LEAST: Final = 8
LATE: Final = 0.5
"""Part of the deadline: what begins later is a warning."""
EARLY: Final = 0.2


class Portion:
    """Of one target."""

    def __init__(self, most: int, deadline_s: float) -> None:
        self.size = min(FIRST, most)
        self._most = most
        self._deadline_s = deadline_s

    def began(self, after_s: float, *, expired: bool) -> None:
        """The last effect of a batch began so long after its intents' commit was; `expired`: one was not begun."""
        if expired or after_s > LATE * self._deadline_s:
            self.size = max(min(LEAST, self._most), self.size // 2)
        elif after_s < EARLY * self._deadline_s:
            self.grow()

    def grow(self) -> None:
        """Nothing was late."""
        self.size = min(self._most, self.size * 2)
