"""Differences between JSON values, merge patches, and the past of a key."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.changes import changed_paths, identical, pointer, pointer_parts
from controlplane.domain.errors import Refused
from controlplane.domain.fold import State, fold
from controlplane.domain.history import entry_at, entry_at_time, history
from controlplane.domain.patch import merge_patch, patched
from controlplane.domain.requests import as_request
from schemas.names import parse_timestamp

KEY = "default/cache.namespace/catalogue"
SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, "a", ""])
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab/~"), inner, max_size=3)
)
MAPS = st.dictionaries(st.sampled_from(["a", "b", "a/b", "~"]), JSON, max_size=4)


@pytest.mark.parametrize(
    ("before", "after", "paths"),
    [
        ({}, {}, []),
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["/a"]),
        ({"a": 1}, {"a": True}, ["/a"]),
        ({"a": 1}, {}, ["/a"]),
        (None, {"a": {"b": 1, "c": []}}, ["/a/b", "/a/c"]),
        ({"a": {"b": 1, "c": {}}}, None, ["/a/b", "/a/c"]),
        ({"a": {"b": 1}}, {"a": 1}, ["/a"]),
        ({"a": [1, 2]}, {"a": [1, 3]}, ["/a/1"]),
        ({"a": [1, 2]}, {"a": [1]}, ["/a"]),
        ({"a": [{"t": 1}]}, {"a": [{"t": 2}]}, ["/a/0/t"]),
        ({"a/b": 1, "~": 1}, {"a/b": 2, "~": 2}, ["/a~1b", "/~0"]),
    ],
)
def test_changed_paths_are_the_leaves_that_differ(before: Any, after: Any, paths: list[str]):
    assert changed_paths(before, after) == paths


@given(MAPS, MAPS)
def test_no_path_changed_exactly_when_both_are_identical(before: dict[str, Any], after: dict[str, Any]):
    assert (changed_paths(before, after) == []) == identical(before, after)
    assert changed_paths(before, after) == changed_paths(after, before)


@given(JSON, JSON)
def test_identical_is_equal_as_json_text(one: Any, other: Any):
    assert identical(one, other) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


@given(st.lists(st.text()))
def test_a_pointer_reads_back_as_its_parts(parts: list[str]):
    assert pointer_parts(pointer(*parts)) == parts


# The table of RFC 7396, appendix A.
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_does_what_the_rfc_says(target: Any, patch: Any, result: Any):
    assert merge_patch(target, patch) == result


@given(MAPS, MAPS)
def test_patching_twice_is_patching_once_and_changes_neither_argument(target: dict[str, Any], patch: dict[str, Any]):
    kept = copy.deepcopy((target, patch))
    once = patched(target, patch)
    assert identical(patched(once, patch), once)
    assert (target, patch) == kept


@pytest.mark.parametrize("patch", [None, [], "x", 3, {"value": {"a": float("nan")}}, {"value": {1: 2}}])
def test_a_patch_that_would_replace_the_declaration_or_cannot_be_stored_is_refused(patch: Any):
    with pytest.raises(Refused) as caught:
        patched({"value": {}}, patch)
    assert caught.value.faults


def body(n: int, **more: Any) -> dict[str, Any]:
    return {"value": {"n": n}, "labels": {}, "depends_on": [], "policy": {}, **more}


def requests() -> list[tuple[int, dict[str, Any]]]:
    def record(offset: int, op: str, **change: Any) -> tuple[int, dict[str, Any]]:
        other = {"op": "declare", "key": KEY + "2", "body": body(offset)}
        changes = [other, {"op": op, "key": KEY, **change}]
        at = f"2026-01-31T12:00:{offset:02}.000000Z"
        return offset, {
            "v": 1,
            "request_id": f"r{offset}",
            "actor": "ann",
            "at": at,
            "reason": "why",
            "changes": changes,
        }

    return [
        record(0, "declare", body=body(1)),
        record(3, "declare", body=body(2)),
        record(4, "declare", body=body(2, labels={"team": "shop"})),
        record(7, "retire"),
        record(9, "forget", expected=8),
        record(12, "declare", body=body(3)),
    ]


def test_the_history_of_a_key_tells_every_revision_and_what_it_changed():
    rows = history(KEY, requests())
    assert [(row["revision"], row["generation"], row["op"], row["retiring"]) for row in rows] == [
        (1, 1, "declare", False),
        (4, 2, "declare", False),
        (5, 2, "declare", False),
        (8, 2, "retire", True),
        (10, 2, "forget", False),
        (13, 1, "declare", False),
    ]
    assert [row["changed"] for row in rows] == [
        ["/depends_on", "/labels", "/policy", "/value/n"],
        ["/value/n"],
        ["/labels/team"],
        [],
        ["/depends_on", "/labels/team", "/policy", "/value/n"],
        ["/depends_on", "/labels", "/policy", "/value/n"],
    ]
    assert [row["value"] for row in rows] == [{"n": 1}, {"n": 2}, {"n": 2}, {"n": 2}, None, {"n": 3}]
    assert (rows[0]["actor"], rows[0]["reason"], rows[0]["at"]) == ("ann", "why", "2026-01-31T12:00:00.000000Z")


def test_the_past_of_a_key_is_what_the_fold_held_at_that_revision():
    state, past = State(), {}
    for offset, record in requests():
        assert fold(state, offset, as_request(offset, record)).accepted
        past[offset + 1] = state.entries.get(KEY)
    assert [revision - 1 for revision in state.history[KEY]] == [offset for offset, _ in requests()]
    known = None
    for revision in range(16):
        known = past.get(revision, known)
        assert entry_at(KEY, requests(), revision) == known


@pytest.mark.parametrize(
    ("second", "n"), [("11:59:59", None), ("12:00:00", 1), ("12:00:03.5", 2), ("12:00:09", None), ("13:00:00", 3)]
)
def test_a_key_as_of_a_time_is_after_its_last_revision_until_then(second: str, n: int | None):
    entry = entry_at_time(KEY, requests(), parse_timestamp(f"2026-01-31T{second}Z"))
    assert (entry.body["value"]["n"] if entry else None) == n
