"""Drift as data: what differs now, what did, how often, and what is left as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from controlplane.api import parameters
from controlplane.api.call import Call, answer
from controlplane.api.settings import chosen, decoded_cursor, encoded_cursor
from controlplane.domain import answers, drifting
from controlplane.projection.queries import EventFilter

WEEK_S: Final = 7 * 86_400.0
PAGE: Final = 1_000
MOST_EVENTS: Final = 10_000
"""Newest events of each type that are looked at."""


async def many(call: Call[parameters.Drift]) -> web.Response:
    """Paths that differ or did since, by setting, in pages; `counts` are of all that were chosen, whatever their state."""
    query = call.query
    since = parameters.instant(query.since, "since")
    since = call.parts.clock.now() - WEEK_S if since is None else since
    events, complete = await _events(call, parameters.setting_key(query.setting, call.tenant), since)
    selection = chosen(call, query.type, query.service, query.label)
    found = answers.select(call.parts.replica.state.entries.values(), call.parts.statuses, selection)
    wanted = parameters.setting_key(query.setting, call.tenant)
    entries = {entry.key: entry for entry in found if wanted in (None, entry.key)}
    rows = drifting.drifts(events, entries, call.parts.statuses, call.parts.clock.now())
    after = decoded_cursor(query.cursor)
    rest = [row for row in rows if query.state in (None, row["state"]) and _place(row) > after]
    page = rest[: query.limit]
    following = _place(page[-1]) if len(rest) > len(page) else None
    return answer(
        {
            "items": page,
            "next_cursor": encoded_cursor(following),
            "counts": drifting.counted(rows),
            "complete": complete,
        }
    )


async def _events(call: Call[Any], setting: str | None, since: float) -> tuple[list[Mapping[str, Any]], bool]:
    """Of drift, oldest first; and whether these are all."""
    found: list[Mapping[str, Any]] = []
    complete = True
    for event_type in drifting.TOLD_BY:
        cursor, count = None, 0
        while True:
            wanted = EventFilter(
                call.tenant, event_type=event_type, setting=setting, since=since, limit=PAGE, cursor=cursor
            )
            page = await call.parts.queries.events(wanted)
            found += page.items
            cursor, count = page.next_cursor, count + len(page.items)
            if cursor is None or count >= MOST_EVENTS:
                complete = complete and cursor is None
                break
    return sorted(found, key=lambda event: event["timestamp"]), complete


def _place(row: Mapping[str, Any]) -> str:
    return f"{row['setting']}\n{row['path']}"
