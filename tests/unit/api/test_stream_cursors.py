from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.cursors import complete, decoded, encoded, frame, matches, resumed
from controlplane.api.problems import Resume
from controlplane.domain.errors import Refused

_positions = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=64).map(lambda offsets: dict(enumerate(offsets)))


@given(_positions)
def test_a_cursor_read_back_is_the_same_place(positions: dict[int, int]) -> None:
    assert decoded(encoded(positions), len(positions)) == positions


@given(st.text(max_size=30), st.integers(1, 4))
def test_any_text_is_a_cursor_or_refused(text: str, shards: int) -> None:
    with suppress(Refused):
        assert len(decoded(text, shards)) == shards


def test_a_place_within_what_is_kept_is_resumed() -> None:
    assert resumed({0: 5, 1: 0}, {0: 5}, {0: 9}) == {0: 5, 1: 0}


@pytest.mark.parametrize("place", [{0: 4, 1: 0}, {0: 10, 1: 0}, {0: 5, 1: 1}])
def test_a_place_outside_of_what_is_kept_names_the_oldest(place: dict[int, int]) -> None:
    with pytest.raises(Resume) as gone:
        resumed(place, {0: 5}, {0: 9})
    assert decoded(gone.value.oldest, 2) == {0: 5, 1: 0}


def test_shards_that_hold_nothing_begin_at_0() -> None:
    assert complete({1: 7}, 3) == {0: 0, 1: 7, 2: 0}


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3))
def test_a_frame_is_three_lines_whatever_the_event_holds(data: dict[str, Any]) -> None:
    lines = frame("Converged", "1.2", data).decode().split("\n")
    assert lines[:2] == ["id: 1.2", "event: Converged"]
    assert lines[3:] == ["", ""]
    assert json.loads(lines[2].removeprefix("data: ")) == {
        key.encode("utf-8", "replace").decode(): value.encode("utf-8", "replace").decode()
        for key, value in data.items()
    }


def test_an_event_of_another_tenant_never_matches() -> None:
    event = {"tenant": "a", "status": "info"}
    assert matches(event, "a", [("status", "info")])
    assert not matches(event, "b", [])
    assert not matches(event, "a", [("status", "failed")])
