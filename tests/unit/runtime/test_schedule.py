"""When a key is looked at: holds, pauses and wishes, whichever comes first."""

from __future__ import annotations

import pytest

from controlplane.runtime.backoff import Backoff
from controlplane.runtime.schedule import LONGEST_S, SHORTEST_S, Schedule

HOLD_S = 6.0


class Clock:
    def __init__(self):
        self.seconds = 100.0

    def now(self):
        return self.seconds

    def monotonic(self):
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def schedule(clock):
    return Schedule(clock, Backoff(1.0, 8.0), lambda: 1.0, hold_s=HOLD_S, wake=lambda: None)


def take(schedule):
    return schedule.take(10, lambda _seconds: None)


@pytest.mark.parametrize("disturb", ["look", "again", "resync", "retry", "later"])
@pytest.mark.parametrize("during", ["before the pass is done", "after it"])
def test_nothing_cuts_a_hold_short(schedule, clock, disturb, during):
    schedule.look("a")
    take(schedule)
    schedule.hold("a")
    if during == "after it":
        schedule.done(["a"])
    getattr(schedule, disturb)("a", *([0.1] if disturb in ("retry", "later") else []))
    schedule.done(["a"])
    clock.seconds += HOLD_S - 0.01
    assert take(schedule) == []
    clock.seconds += 0.02
    assert take(schedule) == ["a"]


def test_a_user_ends_a_pause_and_a_sweep_does_not(schedule, clock):
    schedule.look("a")
    take(schedule)
    schedule.retry("a")
    schedule.done(["a"])
    schedule.resync("a")
    assert take(schedule) == []
    schedule.look("a")
    assert take(schedule) == ["a"]


def test_a_user_who_asks_during_a_pass_that_fails_does_not_wait(schedule):
    schedule.look("a")
    take(schedule)
    schedule.look("a")
    assert schedule.retry("a") == 0.0
    schedule.done(["a"])
    assert take(schedule) == ["a"]


def test_pauses_grow_to_the_cap_and_begin_anew_when_it_settled(schedule, clock):
    pauses = []
    for _ in range(5):
        schedule.look("b")
        pauses.append(schedule.retry("a"))
    assert pauses == [1.0, 2.0, 4.0, 8.0, 8.0]
    schedule.settled("a")
    assert schedule.retry("a") == 1.0


@pytest.mark.parametrize(("asked_s", "pause_s"), [(0.0, SHORTEST_S), (-1.0, SHORTEST_S), (3.0, 3.0), (1e9, LONGEST_S)])
def test_what_a_backend_asks_for_is_kept_within_reason(schedule, asked_s, pause_s):
    assert schedule.retry("a", asked_s) == pytest.approx(pause_s)


def test_a_key_whose_pause_is_over_may_be_swept_again(schedule, clock):
    schedule.retry("a")
    assert not schedule.may_resync("a")
    clock.seconds += 2
    assert take(schedule) == ["a"]
    assert not schedule.may_resync("a")
    schedule.done(["a"])
    assert schedule.may_resync("a")


def test_a_hint_during_a_pass_brings_the_key_back(schedule):
    schedule.look("a")
    take(schedule)
    schedule.resync("a")
    schedule.done(["a"])
    assert take(schedule) == ["a"]


def test_keys_that_are_gone_leave_nothing(schedule, clock):
    schedule.retry("a")
    schedule.retry("b")
    schedule.hold("c")
    clock.seconds += HOLD_S + 1
    schedule.keep({"b"})
    assert set(schedule._failures) == {"b"}
    assert schedule._held == {}


def test_it_says_how_long_a_key_was_due(schedule, clock):
    waits = []
    schedule.look("a")
    clock.seconds += 3
    schedule.take(10, waits.append)
    assert waits == [3.0]
