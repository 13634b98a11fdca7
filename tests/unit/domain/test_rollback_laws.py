"""Laws of going back, over random logs, and what is asked for wrongly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from controlplane.domain import rollback, writes
from controlplane.domain.errors import Reason, Refused
from controlplane.domain.fold import State, fold
from controlplane.domain.requests import as_request
from controlplane.domain.rollback import Place, Request, request_of

TENANT = "default"
KEYS = [f"{TENANT}/cache.namespace/{letter}" for letter in "abc"]


class Value(BaseModel):
    model_config = ConfigDict(extra="forbid")
    n: int


KINDS = {"cache.namespace": Value}
BODIES = st.fixed_dictionaries(
    {
        "value": st.fixed_dictionaries({"n": st.integers(0, 3)}),
        "labels": st.sampled_from([{}, {"team": "shop"}]),
        "depends_on": st.sampled_from([[], ["cache.namespace/z"]]),
        "policy": st.sampled_from([{}, {"drift": "report"}]),
    }
)
CHANGES = st.one_of(
    st.tuples(st.just("declare"), st.sampled_from(KEYS), BODIES),
    st.tuples(st.just("retire"), st.sampled_from(KEYS), st.sampled_from([None, "retain"])),
    st.tuples(st.just("forget"), st.sampled_from(KEYS), st.none()),
)
LOGS = st.lists(st.lists(CHANGES, min_size=1, max_size=3), min_size=1, max_size=25)


def record(number: int, changes: list[dict[str, Any]]) -> dict[str, Any]:
    at = f"2026-01-31T12:00:{number % 60:02}.000000Z"
    return {"v": 1, "request_id": f"r{number}", "actor": "ann", "at": at, "reason": "", "changes": changes}


def change_of(state: State, op: str, key: str, more: Any) -> dict[str, Any]:
    expected = state.revision_of(key) if op == "forget" else None
    change = {"op": op, "key": key, "expected": expected}
    return change | {"declare": {"body": more}, "retire": {"deletion": more}, "forget": {}}[op]


class Log:
    """A log with the state after each of its records."""

    def __init__(self, drawn: list[list[Any]]) -> None:
        self.state = State()
        self.records: list[tuple[int, dict[str, Any]]] = []
        self.past: list[dict[str, Any]] = [{}]
        """The entries at each revision of the log."""
        for changes in drawn:
            self.append([change_of(self.state, *change) for change in changes])

    def append(self, changes: list[dict[str, Any]]) -> bool:
        offset = self.state.position
        self.records.append((offset, record(offset, changes)))
        verdict = fold(self.state, self.records[-1][0], as_request(*self.records[-1]))
        self.past.append(dict(self.state.entries))
        return verdict.accepted

    def restored(self, request: Request) -> list[rollback.Restored]:
        seen = rollback.seen(self.state, TENANT, request)
        needed = set(rollback.offsets(seen))
        read = [pair for pair in self.records if pair[0] in needed]
        return rollback.restored(seen, rollback.apart(read, seen), request, KINDS)

    def go_back(self, request: Request) -> list[rollback.Restored]:
        found = self.restored(request)
        changes = [one.change for one in found if one.change is not None]
        assert not changes or self.append(changes)
        return found


def declared(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {key: dict(entry.body) for key, entry in entries.items() if not entry.retiring}


@given(LOGS, st.data())
def test_what_is_declared_after_a_rollback_is_what_was_declared_then(drawn, data):
    log = Log(drawn)
    revision = data.draw(st.integers(1, log.state.position))
    log.go_back(Request(Place(revision)))
    assert declared(log.state.entries) == declared(log.past[revision])


@given(LOGS, st.data())
def test_a_rollback_of_some_settings_leaves_the_others_alone(drawn, data):
    log = Log(drawn)
    known = sorted(log.state.history)
    if not known:
        return
    chosen = frozenset(data.draw(st.lists(st.sampled_from(known), min_size=1)))
    revision = data.draw(st.integers(1, log.state.position))
    before, then = dict(log.state.entries), declared(log.past[revision])
    log.go_back(Request(Place(revision), chosen))
    now = declared(log.state.entries)
    for key in KEYS:
        if key in chosen:
            assert now.get(key) == then.get(key)
        else:
            assert log.state.entries.get(key) == before.get(key)


@given(LOGS, st.data())
def test_going_back_twice_changes_nothing_the_second_time(drawn, data):
    log = Log(drawn)
    request = Request(Place(data.draw(st.integers(1, log.state.position))))
    log.go_back(request)
    assert [one.change for one in log.restored(request) if one.change is not None] == []


@given(LOGS, st.data())
def test_a_time_means_the_same_as_the_revision_it_falls_on(drawn, data):
    log = Log(drawn)
    revision = data.draw(st.integers(1, log.state.position))
    at = rollback.parse_timestamp(log.records[revision - 1][1]["at"])
    by_time = log.restored(Request(Place(None, at + 0.5)))
    by_revision = log.restored(Request(Place(revision)))
    assert [one for one in by_time if one.change] == [one for one in by_revision if one.change]


@given(LOGS, st.data())
def test_a_setting_that_moves_meanwhile_refuses_the_whole_rollback(drawn, data):
    log = Log(drawn)
    changes = [
        one.change
        for one in log.restored(Request(Place(data.draw(st.integers(1, log.state.position)))))
        if one.change is not None
    ]
    if not changes:
        return
    moved = data.draw(st.sampled_from([change["key"] for change in changes]))
    body = {"value": {"n": 99}, "labels": {}, "depends_on": [], "policy": {}}
    log.append([{"op": "declare", "key": moved, "expected": None, "body": body}])
    entries = dict(log.state.entries)
    assert not log.append(changes)
    assert log.state.entries == entries


def logged(*rounds: list[tuple[str, str, Any]]) -> Log:
    return Log([[(op, f"{TENANT}/cache.namespace/{name}", more) for op, name, more in changes] for changes in rounds])


def body(n: int, **more: Any) -> dict[str, Any]:
    return {"value": {"n": n}, "labels": {}, "depends_on": [], "policy": {}} | more


def outcomes(found: list[rollback.Restored]) -> dict[str, Any]:
    return {one.key.rpartition("/")[2]: (one.change or {"op": "nothing"})["op"] for one in found}


def test_settings_created_since_are_retired_and_settings_gone_since_are_declared_again():
    log = logged(
        [("declare", "old", body(1)), ("declare", "same", body(2))],
        [("declare", "new", body(3)), ("retire", "old", None)],
        [("forget", "old", None)],
    )
    assert outcomes(log.restored(Request(Place(1)))) == {"old": "declare", "same": "nothing", "new": "retire"}


def test_labels_choose_settings_that_carry_them_now_or_did_then():
    shop = {"team": "shop"}
    log = logged(
        [("declare", "left", body(1, labels=shop)), ("declare", "other", body(1))],
        [("declare", "left", body(2)), ("declare", "came", body(1, labels=shop)), ("declare", "other", body(2))],
    )
    found = log.restored(Request(Place(1), labels=shop))
    assert outcomes(found) == {"left": "declare", "came": "retire"}
    assert {one.key[-4:]: one.changed for one in found} == {"left": ["/labels/team", "/value/n"], "came": []}


def test_a_protected_setting_that_was_created_since_refuses_the_rollback_by_name():
    log = logged([("declare", "old", body(1))], [("declare", "kept", body(1, policy={"protect": True}))])
    changes = [one.change for one in log.restored(Request(Place(1))) if one.change is not None]
    with pytest.raises(Refused) as refused:
        writes.trial_outcomes(log.state, changes, record(9, []))
    assert refused.value.reason is Reason.PROTECTED
    assert "cache.namespace/kept" in refused.value.detail


def test_what_is_no_valid_declaration_any_more_is_refused_with_its_key():
    log = logged([("declare", "old", body(1) | {"value": {"m": 1}})], [("declare", "old", body(1))])
    with pytest.raises(Refused) as refused:
        log.restored(Request(Place(1)))
    assert refused.value.reason is Reason.INVALID
    assert {fault.path for fault in refused.value.faults} == {
        "/default/cache.namespace/old/value/m",
        "/default/cache.namespace/old/value/n",
    }


def test_a_setting_that_never_was_is_not_found():
    with pytest.raises(Refused) as refused:
        logged([("declare", "a", body(1))]).restored(Request(Place(1), frozenset({KEYS[1]})))
    assert refused.value.reason is Reason.NOT_FOUND


@pytest.mark.parametrize(
    ("asked", "reason", "path"),
    [
        ({}, Reason.INVALID, "/to"),
        ({"to": 0}, Reason.INVALID, "/to"),
        ({"to": 8}, Reason.INVALID, "/to"),
        ({"to": True}, Reason.INVALID, "/to"),
        ({"to": "yesterday"}, Reason.INVALID, "/to"),
        ({"to": "2026-01-31T12:00:00"}, Reason.INVALID, "/to"),
        ({"to": "2999-01-31T12:00:00Z"}, Reason.INVALID, "/to"),
        ({"to": 1, "colour": 1}, Reason.MALFORMED, "/colour"),
        ({"to": 1, "settings": []}, Reason.INVALID, "/settings"),
        ({"to": 1, "settings": "x"}, Reason.INVALID, "/settings"),
        ({"to": 1, "settings": ["x"]}, Reason.INVALID, "/settings/0"),
        ({"to": 1, "settings": ["cache.namespace/a", 5]}, Reason.INVALID, "/settings/1"),
        ({"to": 1, "settings": ["other/cache.namespace/a"]}, Reason.INVALID, "/settings/0"),
        ({"to": 1, "labels": {}}, Reason.INVALID, "/labels"),
        ({"to": 1, "labels": {"a": 1}}, Reason.INVALID, "/labels"),
        ({"to": 1, "reason": 5}, Reason.INVALID, "/reason"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_by_path(asked, reason, path):
    with pytest.raises(Refused) as refused:
        request_of(asked, TENANT, position=7, now=2e9)
    assert (refused.value.reason, [fault.path for fault in refused.value.faults]) == (reason, [path])


def test_settings_are_named_within_the_tenant_or_by_their_key():
    request = request_of({"to": "7", "settings": ["cache.namespace/a", KEYS[1]]}, TENANT, position=7, now=2e9)
    assert request == Request(Place(7), frozenset(KEYS[:2]), None, "rollback to 7")
