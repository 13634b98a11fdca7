"""Parameters of MinIO's subsystems: what is declared and held, and the planner. Pure.

The server answers with all parameters of a subsystem in one line, ours among them; a line that begins with `# MINIO_` says
that an environment variable of the server has the last word, which no request can change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from reconcilers.contract import (
    CONVERGED,
    Difference,
    ExternalId,
    Instant,
    Plan,
    Step,
    TerminalError,
)
from reconcilers.planning import joined
from schemas.storage import ServerConfig

SERVER_CONFIG: Final = "storage.server_config"
DYNAMIC: Final = frozenset(
    {
        "api",
        "compression",
        "scanner",
        "heal",
        "subnet",
        "callhome",
        "logger_webhook",
        "audit_webhook",
        "audit_kafka",
        "storage_class",
    }
)
"""Subsystems that take a change at once; the others at the server's next start."""
_PAIR = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|\S*)')
_OVERRIDE = re.compile(r"^#\s*MINIO_([A-Z0-9_]+)=(.*)$")


@dataclass(frozen=True, slots=True)
class HeldConfig:
    """What the server holds. `overridden`: parameters that an environment variable of the server decides."""

    values: Mapping[str, str]
    overridden: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SetConfig(Step):
    """Set some parameters of the subsystem."""

    changes: tuple[tuple[str, str], ...]

    def summary(self) -> str:
        """See the contract."""
        return f"SetConfig {self.external.name} {' '.join(f'{name}={value}' for name, value in self.changes)}"

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, "changes": dict(self.changes)}


def subsystem(_name: str, value: ServerConfig) -> str:
    """The subsystem is there once per server."""
    return value.subsystem


def declared(_name: str, value: ServerConfig) -> Mapping[str, str]:
    """The parameters that are named."""
    return dict(value.settings)


def plan_config(
    external: ExternalId, desired: Mapping[str, str] | None, observed: HeldConfig | None, _now: Instant
) -> Plan:
    """Change what differs. A retired declaration leaves the values: nobody knows what they were before."""
    if desired is None or observed is None:
        return CONVERGED
    differences, changes, blocked = [], [], []
    for name, wanted in sorted(desired.items()):
        have = observed.overridden.get(name, observed.values.get(name))
        if have == wanted:
            continue
        differences.append(Difference(f"/settings/{name}", wanted, have))
        if name in observed.overridden:
            message = f"{name}: an environment variable of the server decides it"
            blocked.append(TerminalError(message, reason="Overridden"))
        elif have is None:
            message = f"{external.name} has no parameter {name}"
            blocked.append(TerminalError(message, reason="UnknownParameter"))
        else:
            changes.append((name, wanted))
    steps = (SetConfig(external, tuple(changes)),) if changes else ()
    late = external.name.partition(":")[0] not in DYNAMIC
    warnings = ("it counts from the server's next start on",) if late else ()
    return Plan(steps, tuple(differences), joined(blocked), warnings=warnings)


def parsed(text: str) -> HeldConfig:
    """The server's answer for one subsystem."""
    values: dict[str, str] = {}
    overridden: dict[str, str] = {}
    lines = text.strip().splitlines()
    name = next((line.split(maxsplit=1)[0].partition(":")[0] for line in lines if not line.startswith("#")), "")
    for line in lines:
        override = _OVERRIDE.match(line)
        if override is not None:
            overridden[override[1].lower().removeprefix(f"{name}_")] = override[2].strip().strip('"')
        elif not line.startswith("#"):
            values |= {pair[1]: pair[2].strip('"') for pair in _PAIR.finditer(line)}
    return HeldConfig(values, overridden)


def line_of(subsystem: str, changes: Mapping[str, str]) -> str:
    """As `set-config-kv` takes it."""
    return " ".join([subsystem, *(f'{name}="{value}"' for name, value in sorted(changes.items()))])
