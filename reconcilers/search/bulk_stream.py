"""Documents of any number, written as they arrive. I/O through the wire; memory for one part, whatever the length.

The body is lines of the bulk API, the answer lines too: one for each item that is told (`results=failed`: those that were
refused), then the counts. Parts follow one another, so that of two writes to one document the later one stays.

Note [The last line counts]: the answer has begun when something fails later on: the connection to the server, a line that
isn't one of the bulk API. Then the last line holds `error`, and `lines` says how many lines of the body were answered by the
server: the sender goes on after those. Writes of the part that got no answer may have happened.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from reconcilers.contract import BackendError, StreamAnswer, StreamRequest, TerminalError
from reconcilers.search.querying import BULK_BYTES, BULK_ITEMS, BULK_S, action_of, item_of
from reconcilers.search.wire import Wire, lines, path_of, understood

LINE_BYTES: Final = 16 * 2**20
"""Of the longest line."""


@dataclass(slots=True)
class Part:
    """What goes in one request."""

    rows: list[bytes] = field(default_factory=list)
    items: int = 0
    size: int = 0
    last_line: int = 0

    def add(self, number: int, row: bytes) -> None:
        """One line of the body."""
        self.rows.append(row)
        self.size += len(row) + 1
        self.last_line = number


@dataclass(slots=True)
class Tally:
    """What was answered so far."""

    written: int = 0
    failed: int = 0
    lines: int = 0


@asynccontextmanager
async def answered(wire: Wire, request: StreamRequest) -> AsyncIterator[StreamAnswer]:
    """The first part is written before the answer begins: an index that isn't there is an error of the request."""
    if request.body is None or not re.fullmatch(r"[^._\-+/,*][^/,*]*", request.path):
        raise TerminalError("documents are sent to the name of one index", reason="Invalid")
    alias, options = request.path, request.options
    parts = parts_of(rows_of(request.body), alias)
    tally, started = Tally(), time.perf_counter()
    try:
        first = await anext(parts, None)
    except TerminalError as exc:
        raise TerminalError(exc.message, reason="Invalid") from exc
    told = b"" if first is None else await _write(wire, alias, first, options, tally)
    rest = _rest(wire, alias, parts, options, (tally, told, started))
    yield StreamAnswer(200, {"Content-Type": "application/x-ndjson"}, rest)


async def _rest(
    wire: Wire,
    alias: str,
    parts: AsyncIterator[Part],
    options: Mapping[str, Any],
    begun: tuple[Tally, bytes, float],
) -> AsyncIterator[bytes]:
    tally, told, started = begun
    error: BackendError | None = None
    try:
        if told:
            yield told
        async for part in parts:
            told = await _write(wire, alias, part, options, tally)
            if told:
                yield told
    except BackendError as exc:
        error = exc
    why = {} if error is None else {"error": {"reason": error.reason, "message": error.message}}
    took_ms = round((time.perf_counter() - started) * 1e3, 1)
    yield lines([{"took_ms": took_ms, "written": tally.written, "failed": tally.failed, "lines": tally.lines, **why}])


async def _write(wire: Wire, alias: str, part: Part, options: Mapping[str, Any], tally: Tally) -> bytes:
    """One part; the lines that tell of it."""
    params = {"refresh": options.get("refresh") or None, "pipeline": options.get("pipeline"), "require_alias": True}
    body = b"\n".join(part.rows) + b"\n"
    answer = understood(await wire.call("POST", path_of(alias, "_bulk"), body, params=params, timeout_s=BULK_S))
    items = [item_of(row) for row in answer["items"]]
    failed = [item for item in items if "error" in item]
    tally.failed += len(failed)
    tally.written += len(items) - len(failed)
    tally.lines = part.last_line
    return lines(items if options.get("results") == "all" else failed)


async def parts_of(rows: AsyncIterator[tuple[int, bytes]], alias: str) -> AsyncIterator[Part]:
    """Requests of at most BULK_ITEMS and about BULK_BYTES. What precedes a line that is wrong is written."""
    part = Part()
    wrong: TerminalError | None = None
    try:
        async for number, row in rows:
            document = await _document_of(number, row, alias, rows)
            part.items += 1
            for line in ((number, row), *document):
                part.add(*line)
            if part.items >= BULK_ITEMS or part.size >= BULK_BYTES:
                yield part
                part = Part()
    except TerminalError as exc:
        wrong = exc
    if part.rows:
        yield part
    if wrong is not None:
        raise wrong


async def _document_of(
    number: int, row: bytes, alias: str, rows: AsyncIterator[tuple[int, bytes]]
) -> tuple[tuple[int, bytes], ...]:
    """The line that belongs to an action; none for a deletion."""
    if action_of(number, row.decode(errors="replace"), alias) == "delete":
        return ()
    following = await anext(rows, None)
    if following is None:
        raise TerminalError(f"line {number}: its document is missing", reason="InvalidBulk")
    return (following,)


async def rows_of(body: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """(number, line) of every line that isn't blank. Raises `TerminalError` Invalid for one that never ends."""
    number, held = 0, bytearray()
    async for chunk in body:
        held += chunk
        if b"\n" in chunk:
            whole, _, rest = bytes(held).rpartition(b"\n")
            held = bytearray(rest)
            for row in whole.split(b"\n"):
                number += 1
                if row.strip():
                    yield number, row
        if len(held) > LINE_BYTES:
            raise TerminalError(f"line {number + 1}: longer than {LINE_BYTES} bytes", reason="InvalidBulk")
    if held.strip():
        yield number + 1, bytes(held)
