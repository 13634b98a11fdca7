"""Order of creation and retirement: who needs whom, who waits for whom, and cycles."""

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

    def put(self, key: str, references: Iterable[str]) -> None:
        """Set what the key needs: `type/name` references, explicit and implied, into its own tenant."""
        self.drop(key)
        tenant = key.partition("/")[0]
        needs = tuple(dict.fromkeys(f"{tenant}/{reference}" for reference in references))
        if needs:
            self._needs[key] = needs
        for needed in needs:
            self._dependents.setdefault(needed, set()).add(key)

    def drop(self, key: str) -> None:
        """The key needs nothing any more. Those that need it go on needing it."""
        for needed in self._needs.pop(key, ()):
            dependents = self._dependents[needed]
            dependents.discard(key)
            if not dependents:
                del self._dependents[needed]

    def needs(self, key: str) -> tuple[str, ...]:
        """What the key needs, in declared order."""
        return self._needs.get(key, ())

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
        if key not in self._dependents:
            return ()
        came_from: dict[str, str] = {}
        waiting = deque([key])
        while waiting:
            current = waiting.popleft()
            for needed in self._needs.get(current, ()):
                if needed == key:
                    return _path(key, current, came_from)
                if needed not in came_from:
                    came_from[needed] = current
                    waiting.append(needed)
        return ()


def _path(start: str, end: str, came_from: dict[str, str]) -> tuple[str, ...]:
    path = [end]
    while path[-1] != start:
        path.append(came_from[path[-1]])
    return tuple(reversed(path))
