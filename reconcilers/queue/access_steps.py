"""Steps on users, permissions and quotas: what is to be done, as data. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reconcilers.contract import Step
from reconcilers.queue.access import Binding
from schemas.secret import SecretRef


@dataclass(frozen=True, slots=True)
class SetCredential(Step):
    """Let the user in with this password, and with no other of the same mechanism."""

    mechanism: str
    iterations: int
    password: SecretRef

    def details(self) -> dict[str, Any]:
        """JSON for events and plans; the password as a reference."""
        password = str(self.password)
        return {
            "external": self.external.name,
            "mechanism": self.mechanism,
            "iterations": self.iterations,
            "password": password,
        }


@dataclass(frozen=True, slots=True)
class DropCredential(Step):
    """Let the user in no longer by this mechanism. Who is in already stays until his connection ends."""

    mechanism: str

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, "mechanism": self.mechanism}


@dataclass(frozen=True, slots=True)
class ChangeAcls(Step):
    """Give permissions and take others away, in this order: there is no moment without those that stay."""

    principal: str
    add: tuple[Binding, ...]
    remove: tuple[Binding, ...]
    everything: bool = False
    """All that the principal has goes: one request takes them, however many they are."""
    owned: str | None = None
    """What of the user is ours from now on; None: it is no user."""

    def summary(self) -> str:
        """One line for people."""
        return f"ChangeAcls {self.principal}: {len(self.add)} given, {len(self.remove)} taken away"

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {
            "external": self.external.name,
            "principal": self.principal,
            "given": [str(binding) for binding in self.add],
            "taken": [str(binding) for binding in self.remove],
        }


@dataclass(frozen=True, slots=True)
class SetQuotas(Step):
    """Set some limits of an entity, and remove others (None)."""

    entity: str
    values: tuple[tuple[str, float | None], ...]
    owned: str | None = None
    """As in ChangeAcls."""

    def summary(self) -> str:
        """One line for people."""
        told = " ".join(f"{name}={'none' if value is None else format(value, 'g')}" for name, value in self.values)
        return f"SetQuotas {self.entity} {told}"

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, "entity": self.entity, "quotas": dict(self.values)}
