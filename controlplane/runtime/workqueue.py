"""Which keys are looked at next. Pure: time comes in as an argument.

A key stands in the queue at most once and is handed out to one pass at a time; what is added meanwhile comes back when the
pass is done. Users' changes go before resyncs, but a resync that waited `AGEING_S` counts as a user's, so neither starves.
Keys may be due later (backoff, holds, intervals).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

AGEING_S: Final = 5.0


class Priority(IntEnum):
    """Lower goes first."""

    USER = 0
    RESYNC = 1


@dataclass(slots=True)
class _Place:
    priority: Priority
    due: float


@dataclass(slots=True)
class WorkQueue:
    """Keys, when they are due, and which are out."""

    _waiting: dict[str, _Place] = field(default_factory=dict)
    _later: list[tuple[float, str]] = field(default_factory=list)
    _due: dict[Priority, dict[str, None]] = field(default_factory=lambda: {p: {} for p in Priority})
    _out: dict[str, _Place | None] = field(default_factory=dict)
    """Keys handed out, with what was added for them meanwhile."""

    def add(self, key: str, priority: Priority, now: float, *, due: float | None = None) -> None:
        """Look at the key at `due` (None: now). What is queued already only gets sooner and more urgent."""
        place = _Place(priority, now if due is None else due)
        if key in self._out:
            self._out[key] = _sooner(self._out[key], place)
        else:
            self._wait(key, _sooner(self._waiting.get(key), place), now)

    def postpone(self, key: str, priority: Priority, now: float, due: float) -> None:
        """Look at the key at `due` and not before, whatever was queued."""
        place = _Place(priority, due)
        if key in self._out:
            self._out[key] = place
        else:
            self._drop(key)
            self._wait(key, place, now)

    def take(self, limit: int, now: float, waited: Callable[[float], None] | None = None) -> list[str]:
        """Up to `limit` due keys, urgent ones first. Each is out until `done`. `waited` hears how long each was due."""
        self._mature(now)
        self._age(now)
        taken: list[str] = []
        for priority in Priority:
            due = self._due[priority]
            while due and len(taken) < limit:
                key = next(iter(due))
                del due[key]
                place = self._waiting.pop(key)
                self._out[key] = None
                taken.append(key)
                if waited is not None:
                    waited(now - place.due)
        return taken

    def done(self, key: str, now: float) -> None:
        """The pass is over; what was added meanwhile is queued."""
        place = self._out.pop(key, None)
        if place is not None:
            self._wait(key, place, now)

    def next_due(self) -> float | None:
        """When the next key is due; None when nothing is queued. In the past when something is due already."""
        if any(self._due.values()):
            return float("-inf")
        while self._later:
            due, key = self._later[0]
            place = self._waiting.get(key)
            if place is not None and place.due == due:
                return due
            heapq.heappop(self._later)
        return None

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: str) -> bool:
        return key in self._waiting or key in self._out

    def is_out(self, key: str) -> bool:
        """True while a pass has the key."""
        return key in self._out

    @property
    def out(self) -> int:
        """Keys handed out."""
        return len(self._out)

    def _wait(self, key: str, place: _Place, now: float) -> None:
        self._drop(key)
        self._waiting[key] = place
        if place.due <= now:
            self._due[place.priority][key] = None
        else:
            heapq.heappush(self._later, (place.due, key))

    def _drop(self, key: str) -> None:
        place = self._waiting.pop(key, None)
        if place is not None:
            self._due[place.priority].pop(key, None)

    def _mature(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            due, key = heapq.heappop(self._later)
            place = self._waiting.get(key)
            if place is not None and place.due == due:
                self._due[place.priority][key] = None

    def _age(self, now: float) -> None:
        resyncs = self._due[Priority.RESYNC]
        aged = []
        for key in resyncs:
            if self._waiting[key].due > now - AGEING_S:
                break
            aged.append(key)
        for key in aged:
            del resyncs[key]
            self._waiting[key].priority = Priority.USER
            self._due[Priority.USER][key] = None


def _sooner(old: _Place | None, new: _Place) -> _Place:
    if old is None:
        return new
    return _Place(min(old.priority, new.priority), min(old.due, new.due))
