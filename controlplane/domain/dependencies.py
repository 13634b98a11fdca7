"""Order of creation and retirement: who needs whom, who waits for whom, and cycles.

A key may also follow another without needing it: the other comes first when both are new and goes last when both go, and
neither holds the other up otherwise. What follows somebody that needs it follows nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Final

NOBODY: Final[frozenset[str]] = frozenset()


class Graph:
    """Which key needs which; an update costs the degree of its key. A needed key need not be declared (yet)."""

    def __init__(self) -> None:
        self._needs: dict[str, tuple[str, ...]] = {}
        self._dependents: dict[str, set[str]] = {}
        self._follows: dict[str, tuple[str, ...]] = {}
        self._followers: dict[str, set[str]] = {}

    def put(self, key: str, references: Iterable[str], follows: Iterable[str] = ()) -> None:
        """Set what the key needs, and what it follows: `type/name` references, explicit and implied, into its own tenant."""
        self.drop(key)
        tenant = key.partition("/")[0]
        needs = tuple(dict.fromkeys(f"{tenant}/{reference}" for reference in references))
        _put(self._needs, self._dependents, key, needs)
        others = dict.fromkeys(f"{tenant}/{reference}" for reference in follows)
        _put(self._follows, self._followers, key, tuple(other for other in others if other not in needs))

    def drop(self, key: str) -> None:
        """The key needs and follows nothing any more. Those that need it go on needing it."""
        _drop(self._needs, self._dependents, key)
        _drop(self._follows, self._followers, key)

    def needs(self, key: str) -> tuple[str, ...]:
        """What the key needs, in declared order."""
        return self._needs.get(key, ())

    def follows(self, key: str) -> tuple[str, ...]:
        """What comes before the key when both are new."""
        return tuple(other for other in self._follows.get(key, ()) if not self._stands_on(other, key))

    def followers(self, key: str) -> AbstractSet[str]:
        """What goes before the key when both go."""
        return {other for other in self._followers.get(key, NOBODY) if not self._stands_on(key, other)}

    def unmet(self, key: str, ready: Callable[[str], bool]) -> list[str]:
        """The keys it waits for before it may be created."""
        return [needed for needed in self._needs.get(key, ()) if not ready(needed)]

    def dependents(self, key: str) -> AbstractSet[str]:
        """The keys that need it directly: they are retired first, and are woken when it becomes ready.

        A live view: copy it before changing the graph.
        """
        return self._dependents.get(key, NOBODY)

    def cycle_through(self, key: str) -> tuple[str, ...]:
        """The shortest cycle that the key is on, beginning with it and in order of need; () when there is none."""
        return self._way(key, key)

    def _stands_on(self, key: str, other: str) -> bool:
        return bool(self._way(key, other))

    def _way(self, start: str, end: str) -> tuple[str, ...]:
        """The shortest way from one key along what it needs to another, without that; () when there is none."""
        if end not in self._dependents:
            return ()
        came_from: dict[str, str] = {}
        waiting = deque([start])
        while waiting:
            current = waiting.popleft()
            for needed in self._needs.get(current, ()):
                if needed == end:
                    return _path(start, current, came_from)
                if needed not in came_from:
                    came_from[needed] = current
                    waiting.append(needed)
        return ()


def _put(
    outgoing: dict[str, tuple[str, ...]], incoming: dict[str, set[str]], key: str, others: tuple[str, ...]
) -> None:
    if others:
        outgoing[key] = others
    for other in others:
        incoming.setdefault(other, set()).add(key)


def _drop(outgoing: dict[str, tuple[str, ...]], incoming: dict[str, set[str]], key: str) -> None:
    for other in outgoing.pop(key, ()):
        keys = incoming[other]
        keys.discard(key)
        if not keys:
            del incoming[other]


def _path(start: str, end: str, came_from: dict[str, str]) -> tuple[str, ...]:
    path = [end]
    while path[-1] != start:
        path.append(came_from[path[-1]])
    return tuple(reversed(path))
