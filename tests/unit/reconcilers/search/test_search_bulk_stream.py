"""How a body of any length becomes requests: whole lines however it arrives, and what precedes a wrong line is written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import pytest

from reconcilers.contract import TerminalError
from reconcilers.search import bulk_stream
from reconcilers.search.bulk_stream import parts_of, rows_of

ROW = b'{"index": {"_id": "1"}}\n{"n": 1}\n'


async def arriving(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def rows(*chunks: bytes) -> list[tuple[int, bytes]]:
    return [row async for row in rows_of(arriving(chunks))]


@pytest.mark.parametrize("size", [1, 3, 7, 100])
async def test_lines_are_whole_however_they_arrive_and_keep_their_numbers(size: int) -> None:
    text = b'{"a": 1}\n\n{"b": "\xc3\xa9"}\r\n{"c": 3}'
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    assert await rows(*chunks) == [(1, b'{"a": 1}'), (3, b'{"b": "\xc3\xa9"}\r'), (4, b'{"c": 3}')]


async def test_a_line_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_stream, "LINE_BYTES", 10)
    with pytest.raises(TerminalError, match="line 2: longer than 10 bytes"):
        await rows(b"{}\n", b"123456", b"7890123")


async def test_a_part_holds_no_more_than_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_stream, "BULK_ITEMS", 2)
    parts = [part async for part in parts_of(rows_of(arriving([ROW] * 5)), "i")]
    assert [(part.items, len(part.rows), part.last_line) for part in parts] == [(2, 4, 4), (2, 4, 8), (1, 2, 10)]
    monkeypatch.setattr(bulk_stream, "BULK_BYTES", 40)
    assert len([part async for part in parts_of(rows_of(arriving([ROW] * 4)), "i")]) == 2


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (b'{"index": {}}\n', "line 3: its document is missing"),
        (b"nonsense\n", "line 3: not JSON"),
        (b'{"run": {}}\n', "line 3: not an action"),
        (b'{"index": {"_index": "other"}}\n{}\n', "line 3: writes to another index than i"),
    ],
)
async def test_what_precedes_a_wrong_line_is_written(end: bytes, said: str) -> None:
    parts = parts_of(rows_of(arriving([ROW, end])), "i")
    found = [await anext(parts)]
    with pytest.raises(TerminalError, match=said):
        await anext(parts)
    assert [(part.items, part.last_line) for part in found] == [(1, 2)]


async def test_a_deletion_has_no_document() -> None:
    parts = [part async for part in parts_of(rows_of(arriving([b'{"delete": {"_id": "1"}}\n', ROW])), "i")]
    assert [(part.items, len(part.rows)) for part in parts] == [(2, 3)]
