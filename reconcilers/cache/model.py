"""Desired and observed objects of the cache service. Pure.

Canonical forms live beside it: `acl` (users), `parameters` (Redis), `memcached_settings` (Memcached), `namespace`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from reconcilers.cache import parameters
from reconcilers.cache.acl import Account
from reconcilers.cache.parameters import Verdict
from reconcilers.planning import Nodes
from schemas.cache import RedisConfig

REDIS_CONFIG: Final = "cache.redis_config"
REDIS_USER: Final = "cache.redis_user"
MEMCACHED_CONFIG: Final = "cache.memcached_config"

CONFIG: Final = "config"
"""Name of the one object of a server's parameters: two settings for one server are a conflict."""

DEFAULT_USER: Final = "default"


@dataclass(frozen=True, slots=True)
class Config:
    """Declared parameters of Redis, canonical, by their declared names."""

    parameters: Mapping[str, str]
    persist: bool
    notes: tuple[str, ...] = ()
    """What people should know of values that the server is known to change."""


def config_name(_name: str, _value: object) -> str:
    """All settings for a server's parameters mean the same object."""
    return CONFIG


def config(_name: str, value: RedisConfig) -> Config:
    """The declaration as the server would show it."""
    wanted = {name: parameters.canonical(name, text) for name, text in value.parameters.items()}
    notes = [
        f"{name}: the server holds {wanted[name]} for {text}"
        for name, text in value.parameters.items()
        if parameters.clamped(name, text)
    ]
    return Config(wanted, value.persist, tuple(notes))


@dataclass(frozen=True, slots=True)
class HeldConfig:
    """What one Redis node holds of the parameters asked for. A missing one is unknown to the server."""

    values: Mapping[str, str]
    """Canonical, by the names asked for."""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    """The server's answer to the very values that are declared, as far as they were tried."""
    has_file: bool = True
    unsaved: bool = False
    """True when something was set and the file not written since."""


@dataclass(frozen=True, slots=True)
class ObservedConfig:
    """Parameters on all nodes."""

    nodes: Nodes[HeldConfig]


@dataclass(frozen=True, slots=True)
class ObservedUser:
    """A user that at least one node has."""

    nodes: Nodes[Account | None]
    wanted: Mapping[str, Account] = field(default_factory=dict)
    """What each node made of the declared rules; empty when the user is retired."""
    lockout: str | None = None
    """Set when the daemon itself logs in as this user and couldn't go on as declared: what it would lose."""


@dataclass(frozen=True, slots=True)
class HeldSettings:
    """What one Memcached node holds: path → text."""

    values: Mapping[str, str]
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ObservedSettings:
    """Settings on all nodes."""

    nodes: Nodes[HeldSettings]
