"""Generations of an index and the marks they carry. Pure.

A generation is named `products-g7-1a2b3c4d`: alias, number, digest of the definition it was made from. Its mark stands in
the mapping's `_meta.coreplane`, so that it survives daemons and nodes and says to anybody what the index is.

    phase     copying   made; the old documents are being copied into it
              feeding   copied; what changed meanwhile is being carried over
              verified  compared with the old one; the alias may move
              serving   the alias points to it
              old       served before; kept, write-blocked, until its time is over
              refused   documents or checks said no; waits for another declaration

Note [A hold is a setting]: while the alias moves, writes to the new generation wait, because it is told to have one copy
more than can be allocated and to wait for all of them. The settings that say so survive whoever set them; `is_held` sees it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

MARK: Final = "coreplane"
PHASES: Final = ("copying", "feeding", "verified", "serving", "old", "refused")
WAIT_SETTING: Final = "index.write.wait_for_active_shards"
ALLOCATION_SETTING: Final = "index.routing.allocation.enable"
WRITE_BLOCK: Final = "index.blocks.write"


@dataclass(frozen=True, slots=True)
class Mark:
    """What `_meta.coreplane` says."""

    phase: str = "serving"
    digest: str = ""
    """Of the definition that it was made for."""
    source: str = ""
    """Generation that it is copied from."""
    checkpoints: Mapping[str, int] = field(default_factory=dict)
    """Shard of the source → sequence number up to which everything is carried over."""
    task: str = ""
    percent: int = 0
    requests_per_second: float | None = None
    reason: str = ""
    """Why it was refused."""
    since: float = 0.0
    """When the phase began, Unix seconds."""
    approved: str = ""
    """Digest of the definition that somebody let it be migrated to."""
    aborted: str = ""
    """Digest of the definition that somebody doesn't want it to be migrated to."""
    rollback: str = ""
    """Generation whose definition somebody wants back."""
    pinned: str = ""
    """Digest of the declaration that it stands against since a rollback."""

    def document(self) -> dict[str, Any]:
        """As it stands in `_meta`; what says nothing is left out."""
        return {name: value for name, value in asdict(self).items() if value or name == "phase"}

    def at(self, phase: str, now: float, **fields: Any) -> Mark:
        """The mark in another phase."""
        return replace(self, phase=phase, since=now, **fields)


def mark_of(mappings: Mapping[str, Any]) -> Mark | None:
    """The mark in a mapping; None when there is none of ours."""
    raw = mappings.get("_meta", {}).get(MARK)
    if not isinstance(raw, Mapping) or raw.get("phase") not in PHASES:
        return None
    known = {name: raw[name] for name in Mark.__dataclass_fields__ if name in raw}
    return Mark(**known)


def marked(meta: Mapping[str, Any] | None, mark: Mark) -> dict[str, Any]:
    """`_meta` with the mark."""
    return {**(meta or {}), MARK: mark.document()}


@dataclass(frozen=True, slots=True)
class Generation:
    """One concrete index as the server describes it."""

    name: str
    number: int
    """0: an index of the alias's own name, which isn't ours to replace."""
    settings: Mapping[str, Any]
    """Flat."""
    mappings: Mapping[str, Any]
    aliases: Mapping[str, Any]
    mark: Mark = Mark()

    @property
    def is_held(self) -> bool:
        """True while plain writes to it wait. See Note [A hold is a setting]."""
        return str(self.settings.get(WAIT_SETTING)) == "all" and self.settings.get(ALLOCATION_SETTING) == "none"

    @property
    def is_blocked(self) -> bool:
        """True while it takes no writes."""
        return self.settings.get(WRITE_BLOCK) == "true"

    @property
    def is_full(self) -> bool:
        """True when the server stopped writes to it because its disk is full."""
        return self.settings.get("index.blocks.read_only_allow_delete") == "true"

    @property
    def is_closed(self) -> bool:
        """True while it takes neither reads nor writes."""
        return self.settings.get("index.verified_before_close") == "true"

    @property
    def shards(self) -> int:
        """How many."""
        return int(self.settings.get("index.number_of_shards", 1))


def generation_name(alias: str, number: int, digest: str) -> str:
    """`products-g7-1a2b3c4d`."""
    return f"{alias}-g{number}-{digest[:8]}"


def number_of(alias: str, index: str) -> int | None:
    """Which generation of the alias an index is by its name; None when it is none."""
    if index == alias:
        return 0
    found = re.fullmatch(re.escape(alias) + r"-g(\d+)-[0-9a-f]{8}", index)
    return int(found[1]) if found else None


def alias_of_generation(index: str) -> str | None:
    """The alias that an index is a generation of, by its name; None when it is none."""
    found = re.fullmatch(r"(.+)-g\d+-[0-9a-f]{8}", index)
    return found[1] if found else None


def generation(alias: str, index: str, document: Mapping[str, Any]) -> Generation | None:
    """From the server's description (`GET /index?flat_settings=true`); None when it is none of this alias."""
    aliases = document.get("aliases", {})
    number = number_of(alias, index)
    if number is None and alias not in aliases:
        return None
    return described_as(index, number or 0, document)


def described_as(index: str, number: int, document: Mapping[str, Any]) -> Generation:
    """The index as a generation of this number."""
    mappings = document.get("mappings", {})
    mark = mark_of(mappings) or Mark()
    return Generation(index, number, document.get("settings", {}), mappings, document.get("aliases", {}), mark)


def serving(alias: str, found: tuple[Generation, ...]) -> Generation | None:
    """Where the alias points to; of several the one that is written to, or the newest."""
    holding = [one for one in found if alias in one.aliases or one.name == alias]
    writing = [one for one in holding if one.aliases.get(alias, {}).get("is_write_index")]
    found = tuple(writing or holding)
    return found[-1] if found else None
