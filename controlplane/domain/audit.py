"""Who did what, when, and what became of it: rows of the settings log and of the journal, newest first. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from controlplane.domain.fold import State

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows. `services`: what the reader may audit."""

    tenant: str
    services: AbstractSet[str]
    actor: str | None = None
    setting: str | None = None
    """A key."""

    def matches(self, row: Row) -> bool:
        """True when the row is one of them."""
        tenant, _, rest = row["setting"].partition("/")
        return (
            tenant == self.tenant
            and rest.partition(".")[0] in self.services
            and self.actor in (None, row["actor"])
            and self.setting in (None, row["setting"])
        )


def of_requests(records: Iterable[tuple[int, Mapping[str, Any]]], state: State, wanted: Wanted) -> Iterator[Row]:
    """One row for each change of each change request, in the order of the records turned round."""
    for offset, record in sorted(records, key=lambda pair: -pair[0]):
        for change in record["changes"]:
            row = {
                "at": record["at"],
                "actor": record["actor"],
                "action": change["op"],
                "setting": change["key"],
                "outcome": _outcome(state, offset, record["request_id"], change["key"]),
                "revision": offset + 1,
                "reason": record.get("reason", ""),
                "request_id": record["request_id"],
            }
            if wanted.matches(row):
                yield row


def of_operations(events: Iterable[Mapping[str, Any]], wanted: Wanted) -> Iterator[Row]:
    """One row for each OperationStarted. Its end is the event with the same correlation_id."""
    for event in events:
        details = event.get("details") or {}
        row = {
            "at": event["timestamp"],
            "actor": event.get("actor"),
            "action": f"operation {details.get('operation', '')}".strip(),
            "setting": event.get("setting") or f"{event['tenant']}/{event['service_name']}.",
            "outcome": "started",
            "revision": None,
            "reason": "",
            "request_id": event.get("correlation_id"),
        }
        if wanted.matches(row):
            yield row | {"setting": event.get("setting")}


def _outcome(state: State, offset: int, request_id: str, key: str) -> str:
    """`accepted`, `unchanged`, why the fold refused it, or `not accepted` where nobody remembers why."""
    revisions = state.history.get(key, ())
    index = bisect_left(revisions, offset + 1)
    if index < len(revisions) and revisions[index] == offset + 1:
        return "accepted"
    verdict = state.verdicts.get(request_id)
    if verdict is None or verdict.offset != offset:
        return "not accepted" if verdict is None else "repeated"
    if verdict.accepted:
        return "unchanged"
    return next(
        (f"refused: {refusal.reason}" for refusal in verdict.refusals if refusal.key == key), "refused with others"
    )
