"""Attempts that were refused: counted by who tried what where, for the audit.

Kept by this replica, as long as it runs: an attacker must not be able to fill the log.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from controlplane.domain.errors import Reason
from schemas.names import timestamp

MOST: Final = 1000
"""So many kinds of attempts are told apart; the oldest is forgotten."""

COUNTED: Final = frozenset({Reason.UNAUTHENTICATED, Reason.FORBIDDEN, Reason.TOO_MANY_REQUESTS, Reason.QUOTA_EXCEEDED})


class Attempt(NamedTuple):
    """What counts as the same attempt. `tenant` None: outside of all; `actor` None: nobody knows who."""

    tenant: str | None
    actor: str | None
    method: str
    route: str
    reason: str


@dataclass(slots=True)
class _Seen:
    count: int
    first_at: float
    last_at: float


class Refusals:
    """The counts."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Attempt, _Seen] = OrderedDict()

    def add(self, attempt: Attempt, now: float) -> None:
        """It was tried, and refused."""
        seen = self._seen.pop(attempt, None) or _Seen(0, now, now)
        self._seen[attempt] = _Seen(seen.count + 1, seen.first_at, now)
        if len(self._seen) > MOST:
            self._seen.popitem(last=False)

    def of(self, tenant: str, actor: str | None = None, since: float | None = None) -> list[dict[str, Any]]:
        """What was refused in the tenant, the last first."""
        return [
            {
                "actor": attempt.actor,
                "method": attempt.method,
                "route": attempt.route,
                "reason": attempt.reason,
                "count": seen.count,
                "first_at": timestamp(seen.first_at),
                "last_at": timestamp(seen.last_at),
            }
            for attempt, seen in reversed(self._seen.items())
            if attempt.tenant == tenant
            and (actor is None or attempt.actor == actor)
            and (since is None or seen.last_at >= since)
        ]
