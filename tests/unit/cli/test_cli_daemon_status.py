"""How far behind log and projection are, in words."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from controlplane.cli import daemon_status


def drawn(**report: Any) -> dict[str, str]:
    console = Console(file=StringIO(), width=120)
    parts = daemon_status.picture({"url": "http://here", "tenant": "default", "ready": True, "phases": {}, **report})
    for part in parts:
        console.print(part)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return {name.strip(): value.strip() for name, _, value in (line.partition("  ") for line in lines)}


@pytest.mark.parametrize(
    ("lag", "told"),
    [
        ({"records": 0, "seconds": 0.0}, "nothing behind"),
        ({"records": 38, "seconds": 1.4855504035949707}, "38 records, 1.5 s behind"),
    ],
)
def test_the_lag_of_the_projection_is_told_in_words(lag: dict[str, Any], told: str):
    assert drawn(projection=lag)["Projection"] == told


def test_a_log_that_does_not_answer_is_said():
    assert "the log doesn't answer" in drawn(replica={"position": 4, "lag": None})["Log"]
