"""How often: buckets by who is limited, and what was refused, counted."""

from __future__ import annotations

import pytest

from controlplane.api.limits import MOST_BUCKETS, Limits
from controlplane.api.refusals import MOST, Attempt, Refusals
from controlplane.domain.errors import Reason, Refused


def taken(limits: Limits, who: str, per_s: float | None, now: float) -> float | None:
    """How long to wait, None when it is let through."""
    try:
        limits.take("writes", who, per_s, now)
    except Refused as refused:
        assert refused.reason is Reason.TOO_MANY_REQUESTS
        return refused.retry_after_s
    return None


def test_a_bucket_holds_one_second_and_fills_again() -> None:
    limits = Limits()
    assert [taken(limits, "a", 2, 0.0) for _ in range(3)] == [None, None, 0.5]
    assert taken(limits, "a", 2, 0.5) is None
    assert taken(limits, "a", 2, 0.5) == 0.5
    assert [taken(limits, "a", 2, 1000.0) for _ in range(3)] == [None, None, 0.5]


def test_a_rate_below_one_lets_one_through_now_and_then() -> None:
    limits = Limits()
    assert [taken(limits, "a", 0.1, now) for now in (0.0, 1.0, 10.0)] == [None, 9.0, None]


def test_everybody_has_a_bucket_of_their_own_and_nobody_is_limited_without_a_rate() -> None:
    limits = Limits()
    assert [taken(limits, who, 1, 0.0) for who in ("a", "b", "a")] == [None, None, 1.0]
    assert [taken(limits, "c", None, 0.0) for _ in range(100)] == [None] * 100


def test_the_buckets_are_bounded() -> None:
    limits = Limits()
    for number in range(MOST_BUCKETS + 1):
        limits.take("writes", str(number), 1, 0.0)
    assert taken(limits, "0", 1, 0.0) is None
    assert taken(limits, str(MOST_BUCKETS), 1, 0.0) == 1.0


def test_the_same_attempt_is_counted_and_other_tenants_do_not_hear_of_it() -> None:
    refusals = Refusals()
    for at in (1.0, 3.0):
        refusals.add(Attempt("a", "eve", "PUT", "/x", "Forbidden"), at)
    refusals.add(Attempt("b", "bob", "PUT", "/x", "Forbidden"), 2.0)
    (seen,) = refusals.of("a")
    assert (seen["count"], seen["first_at"][:19], seen["last_at"][:19]) == (
        2,
        "1970-01-01T00:00:01",
        "1970-01-01T00:00:03",
    )
    assert refusals.of("a", actor="bob") == refusals.of("a", since=4.0) == []


def test_an_attacker_cannot_fill_the_memory() -> None:
    refusals = Refusals()
    for number in range(2 * MOST):
        refusals.add(Attempt("a", str(number), "PUT", "/x", "Forbidden"), 0.0)
    assert len(refusals.of("a")) == MOST


def test_what_is_held_is_counted_until_it_is_given_back() -> None:
    limits = Limits()
    with limits.holding("streams", "a", 1):
        with pytest.raises(Refused) as refused, limits.holding("streams", "a", 1):
            raise AssertionError
        assert refused.value.reason is Reason.TOO_MANY_REQUESTS
        with limits.holding("streams", "b", 1):
            assert len(limits._held) == 2
    with limits.holding("streams", "a", 1):
        assert len(limits._held) == 1, "nothing is kept of those who hold nothing"
