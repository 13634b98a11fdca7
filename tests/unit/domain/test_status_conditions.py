"""Statuses: phases, conditions whose `since` moves only with their status, and the round trip through the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain import status as statuses
from controlplane.domain.status import Intent, KeyStatus, LastAction, from_wire, plain, public, to_wire
from controlplane.log.codec import decode, encode
from schemas.names import timestamp
from schemas.setting import Phase, Status

FRESH = KeyStatus("default/cache.redis_user/app", observed_generation=3)
TEXT = st.sampled_from(["", "Refused", "Timeout"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
Fact = Callable[[KeyStatus, float], KeyStatus]


def converged(status: KeyStatus, now: float) -> KeyStatus:
    return statuses.converged(status, now, "app")


def drifted(status: KeyStatus, now: float) -> KeyStatus:
    return statuses.drifted(status, now, [("/enabled", True, False), ("/keys", ("a",), {"b"})])


def told(name: str, reason: str) -> Fact:
    return lambda status, now: getattr(statuses, name)(status, now, reason, f"because of {reason}")


FACTS = st.one_of(
    st.builds(told, st.sampled_from(["pending", "reconciling", "stalled", "retrying", "unanswered"]), TEXT),
    st.sampled_from([converged, drifted, statuses.undrifted]),
    st.builds(
        lambda **fields: lambda status, now: replace(status, **fields),
        paused=st.booleans(),
        retiring=st.booleans(),
        unknown_since=st.sampled_from([None, timestamp(7)]),
        revision=st.integers(0, 9),
        observed_generation=st.integers(0, 9),
        next_at=st.sampled_from([None, timestamp(9)]),
        remembered=st.dictionaries(TEXT, TEXT, max_size=2).map(lambda known: tuple(sorted(known.items()))),
        last_action=st.none()
        | st.builds(LastAction, TEXT, st.just("failed"), st.just(timestamp(3)), st.integers(1, 3)),
        intent=st.none()
        | st.builds(Intent, TEXT, st.integers(1, 3), st.just("digest"), st.just(timestamp(3)), st.just("event")),
    ),
)


@given(st.lists(FACTS, max_size=12))
def test_a_status_reads_back_from_the_journal_as_it_was(facts: list[Fact]):
    status = FRESH
    for now, fact in enumerate(facts):
        status = fact(status, float(now))
        assert from_wire(decode(encode(to_wire(status)))) == status
        Status.model_validate(public(status))
        assert to_wire(status).items() >= public(status).items()


@given(st.lists(FACTS, max_size=12))
def test_since_moves_exactly_when_the_status_of_the_condition_does(facts: list[Fact]):
    status = FRESH
    for now, fact in enumerate(facts, 1):
        before, status = status, fact(status, float(now))
        for condition in status.conditions:
            old = before.condition(condition.type)
            moved = old is None or old.status != condition.status
            assert condition.since == (timestamp(float(now)) if moved else old.since)
        assert [c.type for c in status.conditions] == sorted({c.type for c in status.conditions})


@given(st.lists(FACTS, max_size=6), FACTS)
def test_the_same_fact_again_gives_an_equal_status(facts: list[Fact], last: Fact):
    status = FRESH
    for now, fact in enumerate([*facts, last]):
        status = fact(status, float(now))
    assert last(status, 1000.0) == status


@pytest.mark.parametrize(
    ("facts", "phase"),
    [
        ([], Phase.PENDING),
        ([told("pending", "TargetMissing")], Phase.PENDING),
        ([told("reconciling", "Applying")], Phase.RECONCILING),
        ([converged], Phase.READY),
        ([converged, drifted], Phase.DRIFTED),
        ([converged, drifted, told("reconciling", "Repairing")], Phase.DRIFTED),
        ([converged, drifted, converged], Phase.READY),
        ([converged, drifted, statuses.undrifted], Phase.PENDING),
        ([converged, told("unanswered", "Unreachable")], Phase.UNKNOWN),
        ([told("unanswered", "Unreachable"), converged], Phase.READY),
        ([told("stalled", "SecretNotFound")], Phase.STALLED),
        ([told("stalled", "SecretNotFound"), told("reconciling", "Applying")], Phase.RECONCILING),
        ([told("reconciling", "Applying"), told("stalled", "Refused")], Phase.STALLED),
    ],
)
def test_the_phase_is_one_word_for_what_stands_out(facts: list[Fact], phase: Phase):
    status = FRESH
    for now, fact in enumerate(facts):
        status = fact(status, float(now))
    assert status.phase == phase


@pytest.mark.parametrize(
    ("fields", "phase"),
    [
        ({"paused": True, "retiring": True}, Phase.PAUSED),
        ({"retiring": True, "unknown_since": timestamp(1)}, Phase.RETIRING),
        ({"unknown_since": timestamp(1)}, Phase.UNKNOWN),
    ],
)
def test_what_a_person_asked_for_stands_before_what_is_known(fields: dict[str, Any], phase: Phase):
    assert replace(converged(FRESH, 0.0), **fields).phase == phase


def test_converging_settles_what_was_open_and_remembers_the_generation():
    status = replace(drifted(FRESH, 1.0), unknown_since=timestamp(1))
    status = converged(status, 2.0)
    assert (status.drift, status.unknown_since, status.external) == ((), None, "app")
    assert status.converged_generation == 3
    assert [c.type for c in status.conditions if c.status == "True"] == ["Ready"]


def test_drift_names_path_desired_and_observed():
    status = drifted(converged(FRESH, 0.0), 1.0)
    assert public(status)["drift"] == [
        {"path": "/enabled", "desired": True, "observed": False},
        {"path": "/keys", "desired": ["a"], "observed": ["b"]},
    ]
    ready = status.condition("Ready")
    assert ready is not None
    assert (ready.status, ready.reason, ready.message) == ("False", "Drifted", "differs on /enabled, /keys")


def test_superseding_what_never_drifted_changes_nothing():
    assert statuses.undrifted(FRESH, 1.0) is FRESH


class Colour(StrEnum):
    RED = "red"


@given(JSON)
def test_plain_leaves_json_as_it_is(value: Any):
    assert plain(value) == value


def test_plain_makes_json_of_what_planners_compare():
    value = {"a": (1, frozenset({"y", "x"})), "b": Colour.RED, 3: b"x"}
    assert plain(value) == {"a": [1, ["x", "y"]], "b": "red", "3": "b'x'"}
    assert type(plain(Colour.RED)) is str
