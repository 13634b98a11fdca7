"""When a setting counts as settled, and what is said when it doesn't settle."""

import io

import pytest
from rich.console import Console

from controlplane.cli import waiting
from controlplane.cli.failure import ExitCode, Failure
from controlplane.cli.waiting import GONE, Watch


def seen(phase: str, observed: int = 2, message: str = "") -> dict[str, object]:
    conditions = (
        [{"type": "Stalled", "status": "True", "reason": "R", "message": message}] if phase == "Stalled" else []
    )
    return {"generation": 2, "status": {"phase": phase, "observed_generation": observed, "conditions": conditions}}


@pytest.mark.parametrize(
    ("setting", "generation", "expected"),
    [
        (seen("Ready"), 2, "done"),
        (seen("Ready", observed=3), 2, "done"),
        (seen("Ready", observed=1), 2, "waiting"),
        (seen("Paused"), 2, "done"),
        (seen("Stalled"), 2, "stuck"),
        (seen("Stalled", observed=1), 2, "waiting"),
        (seen("Reconciling"), 2, "waiting"),
        (seen("Drifted"), 2, "waiting"),
        (seen("Drifted") | {"policy": {"drift": "report"}}, 2, "stuck"),
        (seen("Drifted", observed=1) | {"policy": {"drift": "report"}}, 2, "waiting"),
        ({"generation": 2}, 2, "waiting"),
        (None, 2, "waiting"),
        (None, GONE, "done"),
        (seen("Ready"), GONE, "waiting"),
        (seen("Paused"), GONE, "stuck"),
        (seen("Stalled", observed=1), GONE, "stuck"),
    ],
)
def test_a_setting_is_done_when_the_world_has_its_generation(
    setting: dict[str, object] | None, generation: int, expected: str
) -> None:
    assert waiting.verdict(setting, generation) == expected


def test_what_nobody_looked_at_yet_is_waited_for() -> None:
    assert Watch({"a.b/c": GONE}).having("waiting") == ["a.b/c"]


def test_all_done_is_no_failure() -> None:
    waiting.conclude(Watch({"a.b/c": 2}, {"a.b/c": seen("Ready")}), in_time=True, wait_s=1)


def test_a_stalled_setting_is_named_with_its_reason() -> None:
    watch = Watch({"a.b/c": 2, "a.b/d": 2}, {"a.b/c": seen("Stalled", message="no password"), "a.b/d": seen("Pending")})
    with pytest.raises(Failure) as caught:
        waiting.conclude(watch, in_time=False, wait_s=1)
    assert caught.value.message == "1 setting can't go on, 1 setting not done yet"
    assert caught.value.faults == (("a.b/c", "Stalled  R: no password"), ("a.b/d", "Pending"))
    assert caught.value.code == ExitCode.FAILED


def test_running_out_of_time_ends_with_3_and_says_what_is_left() -> None:
    watch = Watch({"a.b/c": 2, "a.b/d": 2}, {"a.b/c": seen("Ready"), "a.b/d": seen("Ready", observed=1)})
    with pytest.raises(Failure) as caught:
        waiting.conclude(watch, in_time=False, wait_s=5)
    assert caught.value.faults == (("a.b/d", "Pending"),)
    assert caught.value.code == ExitCode.TIMED_OUT


def test_the_picture_counts_what_is_done_and_shows_trouble_first() -> None:
    wanted = {f"a.b/{number}": 2 for number in range(30)}
    watch = Watch(wanted, {reference: seen("Ready") for reference in wanted} | {"a.b/29": seen("Stalled")})
    console = Console(file=io.StringIO(), width=200)
    console.print(waiting.picture(watch))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0] == "29 of 30 as declared"
    assert len(lines) == 2 + waiting.SHOWN + 1
    assert lines[2].startswith("a.b/29")
