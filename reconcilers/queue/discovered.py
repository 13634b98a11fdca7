"""What exists in a Kafka cluster, as declarations. Pure.

A user with SCRAM credentials comes with its permissions and limits; those of principals and entities that are no such users
are settings of their own. Groups are only watched. Routes are the daemon's own notion: nobody else made any.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from reconcilers.contract import Discovered
from reconcilers.discovery import matches, setting_name
from reconcilers.queue.access import Bindings, Rates, entity_parts, principal_of
from reconcilers.queue.model import ObservedTopic

Credentials = Mapping[str, int]
"""Mechanism → iterations."""
FIELDS = {"user": "user", "client-id": "client_id", "ip": "ip"}
"""Kind of an entity → field of the value."""


def topic(name: str, observed: ObservedTopic) -> Discovered:
    """A topic with what is set on it; what it has by default stays the cluster's affair."""
    replicas = sorted({len(on) for on in observed.replicas})
    value: dict[str, Any] = {
        **_called("topic", name),
        "partitions": len(observed.replicas),
        "config": {key: held.value for key, held in sorted(observed.config.items()) if held.is_set},
    }
    if len(replicas) == 1:
        return Discovered(setting_name(name), {**value, "replication_factor": replicas[0]})
    why = f"its partitions have {' or '.join(map(str, replicas))} replicas"
    return Discovered(setting_name(name), value, undeclarable=why)


def user(name: str, credentials: Credentials, held: Bindings, limits: Rates) -> Discovered:
    """A user with a SCRAM credential. What it has none of stays somebody else's affair."""
    mechanism = max(credentials)
    setting = setting_name(name)
    value: dict[str, Any] = {
        **_called("username", name),
        "mechanism": mechanism,
        "iterations": credentials[mechanism],
        "password": {"from_file": f"secrets/{setting}"},
        **({"acls": permissions(held)} if held else {}),
        **({"quotas": dict(limits)} if limits else {}),
    }
    return Discovered(setting, value, {"/password": f"a reference to {name}'s password, which can't be read"})


def acl(principal: str, held: Bindings) -> Discovered:
    """All permissions of a principal."""
    return Discovered(setting_name(principal), {"principal": principal, "acls": permissions(held)})


def quota(entity: str, limits: Rates) -> Discovered:
    """The limits of an entity."""
    value: dict[str, Any] = {FIELDS[kind]: name for kind, name in entity_parts(entity).items()}
    rates = {name: rate for name, rate in limits.items() if name != "connection_creation_rate"}
    value |= {"quotas": rates} if rates else {}
    value |= {name: rate for name, rate in limits.items() if name not in rates}
    return Discovered(setting_name(entity), value)


def group(name: str) -> Discovered:
    """A group, without bounds: what is too far is nobody's to find."""
    return Discovered(setting_name(name), {**_called("group", name)})


def users(
    credentials: Mapping[str, Credentials], held: Mapping[str, Bindings], limits: Mapping[str, Rates]
) -> list[Discovered]:
    """Users with what they have."""
    return [
        user(name, found, held.get(principal_of(name), frozenset()), limits.get(f"user={name}", {}))
        for name, found in sorted(credentials.items())
    ]


def others(names: Iterable[str], users: Iterable[str], match: str) -> Iterator[str]:
    """Those that are meant and are no users' own, in order."""
    own = {form for name in users for form in (principal_of(name), f"user={name}")}
    return (name for name in sorted(names) if name not in own and matches(name, match))


def permissions(held: Bindings) -> list[dict[str, Any]]:
    """As they are declared: operations on the same resource together."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for one in sorted(held):
        place = (one.resource, one.name, one.pattern, one.permission, one.host)
        rows.setdefault(place, []).append(one.operation)
    return [_permission(place, operations) for place, operations in sorted(rows.items())]


def _permission(place: tuple[str, ...], operations: list[str]) -> dict[str, Any]:
    resource, name, pattern, permission, host = place
    return {
        "resource": resource,
        **({} if resource == "cluster" else {"name": name}),
        **({} if pattern == "literal" else {"pattern": pattern}),
        "operations": operations,
        **({} if permission == "allow" else {"permission": permission}),
        **({} if host == "*" else {"host": host}),
    }


def _called(field: str, name: str) -> Mapping[str, str]:
    return {} if setting_name(name) == name else {field: name}
