"""What is wanted, arranged for the controller: by target, with dependencies and claims. Derived from the folded state.

Every replica can hold it; only shard owners ask it. It follows the fold by `update`, one key at a time.

Note [One backend, two targets]. Two tenants may each declare a target of their own that leads to the same server. If claims
were by target, both would own the same object there and undo each other's work for ever; so they are by where the targets
lead, and the older setting owns the object.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from controlplane.domain.claims import Claims
from controlplane.domain.dependencies import Graph
from controlplane.domain.fold import Entry, State
from controlplane.domain.status import KeyStatus
from controlplane.runtime.catalogue import Catalogue, Declared, Resolved, TargetId, Unresolved
from controlplane.runtime.decisions import Surroundings
from controlplane.runtime.places import Places
from controlplane.runtime.secrets import TenantSecrets
from controlplane.runtime.statuses import StatusView
from reconcilers.contract import ExternalId, SecretNotFound
from schemas.names import SYSTEM, parse_key
from schemas.secret import references_in

NO_KEYS: frozenset[str] = frozenset()


class DesiredState:
    """The settings of all tenants as targets and keys."""

    def __init__(self, state: State, catalogue: Catalogue, statuses: StatusView, secrets: TenantSecrets) -> None:
        self.catalogue = catalogue
        self._state = state
        self._statuses = statuses
        self._secrets = secrets
        self._graph = Graph()
        self._claims = Claims()
        self._keys: defaultdict[TargetId, set[str]] = defaultdict(set)
        self._targets: dict[str, TargetId] = {}
        self._places = Places()

    def load(self) -> None:
        """Arrange everything the state holds now."""
        for key in list(self._state.entries):
            self.update(key)

    def update(self, key: str) -> AbstractSet[str]:
        """Follow a change of one key; the keys (itself included) that should be looked at because of it."""
        entry = self._state.entries.get(key)
        affected = {key, *self._around(key), *self._shared_by(entry)}
        if entry is None:
            affected |= {*self._graph.needs(key), *self._graph.follows(key)} | set(self._claims.release(key))
            self._graph.drop(key)
            self._move(key, None)
            self.catalogue.forget(key)
            return affected
        resolved = self.catalogue.resolve(entry)
        affected |= {*self._graph.needs(key), *self._graph.follows(key)} if entry.retiring else NO_KEYS
        self._move(key, resolved.target)
        if isinstance(resolved, Unresolved):
            self._graph.drop(key)
            return affected | set(self._claims.release(key))
        self._arrange(resolved)
        if resolved.kind is not None:
            affected |= self._claim(resolved) | self._known_by_object(resolved)
        else:
            affected |= self._moved(resolved)
        return affected

    def _arrange(self, resolved: Resolved) -> None:
        """What it stands on and what it follows, as settings: what is implied may be named by its object instead. An object
        that is a part of its own is none of these."""
        needs, follows = (
            [one for one in (self._setting_of(resolved, named) for named in some) if one != resolved.key.reference]
            for some in (resolved.requires, resolved.follows)
        )
        self._graph.put(resolved.entry.key, needs, follows)

    def _setting_of(self, resolved: Resolved, reference: str) -> str:
        tenant = resolved.key.tenant
        if f"{tenant}/{reference}" in self._state.entries:
            return reference
        setting_type, _, name = reference.partition("/")
        owner = self._claims.owner((self._place(resolved.target), ExternalId(setting_type, name)))
        return reference if owner is None or not owner.startswith(f"{tenant}/") else owner.partition("/")[2]

    def _known_by_object(self, resolved: Resolved) -> AbstractSet[str]:
        """Those that named its object before it was declared: from now on they need the setting."""
        node = f"{resolved.key.tenant}/{resolved.external.setting_type}/{resolved.external.name}"
        waiting = self._near(node) if node != resolved.entry.key else NO_KEYS
        for key in waiting:
            found = self.catalogue.resolve(self._state.entries[key])
            if isinstance(found, Resolved):
                self._arrange(found)
        return waiting

    def _claim(self, resolved: Resolved) -> AbstractSet[str]:
        """The keys that lose or gain an object by it. Note [One backend, two targets]."""
        entry, kind, place = resolved.entry, resolved.kind, self._place(resolved.target)
        if kind is None:
            return NO_KEYS
        identity = (resolved.target if kind.per_target else place, resolved.external)
        parts, shared = (
            [(place, one) for one in tell(resolved.key.name, resolved.value)] for tell in (kind.parts, kind.shares)
        )
        return set(self._claims.claim(entry.key, identity, entry.created_revision, parts, shared=shared))

    def _place(self, target: TargetId) -> Hashable:
        return self._places.of(target)

    def _moved(self, target: Resolved) -> AbstractSet[str]:
        """A target says where its settings' objects are: they claim them anew when that is elsewhere."""
        address = self.address(target.target.service, target.value)
        if address is None:
            return NO_KEYS
        found: set[str] = set()
        for moved in self._places.learn(target.target, address, self._statuses.get(target.entry.key)):
            found |= self._claimed_anew(moved)
        return found

    def _claimed_anew(self, target: TargetId) -> AbstractSet[str]:
        found: set[str] = set()
        for key in self.keys_of(target):
            entry = self._state.entries.get(key)
            resolved = None if entry is None else self.catalogue.resolve(entry)
            if isinstance(resolved, Resolved) and resolved.kind is not None:
                found |= {key, *self._claim(resolved)}
        return found

    def address(self, service: str, value: Any) -> Hashable | None:
        """Where a target's value leads; None when the service can't tell."""
        places = self.catalogue.services[service].places
        return None if places is None else (service, places(value))

    def told(self, key: str) -> AbstractSet[str]:
        """Follow what the status of a key tells of where a target leads; the keys that should be looked at because of it."""
        entry = self._state.entries.get(key)
        resolved = None if entry is None else self.catalogue.resolve(entry)
        return self._moved(resolved) if isinstance(resolved, Resolved) and resolved.kind is None else NO_KEYS

    async def knows(self, status: KeyStatus, timeout_s: float) -> bool:
        """Wait until what this status remembers is followed here as well."""

        def shown(found: KeyStatus | None) -> bool:
            return found is not None and found.remembered == status.remembered

        return (await self._statuses.wait(status.key, shown, timeout_s))[0]

    def _around(self, key: str) -> AbstractSet[str]:
        """The keys that need it; however far away when it is on a cycle: its change may free them all."""
        found = self._near(key)
        waiting = list(found) if self._graph.cycle_through(key) else []
        while waiting:
            more = self._graph.dependents(waiting.pop()) - found
            found |= more
            waiting += more
        return found

    def _near(self, key: str) -> set[str]:
        """The keys that stand on it or follow it."""
        return {*self._graph.dependents(key), *self._graph.followers(key)}

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
        """The keys that stand on it, or come after it."""
        return self._near(key)

    def policy_of(self, target: TargetId, external: ExternalId) -> Mapping[str, Any] | None:
        """The policy of the setting that has the object; None when none has."""
        owner = self._claims.owner((self._place(target), external))
        entry = None if owner is None else self._state.entries.get(owner)
        return None if entry is None else entry.body.get("policy", {})

    def contested(self, key: str) -> bool:
        """True when another key has the external object that this one claims."""
        return self._claims.contested(key) is not None

    def surroundings(self, resolved: Resolved | Unresolved, made: str | None, unsupported: str | None) -> Surroundings:
        """What matters for a key beyond its own declaration. `made`: name of the object that is its own already."""
        key = resolved.entry.key
        target = resolved.target.key
        unmet = self._graph.unmet(key, self._ready)
        waits = [needed for needed in unmet if needed != target and not self._may_be_there(resolved, needed)]
        return Surroundings(
            target_declared=key == target or self._is_declared(resolved.target),
            unmet=(*waits, *(() if made else self._first(key))),
            dependents=tuple(sorted({*self._held_by(key), *self._going_before(key)})),
            cycle=self._graph.cycle_through(key),
            owner=self._owner(resolved, made),
            trespass=self._trespass(resolved),
            missing_secret=self._missing_secret(resolved),
            unsupported=unsupported,
        )

    def _first(self, key: str) -> list[str]:
        """What comes before a key that is new, as far as that is declared and stays."""
        found = ((other, self._state.entries.get(other)) for other in self._graph.follows(key))
        return [other for other, entry in found if entry and not entry.retiring and not self._ready(other)]

    def _held_by(self, key: str) -> list[str]:
        return [other for other in self._graph.dependents(key) if other in self._state.entries]

    def _going_before(self, key: str) -> list[str]:
        """Those that follow it and go, too."""
        found = ((other, self._state.entries.get(other)) for other in self._graph.followers(key))
        return [other for other, entry in found if entry and entry.retiring]

    def needs(self, key: str) -> tuple[str, ...]:
        """The keys it stands on, whether they are declared or not."""
        return self._graph.needs(key)

    def _may_be_there(self, resolved: Resolved | Unresolved, needed: str) -> bool:
        """Its value names something that nobody declares: it may be there all the same, and the backend knows."""
        reference = needed.partition("/")[2]
        explicit = reference in resolved.entry.body.get("depends_on", ())
        return not explicit and needed not in self._state.entries and ".target/" not in reference

    def _trespass(self, resolved: Resolved | Unresolved) -> str | None:
        if isinstance(resolved, Unresolved):
            return None
        return next((found.message for found in self.catalogue.trespasses(resolved)), None)

    def _shared_by(self, entry: Entry | None) -> AbstractSet[str]:
        """The keys on the target that a share is about: what they may do has changed."""
        if entry is None or not entry.key.startswith(f"{SYSTEM}/access.share/"):
            return NO_KEYS
        try:
            tenant, setting_type, name = parse_key(entry.body["value"]["target"])
        except (KeyError, TypeError, ValueError):
            return NO_KEYS  # declared past the API: it shares nothing
        return self.keys_of(TargetId(tenant, setting_type.partition(".")[0], name))

    def _is_declared(self, target: TargetId) -> bool:
        return target.key in self._state.entries or self.catalogue.is_own(target.service)

    def _owner(self, resolved: Resolved | Unresolved, made: str | None) -> str | None:
        if isinstance(resolved, Unresolved) or made is None or not resolved.entry.retiring:
            return self._claims.contested(resolved.entry.key)
        thing = ExternalId(resolved.external.setting_type, made)
        owner = self._claims.owner((self._place(resolved.target), thing))
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
            if not self._secrets.permits(resolved.key.tenant, reference):
                return str(reference)
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
