"""When to try again: exponential with full jitter. Pure: the random number comes in as an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between tries, seconds."""

    initial_s: float = 0.5
    cap_s: float = 60.0

    def pause_s(self, failures: int, unit: float) -> float:
        """Pause after the `failures`-th failure in a row (≥ 1). `unit` in [0, 1) spreads those that failed together.

        Between half and the whole of initial * 2^(failures-1), never above the cap.
        """
        whole: float = min(self.cap_s, self.initial_s * 2.0 ** min(failures - 1, 30))
        return whole * (0.5 + unit / 2)
