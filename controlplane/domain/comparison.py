"""What was declared at one place of the log and at another: what came, went, and changed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controlplane.domain.answers import Selection, declaration, matches
from controlplane.domain.changes import changed_paths, identical
from controlplane.domain.fold import Entry

Entries = Mapping[str, Entry]


def compared(before: Entries, after: Entries, chosen: Selection) -> Iterator[dict[str, Any]]:
    """A row for each setting chosen, then or now, that isn't the same at both places; by key.

    `outcome`: created, updated, retired (it is on its way out) or gone. `changed` holds JSON pointers into the declaration.
    """
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old is new or not any(entry is not None and matches(entry, {}, chosen) for entry in (old, new)):
            continue
        outcome = _outcome(old, new)
        if outcome is not None:
            yield {
                "setting": key,
                "outcome": outcome,
                "changed": changed_paths(_body(old), _body(new)) if outcome == "updated" else [],
                "before": _side(old),
                "after": _side(new),
            }


def _outcome(old: Entry | None, new: Entry | None) -> str | None:
    if old is None:
        return "created"
    if new is None:
        return "gone"
    if new.retiring != old.retiring:
        return "retired" if new.retiring else "created"
    return None if identical(dict(old.body), dict(new.body)) else "updated"


def _body(entry: Entry | None) -> Mapping[str, Any] | None:
    return None if entry is None else entry.body


def _side(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    who = {"revision": entry.revision, "actor": entry.actor, "reason": entry.reason, "at": entry.updated_at}
    return {**who, "retiring": entry.retiring, "declaration": declaration(entry)}
