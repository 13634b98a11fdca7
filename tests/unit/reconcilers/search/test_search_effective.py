"""Which template an index is made by."""

from __future__ import annotations

import pytest

from reconcilers.search.effective import winner

TEMPLATES = {
    "all": {"index_patterns": ["*"]},
    "logs": {"index_patterns": ["logs-*", "events-*"], "priority": 10},
    "logs-shop": {"index_patterns": ["logs-shop-*"], "priority": 20},
    "odd": {"index_patterns": ["a[b]?c"], "priority": 5},
}


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ("logs-shop-1", "logs-shop"),
        ("logs-web", "logs"),
        ("events-1", "logs"),
        ("products", "all"),
        ("abxc", "all"),
        ("a[b]?c", "odd"),
    ],
)
def test_the_highest_priority_among_those_that_match_wins(index: str, expected: str) -> None:
    assert winner(TEMPLATES, index) == expected


def test_none_matches() -> None:
    assert winner({"logs": TEMPLATES["logs"]}, "products") is None
