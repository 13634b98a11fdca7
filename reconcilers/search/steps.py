"""Steps on indices: what is to be done, as data. Pure.

Every step of a migration holds what makes it differ from the one before it (a number of documents, of a pass), so that the
plan changes as long as the migration goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reconcilers.contract import Step
from reconcilers.search.definition import Body
from reconcilers.search.generations import Mark
from schemas.search import Migration


@dataclass(frozen=True, slots=True)
class CreateIndex(Step):
    """Make the first generation, with its alias, at once."""

    index: str
    body: Body = field(repr=False)
    digest: str

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {
            "external": self.external.name,
            "index": self.index,
            "settings": dict(self.body.settings),
            "mappings": dict(self.body.mappings),
        }


@dataclass(frozen=True, slots=True)
class ChangeIndex(Step):
    """Change settings, mapping and aliases in place. Nobody notices."""

    index: str
    settings: Mapping[str, Any]
    mappings: Mapping[str, Any]
    aliases: Mapping[str, Any]

    def summary(self) -> str:
        """One line for people."""
        parts = [name for name in ("settings", "mappings", "aliases") if getattr(self, name)]
        return f"ChangeIndex {self.external.name}: {', '.join(parts)}"

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {
            "external": self.external.name,
            "index": self.index,
            "settings": dict(self.settings),
            "mappings": dict(self.mappings),
            "aliases": dict(self.aliases),
        }


@dataclass(frozen=True, slots=True)
class ReopenIndex(Step):
    """Close the index, change settings, open it: it is unavailable meanwhile."""

    index: str
    settings: Mapping[str, Any]

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, "index": self.index, "settings": dict(self.settings)}


@dataclass(frozen=True, slots=True)
class OpenIndex(Step):
    """Open an index that somebody closed."""

    index: str


@dataclass(frozen=True, slots=True)
class BackfillFields(Step):
    """Run the old documents through new fields."""

    index: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PointAlias(Step):
    """Give a generation its alias back."""

    index: str
    aliases: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DropIndex(Step, irreversible=True):
    """Remove all generations with their documents."""

    indices: tuple[str, ...]

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, "indices": list(self.indices)}


# --- migration ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MigrationStep(Step):
    """A step of a migration, from one generation to another."""

    source: str
    index: str

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, "from": self.source, "to": self.index}


@dataclass(frozen=True, slots=True)
class CreateGeneration(MigrationStep):
    """Note how far the source is, and make an empty generation for what is declared."""

    body: Body = field(repr=False)
    mark: Mark
    reasons: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line for people."""
        return f"CreateGeneration {self.index}: {'; '.join(self.reasons)}"[:300]

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {
            "external": self.external.name,
            "from": self.source,
            "to": self.index,
            "because": list(self.reasons),
        }


@dataclass(frozen=True, slots=True)
class StartCopy(MigrationStep):
    """Let the server copy the documents; what is there already is skipped."""

    attempt: str
    """The task that was lost before this one."""
    requests_per_second: float | None


@dataclass(frozen=True, slots=True)
class RecordProgress(MigrationStep):
    """Note in the generation's mark how far the copy is."""

    percent: int

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, "from": self.source, "to": self.index, "percent": self.percent}


@dataclass(frozen=True, slots=True)
class MarkGeneration(MigrationStep):
    """Note in the generation's mark which phase it is in."""

    phase: str
    reason: str = ""

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {
            "external": self.external.name,
            "from": self.source,
            "to": self.index,
            "phase": self.phase,
            **({"reason": self.reason} if self.reason else {}),
        }


@dataclass(frozen=True, slots=True)
class ListDocuments(MigrationStep):
    """List the source's documents by sequence number, a part at a time: what is missing later was deleted."""

    listed: int


@dataclass(frozen=True, slots=True)
class CompareDocuments(MigrationStep):
    """Look for documents that were copied and deleted before they were listed, a part at a time."""

    compared: int


@dataclass(frozen=True, slots=True)
class FeedChanges(MigrationStep):
    """Carry over what was written and deleted since the last pass."""

    number: int


@dataclass(frozen=True, slots=True)
class VerifyGeneration(MigrationStep):
    """Compare counts, a sample of documents and declared queries."""

    number: int
    migration: Migration = field(repr=False)


@dataclass(frozen=True, slots=True)
class SwitchAlias(MigrationStep):
    """Hold writers, move the aliases at once, carry over the rest, compare the counts, let the writers go on."""

    number: int
    restore: Mapping[str, Any] = field(repr=False)
    """Settings that end the hold."""
    hold_s: float


@dataclass(frozen=True, slots=True)
class FinishSwitch(MigrationStep):
    """Do the rest of a switch that was interrupted after the aliases had moved."""

    restore: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReleaseHold(MigrationStep):
    """Let writers go on after a switch that was interrupted before the aliases moved."""

    restore: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class RetireGeneration(MigrationStep):
    """Mark the old generation as old, the new one as serving."""

    pinned: str = ""


@dataclass(frozen=True, slots=True)
class DropGeneration(Step):
    """Remove a generation that nobody reads: an unfinished one, or an old one whose time is over."""

    index: str
    reason: str

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name, "index": self.index, "reason": self.reason}
