from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.errors import Reason, Refused
from controlplane.domain.preconditions import etag, expected, precondition


@pytest.mark.parametrize(
    ("if_match", "if_none_match", "revision", "pinned"),
    [
        (None, None, 0, None),
        (None, None, 7, None),
        ('"7"', None, 7, 7),
        ("7", None, 7, 7),
        ('"6", "7"', None, 7, 7),
        ("*", None, 7, 7),
        (None, "*", 0, 0),
        (None, '"6"', 7, 7),
        (None, '"6"', 0, 0),
    ],
)
def test_what_is_met_is_pinned(
    if_match: str | None, if_none_match: str | None, revision: int, pinned: int | None
) -> None:
    assert expected(precondition(if_match, if_none_match), revision) == pinned


@pytest.mark.parametrize(
    ("if_match", "if_none_match", "revision"),
    [
        ('"6"', None, 7),
        ("*", None, 0),
        ('"0"', None, 0),
        ('W/"7"', None, 7),
        ('"x"', None, 7),
        (None, "*", 7),
        (None, '"7"', 7),
    ],
)
def test_what_is_not_met_is_refused(if_match: str | None, if_none_match: str | None, revision: int) -> None:
    with pytest.raises(Refused) as refused:
        expected(precondition(if_match, if_none_match), revision)
    assert refused.value.reason is Reason.PRECONDITION_FAILED


@pytest.mark.parametrize("header", ["x", '"7', "7 8", '"7" "8"', "*, 7", ";"])
def test_what_is_no_list_of_tags_is_malformed(header: str) -> None:
    with pytest.raises(Refused) as refused:
        precondition(header, None)
    assert refused.value.reason is Reason.MALFORMED


@given(st.integers(min_value=1, max_value=2**63))
def test_an_etag_sent_back_matches_its_revision_alone(revision: int) -> None:
    condition = precondition(etag(revision), None)
    assert expected(condition, revision) == revision
    with pytest.raises(Refused):
        expected(condition, revision + 1)
