"""Setting types → services and kinds; folded entries → desired objects.

An entry is resolved once per revision and remembered: validation and canonicalising cost more than everything else in an
idle sweep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from pydantic import BaseModel, ValidationError

from controlplane.domain.fold import Entry
from controlplane.domain.muting import Mute, mutes, next_end
from controlplane.domain.placing import recorded
from controlplane.domain.validation import owned_value
from controlplane.runtime.clock import Clock, SystemClock
from controlplane.runtime.sharing import NothingShared, Shares, owner_and_name, trespasses
from reconcilers.contract import ExternalId, Kind, Service, Trespass
from schemas.names import Key, parse_key

_log = structlog.get_logger()


class TargetId(NamedTuple):
    """Identity of a backend: one shard, one loop, one connection."""

    tenant: str
    service: str
    target: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.service}/{self.target}"

    @property
    def key(self) -> str:
        """Key of the setting that says where it is."""
        return str(Key(self.tenant, f"{self.service}.target", self.target))


@dataclass(frozen=True, slots=True)
class Resolved:
    """An entry understood by its kind."""

    entry: Entry
    key: Key
    target: TargetId
    kind: Kind[Any, Any, Any] | None
    """None for the target setting itself."""
    value: Any
    external: ExternalId
    desired: Any
    requires: tuple[str, ...]
    """`type/name` of the settings it stands on: explicit, implied, and its target."""
    follows: tuple[str, ...] = ()
    """Those that only come first when both are new, and go last when both go."""
    mutes: tuple[Mute, ...] = ()
    """Paths of the declaration that aren't owned now."""
    whole: Any = None
    """What would be desired if they were owned; None when all are."""


def place(tenant: str, service: str, target: str) -> TargetId:
    """The target that a tenant means by a name: its own, or `{owner}/{name}`."""
    owner, name = owner_and_name(tenant, target)
    return TargetId(owner, service, name)


class Declared(NamedTuple):
    """Where a backend is, as declared."""

    value: Any


@dataclass(frozen=True, slots=True)
class Unresolved:
    """An entry this daemon can't act on, and why. It has a target all the same, so that its status has an owner."""

    entry: Entry
    key: Key
    target: TargetId
    reason: str
    message: str


