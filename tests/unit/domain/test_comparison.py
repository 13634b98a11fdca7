"""What came, went and changed between two places of the log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.answers import Selection
from controlplane.domain.comparison import compared
from tests.unit.domain.test_rollback_laws import LOGS, TENANT, Log

ALL = Selection(TENANT)


def rows(before, after, chosen=ALL):
    return {row["setting"]: row for row in compared(before, after, chosen)}


def body(n=1, **more):
    return {"value": {"n": n}, "labels": {}, "depends_on": [], "policy": {}} | more


KEY = f"{TENANT}/cache.namespace/a"


def test_each_outcome_is_told_with_both_sides():
    log = Log(
        [[("declare", KEY, body())], [("declare", KEY, body(2))], [("retire", KEY, None)], [("forget", KEY, None)]]
    )
    assert rows(log.past[0], log.past[1])[KEY]["outcome"] == "created"
    updated = rows(log.past[1], log.past[2])[KEY]
    assert (updated["outcome"], updated["changed"]) == ("updated", ["/value/n"])
    assert [updated[side]["declaration"]["value"]["n"] for side in ("before", "after")] == [1, 2]
    assert [updated[side]["revision"] for side in ("before", "after")] == [1, 2]
    assert rows(log.past[2], log.past[3])[KEY]["outcome"] == "retired"
    assert rows(log.past[3], log.past[4])[KEY]["outcome"] == "gone"
    assert rows(log.past[4], log.past[2])[KEY]["outcome"] == "created"


def test_what_came_back_to_what_it_was_is_no_difference():
    log = Log([[("declare", KEY, body())], [("declare", KEY, body(2))], [("declare", KEY, body())]])
    assert rows(log.past[1], log.past[3]) == {}


def test_only_what_is_chosen_then_or_now():
    log = Log([[("declare", KEY, body(labels={"team": "shop"}))], [("declare", KEY, body())]])
    assert rows(log.past[1], log.past[2], Selection(TENANT, labels={"team": "shop"})).keys() == {KEY}
    assert rows(log.past[1], log.past[2], Selection(TENANT, labels={"team": "web"})) == {}
    assert rows(log.past[1], log.past[2], Selection("other")) == {}


@given(drawn=LOGS, data=st.data())
def test_a_place_is_no_different_from_itself_and_sides_can_be_swapped(drawn, data):
    log = Log(drawn)
    one, other = (log.past[data.draw(st.integers(0, len(log.past) - 1))] for _ in range(2))
    assert rows(one, one) == {}
    assert rows(one, other).keys() == rows(other, one).keys()
