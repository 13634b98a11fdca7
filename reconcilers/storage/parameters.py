"""Parameters of MinIO's subsystems: what is declared and held, and the planner. Pure.

The server answers with all parameters of a subsystem in one line, ours among them; a line that begins with `# MINIO_` says
that an environment variable of the server has the last word, which no request can change. A target of a subsystem
(`notify_webhook:NAME`) comes into being when something of it is set.

Most subsystems are read at the server's start only, and until then the server tells what it started with: that something was
set is remembered, so that it isn't set again by each sweep, and waited for. What is remembered counts for `AGAIN_S`, in case
somebody sets it back before the start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
UNTOLD: Final[Mapping[str, str]] = {"enable": "on"}
"""What the server doesn't tell of what it holds."""
AGAIN_S: Final = 3_600.0
LOOK_S: Final = 30.0
_PAIR = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|\S*)')
_OVERRIDE = re.compile(r"^#\s*(MINIO_[^=\s]+)=(.*)$")


@dataclass(frozen=True, slots=True)
class HeldConfig:
    """What the server holds. `overridden`: parameters that an environment variable of the server decides."""

    values: Mapping[str, str]
    overridden: Mapping[str, str] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)
    """What was set last, for the next start."""
    written_at: Instant = 0.0


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
    external: ExternalId, desired: Mapping[str, str] | None, observed: HeldConfig | None, now: Instant
) -> Plan:
    """Change what differs. A retired declaration leaves the values: nobody knows what they were before."""
    if desired is None or observed is None:
        return CONVERGED
    differences, changes, blocked = [], [], []
    for name, wanted in sorted(desired.items()):
        have = observed.overridden.get(name, observed.values.get(name, UNTOLD.get(name)))
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
    late = waits_for_start(external.name)
    if late and changes and observed.written.items() >= dict(changes).items() and now < observed.written_at + AGAIN_S:
        waits = "it is set, and counts from the server's next start on"
        return Plan((), tuple(differences), joined(blocked), requeue_after_s=LOOK_S, wait_reason=waits)
    warnings = ("it counts from the server's next start on",) if late else ()
    return Plan(steps, tuple(differences), joined(blocked), warnings=warnings)


def waits_for_start(name: str) -> bool:
    """Whether the server takes changes of this subsystem, or target of one, at its start only."""
    return name.partition(":")[0] not in DYNAMIC


def remembered(step: SetConfig, now: Instant) -> dict[str, str]:
    """What `recall` reads."""
    if not waits_for_start(step.external.name):
        return {}
    return {"written": json.dumps(dict(step.changes)), "written_at": str(now)}


def recall(held: HeldConfig | None, remembered: Mapping[str, str]) -> HeldConfig | None:
    """Completed by what was set and isn't told yet."""
    if held is None or "written" not in remembered:
        return held
    return replace(held, written=json.loads(remembered["written"]), written_at=float(remembered["written_at"]))


def parsed(text: str, name: str) -> HeldConfig:
    """The server's answer for one subsystem, or for one target of it (`notify_webhook:NAME`)."""
    subsystem, _, target = name.partition(":")
    prefix, suffix = f"MINIO_{subsystem.upper()}_", f"_{target}" if target else ""
    values: dict[str, str] = {}
    overridden: dict[str, str] = {}
    for line in text.strip().splitlines():
        override = _OVERRIDE.match(line)
        if override is not None and override[1].startswith(prefix) and override[1].endswith(suffix):
            overridden[override[1][len(prefix) :].removesuffix(suffix).lower()] = override[2].strip().strip('"')
        elif line.split(maxsplit=1)[:1] == [name]:
            values |= {pair[1]: pair[2].strip('"') for pair in _PAIR.finditer(line)}
    return HeldConfig(values, overridden)


def target_of(subsystem: HeldConfig, own: HeldConfig) -> HeldConfig:
    """A target of a subsystem: of what isn't set the server tells nothing, it is as in the subsystem."""
    there = UNTOLD if own.values else {}
    return HeldConfig({**subsystem.values, **there, **own.values}, own.overridden)


def line_of(subsystem: str, changes: Mapping[str, str]) -> str:
    """As `set-config-kv` takes it."""
    return " ".join([subsystem, *(f'{name}="{value}"' for name, value in sorted(changes.items()))])
