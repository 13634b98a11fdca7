"""What an apply with prune retires: labelled settings that its document no longer declares."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.domain.fold import Entry

SAFETY_SHARE: Final = 0.30
"""Largest share of the labelled settings that is retired without being asked for expressly."""


class Prune(NamedTuple):
    """`retire`: keys, sorted. `labelled`: how many settings carry the labels now and aren't retiring."""

    retire: tuple[str, ...]
    labelled: int

    @property
    def share(self) -> float:
        """Part of the labelled settings that would be retired, 0 to 1."""
        return len(self.retire) / self.labelled if self.labelled else 0.0


def prune(entries: Iterable[Entry], labels: Mapping[str, str], declared: Collection[str]) -> Prune:
    """What to retire among the tenant's entries. Raises `Refused` without labels: that would mean everything."""
    if not labels:
        fault = Fault("/prune/labels", "name at least one label; an empty selection would retire everything else")
        raise Refused(Reason.INVALID, "prune needs labels", [fault])
    labelled = [entry.key for entry in entries if not entry.retiring and carries(entry, labels)]
    return Prune(tuple(sorted(key for key in labelled if key not in declared)), len(labelled))


def check_share(found: Prune, safety_share: float = SAFETY_SHARE) -> None:
    """Raise `Refused` (PruneRefused) when more than the safety share would be retired."""
    if found.share > safety_share:
        detail = (
            f"prune would retire {len(found.retire)} of {found.labelled} labelled settings, over the safety share of "
            f"{safety_share:.0%}; check the document, or repeat with allow_prune=true"
        )
        raise Refused(Reason.PRUNE_REFUSED, detail, [Fault("/prune", f"would retire {key}") for key in found.retire])


def carries(entry: Entry, labels: Mapping[str, str]) -> bool:
    """True when the entry has all the labels with these values."""
    own = entry.body.get("labels", {})
    return all(own.get(name) == value for name, value in labels.items())
