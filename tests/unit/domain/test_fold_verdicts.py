"""Tables of change requests and the verdicts that the fold gives."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from controlplane.domain.fold import REMEMBERED_OFFSETS, Entry, State, Verdict, fold, judge
from controlplane.domain.requests import UnknownRecord, as_change, as_request, read
from controlplane.log.codec import encode

KEY = "default/cache.redis_user/app"
OTHER = "default/cache.redis_user/other"


def body(n: object = 1, **more: Any) -> dict[str, Any]:
    return {"value": {"n": n}, "labels": {}, "depends_on": [], "policy": {}, **more}


def declare(key: str = KEY, expected: int | None = None, **more: Any) -> dict[str, Any]:
    return {"op": "declare", "key": key, "expected": expected, "body": body(**more)}


def retire(key: str = KEY, expected: int | None = None, **more: Any) -> dict[str, Any]:
    return {"op": "retire", "key": key, "expected": expected, **more}


def forget(key: str = KEY, expected: int | None = None) -> dict[str, Any]:
    return {"op": "forget", "key": key, "expected": expected}


def record(*changes: dict[str, Any], request_id: str, **more: Any) -> dict[str, Any]:
    at = "2026-01-31T12:00:00.000000Z"
    return {"v": 1, "request_id": request_id, "actor": "ann", "at": at, "reason": "", "changes": list(changes), **more}


class Log:
    """Folds one request after the other."""

    def __init__(self) -> None:
        self.state = State()

    def write(self, *changes: dict[str, Any], request_id: str | None = None, offset: int | None = None) -> Verdict:
        offset = self.state.position if offset is None else offset
        return fold(self.state, offset, as_request(offset, record(*changes, request_id=request_id or f"r{offset}")))

    def entry(self, key: str = KEY) -> Entry:
        return self.state.entries[key]


def only(verdict: Verdict) -> tuple[str, int, int]:
    (outcome,) = verdict.outcomes
    return outcome.outcome, outcome.generation, outcome.revision


def refusals(verdict: Verdict) -> list[tuple[str, str]]:
    return [(refusal.key, refusal.reason) for refusal in verdict.refusals]


def test_the_first_revision_is_one_past_the_offset_so_that_zero_means_absent():
    log = Log()
    assert only(log.write(declare(expected=0))) == ("created", 1, 1)
    assert log.state.revision_of(KEY) == 1
    assert log.state.revision_of(OTHER) == 0


def test_a_declare_keeps_who_made_the_newest_revision_and_when_the_first_was_made():
    log = Log()
    first = record(declare(), request_id="a", at="2026-01-01T00:00:00.000000Z", actor="ann")
    second = record(declare(n=2), request_id="b", at="2026-01-02T00:00:00.000000Z", actor="bob", reason="why")
    fold(log.state, 0, as_request(0, first))
    fold(log.state, 1, as_request(1, second))
    entry = log.entry()
    assert (entry.created_revision, entry.revision, entry.generation) == (1, 2, 2)
    assert (entry.created_at, entry.updated_at) == ("2026-01-01T00:00:00.000000Z", "2026-01-02T00:00:00.000000Z")
    assert (entry.actor, entry.reason, entry.request_id) == ("bob", "why", "b")


@pytest.mark.parametrize(("expected", "accepted"), [(None, True), (1, True), (0, False), (2, False), (99, False)])
def test_a_declare_is_accepted_only_at_the_revision_it_expects(expected: int | None, accepted: bool):
    log = Log()
    log.write(declare())
    verdict = log.write(declare(expected=expected, n=2))
    assert verdict.accepted is accepted
    assert log.entry().body["value"] == {"n": 2 if accepted else 1}
    if not accepted:
        assert verdict.refusals == ((KEY, "Conflict", expected, 1),)


def test_declaring_the_same_again_is_unchanged_and_moves_nothing():
    log = Log()
    log.write(declare())
    before = log.entry()
    assert only(log.write(declare())) == ("unchanged", 1, 1)
    assert log.entry() is before
    assert list(log.state.history[KEY]) == [1]


@pytest.mark.parametrize(
    ("change", "generation"),
    [
        ({"n": 2}, 2),
        ({"policy": {"paused": True}}, 2),
        ({"labels": {"team": "shop"}}, 1),
        ({"depends_on": ["cache.target/redis"]}, 1),
    ],
)
def test_the_generation_counts_changes_of_value_and_policy_only(change: dict[str, Any], generation: int):
    log = Log()
    log.write(declare())
    assert only(log.write(declare(**change))) == ("updated", generation, 2)


def test_a_body_without_a_policy_means_an_empty_one():
    log = Log()
    bare = declare()
    del bare["body"]["policy"]
    log.write(bare)
    assert only(log.write(declare())) == ("updated", 1, 2)


@pytest.mark.parametrize(
    ("before", "after"), [(1, True), (0, False), (1, 1.0), ([1], [True]), ({"a": 0}, {"a": False})]
)
def test_values_that_only_python_takes_for_equal_are_changes(before: object, after: object):
    log = Log()
    log.write(declare(n=before))
    assert only(log.write(declare(n=after))) == ("updated", 2, 2)


def test_a_retiring_key_stays_until_it_is_forgotten():
    log = Log()
    log.write(declare())
    assert only(log.write(retire(deletion="retain"))) == ("retired", 1, 2)
    assert (log.entry().retiring, log.entry().deletion) == (True, "retain")
    assert only(log.write(forget(expected=2))) == ("forgotten", 1, 3)
    assert KEY not in log.state.entries
    assert list(log.state.history[KEY]) == [1, 2, 3]


def test_retiring_again_is_unchanged_unless_it_says_another_deletion():
    log = Log()
    log.write(declare())
    log.write(retire(deletion="retain"))
    assert only(log.write(retire())) == ("unchanged", 1, 2)
    assert only(log.write(retire(deletion="retain"))) == ("unchanged", 1, 2)
    assert only(log.write(retire(deletion="delete"))) == ("retired", 1, 5)
    assert log.entry().deletion == "delete"


def test_declaring_a_retiring_key_cancels_the_retirement_and_its_deletion():
    log = Log()
    log.write(declare())
    log.write(retire(deletion="delete"))
    assert only(log.write(declare())) == ("updated", 1, 3)
    assert (log.entry().retiring, log.entry().deletion, log.entry().created_revision) == (False, None, 1)


def test_a_key_that_was_forgotten_and_declared_anew_starts_at_generation_one():
    log = Log()
    for change in (declare(), declare(n=2), retire(), forget(expected=3)):
        log.write(change)
    assert only(log.write(declare(n=2, expected=0))) == ("created", 1, 5)
    assert log.entry().created_revision == 5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (forget(), "NotRetiring"),
        (forget(expected=1), "NotRetiring"),
        (forget(expected=7), "Conflict"),
        (retire(expected=7), "Conflict"),
        (retire(OTHER), "NotFound"),
        (retire(OTHER, expected=0), "NotFound"),
        (forget(OTHER), "NotRetiring"),
        (forget(OTHER, expected=1), "Conflict"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_reason(change: dict[str, Any], reason: str):
    log = Log()
    log.write(declare())
    before = copy.deepcopy(log.state.entries)
    assert refusals(log.write(change)) == [(change["key"], reason)]
    assert log.state.entries == before


def test_a_forget_must_name_the_revision_it_saw_retiring():
    log = Log()
    log.write(declare())
    log.write(retire())
    assert refusals(log.write(forget())) == [(KEY, "Conflict")]
    log.write(declare(n=2))
    log.write(retire())
    assert refusals(log.write(forget(expected=2))) == [(KEY, "Conflict")]
    assert log.write(forget(expected=5)).accepted


def test_a_protected_key_is_not_retired_until_the_protection_is_taken_away():
    log = Log()
    log.write(declare(policy={"protect": True}))
    assert refusals(log.write(retire())) == [(KEY, "Protected")]
    log.write(declare(policy={"protect": False}))
    assert log.write(retire()).accepted


def test_one_refused_change_refuses_the_whole_request_and_every_refusal_is_named():
    log = Log()
    log.write(declare())
    verdict = log.write(declare(OTHER), declare(expected=9), retire("default/cache.redis_user/nobody"))
    assert refusals(verdict) == [(KEY, "Conflict"), ("default/cache.redis_user/nobody", "NotFound")]
    assert verdict.outcomes == ()
    assert OTHER not in log.state.entries
    assert OTHER not in log.state.history


def test_all_changes_of_a_request_share_its_revision():
    log = Log()
    log.write(declare())
    verdict = log.write(declare(), declare(OTHER), offset=6)
    assert [(o.key, o.outcome, o.revision) for o in verdict.outcomes] == [(KEY, "unchanged", 1), (OTHER, "created", 7)]


def test_a_key_changes_at_most_once_in_a_request():
    log = Log()
    assert refusals(log.write(declare(), declare(n=2))) == [(KEY, "Conflict")]
    log.write(declare())
    assert refusals(log.write(retire(), forget(expected=2))) == [(KEY, "NotRetiring")]
    assert not log.entry().retiring


def test_a_repeated_request_gets_the_first_verdict_and_changes_nothing():
    log = Log()
    first = log.write(declare(expected=0), request_id="same")
    log.write(declare(n=2))
    assert log.write(declare(expected=0), request_id="same") == first
    assert log.entry().body["value"] == {"n": 2}
    refused = log.write(declare(expected=0), request_id="refused")
    log.write(retire())
    log.write(forget(expected=log.entry().revision))
    assert log.write(declare(expected=0), request_id="refused") == refused
    assert KEY not in log.state.entries


def test_a_request_is_remembered_for_the_window_and_judged_anew_after_it():
    for late, again in ((REMEMBERED_OFFSETS - 1, False), (REMEMBERED_OFFSETS, True), (REMEMBERED_OFFSETS * 3, True)):
        log = Log()
        first = log.write(declare(), request_id="same", offset=5)
        verdict = log.write(declare(n=2), request_id="same", offset=5 + late)
        assert (verdict != first) is again
        assert log.entry().body["value"] == {"n": 2 if again else 1}


def test_a_request_judged_anew_is_remembered_from_then_on():
    log = Log()
    log.write(declare(), request_id="same", offset=0)
    second = log.write(declare(n=2), request_id="same", offset=REMEMBERED_OFFSETS)
    for step in range(1, 6):
        log.write(declare(OTHER, n=step), offset=REMEMBERED_OFFSETS + step * 3000)
    assert log.write(declare(n=3), request_id="same") == second


def test_old_verdicts_do_not_pile_up():
    log = Log()
    for n in range(200):
        log.write(declare(n=n), offset=n * 500)
    verdicts = log.state.verdicts
    offsets = [kept[0] for kept in (*verdicts.older.values(), *verdicts.recent.values())]
    assert len(offsets) <= 2 * REMEMBERED_OFFSETS // 500 + 3
    assert offsets == sorted(offsets)
    assert log.state.verdicts.get("r0") is None
    assert log.state.verdicts.get("r99500") == Verdict(99_500, "r99500", ((KEY, "updated", 200, 99_501),), ())


@pytest.mark.parametrize(
    "strange",
    [
        {"v": 2},
        {"v": None},
        {"changes": None},
        {"changes": [{"op": "merge", "key": KEY}]},
        {"changes": [declare(OTHER), {"op": "merge", "key": KEY}]},
        {"changes": [{"op": "declare", "key": KEY}]},
        {"changes": [declare(OTHER), {"op": "declare", "key": KEY, "body": {}}]},
        {"changes": [{"op": "declare", "key": [], "body": body()}]},
    ],
)
@pytest.mark.parametrize("understood", [as_request, lambda offset, record: read(offset, encode(record))])
def test_a_record_that_is_not_understood_stops_the_fold_before_it(strange: dict[str, Any], understood: Any):
    log = Log()
    log.write(declare())
    before = copy.deepcopy(log.state)
    with pytest.raises(UnknownRecord, match="offset 1") as caught:
        fold(log.state, 1, understood(1, {**record(declare(n=2), request_id="x"), **strange}))
    assert caught.value.offset == 1
    assert log.state == before


def test_a_record_without_a_request_id_stops_the_fold():
    log = Log()
    nameless = record(declare(), request_id="x")
    del nameless["request_id"]
    with pytest.raises(UnknownRecord):
        fold(log.state, 0, read(0, encode(nameless)))
    assert log.state == State()


def test_no_offset_is_folded_twice():
    log = Log()
    log.write(declare(), offset=4)
    with pytest.raises(ValueError, match="folded already"):
        log.write(declare(n=2), offset=4)


def test_fields_of_newer_writers_are_kept_in_the_body():
    log = Log()
    log.write(declare(added_later={"x": 1}))
    assert log.entry().body["added_later"] == {"x": 1}


def test_judging_beforehand_changes_nothing():
    log = Log()
    log.write(declare())
    before = copy.deepcopy(log.state)
    foreseen = judge(log.state, [as_change(declare(expected=9)), as_change(retire(OTHER))])
    assert [r.reason for r in foreseen] == ["Conflict", "NotFound"]
    assert judge(log.state, [as_change(declare(n=2, expected=1))]) == ()
    assert log.state == before
