"""Change requests as the fold reads them.

`schemas.record` is the contract and validates what the daemon appends; here is the least that folding needs. Fields of newer
writers inside a body are kept, others are passed over. Structs because a replay makes two for each record: they are decoded
straight from msgpack and read by attribute, which takes a fifth off a replay with maps, and the garbage collector doesn't
look at them (`gc=False`: nothing in them can point back).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.record import READABLE


class UnknownRecord(Exception):
    """A record this version can't fold. The replica must stop here; going on would fork it from newer ones."""

    def __init__(self, offset: int, detail: str) -> None:
        super().__init__(
            f"settings log, offset {offset}: {detail}. Upgrade this replica; it has stopped before the record."
        )
        self.offset = offset


class Change(msgspec.Struct, gc=False):
    """One change of one key; see `schemas.record.Change`."""

    op: str
    key: str
    expected: int | None = None
    body: dict[str, Any] | None = None
    deletion: str | None = None


class ChangeRequest(msgspec.Struct, gc=False):
    """See `schemas.record.ChangeRequest`."""

    v: int
    request_id: str
    actor: str
    at: str
    changes: tuple[Change, ...]
    reason: str = ""


_decoder = msgspec.msgpack.Decoder(ChangeRequest)


def read(offset: int, data: bytes) -> ChangeRequest:
    """The record at an offset of the settings log. Raises `UnknownRecord`."""
    try:
        request = _decoder.decode(data)
    except (ValueError, RecursionError) as exc:
        raise UnknownRecord(offset, _what_is_wrong(data, exc)) from exc
    if request.v not in READABLE:
        raise _of_another_version(offset, request.v)
    return request


def as_request(offset: int, record: Mapping[str, Any]) -> ChangeRequest:
    """The same from a map. Raises `UnknownRecord`."""
    if "v" in record and record["v"] not in READABLE:
        raise _of_another_version(offset, record["v"])
    try:
        return msgspec.convert(record, ChangeRequest)
    except msgspec.ValidationError as exc:
        raise UnknownRecord(offset, f"not a change request ({exc})") from exc


def as_change(change: Mapping[str, Any]) -> Change:
    """A change that isn't in the log yet. Raises `msgspec.ValidationError`: the daemon makes no such change."""
    return msgspec.convert(change, Change)


def _of_another_version(offset: int, version: object) -> UnknownRecord:
    return UnknownRecord(offset, _told(version))


def _what_is_wrong(data: bytes, exc: Exception) -> str:
    try:
        record = msgspec.msgpack.decode(data)
    except (ValueError, RecursionError):
        return f"not a msgpack map: {exc}"
    if not isinstance(record, dict):
        return f"not a msgpack map: {exc}"
    if record.get("v") not in READABLE:
        return _told(record.get("v"))
    return f"not a change request ({exc})"


def _told(version: object) -> str:
    return f"record version {version!r}, this version knows {', '.join(map(str, sorted(READABLE)))}"
