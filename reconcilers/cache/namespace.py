"""Namespaces: one logical cache over several layers, registered where its applications meet. Pure.

Owned: the registration (`coreplane:namespace:{prefix}`) on the namespace's authority, which is the target of its first
layer: Redis, or Memcached when there is no Redis. It holds the definition, so that applications, operations and people
at redis-cli read the same, and the revision of the last invalidation (see `schemas.cache_layout`). Not owned: the values.
Retiring takes the registration away; what is cached dies of its lifetime, or of `cache.invalidate` before.

A registration that is gone (FLUSHALL, a restart without persistence) is put back, and applications take the loss for
what it is, a flush. On Memcached it may be evicted like any item; that is repaired by the next sweep with one request
and costs the namespace's values, never their truth.

Prefixes of which one begins with the other can't be told apart by a scan: the server's script refuses the second one
(`PrefixOverlap`). Equal prefixes of one target claim one external object, which the controller reports by itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reconcilers.contract import CONVERGED, Difference, ExternalId, Instant, Kind, Plan, Step, Trespass
from schemas.cache import Namespace


@dataclass(frozen=True, slots=True)
class Definition:
    """A namespace as it is registered."""

    name: str
    prefix: str
    layers: tuple[tuple[str, float], ...]
    """(target, ttl_s), nearest first."""
    stale_s: float
    tags: bool
    budget_bytes: int | None
    budget_keys: int | None

    @property
    def document(self) -> str:
        """Canonical JSON, as it lies in the registration."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """What clients compare to see whether theirs is current."""
        return hashlib.sha256(self.document.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Registration:
    """What the authority holds. `generation`: revision of the last invalidation, 0 before the first."""

    definition: Definition | None
    """None: something is registered that isn't a definition."""
    generation: int = 0


@dataclass(frozen=True, slots=True)
class RegisterNamespace(Step):
    """Write the definition, leave stamps and generation as they are."""

    definition: Definition

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, "definition": json.loads(self.definition.document)}


@dataclass(frozen=True, slots=True)
class DeregisterNamespace(Step):
    """Remove the registration; the values stay."""


def definition(name: str, value: Namespace) -> Definition:
    """The declaration in canonical form."""
    return Definition(
        name=name,
        prefix=value.prefix,
        layers=tuple((layer.target, float(layer.ttl_s)) for layer in value.layers),
        stale_s=float(value.stale_s or 0.0),
        tags=value.tags,
        budget_bytes=value.budget_bytes,
        budget_keys=value.budget_keys,
    )


def parsed(document: str | bytes) -> Definition | None:
    """The definition in a registration; None when it is none of ours."""
    try:
        fields = json.loads(document)
        fields["layers"] = tuple((str(target), float(ttl_s)) for target, ttl_s in fields["layers"])
        return Definition(**fields)
    except (ValueError, TypeError, KeyError):
        return None


def plan(external: ExternalId, desired: Definition | None, observed: Registration | None, _now: Instant) -> Plan:
    """Register what is missing or differs; take away what is retired."""
    if desired is None:
        return CONVERGED if observed is None else Plan((DeregisterNamespace(external),))
    if observed is not None and observed.definition == desired:
        return CONVERGED
    return Plan((RegisterNamespace(external, desired),), tuple(differences(desired, observed)))


def differences(desired: Definition, observed: Registration | None) -> Sequence[Difference]:
    """Paths of the declared value on which the registration disagrees."""
    if observed is None:
        return (Difference("/prefix", desired.prefix, None),)
    held = _value(observed.definition) if observed.definition is not None else {}
    return [
        Difference(f"/{field}", wanted, held.get(field))
        for field, wanted in _value(desired).items()
        if wanted != held.get(field)
    ]


def _value(held: Definition) -> dict[str, Any]:
    return {
        "prefix": held.prefix,
        "layers": [{"target": target, "ttl_s": ttl_s} for target, ttl_s in held.layers],
        "stale_s": held.stale_s,
        "tags": held.tags,
        "budget_bytes": held.budget_bytes,
        "budget_keys": held.budget_keys,
        "name": held.name,
    }


def authority(value: Namespace) -> str:
    """The target that keeps the registration and orders invalidations."""
    return value.layers[0].target


def _requires(value: Namespace) -> Sequence[str]:
    return [f"cache.target/{layer.target}" for layer in value.layers]


def _confine(_value: Namespace, _prefix: str) -> Sequence[Trespass]:
    """Its own prefix is its name, and the first layer is the only one that others may share."""
    return ()


def _identify(_name: str, value: Namespace) -> str:
    return value.prefix


NAMESPACE: Kind[Namespace, Definition, Registration] = Kind(
    setting_type="cache.namespace",
    value=Namespace,
    identify=_identify,
    desired=definition,
    plan=plan,
    target=authority,
    requires=_requires,
    confine=_confine,
)
