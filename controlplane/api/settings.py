"""Settings read: one, as it was, many, their history, and as declarations."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from controlplane.api import documents, parameters
from controlplane.api.call import Call, answer
from controlplane.domain import answers, comparison, history, preconditions
from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.domain.fold import Entry
from schemas.names import Key


async def get(call: Call[parameters.Read]) -> web.Response:
    """One setting, now or as it was."""
    key = str(call.key())
    await reach(call, call.query.min_revision, call.query.timeout)
    state = call.parts.replica.state
    if call.query.at is None:
        entry, status = state.entries.get(key), call.parts.statuses.get(key)
    else:
        entry, status = await _entry_at(call, key, call.query.at), None
    if entry is None:
        raise not_found(call.key())
    return answer(answers.setting(entry, status), headers={"ETag": preconditions.etag(entry.revision)})


async def many(call: Call[parameters.List]) -> web.Response:
    """Settings by type, service, label, phase and text, in pages."""
    query = call.query
    if query.at is not None and query.phase is not None:
        message = "isn't kept of the past: ask for the phase, or for a time"
        raise Refused(Reason.MALFORMED, f"phase {message}", [Fault("?phase", message)])
    await reach(call, query.min_revision, query.timeout)
    selection = chosen(call, query.type, query.service, query.label, phase=query.phase, text=query.text)
    entries = await _entries(call, query.at)
    statuses: Any = call.parts.statuses if query.at is None else {}
    page, following = answers.page(
        entries.values(), statuses, selection, after=decoded_cursor(query.cursor), limit=query.limit
    )
    items = [answers.setting(entry, statuses.get(entry.key)) for entry in page]
    return answer({"items": items, "next_cursor": encoded_cursor(following)})


async def revisions(call: Call[parameters.History]) -> web.Response:
    """Every accepted revision, newest first."""
    key = str(call.key())
    if not call.parts.replica.state.history.get(key):
        raise not_found(call.key())
    rows = history.history(key, await records(call, key))
    after = decoded_cursor(call.query.cursor)
    if after and not after.isdecimal():
        raise _bad_cursor()
    rest = [row for row in reversed(rows) if not after or row["revision"] < int(after)]
    page = rest[: call.query.limit]
    following = str(page[-1]["revision"]) if len(rest) > len(page) else None
    return answer({"items": page, "next_cursor": encoded_cursor(following)})


async def reconcile(call: Call[parameters.Parameters]) -> web.Response:
    """Look at the setting now."""
    key = str(call.key())
    entry = call.parts.replica.state.entries.get(key)
    if entry is None:
        raise not_found(call.key())
    call.parts.control.look(key)
    return answer(answers.setting(entry, call.parts.statuses.get(key)), 202)


async def export(call: Call[parameters.Export]) -> web.StreamResponse:
    """Declarations that `apply` takes back."""
    query = call.query
    selection = chosen(call, query.type, query.service, query.label)
    entries = await _entries(call, query.at)
    found = answers.select(entries.values(), call.parts.statuses, selection)
    declared = [answers.declaration(entry) for entry in found if not entry.retiring]
    as_yaml = query.format == "yaml" if query.format else "yaml" in call.request.headers.get("Accept", "")
    if not as_yaml:
        return answer({"settings": declared})
    text = documents.yaml_text(declared)
    return web.Response(text=text, content_type="application/yaml", charset="utf-8")


async def diff(call: Call[parameters.Diff]) -> web.Response:
    """What was declared otherwise at one place of the log than at another."""
    query = call.query
    now = call.parts.replica.state.position
    begin = await revision_of(call, query.from_, "from")
    end = now if query.to is None else await revision_of(call, query.to, "to")
    selection = chosen(call, query.type, query.service, query.label)
    before, after = await call.parts.past.entries(begin), await call.parts.past.entries(end)
    return answer({"from": begin, "to": end, "items": list(comparison.compared(before, after, selection))})


async def revision_of(call: Call[Any], at: str, name: str) -> int:
    """The revision of the log that a revision or a time means. Raises `Refused` (Malformed)."""
    place = parameters.place(at, name)
    return (
        min(place, call.parts.replica.state.position)
        if isinstance(place, int)
        else await call.parts.past.revision(place)
    )


async def _entries(call: Call[Any], at: str | None) -> Mapping[str, Entry]:
    """All entries, now or as they were."""
    if at is None:
        return call.parts.replica.state.entries
    return await call.parts.past.entries(await revision_of(call, at, "at"))


async def reach(call: Call[Any], revision: int | None, timeout_s: float | None) -> None:
    """Wait until this replica has folded the revision. Raises `Refused` (NotFoldedYet) at the deadline."""
    if revision is None or await call.parts.replica.reach(revision, timeout_s or call.write_timeout_s):
        return
    position = call.parts.replica.state.position
    raise Refused(Reason.NOT_FOLDED_YET, f"this replica has folded up to revision {position}, not {revision} yet")


async def _entry_at(call: Call[Any], key: str, at: str) -> Entry | None:
    revision = await revision_of(call, at, "at")
    return history.entry_at(key, await records(call, key), revision)


async def records(call: Call[Any], key: str) -> list[tuple[int, Mapping[str, Any]]]:
    """The change requests at the key's revisions, ascending."""
    replica = call.parts.replica
    offsets = [revision - 1 for revision in replica.state.history.get(key, ())]
    wanted = frozenset(offsets)
    found: list[tuple[int, Mapping[str, Any]]] = []
    for first, last in answers.runs(offsets):
        found += [pair for pair in await replica.records(first, last + 1) if pair[0] in wanted]
    return found


def chosen(
    call: Call[Any], setting_type: str | None, service: str | None, label: list[str], **more: Any
) -> answers.Selection:
    """What a list is asked to hold, of the tenant. `more`: phase and text. Raises `Refused` (Malformed)."""
    known = parameters.known_service(service, "service")
    return answers.Selection(call.tenant, setting_type, known, answers.labels_of(label), services=call.services, **more)


def not_found(key: Key) -> Refused:
    """The refusal of a request about a setting that isn't there."""
    return Refused(Reason.NOT_FOUND, f"tenant {key.tenant} has no {key.reference}")


def encoded_cursor(cursor: str | None) -> str | None:
    """The place after which the next page begins, as it is given out."""
    return None if cursor is None else base64.urlsafe_b64encode(cursor.encode()).decode().rstrip("=")


def decoded_cursor(cursor: str | None) -> str:
    """The place that was given out; empty for the first page. Raises `Refused` (Malformed)."""
    if not cursor:
        return ""
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as exc:
        raise _bad_cursor() from exc


def _bad_cursor() -> Refused:
    message = "isn't a cursor of this list: send next_cursor of the page before as it is"
    return Refused(Reason.MALFORMED, f"cursor {message}", [Fault("?cursor", message)])