class Catalogue:
    """The services this daemon knows."""

    def __init__(
        self, services: Mapping[str, Service], clock: Clock | None = None, shares: Shares | None = None
    ) -> None:
        """`clock`: for paths that are ignored until a time."""
        self.services = services
        self.shares: Shares = shares or NothingShared()
        self.clock = clock or SystemClock()
        self._ends: dict[str, float] = {}
        """Key → when what is remembered of it no longer holds."""
        self._kinds = {kind.setting_type: kind for service in services.values() for kind in service.kinds}
        self._resolved: dict[str, Resolved | Unresolved] = {}

    def value_models(self) -> dict[str, type[BaseModel]]:
        """Setting type → value model, targets included."""
        models: dict[str, type[BaseModel]] = {name: kind.value for name, kind in self._kinds.items()}
        targets = {one.target_type: one.target for one in self.services.values() if one.target is not None}
        return models | targets

    def is_own(self, service: str) -> bool:
        """True when the daemon itself carries the service's settings out: there is no target to be declared."""
        known = self.services.get(service)
        return known is not None and known.target is None

    def target_of(self, key: Key, body: Mapping[str, Any]) -> TargetId:
        """Where a declaration is carried out, also when its value makes no sense. See `domain.placing`."""
        resolved = self._target_name(key, body)
        return place(key.tenant, key.service, resolved)

    def trespasses(self, resolved: Resolved) -> Sequence[Trespass]:
        """Why the setting may not have its object where it is declared; nothing when it may."""
        if resolved.kind is None:
            return ()
        key, target = resolved.key, resolved.target.key
        return trespasses(key, target, resolved.external, kind=resolved.kind, value=resolved.value, shares=self.shares)

    def prefix(self, tenant: str, target: TargetId) -> str | None:
        """What names of a tenant's objects on a target begin with: nothing on its own. None: it isn't shared with it."""
        return "" if target.tenant == tenant else self.shares.prefix(tenant, target.key)

    def foreseen_trespasses(self, key: Key, body: Mapping[str, Any]) -> Sequence[Trespass]:
        """The same for what isn't stored yet."""
        entry = Entry(
            str(key), body, 0, 0, 0, "", "", retiring=False, deletion=None, actor="", reason="", request_id=""
        )
        resolved = self._resolve(entry)
        return self.trespasses(resolved) if isinstance(resolved, Resolved) else ()

    def resolve(self, entry: Entry) -> Resolved | Unresolved:
        """The entry as its kind understands it. Remembered per revision."""
        known = self._resolved.get(entry.key)
        if known is not None and known.entry.revision == entry.revision and not self._ended(entry.key):
            return known
        resolved = self._resolve(entry)
        end = next_end(resolved.mutes) if isinstance(resolved, Resolved) else None
        self._ends |= {} if end is None else {entry.key: end}
        self._resolved[entry.key] = resolved
        return resolved

    def forget(self, key: str) -> None:
        """Drop what is remembered of a key that left the state."""
        self._resolved.pop(key, None)
        self._ends.pop(key, None)

    def _ended(self, key: str) -> bool:
        """Is a path owned again that wasn't when the key was resolved?"""
        if key not in self._ends or self.clock.now() < self._ends[key]:
            return False
        del self._ends[key]
        return True

    def _target_name(self, key: Key, body: Mapping[str, Any]) -> str:
        if (target := recorded(body)) is not None:
            return target
        if key.setting_type == f"{key.service}.target":
            return key.name
        kind = self._kinds.get(key.setting_type)
        if kind is None:
            return str(body.get("value", {}).get("target", "-"))
        try:
            return kind.target(kind.value.model_validate(owned_value(body)))
        except Exception:  # noqa: BLE001 - `resolve` says what is wrong; here every key needs some target
            return str(body.get("value", {}).get("target", "-"))

    def _resolve(self, entry: Entry) -> Resolved | Unresolved:
        key = parse_key(entry.key)
        service = self.services.get(key.service)
        if service is None:
            return self._unresolved(entry, key, "UnknownService", f"this daemon doesn't serve {key.service}")
        kind = self._kinds.get(key.setting_type)
        model = service.target if key.setting_type == service.target_type else (kind.value if kind else None)
        if model is None:
            return self._unresolved(entry, key, "UnknownType", f"this daemon doesn't know {key.setting_type}")
        try:
            value = model.model_validate(owned_value(entry.body, self.clock.now()))
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_input=False)[0]
            path = "/".join(str(part) for part in first["loc"])
            return self._unresolved(entry, key, "InvalidValue", f"/{path}: {first['msg']}")
        try:
            return self._understood(entry, key, kind, value)
        except Exception as exc:  # noqa: BLE001 - a bug in the kind: it stalls this key, not all keys that come with it
            _log.exception("kind failed", setting=entry.key)
            return self._unresolved(entry, key, "InternalError", f"{key.setting_type}: {exc!r}")

    def _unresolved(self, entry: Entry, key: Key, reason: str, message: str) -> Unresolved:
        return Unresolved(entry, key, self.target_of(key, entry.body), reason, message)

    def _understood(self, entry: Entry, key: Key, kind: Kind[Any, Any, Any] | None, value: Any) -> Resolved:
        explicit = entry.body.get("depends_on", ())
        name = recorded(entry.body) or (key.name if kind is None else kind.target(value))
        target = place(key.tenant, key.service, name)
        if kind is None:
            external = ExternalId(key.setting_type, key.name)
            return Resolved(entry, key, target, None, value, external, None, tuple(explicit))
        at = () if self.is_own(key.service) else (f"{key.service}.target/{name}",)
        # What is another tenant's isn't waited for: its own connection says whether it is there.
        implied = [needed for needed in (*at, *kind.requires(value)) if needed.count("/") == 1]
        requires = dict.fromkeys((*explicit, *implied))
        external = ExternalId(key.setting_type, kind.identify(key.name, value))
        muted = mutes(entry.body, self.clock.now())
        whole = kind.desired(key.name, kind.value.model_validate(entry.body["value"])) if muted else None
        desired = kind.desired(key.name, value)
        follows = tuple(kind.follows(key.name, value))
        return Resolved(entry, key, target, kind, value, external, desired, tuple(requires), follows, muted, whole)
