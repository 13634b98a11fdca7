"""The audit: who did what when, by the settings log and the journal, and how often somebody was refused."""

from __future__ import annotations

import re
from typing import Any, Final

from aiohttp import web

from controlplane.api import parameters
from controlplane.api.call import Call, answer
from controlplane.domain import audit
from controlplane.domain.access import Role
from controlplane.domain.audit import Row, Wanted
from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.projection.queries import MOST_ITEMS, EventFilter
from schemas.event import EventType
from schemas.names import parse_timestamp

_SCANNED: Final = 20_000
"""So many records of the log are looked at for one page; it goes on with the next, which may be empty too."""
_CHUNK: Final = 500
_CURSOR = re.compile(r"(\d{1,18}):(\d{1,12}(?:\.\d{1,9})?)?", re.ASCII)


async def audited(call: Call[parameters.Audit]) -> web.Response:
    """Changes and operations, newest first; and what was refused here since this replica started."""
    query = call.query
    since, until = parameters.instant(query.since, "since"), parameters.instant(query.until, "until")
    wanted = Wanted(
        call.tenant,
        call.caller.services_in(call.tenant, Role.ADMIN),
        query.actor,
        parameters.setting_key(query.setting, call.tenant),
    )
    stop, at = _place(call)
    rows, start = await _changes(call, wanted, stop, since, until)
    begins = since if start == 0 or not rows else parse_timestamp(rows[-1]["at"])
    rows += await _operations(call, wanted, begins, until if at is None else at)
    rows.sort(key=lambda row: str(row["at"]), reverse=True)
    document = {
        "items": rows,
        "next_cursor": f"{start}:{begins or ''}" if start else None,
        "refused": call.parts.refusals.of(call.tenant, query.actor, since),
    }
    return answer(document)


async def _changes(
    call: Call[parameters.Audit], wanted: Wanted, stop: int, since: float | None, until: float | None
) -> tuple[list[Row], int]:
    """Rows of the log before `stop`, and where to go on (0: that was all)."""
    replica, rows, last = call.parts.replica, list[Row](), max(0, stop - _SCANNED)
    while stop > last and len(rows) < call.query.limit:
        start = max(last, stop - _CHUNK)
        records = await replica.records(start, stop)
        for row in audit.of_requests(records, replica.state, wanted):
            at = parse_timestamp(row["at"])
            if since is not None and at < since:
                return rows, 0
            if len(rows) >= call.query.limit and row["revision"] != rows[-1]["revision"]:
                return rows, rows[-1]["revision"] - 1
            if until is None or at < until:
                rows.append(row)
        stop = start
    return rows, stop


async def _operations(call: Call[Any], wanted: Wanted, since: float | None, until: float | None) -> list[Row]:
    """Those between the oldest and the newest of the page."""
    if wanted.setting is not None:
        return []
    page = await call.parts.queries.events(
        EventFilter(
            call.tenant, event_type=str(EventType.OPERATION_STARTED), since=since, until=until, limit=MOST_ITEMS
        )
    )
    return list(audit.of_operations(page.items, wanted))


def _place(call: Call[parameters.Audit]) -> tuple[int, float | None]:
    """Where the page begins: the offset of the first record that isn't part of it, and (None: open) its time."""
    if call.query.cursor is None:
        return call.parts.replica.state.position, None
    found = _CURSOR.fullmatch(call.query.cursor)
    if found is None:
        message = "isn't a cursor of this list: send next_cursor of the page before as it is"
        raise Refused(Reason.MALFORMED, f"cursor {message}", [Fault("?cursor", message)])
    at = None if found[2] is None else float(found[2])
    return min(int(found[1]), call.parts.replica.state.position), at
