"""Which verbs are loaded for which words."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.main import get_group

from controlplane.cli.program import VERBS, program

ALL = {verb.name for verb in VERBS} | {"version"}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], ALL),
        (["--help"], ALL),
        (["gett"], ALL),
        (["get", "cache.target"], {"get", "version"}),
        (["--tenant", "get", "apply"], {"get", "apply", "version"}),
        (["token", "list"], {"token", "version"}),
    ],
)
def test_the_verbs_among_the_words_are_there_or_all_when_none_is(words: list[str], wanted: set[str]):
    assert set(get_group(program(words)).commands) == wanted


def test_a_verb_that_only_asks_the_daemon_loads_nothing_of_it():
    script = "import sys; from controlplane.cli.program import program; program(['get'])\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "controlplane.cli.settings" in loaded
    assert [name for name in loaded if name.startswith(("controlplane.app", "reconcilers", "controlplane.log"))] == []
