"""What the numbers of a source's shards say."""

from __future__ import annotations

from typing import Any

import pytest

from reconcilers.search.feeding import reached


def copy(state: str, number: int, *, primary: bool = True) -> dict[str, Any]:
    """As `_stats` tells of one copy of a shard."""
    numbers = {"max_seq_no": 40_279, "local_checkpoint": 40_279, "global_checkpoint": number}
    return {"routing": {"state": state, "primary": primary, "node": "n"}, "seq_no": numbers}


@pytest.mark.parametrize(
    ("shards", "expected"),
    [
        ({"0": [copy("STARTED", 40_279)]}, {0: 40_279}),
        ({"0": [copy("RELOCATING", 7)], "1": [copy("STARTED", 8)]}, {0: 7, 1: 8}),
        ({"0": [copy("STARTED", 9, primary=False), copy("STARTED", 10)]}, {0: 10}),
        # A node that was killed knows after its start what it had written down of the checkpoint: one operation too few.
        ({"0": [copy("INITIALIZING", 40_278)]}, {}),
        ({"0": [{"routing": {"state": "STARTED", "primary": True, "node": "n"}}]}, {}),
        ({}, {}),
    ],
)
def test_only_a_primary_that_has_started_knows_how_far_it_is(shards: Any, expected: dict[int, int]) -> None:
    assert reached(shards) == expected
