"""Targets that several tenants use: whose objects are whose. Pure.

A tenant names the target of another as `{owner}/{name}`. It may, once the target is shared with it, for objects whose names
begin with its prefix; the owner leaves those names alone. What else an object may not reach there, its kind says
(`Kind.confine`); a kind that doesn't say can't live on a target of others. Checked when it is declared, and again each time
before something is done: what is shared can change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from reconcilers.contract import ExternalId, Kind, Trespass
from schemas.names import NAME_PATTERN, Key

_FOREIGN = re.compile(rf"({NAME_PATTERN[1:-1]})/({NAME_PATTERN[1:-1]})")


class Shares(Protocol):
    """What is shared; see `directory.Directory`."""

    def prefix(self, tenant: str, target: str) -> str | None:
        """The prefix under which the tenant may use the target (a key) of another; None when it may not."""

    def prefixes(self, target: str) -> Mapping[str, str]:
        """Tenant → prefix, of all that the target (a key) is shared with."""


class NothingShared:
    """Every tenant has its targets for itself."""

    def prefix(self, _tenant: str, _target: str) -> str | None:
        """None."""
        return None

    def prefixes(self, _target: str) -> Mapping[str, str]:
        """None."""
        return {}


def owner_and_name(tenant: str, target: str) -> tuple[str, str]:
    """Whose target is meant by a name that a tenant wrote, and its name there."""
    found = _FOREIGN.fullmatch(target)
    return (tenant, target) if found is None else (found[1], found[2])


def trespasses(
    key: Key, target: str, external: ExternalId, *, kind: Kind[Any, Any, Any], value: Any, shares: Shares
) -> Sequence[Trespass]:
    """Why a setting may not have its object on the target (a key); nothing when it may. Paths point into the value."""
    if target.partition("/")[0] == key.tenant:
        taken = [prefix for prefix in shares.prefixes(target).values() if kind.belongs(external.name, prefix)]
        return [Trespass("", f"names that begin with {prefix} are another tenant's on this target") for prefix in taken]
    prefix = shares.prefix(key.tenant, target)
    if prefix is None:
        owner, _, name = target.split("/")
        return [Trespass("", f"{owner}/{name} is not shared with tenant {key.tenant}")]
    if kind.confine is None:
        return [
            Trespass("", f"{key.setting_type} can't be confined to a prefix: it needs a target of the tenant's own")
        ]
    found = list(kind.confine(value, prefix))
    if not kind.belongs(external.name, prefix):
        found.insert(0, Trespass("", f"its name there is {external.name}, and must begin with {prefix}"))
    return found
