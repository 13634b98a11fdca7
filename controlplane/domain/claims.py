"""Which setting owns an external object.

Two settings may name the same object of the same backend. Neither is wrong by itself, so the fold accepts both; the older
one owns the object and the other says `Conflict` until the older is gone. A setting may own several objects, as a user with
its permissions; it is in conflict when one of them is an older setting's. Some things several settings may hold together as
long as nobody owns them alone, as groups the membership of a user who doesn't say which groups are all of its.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

Standing = tuple[int, str]
"""(created_revision, key): the smaller one is the older one."""


@dataclass(slots=True)
class _Claimants:
    """Those who claim one object, the oldest first."""

    owning: list[Standing] = field(default_factory=list)
    sharing: list[Standing] = field(default_factory=list)

    def those(self, *, shared: bool) -> list[Standing]:
        """Who claims it in this way."""
        return self.sharing if shared else self.owning

    def before(self, standing: Standing, *, shared: bool) -> Standing | None:
        """The oldest with whom this claim can't be reconciled, None when it stands."""
        older = [*self.owning[:1], *([] if shared else self.sharing[:1])]
        first = min(older, default=standing)
        return first if first < standing else None

    def moved_by(self, standing: Standing, *, shared: bool) -> list[str]:
        """The keys that may lose the object when this claim comes, or gain it when it goes; it isn't among the claims."""
        if self.owning and (self.owning[0] < standing):
            return []
        later = [] if shared else [other for other in self.sharing if other > standing]
        return [key for _, key in (*self.owning[:1], *later)]


class Claims:
    """Claims by key and by identity. `identity` names the object: tenant, target, kind and external name, hashable."""

    def __init__(self) -> None:
        self._claims: dict[str, tuple[Standing, dict[Hashable, bool]]] = {}
        """Key → its standing, and identity → is it shared?"""
        self._claimants: dict[Hashable, _Claimants] = {}

    def claim(
        self,
        key: str,
        identity: Hashable,
        created_revision: int,
        parts: Iterable[Hashable] = (),
        *,
        shared: Iterable[Hashable] = (),
    ) -> list[str]:
        """The key claims this object with these parts, holds what is shared, and no other. Returns the other keys that lost
        or gained by it.

        The smaller created_revision owns; of two that were created by one request, the smaller key.
        """
        standing, wanted = (
            (created_revision, key),
            dict.fromkeys(shared, True) | dict.fromkeys((identity, *parts), False),
        )
        if self._claims.get(key) == (standing, wanted):
            return []
        moved = self.release(key)
        self._claims[key] = standing, wanted
        for one, is_shared in wanted.items():
            claimants = self._claimants.setdefault(one, _Claimants())
            moved += claimants.moved_by(standing, shared=is_shared)
            insort(claimants.those(shared=is_shared), standing)
        return list(dict.fromkeys(moved))

    def release(self, key: str) -> list[str]:
        """The key claims nothing any more. Returns the keys that own its objects now, where there are any."""
        if key not in self._claims:
            return []
        standing, held = self._claims.pop(key)
        gained = [other for one, shared in held.items() for other in self._released(standing, one, shared=shared)]
        return list(dict.fromkeys(gained))

    def _released(self, standing: Standing, identity: Hashable, *, shared: bool) -> list[str]:
        claimants = self._claimants[identity]
        claimants.those(shared=shared).remove(standing)
        if not claimants.owning and not claimants.sharing:
            del self._claimants[identity]
            return []
        return claimants.moved_by(standing, shared=shared)

    def owner(self, identity: Hashable) -> str | None:
        """The key that owns the object, None when nobody claims it for itself."""
        claimants = self._claimants.get(identity)
        return claimants.owning[0][1] if claimants and claimants.owning else None

    def contested(self, key: str) -> str | None:
        """A key that owns something this key claims; None when that is all its own, or it claims nothing."""
        if key not in self._claims:
            return None
        standing, held = self._claims[key]
        older = (self._claimants[one].before(standing, shared=shared) for one, shared in held.items())
        return next((found[1] for found in older if found), None)
