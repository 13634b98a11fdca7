"""The parser of server-sent events: whatever way the bytes are cut, the same events come out."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.client import sse
from controlplane.client.errors import StreamBroken
from controlplane.client.sse import ServerSentEvent, SseParser


def parse(*chunks: bytes) -> list[ServerSentEvent]:
    parser = SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def test_an_event_has_id_type_and_data() -> None:
    assert parse(b'id: 7-1\nevent: Converged\ndata: {"a": 1}\n\n') == [ServerSentEvent("7-1", "Converged", '{"a": 1}')]


def test_an_event_without_a_type_is_a_message_and_keeps_the_last_id() -> None:
    events = parse(b"id: 1\ndata: a\n\ndata: b\n\n")
    assert events == [ServerSentEvent("1", "message", "a"), ServerSentEvent("1", "message", "b")]


def test_several_data_lines_are_one_text() -> None:
    assert parse(b"data: a\ndata:b\ndata\n\n")[0].data == "a\nb\n"


def test_comments_unknown_fields_and_unfinished_events_are_dropped() -> None:
    assert parse(b": ping\n\nfoo: bar\n\nevent: x\n\ndata: never ended\n") == []


def test_an_id_without_data_moves_the_place_only() -> None:
    parser = SseParser()
    assert list(parser.feed(b"id: 42\n\n")) == []
    assert parser.last_id == "42"


def test_the_last_id_carries_over_a_reconnection() -> None:
    assert next(SseParser("9").feed(b"data: x\n\n")).id == "9"


def test_a_byte_order_mark_is_no_part_of_the_first_field() -> None:
    assert parse(b"\xef\xbb\xbfdata: x\n\n")[0].data == "x"


def test_the_wished_pause_is_read_in_seconds() -> None:
    parser = SseParser()
    assert list(parser.feed(b"retry: 1500\nretry: soon\n\n")) == []
    assert parser.retry_s == 1.5


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    with pytest.raises(StreamBroken):
        parse(b"data: " + b"x" * 200)
    with pytest.raises(StreamBroken):
        parse(*[b"data: xxxxxxxxxx\n"] * 30)


def test_many_small_events_are_no_big_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    assert len(parse(*[b"data: xxxxxxxxxx\n\n"] * 100)) == 100


FIELD_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=20)
EVENTS = st.lists(st.tuples(FIELD_TEXT, FIELD_TEXT.filter(bool), st.lists(FIELD_TEXT, min_size=1, max_size=3)))


@given(events=EVENTS, end=st.sampled_from(["\n", "\r\n"]), cuts=st.lists(st.integers(0, 400)))
def test_cutting_the_bytes_anywhere_changes_nothing(
    events: list[tuple[str, str, list[str]]], end: str, cuts: list[int]
) -> None:
    lines = []
    for name, kind, data in events:
        lines += [f"id: {name}", f"event: {kind}", *(f"data: {text}" for text in data), ""]
    content = "".join(line + end for line in lines).encode()
    places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    chunks = [content[start:stop] for start, stop in itertools.pairwise(places)]
    assert parse(*chunks) == [ServerSentEvent(name, kind, "\n".join(data)) for name, kind, data in events]
