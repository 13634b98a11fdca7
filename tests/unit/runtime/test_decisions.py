"""Circumstances → decisions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from pydantic import BaseModel

from controlplane.domain import status as statuses
from controlplane.domain.fold import Entry
from controlplane.domain.status import Intent, KeyStatus, LastAction
from controlplane.runtime import decisions
from controlplane.runtime.catalogue import Resolved, TargetId, Unresolved
from controlplane.runtime.decisions import Surroundings, after_looking, before_looking
from reconcilers.contract import (
    SUCCEEDED,
    Difference,
    ExternalId,
    Kind,
    Outcome,
    Plan,
    Result,
    Step,
    TerminalError,
    TransientError,
    Unreachable,
    failed,
    unknown,
)
from schemas.names import parse_key

NOW = 1_800_000_000.0
KEY = parse_key("default/mesh.item/a")
TARGET = TargetId("default", "mesh", "main")
THING = ExternalId("mesh.item", "a")


class Value(BaseModel):
    target: str = "main"


@dataclass(frozen=True, slots=True)
class Make(Step):
    pass


@dataclass(frozen=True, slots=True)
class Burn(Step, irreversible=True):
    pass


KIND = Kind("mesh.item", Value, lambda name, _: name, lambda name, _: name, lambda *_: Plan())
MAKE = Plan((Make(THING),), (Difference("/size", 2, 1),))
BURN = Plan((Burn(THING),), (Difference("/size", 2, 1),))
BLOCKED = Plan((), (Difference("/size", 2, 1),), blocked=TerminalError("no way", reason="Impossible"))
WAIT = Plan(wait_reason="on its way", requeue_after_s=7.0)


def entry(*, retiring=False, deletion=None, generation=2, **policy):
    return Entry(
        str(KEY), {"value": {}, "policy": policy}, generation, 5, 1, "", "", retiring, deletion, "user", "", "request"
    )


def resolved(kind=KIND, **fields):
    return Resolved(entry(**fields), KEY, TARGET, kind, Value(), THING, "a", ())


def status(of, **fields):
    return replace(decisions.taken_up(of.entry, KeyStatus(str(KEY)), NOW), **fields)


def ready(decision):
    condition = decision.status.condition("Ready")
    return None if condition is None else condition.reason


@pytest.mark.parametrize(
    ("around", "reason"),
    [
        (Surroundings(True, cycle=("a", "b")), "DependencyCycle"),
        (Surroundings(True, owner="default/mesh.item/older"), "Conflict"),
        (Surroundings(False), "TargetNotFound"),
        (Surroundings(True, unmet=("default/mesh.item/b",)), "DependencyNotReady"),
        (Surroundings(True, missing_secret="env:NAME"), "SecretNotFound"),
        (Surroundings(True, unsupported="too old"), "Unsupported"),
        (Surroundings(False, cycle=("a",), owner="x", unmet=("b",), unsupported="y"), "DependencyCycle"),
    ],
)
def test_what_is_in_the_way_is_said_before_the_backend_is_asked(around, reason):
    of = resolved()
    decision = before_looking(of, status(of), around, NOW)
    assert ready(decision) == reason
    assert not decision.steps
    assert not decision.forget


def test_nothing_in_the_way_means_that_the_backend_must_be_asked():
    of = resolved()
    assert before_looking(of, status(of), Surroundings(True), NOW) is None


def test_what_converged_is_not_made_unready_by_what_it_stands_on():
    of = resolved()
    assert before_looking(of, status(of, converged_generation=2), Surroundings(True, unmet=("b",)), NOW) is None


def test_a_paused_key_is_left_as_it_is():
    of = resolved(paused=True)
    assert before_looking(of, status(of), Surroundings(False, cycle=("a",)), NOW) == decisions.Decision(status(of))


def test_what_is_not_understood_stalls_with_its_reason():
    of = Unresolved(entry(), KEY, TARGET, "InvalidValue", "/size: missing")
    decision = before_looking(of, status(of), Surroundings(True), NOW)
    assert (ready(decision), decision.status.phase) == ("InvalidValue", "Stalled")


MADE = {"external": "a"}


@pytest.mark.parametrize(
    ("policy", "fields", "around", "expected"),
    [
        ({}, MADE, Surroundings(True), "look"),
        ({}, {}, Surroundings(True), "forget"),
        ({"deletion": "retain"}, MADE, Surroundings(True), "forget"),
        ({"deletion": "retain"}, MADE, Surroundings(False), "forget"),
        ({}, MADE, Surroundings(True, owner="default/mesh.item/older"), "forget"),
        ({}, MADE, Surroundings(True, dependents=("default/mesh.item/b",)), "WaitingForDependents"),
        ({}, MADE, Surroundings(False), "TargetNotFound"),
        ({}, MADE, Surroundings(True, cycle=("a", "b")), "look"),
    ],
)
def test_retiring_removes_only_what_is_its_own_and_not_needed(policy, fields, around, expected):
    of = resolved(retiring=True, **policy)
    decision = before_looking(of, status(of, **fields), around, NOW)
    told = "look" if decision is None else "forget" if decision.forget else ready(decision)
    assert told == expected


def test_the_override_of_a_retirement_goes_before_the_policy_and_data_is_kept_by_default():
    kept = resolved(KIND, retiring=True, deletion="retain")
    data = resolved(replace(KIND, data_bearing=True), retiring=True)
    both = resolved(replace(KIND, data_bearing=True), retiring=True, deletion="delete")
    made = [before_looking(of, status(of, **MADE), Surroundings(True), NOW) for of in (kept, data, both)]
    assert [decision is not None and decision.forget for decision in made] == [True, True, False]


@pytest.mark.parametrize(
    ("policy", "fields", "observed", "plan", "unmet", "reason", "steps"),
    [
        ({}, {}, None, MAKE, (), "Applying", True),
        ({}, {}, None, MAKE, ("b",), "DependencyNotReady", False),
        ({}, {}, 1, Plan(), (), "Converged", False),
        ({}, {}, 1, Plan(), ("b",), "Converged", False),
        ({}, {}, 1, MAKE, (), "AlreadyExists", False),
        ({"adopt": "always"}, {}, 1, MAKE, (), "Applying", True),
        ({"adopt": "never"}, {}, 1, Plan(), (), "AlreadyExists", False),
        ({}, MADE, 1, MAKE, (), "Applying", True),
        ({"adopt": "never"}, MADE, 1, MAKE, (), "Applying", True),
        ({}, MADE, 1, BLOCKED, (), "Impossible", False),
        ({}, MADE, 1, WAIT, (), "Waiting", False),
        ({}, MADE, 1, BURN, (), "NotAllowed", False),
        ({"allow": ("Burn",)}, MADE, 1, BURN, (), "Applying", True),
        ({"drift": "report"}, MADE, 1, MAKE, (), "Applying", True),
        ({"drift": "report"}, MADE | {"converged_generation": 2}, 1, MAKE, (), "Drifted", False),
        ({}, MADE | {"converged_generation": 2}, 1, MAKE, (), "Applying", True),
        ({}, {"external": "other"}, 1, MAKE, (), "Renamed", False),
    ],
)
def test_what_an_observation_leads_to(policy, fields, observed, plan, unmet, reason, steps):
    of = resolved(**policy)
    decision = after_looking(of, status(of, **fields), unmet, observed, plan, now=NOW)
    assert (ready(decision), bool(decision.steps)) == (reason, steps)


def test_an_object_is_ours_from_the_moment_of_the_permission_to_touch_it():
    refused = after_looking(of := resolved(adopt="always"), status(of), (), 1, BURN, now=NOW)
    taken = after_looking(of, status(of), (), 1, MAKE, now=NOW)
    assert (refused.status.external, taken.status.external) == (None, "a")


def test_what_was_made_under_another_name_and_is_gone_is_given_up():
    of = resolved()
    decision = after_looking(of, status(of, external="other"), (), None, Plan(), now=NOW)
    assert decision.status.external is None
    assert decision.look_again_s is not None
    assert decisions.thing_of(of, status(of, external="other")).name == "other"
    assert decisions.thing_of(of, status(of)).name == "a"


@pytest.mark.parametrize(("observed", "plan", "forget"), [(None, Plan(), True), (1, Plan(), True), (1, MAKE, False)])
def test_a_retired_key_is_forgotten_when_its_object_is_observed_to_be_gone(observed, plan, forget):
    of = resolved(retiring=True)
    assert after_looking(of, status(of, **MADE), (), observed, plan, now=NOW).forget is forget


def test_any_observation_ends_the_doubt():
    of = resolved()
    for plan in (Plan(), MAKE, WAIT, BLOCKED):
        assert (
            after_looking(of, status(of, unknown_since="then", **MADE), (), 1, plan, now=NOW).status.unknown_since
            is None
        )


def test_a_new_generation_takes_drift_back_and_a_repetition_does_not():
    of = resolved()
    drifted = statuses.drifted(status(of), NOW, [("/size", 2, 1)])
    assert decisions.taken_up(of.entry, drifted, NOW).drift
    assert not decisions.taken_up(entry(generation=3), drifted, NOW).drift


@pytest.mark.parametrize(
    ("outcome", "word", "reason", "doubt"),
    [
        (SUCCEEDED, "succeeded", "Applying", False),
        (Outcome(Result.NOT_SENT), "failed", "Applying", False),
        (failed(TransientError("busy")), "failed", "TransientError", False),
        (failed(TerminalError("no", reason="Denied")), "failed", "Denied", False),
        (unknown(Unreachable("no reply")), "unknown", "Applying", True),
    ],
)
def test_how_a_step_ended_is_in_the_status_and_in_one_event_that_names_its_start(outcome, word, reason, doubt):
    of = resolved()
    applying = after_looking(of, status(of, **MADE), (), 1, MAKE, now=NOW).status
    begun = decisions.begun(applying, MAKE.steps[0], "plan", "id-of-start", NOW)
    assert begun.intent == Intent("Make", 1, "plan", begun.intent.started_at, "id-of-start")
    after, fact = decisions.ended(begun, outcome, NOW)
    assert after.intent is None
    assert (after.last_action.status, after.condition("Ready").reason) == (word, reason)
    assert (after.unknown_since is not None) is doubt
    assert fact.causation_id == "id-of-start"


def test_attempts_are_counted_until_one_succeeds():
    of, attempts = resolved(), []
    now = status(of, **MADE)
    for outcome in (failed(TransientError("busy")), unknown(Unreachable("lost")), SUCCEEDED, SUCCEEDED):
        now = decisions.begun(now, MAKE.steps[0], "plan", "id", NOW)
        attempts.append(now.intent.attempt)
        now, _ = decisions.ended(now, outcome, NOW)
    assert attempts == [1, 2, 3, 1]


@pytest.mark.parametrize(
    ("last", "reason", "kept"),
    [
        ("failed", "Denied", True),
        ("succeeded", decisions.NOT_CONVERGING, True),
        ("succeeded", "Conflict", False),
        (None, "Conflict", False),
    ],
)
def test_trying_again_what_failed_does_not_say_meanwhile_that_it_is_well(last, reason, kept):
    of = resolved()
    action = LastAction("Make", last, "then", 1) if last else None
    before = statuses.stalled(status(of, last_action=action, **MADE), NOW, reason, "")
    decision = after_looking(of, before, (), 1, MAKE, now=NOW)
    assert decisions.still_stalled(before, decision).status.holds("Stalled") is kept


@pytest.mark.parametrize(("pause_s", "told"), [(None, False), (0.3, False), (1.0, False), (30.0, True)])
def test_only_a_long_wait_is_told(pause_s, told):
    assert (decisions.next_at(NOW, pause_s) is not None) is told
