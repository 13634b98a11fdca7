"""Filters refuse what can't be meant, before any store sees it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.errors import Reason, Refused
from controlplane.projection.queries import Cursor, EventFilter, MetricFilter, parse_cursor
from controlplane.projection.selection import matching


@given(st.integers(-(2**61), 2**61), st.text())
def test_a_cursor_is_read_back_as_it_was_given_out(at_us, ident):
    assert parse_cursor(str(Cursor(at_us, ident))) == Cursor(at_us, ident)


@given(st.text())
def test_any_other_text_as_a_cursor_is_refused_or_a_place(text):
    try:
        at_us = parse_cursor(text).at_us
    except Refused as refused:
        reason, path = refused.reason, refused.faults[0].path
    else:
        reason, path = Reason.MALFORMED, "/cursor"
        assert abs(at_us) < 2**62
    assert (reason, path) == (Reason.MALFORMED, "/cursor")


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        (lambda: EventFilter("acme", limit=0), "/limit"),
        (lambda: EventFilter("acme", limit=1001), "/limit"),
        (lambda: EventFilter("acme", since=1e300), "/since"),
        (lambda: EventFilter("acme", until=float("nan")), "/until"),
        (lambda: MetricFilter("acme", interval_s=0), "/interval"),
        (lambda: MetricFilter("acme", interval_s=60, aggregate="median"), "/aggregate"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused_by_the_name_of_its_field(wanted, path):
    with pytest.raises(Refused) as refused:
        wanted()
    assert refused.value.faults[0].path == path


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        (None, None),
        ("  ", None),
        ("--- *", None),
        ("two words", '"two" "words"'),
        ('say "hi" OR NOT', '"say" """hi""" "OR" "NOT"'),
        ("inv*", '"inv"*'),
        ("cache.redis_user/app", '"cache.redis_user/app"'),
        ("nul\0byte", '"nul" "byte"'),
    ],
)
def test_text_becomes_quoted_words_and_never_syntax(text, expression):
    assert matching(text) == expression
