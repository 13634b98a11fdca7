"""Server-sent events, parsed without I/O (WHATWG HTML, section 9.2: "Interpreting an event stream").

Bytes go in as they arrive, whole events come out. Lines may end with CR, LF or CRLF, also split between two reads; a
multi-byte character may be split as well. `retry:` is remembered, comments and unknown fields are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from controlplane.client.errors import StreamBroken

MAX_EVENT_BYTES = 8 * 1024 * 1024
"""More than this without an end of the event is not from our daemon."""

_LINE_END = re.compile(rb"\r\n|\n|\r")


class ServerSentEvent(NamedTuple):
    """`id` is the last one the stream named so far, "" before the first."""

    id: str
    event: str
    data: str


class SseParser:
    """One connection's worth of parsing. `last_id` may be given to carry it over a reconnection."""

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.retry_s: float | None = None
        """Pause before a reconnection, as the server wishes; None when it never said."""
        self._rest = b""
        self._size_bytes = 0
        self._event = ""
        self._data: list[str] = []
        self._first_line = True

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """Every event completed by the chunk. StreamBroken when one grows beyond all reason."""
        for line in self._lines(chunk):
            event = self._line(line)
            if event is not None:
                yield event

    def _lines(self, chunk: bytes) -> Iterator[str]:
        buffer = self._rest + chunk
        self._size_bytes += len(chunk)
        start = 0
        for end in _LINE_END.finditer(buffer):
            # A CR at the very end may be the first half of a CRLF: wait for what follows.
            if end.group() == b"\r" and end.end() == len(buffer):
                break
            yield buffer[start : end.start()].decode("utf-8", "replace")
            start = end.end()
        self._rest = buffer[start:]
        if self._size_bytes > MAX_EVENT_BYTES and len(self._rest) + sum(map(len, self._data)) > MAX_EVENT_BYTES:
            msg = f"an event of more than {MAX_EVENT_BYTES} bytes"
            raise StreamBroken(msg)

    def _line(self, line: str) -> ServerSentEvent | None:
        if self._first_line:
            self._first_line = False
            line = line.removeprefix("\ufeff")
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._event = value
        elif field == "id" and "\0" not in value:
            self.last_id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry_s = int(value) / 1000
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        event, data = self._event or "message", self._data
        self._event, self._data, self._size_bytes = "", [], 0
        return ServerSentEvent(self.last_id, event, "\n".join(data)) if data else None
