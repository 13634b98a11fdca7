"""Steps on Redis parameters, Redis users and Memcached settings: what is to be done, as data. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reconcilers.cache.acl import User
from reconcilers.contract import Step

NodeChanges = tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
"""((node, ((name, value)…))…)."""


@dataclass(frozen=True, slots=True)
class SetUser(Step):
    """Make the user what is declared, from scratch and at once. No nodes: on every node."""

    user: User
    nodes: tuple[str, ...] = ()
    kill: bool = False
    """End the user's sessions afterwards."""

    def details(self) -> dict[str, Any]:
        """JSON for events and plans; the passwords as references."""
        references = None if self.user.passwords is None else [str(reference) for reference in self.user.passwords]
        return {
            "external": self.external.name,
            "enabled": self.user.enabled,
            "rules": list(self.user.rules),
            "passwords": references,
            "kill_sessions": self.kill,
            **_named(self.nodes),
        }


@dataclass(frozen=True, slots=True)
class DropUser(Step):
    """Remove the user; the server ends its sessions."""

    nodes: tuple[str, ...]

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, **_named(self.nodes)}


@dataclass(frozen=True, slots=True)
class SetParameters(Step):
    """Set all differing parameters of a node at once: all or none."""

    changes: NodeChanges
    persist: bool = False
    """Write the server's file in the same transaction."""

    def paths(self) -> Sequence[str]:
        """The parameters."""
        return [f"/parameters/{name}" for name in _names(self.changes)]

    def summary(self) -> str:
        """One line for people."""
        return f"SetParameters {_assignments(self.changes)}"

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, "parameters": _as_maps(self.changes), "persist": self.persist}


@dataclass(frozen=True, slots=True)
class RewriteConfig(Step):
    """Write what is set to the server's configuration file."""

    nodes: tuple[str, ...]

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, **_named(self.nodes)}


@dataclass(frozen=True, slots=True)
class ChangeSettings(Step):
    """Change settings by their commands, one after the other; each may be repeated."""

    changes: NodeChanges

    def paths(self) -> Sequence[str]:
        """The settings, which are named by their paths."""
        return _names(self.changes)

    def summary(self) -> str:
        """One line for people."""
        return f"ChangeSettings {_assignments(self.changes)}"

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, "settings": _as_maps(self.changes)}


def _named(nodes: tuple[str, ...]) -> dict[str, Any]:
    return {"nodes": list(nodes)} if nodes else {}


def _names(changes: NodeChanges) -> list[str]:
    return sorted({name for _, rows in changes for name, _ in rows})


def _as_maps(changes: NodeChanges) -> dict[str, dict[str, str]]:
    return {node: dict(rows) for node, rows in changes}


def _assignments(changes: NodeChanges) -> str:
    rows = dict.fromkeys(f"{name}={value}" for _, rows in changes for name, value in rows)
    return ", ".join(rows)
