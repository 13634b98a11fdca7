"""Which setting owns an external object.

Two settings may name the same object of the same backend. Neither is wrong by itself, so the fold accepts both; the older
one owns the object and the other says `Conflict` until the older is gone. A setting may own several objects, as a user with
its permissions; it is in conflict when one of them is an older setting's.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Hashable, Iterable


class Claims:
    """Claims by key and by identity. `identity` names the object: tenant, target, kind and external name, hashable."""

    def __init__(self) -> None:
        self._identities: dict[str, tuple[Hashable, ...]] = {}
        self._claimants: dict[Hashable, list[tuple[int, str]]] = {}

    def claim(self, key: str, identity: Hashable, created_revision: int, parts: Iterable[Hashable] = ()) -> list[str]:
        """The key claims this object with these parts, and no other. Returns the other keys that lost or gained by it.

        The smaller created_revision owns; of two that were created by one request, the smaller key.
        """
        standing, wanted = (created_revision, key), tuple(dict.fromkeys((identity, *parts)))
        if self._identities.get(key) == wanted and standing in self._claimants[identity]:
            return []
        moved = self.release(key)
        self._identities[key] = wanted
        for one in wanted:
            claimants = self._claimants.setdefault(one, [])
            insort(claimants, standing)
            if claimants[0] == standing and len(claimants) > 1:
                moved.append(claimants[1][1])
        return list(dict.fromkeys(moved))

    def release(self, key: str) -> list[str]:
        """The key claims nothing any more. Returns the keys that own its objects now, where there are any."""
        gained = [other for one in self._identities.pop(key, ()) for other in self._released(key, one)]
        return list(dict.fromkeys(gained))

    def _released(self, key: str, identity: Hashable) -> list[str]:
        claimants = self._claimants[identity]
        owned = claimants[0][1] == key
        claimants[:] = [claimant for claimant in claimants if claimant[1] != key]
        if not claimants:
            del self._claimants[identity]
            return []
        return [claimants[0][1]] if owned else []

    def owner(self, identity: Hashable) -> str | None:
        """The key that owns the object, None when nobody claims it."""
        claimants = self._claimants.get(identity)
        return claimants[0][1] if claimants else None

    def contested(self, key: str) -> str | None:
        """A key that owns something this key claims; None when that is all its own, or it claims nothing."""
        winners = (self._claimants[one][0][1] for one in self._identities.get(key, ()))
        return next((winner for winner in winners if winner != key), None)
