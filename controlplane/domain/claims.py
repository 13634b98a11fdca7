"""Which setting owns an external object.

Two settings may name the same object of the same backend. Neither is wrong by itself, so the fold accepts both; the older
one owns the object and the other says `Conflict` until the older is gone.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Hashable


class Claims:
    """Claims by key and by identity. `identity` names the object: tenant, target, kind and external name, hashable."""

    def __init__(self) -> None:
        self._identities: dict[str, Hashable] = {}
        self._claimants: dict[Hashable, list[tuple[int, str]]] = {}

    def claim(self, key: str, identity: Hashable, created_revision: int) -> list[str]:
        """The key claims this object and no other. Returns the other keys that lost or gained an object by it.

        The smaller created_revision owns; of two that were created by one request, the smaller key.
        """
        standing = (created_revision, key)
        if key in self._identities and standing in self._claimants.get(identity, ()):
            return []
        moved = self.release(key)
        claimants = self._claimants.setdefault(identity, [])
        insort(claimants, standing)
        self._identities[key] = identity
        if claimants[0] == standing and len(claimants) > 1:
            moved.append(claimants[1][1])
        return moved

    def release(self, key: str) -> list[str]:
        """The key claims nothing any more. Returns the key that owns its object now, if there is one."""
        if key not in self._identities:
            return []
        identity = self._identities.pop(key)
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
        """The key that owns what this key claims; None when that is the key itself, or it claims nothing."""
        if key not in self._identities:
            return None
        winner = self._claimants[self._identities[key]][0][1]
        return None if winner == key else winner
