"""Differences and reasons in few words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.cli import wording

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=9,
)


@pytest.mark.parametrize(
    ("desired", "observed", "told"),
    [
        (268435456, 10485760, "268435456 → 10485760"),
        ("storefront", None, "storefront → absent"),
        (["~a:*"], ["~a:*", "~b:*"], "has ~b:*"),
        (["~a:*", "~b:*"], ["~*"], "has ~*, lacks ~a:* ~b:*"),
        ("-@all +get +set", "+@all", "has +@all, lacks -@all +get +set"),
        ("+get -set", "-set +get", "+get -set → -set +get"),
        (list(range(9)), [], "lacks 0 1 2 3 and 5 more"),
        ("x" * 99, "y", "x" * 47 + "… → y"),
    ],
)
def test_a_difference_is_told_by_what_differs(desired: Any, observed: Any, told: str) -> None:
    assert wording.difference(desired, observed) == told


@given(JSON, JSON)
def test_whatever_the_values_are_there_is_something_to_read(desired: Any, observed: Any) -> None:
    assert wording.difference(desired, observed).strip()


def test_many_differences_are_counted() -> None:
    drift = [{"path": f"/p{i}", "desired": 1, "observed": 2} for i in range(5)]
    assert wording.differences(drift) == "/p0 1 → 2 · /p1 1 → 2 · /p2 1 → 2 · 2 more"


@pytest.mark.parametrize(
    ("reason", "message", "told"),
    [
        ("Unreachable", "refused", "Unreachable: refused"),
        ("Conflict", "Conflict with x", "Conflict with x"),
        ("Stopped", None, "Stopped"),
        (None, "why", "why"),
        (
            "Waits",
            "for mine/cache.target/a and other/cache.target/b",
            "Waits: for cache.target/a and other/cache.target/b",
        ),
    ],
)
def test_trouble_says_each_thing_once(reason: str | None, message: str | None, told: str) -> None:
    assert wording.trouble(reason, message, "mine") == told
