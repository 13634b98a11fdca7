"""Time as the runtime sees it, so that simulations can have their own."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one for stamps, one for waiting."""

    def now(self) -> float:
        """Unix seconds, for stamps only: it may jump."""

    def monotonic(self) -> float:
        """Seconds that never go back, for deadlines. The event loop's clock, so that timers and deadlines agree. From any
        thread: a backend whose client is synchronous checks its fence there."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """What asyncio's event loops go by."""
        return time.monotonic()
