"""When a token ends, and how the list says it."""

from __future__ import annotations

import pytest

from controlplane.cli import tokens
from controlplane.cli.failure import Failure
from schemas.names import parse_timestamp

NOW = parse_timestamp("2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("text", "at"),
    [("90d", "2026-04-01"), ("12h", "2026-01-01T12:00:00"), ("2027-01-31T12:00:00Z", "2027-01-31T12:00:00")],
)
def test_an_end_is_a_duration_from_now_or_a_time(text: str, at: str) -> None:
    assert tokens.expiry(text, NOW).startswith(at)


@pytest.mark.parametrize("text", ["soon", "0s", "2020-01-01T00:00:00Z", "2027-01-31", "", "90 years"])
def test_an_end_that_has_passed_or_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Failure):
        tokens.expiry(text, NOW)


def test_the_list_says_when_a_token_ends() -> None:
    ends = [str(tokens.ends(at, NOW)) for at in (None, "2025-12-31T00:00:00Z", "2026-01-13T00:00:00Z")]
    assert ends == ["never", "expired", "in 12d"]
