"""Settings as they are answered: the folded entry with what is known of the world beside it; and which ones, in pages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.domain.fold import Entry
from controlplane.domain.prune import carries
from controlplane.domain.status import KeyStatus, public
from schemas.names import parse_key, setting_id
from schemas.setting import Phase


def setting(entry: Entry, status: KeyStatus | None) -> dict[str, Any]:
    """`schemas.setting.InfrastructureSetting`, as JSON values."""
    key = parse_key(entry.key)
    return {
        "id": setting_id(entry.key),
        "tenant": key.tenant,
        "setting_type": key.setting_type,
        "name": key.name,
        **{part: entry.body.get(part, {}) for part in ("value", "labels", "policy")},
        "depends_on": entry.body.get("depends_on", []),
        "created_at": entry.created_at,
        "updated_at": entry.updated_at,
        "generation": entry.generation,
        "revision": entry.revision,
        "retiring": entry.retiring,
        "status": {**public(status or KeyStatus(entry.key)), "phase": str(phase(entry, status))},
    }


def declaration(entry: Entry) -> dict[str, Any]:
    """The entry as it would be written in a file; empty parts are left out."""
    key = parse_key(entry.key)
    parts = {part: entry.body[part] for part in ("labels", "depends_on", "policy") if entry.body.get(part)}
    return {"type": key.setting_type, "name": key.name, **parts, "value": entry.body["value"]}


def phase(entry: Entry, status: KeyStatus | None) -> Phase:
    """The status's phase while it speaks of this generation; a newer one is still to be looked at."""
    if status is not None and status.observed_generation >= entry.generation and status.retiring == entry.retiring:
        return status.phase
    return Phase.RETIRING if entry.retiring else Phase.PENDING


def is_ready(status: KeyStatus | None, generation: int) -> bool:
    """True when this generation, or a later one, is observed as declared."""
    return status is not None and status.observed_generation >= generation and status.phase is Phase.READY


@dataclass(frozen=True, slots=True)
class Selection:
    """Which settings of a tenant; None and empty mean all."""

    tenant: str
    setting_type: str | None = None
    service: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    phase: Phase | None = None
    text: str | None = None
    """Found in the key, a label or the value, case folded."""
    services: frozenset[str] | None = None
    """Only settings of these."""


def select(entries: Iterable[Entry], statuses: Mapping[str, KeyStatus] | Any, chosen: Selection) -> list[Entry]:
    """The entries chosen, by key. `statuses` is anything with `get(key)`."""
    found = [entry for entry in entries if matches(entry, statuses, chosen)]
    return sorted(found, key=lambda entry: entry.key)


def page(
    entries: Iterable[Entry], statuses: Mapping[str, KeyStatus] | Any, chosen: Selection, *, after: str, limit: int
) -> tuple[list[Entry], str | None]:
    """Up to `limit` of the entries chosen whose key is above `after`, and the key to go on after (None: that was all).

    Cursors are keys, so a page never repeats or misses a setting that stays, whatever else comes and goes.
    """
    rest = sorted((entry for entry in entries if entry.key > after), key=lambda entry: entry.key)
    found = list(islice((entry for entry in rest if matches(entry, statuses, chosen)), limit + 1))
    return found[:limit], found[limit - 1].key if len(found) > limit else None


def runs(offsets: Sequence[int], gap: int = 16) -> list[tuple[int, int]]:
    """Ascending offsets as (first, last) of runs without a larger gap: fewer reads, each with little that isn't wanted."""
    found: list[tuple[int, int]] = []
    for offset in offsets:
        if found and offset - found[-1][1] <= gap:
            found[-1] = (found[-1][0], offset)
        else:
            found.append((offset, offset))
    return found


def labels_of(pairs: Iterable[str], name: str = "label") -> dict[str, str]:
    """`k=v` pairs, also several joined by commas. Raises `Refused` (Malformed)."""
    labels: dict[str, str] = {}
    for pair in (part for text in pairs for part in text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise Refused(
                Reason.MALFORMED, f"{name} is written {name}=key=value", [Fault(f"?{name}", "write key=value")]
            )
        labels[key] = value
    return labels


def matches(entry: Entry, statuses: Mapping[str, KeyStatus] | Any, chosen: Selection) -> bool:
    """Is the entry among those chosen?"""
    tenant, setting_type, _ = entry.key.split("/", 2)
    if tenant != chosen.tenant or (chosen.setting_type and setting_type != chosen.setting_type):
        return False
    if chosen.service and not setting_type.startswith(f"{chosen.service}."):
        return False
    if chosen.services is not None and setting_type.partition(".")[0] not in chosen.services:
        return False
    if chosen.labels and not carries(entry, chosen.labels):
        return False
    if chosen.phase and phase(entry, statuses.get(entry.key)) is not chosen.phase:
        return False
    return not chosen.text or chosen.text.casefold() in _searched(entry)


def _searched(entry: Entry) -> str:
    body = {"value": entry.body["value"], "labels": entry.body.get("labels", {})}
    return f"{entry.key} {json.dumps(body, ensure_ascii=False)}".casefold()
