"""Steps on topics: what is to be done, as data. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reconcilers.contract import Step

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class CreateTopic(Step):
    """Make the topic as it is declared."""

    partitions: int | None
    replication_factor: int | None
    config: Pairs

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {
            "external": self.external.name,
            "partitions": self.partitions,
            "replication_factor": self.replication_factor,
            "config": dict(self.config),
        }


@dataclass(frozen=True, slots=True)
class ChangeConfig(Step):
    """Set some configurations, and give others back to the cluster's default."""

    values: Pairs
    reset: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()
    """Every configuration that is declared: remembered afterwards."""

    def summary(self) -> str:
        """One line for people."""
        changes = [*(f"{name}={value}" for name, value in self.values), *(f"{name} back" for name in self.reset)]
        return f"ChangeConfig {self.external.name} {' '.join(changes)}"

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, "config": dict(self.values), "reset": list(self.reset)}


@dataclass(frozen=True, slots=True)
class RaisePartitions(Step):
    """More partitions. Messages stay where they are, and keys go elsewhere from then on."""

    count: int
    before: int

    def summary(self) -> str:
        """One line for people."""
        return f"RaisePartitions {self.external.name} from {self.before} to {self.count}: keys move to other partitions"

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, "partitions": self.count, "before": self.before}


@dataclass(frozen=True, slots=True)
class ReassignReplicas(Step):
    """Begin to hold partitions on other brokers; the brokers copy."""

    replicas: tuple[tuple[int, tuple[int, ...]], ...]
    """(partition, brokers)"""

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, "replicas": {str(part): list(on) for part, on in self.replicas}}


@dataclass(frozen=True, slots=True)
class AcceptRecreated(Step):
    """Somebody deleted the topic and made it anew: its messages are gone, and nothing here brings them back. Noted."""

    topic_id: str

    def summary(self) -> str:
        """One line for people."""
        return f"AcceptRecreated {self.external.name}: somebody made it anew, what it held is lost"

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, "topic_id": self.topic_id}


@dataclass(frozen=True, slots=True)
class DeleteTopic(Step):
    """Delete the topic with this id, and all that it holds."""

    topic_id: str

    def summary(self) -> str:
        """One line for people."""
        return f"DeleteTopic {self.external.name} with all its messages"

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, "topic_id": self.topic_id}
