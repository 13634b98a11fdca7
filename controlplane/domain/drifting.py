"""Drift as data: of each path that differs, or did, whether it does now, since when, how often, and whether anybody minds. Pure.

An *episode* begins when a difference is detected and ends when it is resolved: repaired, taken back by whoever made it, or
declared otherwise. Its events carry one correlation id. A path is in one state, the first of these that applies: `open` (it
differs now), `muted` (it differs now and isn't owned), `recurring` (it came back at least once and is resolved), `resolved`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from controlplane.domain.fold import Entry
from controlplane.domain.muting import mute_of, mutes
from controlplane.domain.status import KeyStatus
from schemas.event import EventType

TOLD_BY: Final = (EventType.DRIFT_DETECTED, EventType.DRIFT_RESOLVED)
"""The events that drift is made of."""

RECURS_FROM: Final = 2
"""Episodes from which on it is called recurring."""


class DriftState(StrEnum):
    """See above."""

    OPEN = "open"
    MUTED = "muted"
    RECURRING = "recurring"
    RESOLVED = "resolved"


@dataclass(slots=True)
class _Path:
    """What is known of one path of one setting."""

    episodes: dict[str, str] = field(default_factory=dict)
    """Correlation id → when it was detected, oldest first."""
    until: str | None = None
    desired: Any = None
    observed: Any = None


def drifts(
    events: Iterable[Mapping[str, Any]],
    entries: Mapping[str, Entry],
    statuses: Mapping[str, KeyStatus] | Any,
    now: float,
) -> list[dict[str, Any]]:
    """A row for each path of each setting, by setting and path. `events`: those of drift, oldest first; `entries`: the
    settings it is about; `statuses`: anything with `get(key)`."""
    known = _from_events(events)
    rows = []
    for key, entry in sorted(entries.items()):
        status = statuses.get(key) or KeyStatus(key)
        paths = known.get(key, {})
        differing = {path: (desired, observed) for path, desired, observed in status.drift}
        muted = {path: (desired, observed) for path, desired, observed in status.muted}
        for path in sorted({*paths, *differing, *muted}):
            past = paths.get(path, _Path())
            now_there = differing.get(path) or muted.get(path)
            state = _state(past, is_open=path in differing, is_muted=path in muted)
            sides = now_there or (past.desired, past.observed)
            row = {"setting": key, "path": path, "state": str(state), "desired": sides[0], "observed": sides[1]}
            rows.append({**row, **_times(past, state, status), **_treated(entry, path, state, now)})
    return rows


def counted(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many paths are in each state."""
    found = Counter(row["state"] for row in rows)
    return {str(state): found[state] for state in DriftState}


def _from_events(events: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, _Path]]:
    known: dict[str, dict[str, _Path]] = {}
    for event in events:
        paths = known.setdefault(event["setting"], {})
        episode, at = event["correlation_id"], event["timestamp"]
        if event["event_type"] == EventType.DRIFT_DETECTED:
            for one in event["details"].get("drift", ()):
                path = paths.setdefault(one["path"], _Path())
                path.episodes.setdefault(episode, at)
                path.until, path.desired, path.observed = None, one["desired"], one["observed"]
        else:
            for path in _of_episode(paths, episode):
                path.until = at
    return known


def _of_episode(paths: Mapping[str, _Path], episode: str) -> Iterator[_Path]:
    return (path for path in paths.values() if next(reversed(path.episodes), None) == episode)


def _state(past: _Path, *, is_open: bool, is_muted: bool) -> DriftState:
    if is_open:
        return DriftState.OPEN
    if is_muted:
        return DriftState.MUTED
    return DriftState.RECURRING if len(past.episodes) >= RECURS_FROM else DriftState.RESOLVED


def _times(past: _Path, state: DriftState, status: KeyStatus) -> dict[str, Any]:
    """Since when, until when, how often."""
    is_open, condition = state is DriftState.OPEN, status.condition("Drifted")
    began = next(reversed(past.episodes.values()), None)
    since = condition.since if is_open and condition is not None else began
    return {
        "since": since,
        "until": past.until if state in (DriftState.RECURRING, DriftState.RESOLVED) else None,
        "first_at": next(iter(past.episodes.values()), since),
        "episodes": max(len(past.episodes), int(is_open)),
        "correlation_id": next(reversed(past.episodes), None),
    }


def _treated(entry: Entry, path: str, state: DriftState, now: float) -> dict[str, Any]:
    """What the declaration says is to be done about it."""
    mute = mute_of(path, mutes(entry.body, now)) if state is DriftState.MUTED else None
    return {
        "policy": entry.body.get("policy", {}).get("drift", "enforce"),
        "muted": None if mute is None else {"reason": mute.reason, "until": mute.until},
    }
