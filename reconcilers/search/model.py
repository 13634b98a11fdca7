"""Desired and observed objects of the search service. Pure.

The definition of an index and how two of them differ stand in `definition`, the marks of a migration in `generations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from reconcilers.search.definition import Body, Definition
from reconcilers.search.generations import Generation

INDEX: Final = "search.index"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a shadow index said to the changes that are wanted."""

    mapping: str | None = None
    """None: taken in place; else the server's reason to refuse."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Changed setting → `in_place`, `reopen` or the server's reason to refuse both."""


@dataclass(frozen=True, slots=True)
class Copy:
    """The reindex into a generation that is being made."""

    state: str
    """`running`, `done`, `failed` or `lost` (the node was restarted)."""
    copied: int = 0
    total: int = 0
    message: str = ""

    @property
    def percent(self) -> int:
        """In steps of ten."""
        return min(100, 100 * self.copied // max(1, self.total)) // 10 * 10


@dataclass(frozen=True, slots=True)
class Feed:
    """What the process that drives a migration knows of the old generation's changes. Gone with the process."""

    listed: int = 0
    is_listed: bool = False
    compared: int = 0
    is_compared: bool = False
    passes: int = 0
    last_s: float = 0.0
    """How long the last pass took."""
    shrinks: bool = True
    """False when the last pass took no less time than the one before it."""


@dataclass(frozen=True, slots=True)
class ObservedIndex:
    """Everything that stands behind one alias."""

    serving: Generation | None
    """Where the alias points; or the index of that very name."""
    generations: tuple[Generation, ...]
    """All, the serving one too, by number."""
    canonical: Body | None = None
    """The declaration as the server understands it; None when it is retired."""
    verdict: Verdict | None = None
    """Given when the serving generation differs."""
    copy: Copy | None = None
    feed: Feed | None = None
    is_building_well: bool = True
    """False while the generation that is being made has fewer copies than the serving one."""
    missing_pipelines: tuple[str, ...] = ()

    @property
    def building(self) -> Generation | None:
        """The newest generation, when it isn't the serving one and isn't an old one."""
        newest = self.generations[-1] if self.generations else None
        if newest is None or newest is self.serving or newest.mark.phase in ("serving", "old"):
            return None
        return newest


def index_name(name: str, value: Any) -> str:
    """The alias people use."""
    return str(value.index or name)


__all__ = ["INDEX", "Body", "Copy", "Definition", "Feed", "Generation", "ObservedIndex", "Verdict", "index_name"]
