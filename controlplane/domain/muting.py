"""Paths that are declared but not owned: for a reason, and perhaps until a time. Pure.

`policy.ignore` names them, alone or as `{path, reason, until}`. What differs there is seen and counted, and nothing is done
about it. From `until` on the path is owned again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from schemas.names import parse_timestamp


class Mute(NamedTuple):
    """One path that isn't owned."""

    path: str
    reason: str = ""
    until: str | None = None
    """RFC 3339; None: for good."""

    def holds(self, now: float | None) -> bool:
        """True while it is in force; at any time when `now` is None."""
        return now is None or self.until is None or now < parse_timestamp(self.until)


def mutes(body: Mapping[str, Any], now: float | None = None) -> tuple[Mute, ...]:
    """Those of a declaration that are in force at a time (Unix seconds; None: at any)."""
    found = [_mute(one) for one in body.get("policy", {}).get("ignore", ())]
    return tuple(mute for mute in found if mute.holds(now))


def next_end(found: Iterable[Mute]) -> float | None:
    """When the first of them ends (Unix seconds), None when none ever does."""
    return min((parse_timestamp(mute.until) for mute in found if mute.until is not None), default=None)


def mute_of(path: str, found: Iterable[Mute]) -> Mute | None:
    """The one that a path falls under: at, below or above it. A path may name a node, as in `/a@10.0.0.2:6379`."""
    bare = path.partition("@")[0]
    return next((mute for mute in found if related(bare, mute.path)), None)


def related(one: str, other: str) -> bool:
    """True when one of the paths is, or lies below, the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _mute(one: Any) -> Mute:
    return Mute(one) if isinstance(one, str) else Mute(one["path"], one.get("reason", ""), one.get("until"))
