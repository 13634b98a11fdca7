"""What is wanted, arranged for the controller: by target, with dependencies and claims. Derived from the folded state.

Every replica can hold it; only shard owners ask it. It follows the fold by `update`, one key at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from controlplane.domain.claims import Claims
from controlplane.domain.dependencies import Graph
from controlplane.domain.fold import Entry, State
from controlplane.runtime.catalogue import Catalogue, Declared, Resolved, TargetId, Unresolved
from controlplane.runtime.decisions import Surroundings
from controlplane.runtime.statuses import StatusView
from reconcilers.contract import ExternalId, SecretNotFound, Secrets
from schemas.secret import references_in

NO_KEYS: frozenset[str] = frozenset()


class DesiredState:
    """The settings of all tenants as targets and keys."""

    def __init__(self, state: State, catalogue: Catalogue, statuses: StatusView, secrets: Secrets) -> None:
        self.catalogue = catalogue
        self._state = state
        self._statuses = statuses
        self._secrets = secrets
        self._graph = Graph()
        self._claims = Claims()
        self._keys: defaultdict[TargetId, set[str]] = defaultdict(set)
        self._targets: dict[str, TargetId] = {}

    def load(self) -> None:
        """Arrange everything the state holds now."""
        for key in list(self._state.entries):
            self.update(key)

    def update(self, key: str) -> AbstractSet[str]:
        """Follow a change of one key; the keys (itself included) that should be looked at because of it."""
        entry = self._state.entries.get(key)
        affected = {key, *self._around(key)}
        if entry is None:
            affected |= set(self._graph.needs(key)) | set(self._claims.release(key))
            self._graph.drop(key)
            self._move(key, None)
            self.catalogue.forget(key)
            return affected
        resolved = self.catalogue.resolve(entry)
        affected |= set(self._graph.needs(key)) if entry.retiring else NO_KEYS
        self._move(key, resolved.target)
        if isinstance(resolved, Unresolved):
            self._graph.drop(key)
            return affected | set(self._claims.release(key))
        self._graph.put(key, resolved.requires)
        if resolved.kind is not None:
            identity = (resolved.target, resolved.external)
            affected |= set(self._claims.claim(key, identity, entry.created_revision))
        return affected

    def _around(self, key: str) -> AbstractSet[str]:
        """The keys that need it; however far away when it is on a cycle: its change may free them all."""
        found = set(self._graph.dependents(key))
        waiting = list(found) if self._graph.cycle_through(key) else []
        while waiting:
            more = self._graph.dependents(waiting.pop()) - found
            found |= more
            waiting += more
        return found

    def entry(self, key: str) -> Entry | None:
        """The folded entry of a key, None when it left the state."""
        return self._state.entries.get(key)

    def resolve(self, entry: Entry) -> Resolved | Unresolved:
        """The entry as its kind understands it."""
        return self.catalogue.resolve(entry)

    def target_setting(self, target: TargetId) -> Declared | None:
        """The declaration of a target; None when there is none that makes sense."""
        if self.catalogue.is_own(target.service):
            return Declared(None)
        entry = self._state.entries.get(target.key)
        resolved = None if entry is None else self.catalogue.resolve(entry)
        return Declared(resolved.value) if isinstance(resolved, Resolved) else None

    def target_of(self, key: str) -> TargetId | None:
        """The target a key belongs to, None when the key isn't there."""
        return self._targets.get(key)

    def targets(self) -> Iterable[TargetId]:
        """Every target that any setting names."""
        return [target for target, keys in self._keys.items() if keys]

    def keys_of(self, target: TargetId) -> AbstractSet[str]:
        """The keys of a target; the target's own is among them. A live view."""
        return self._keys.get(target, NO_KEYS)

    def dependents(self, key: str) -> AbstractSet[str]:
        """The keys that stand on it. A live view."""
        return self._graph.dependents(key)

    def contested(self, key: str) -> bool:
        """True when another key has the external object that this one claims."""
        return self._claims.contested(key) is not None

    def surroundings(self, resolved: Resolved | Unresolved, made: str | None, unsupported: str | None) -> Surroundings:
        """What matters for a key beyond its own declaration. `made`: name of the object that is its own already."""
        key = resolved.entry.key
        target = resolved.target.key
        waits = [needed for needed in self._graph.unmet(key, self._ready) if needed != target]
        return Surroundings(
            target_declared=key == target or self._is_declared(resolved.target),
            unmet=tuple(waits),
            dependents=tuple(sorted(k for k in self._graph.dependents(key) if k in self._state.entries)),
            cycle=self._graph.cycle_through(key),
            owner=self._owner(resolved, made),
            missing_secret=self._missing_secret(resolved),
            unsupported=unsupported,
        )

    def _is_declared(self, target: TargetId) -> bool:
        return target.key in self._state.entries or self.catalogue.is_own(target.service)

    def _owner(self, resolved: Resolved | Unresolved, made: str | None) -> str | None:
        if isinstance(resolved, Unresolved) or made is None or not resolved.entry.retiring:
            return self._claims.contested(resolved.entry.key)
        thing = ExternalId(resolved.external.setting_type, made)
        owner = self._claims.owner((resolved.target, thing))
        return None if owner == resolved.entry.key else owner

    def _ready(self, key: str) -> bool:
        entry, status = self._state.entries.get(key), self._statuses.get(key)
        if entry is None or status is None or entry.retiring:
            return False
        return status.holds("Ready") and status.converged_generation == entry.generation

    def _missing_secret(self, resolved: Resolved | Unresolved) -> str | None:
        if isinstance(resolved, Unresolved):
            return None
        for reference in references_in(resolved.value):
            try:
                self._secrets.reveal(reference)
            except SecretNotFound:
                return str(reference)
        return None

    def _move(self, key: str, target: TargetId | None) -> None:
        old = self._targets.pop(key, None)
        if old is not None and old != target:
            self._keys[old].discard(key)
            if not self._keys[old]:
                del self._keys[old]
        if target is not None:
            self._targets[key] = target
            self._keys[target].add(key)
