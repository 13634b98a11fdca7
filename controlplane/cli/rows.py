"""Rows under headings, laid out for the width at hand.

Everything but the last column stands whole: a name cut to `sea…` is no use to anybody. The last one holds the messages. It
is wrapped beside the others where there is room, and below them, indented, where there isn't; a line that is still too long
is the terminal's to break. No line ends in blanks, so that pipes get what is there and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

GAP = 2
INDENT = 4
LEAST = 30
"""A column narrower than this isn't worth wrapping messages in."""


class Rows:
    """A table. Cells of the daemon's text are taken as they are, never for markup."""

    def __init__(self, columns: Sequence[str], body: Iterable[Sequence[str | Text]]) -> None:
        self._head = [Text(column, "bold") for column in columns]
        self._body = [[_plain(cell) for cell in row] for row in body]
        self._widths = [max(cell.cell_len for cell in column) for column in zip(self._head, *self._body, strict=True)]
        self._before_last = sum(width + GAP for width in self._widths[:-1])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Line by line, as wide as the console lets it be."""
        room = options.max_width - self._before_last
        beside = room >= min(LEAST, self._widths[-1])
        for row in (self._head, *self._body):
            for line in self._beside(row, console, room) if beside else self._below(row, console, options.max_width):
                yield _line(line)

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        """Everything in one line, if there is room."""
        return Measurement(min(self._before_last, options.max_width), self._before_last + self._widths[-1])

    def _beside(self, row: Sequence[Text], console: Console, room: int) -> Iterator[Text]:
        for number, part in enumerate(row[-1].wrap(console, room) or [Text()]):
            yield (self._aligned(row) if number == 0 else Text(" " * self._before_last)) + part

    def _below(self, row: Sequence[Text], console: Console, width: int) -> Iterator[Text]:
        yield self._aligned(row)
        if row[-1] and row is not self._head:
            for part in row[-1].wrap(console, max(LEAST, width - INDENT)):
                yield Text(" " * INDENT) + part

    def _aligned(self, row: Sequence[Text]) -> Text:
        """All but the last cell, each as wide as its column."""
        line = Text()
        for cell, width in zip(row[:-1], self._widths, strict=False):
            line.append_text(cell).append(" " * (width - cell.cell_len + GAP))
        return line


class Facts:
    """Name and value, line by line; long values wrap beside their names."""

    def __init__(self, pairs: Iterable[tuple[str, str | Text]]) -> None:
        self._pairs = [(Text(name, "bold"), _plain(value)) for name, value in pairs]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Line by line."""
        beside = max((name.cell_len for name, _ in self._pairs), default=0) + GAP
        room = max(LEAST, options.max_width - beside)
        for name, value in self._pairs:
            for left, right in zip_longest([name], value.wrap(console, room), fillvalue=Text()):
                yield _line(left + Text(" " * (beside - left.cell_len)) + right)


def _plain(cell: str | Text) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)


def _line(text: Text) -> Text:
    text.rstrip()
    text.no_wrap, text.overflow = True, "ignore"
    return text
