"""What we did and no broker shows yet; see Note [Settling] in `kafka_topics`. Pure, but for the clock it is given.

For users, permissions and quotas: their observed values are compared by a predicate, for SETTLING_S at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from reconcilers.queue.model import SETTLING_S

Shown = Callable[[Any], bool]
"""Given what is observed (None: absent): is what we did there to see?"""


@dataclass(slots=True)
class Settling:
    """Expectations by kind and name. The newest of a part replaces the older one."""

    clock: Callable[[], float]
    _expected: dict[tuple[str, str], dict[str, tuple[float, Shown]]] = field(default_factory=dict)

    def expect(self, kind: str, name: str, part: str, shown: Shown) -> None:
        """From now on the object is settling until it is shown."""
        self._expected.setdefault((kind, name), {})[part] = (self.clock() + SETTLING_S, shown)

    def look(self, kind: str, name: str, observed: Any) -> str | None:
        """What isn't shown yet; None when there is nothing to wait for."""
        parts = self._expected.get((kind, name), {})
        waiting = {
            part: (until, shown)
            for part, (until, shown) in parts.items()
            if until > self.clock() and not shown(observed)
        }
        if not waiting:
            self._expected.pop((kind, name), None)
            return None
        self._expected[kind, name] = waiting
        return f"{', '.join(sorted(waiting))}: done, and not shown yet"
