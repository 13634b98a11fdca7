"""The past of one key, from the change requests at its revisions.

`records` are always (offset, record) at the offsets that `State.history` names for the key, ascending: every one was
accepted and changed the key, so they are applied without being judged again. A key that was forgotten and declared anew
starts again at generation 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from controlplane.domain import placing
from controlplane.domain.changes import changed_paths
from controlplane.domain.fold import Entry, applied
from controlplane.domain.requests import ChangeRequest, as_request
from schemas.names import parse_timestamp

Records = Iterable[tuple[int, Mapping[str, Any]]]


class Moment(NamedTuple):
    """One revision of a key. `entry` None: forgotten at this revision."""

    offset: int
    request: ChangeRequest
    op: str
    entry: Entry | None


def moments(key: str, records: Records) -> Iterator[Moment]:
    """The key after each of its revisions, oldest first."""
    entry: Entry | None = None
    for offset, record in records:
        request = as_request(offset, record)
        change = next(change for change in request.changes if change.key == key)
        entry = applied(entry, change, offset, request)
        yield Moment(offset, request, change.op, entry)


def history(key: str, records: Records) -> list[dict[str, Any]]:
    """Every revision as the API answers it, oldest first.

    `changed` holds JSON pointers into the declaration (`/value/ttl_s`); `value` is None at a forget; `retiring` tells a
    retire from a declare.
    """
    rows: list[dict[str, Any]] = []
    before: Entry | None = None
    for moment in moments(key, records):
        rows.append(_row(before, moment))
        before = moment.entry
    return rows


def entry_at(key: str, records: Records, revision: int) -> Entry | None:
    """The key as of a revision (the state after folding offset `revision - 1`), None when it was absent."""
    entry: Entry | None = None
    for moment in moments(key, records):
        if moment.offset + 1 > revision:
            break
        entry = moment.entry
    return entry


def entry_at_time(key: str, records: Records, instant: float) -> Entry | None:
    """The key as of a time (Unix seconds): after its last revision whose writer's clock was not later."""
    entry: Entry | None = None
    for moment in moments(key, records):
        if parse_timestamp(moment.request.at) <= instant:
            entry = moment.entry
    return entry


def _row(before: Entry | None, moment: Moment) -> dict[str, Any]:
    entry = moment.entry
    generation = entry.generation if entry is not None else before.generation if before is not None else 0
    return {
        "revision": moment.offset + 1,
        "generation": generation,
        "at": moment.request.at,
        "actor": moment.request.actor,
        "reason": moment.request.reason,
        "op": moment.op,
        "retiring": entry is not None and entry.retiring,
        "changed": changed_paths(
            placing.declared(before.body if before else None), placing.declared(entry.body if entry else None)
        ),
        "value": None if entry is None else entry.body["value"],
    }
