"""The four laws of every planner, on a model of its server."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcilers.contract import ExternalId, Kind, Plan
from reconcilers.registry import SERVICES
from tests.contract.planner_models import MODELS, Model, State

KINDS = {kind.setting_type: kind for service in SERVICES.values() for kind in service.kinds}
ROUNDS = 3
"""Plans until nothing is left to do."""

every_kind = pytest.mark.parametrize("setting_type", sorted(KINDS))


class Case:
    """One declaration, a server to bring it to, and whether the declaration is retired."""

    def __init__(self, setting_type: str, data: st.DataObject, *, retiring: bool | None = None) -> None:
        self.kind: Kind[Any, Any, Any] = KINDS[setting_type]
        self.model: Model = MODELS[setting_type]
        value = self.kind.value.model_validate(data.draw(self.model.values, "value"))
        self.external = ExternalId(setting_type, self.kind.identify("n", value))
        self.declared = self.kind.desired("n", value)
        gone = data.draw(st.booleans(), "retiring") if retiring is None else retiring
        self.desired = None if gone else self.declared
        self.state: State = copy.deepcopy(data.draw(self.model.states, "state"))

    def plan(self) -> Plan:
        observed = self.model.observe(self.state, self.external, self.desired)
        return self.kind.plan(self.external, self.desired, observed, 0.0)

    def take(self, plan: Plan, most: int | None = None) -> None:
        for step in plan.steps[:most]:
            self.model.take(self.state, step)

    def converge(self) -> None:
        for _ in range(ROUNDS):
            self.take(self.plan())


def test_every_kind_has_a_model():
    assert MODELS.keys() == KINDS.keys()


@every_kind
@given(data=st.data())
def test_a_plan_is_a_function_of_what_is_wanted_and_what_is_there(setting_type, data):
    case = Case(setting_type, data)
    assert case.plan() == case.plan()


@every_kind
@given(data=st.data())
def test_fixed_point_what_is_as_desired_is_left_alone(setting_type, data):
    case = Case(setting_type, data)
    case.converge()
    plan = case.plan()
    assert plan.steps == ()
    assert plan.differences == ()
    assert plan.converged


@every_kind
@given(data=st.data())
def test_convergence_a_plan_that_is_carried_out_leaves_nothing_to_do(setting_type, data):
    case = Case(setting_type, data)
    plan = case.plan()
    case.take(plan)
    assert case.plan().steps == ()


@every_kind
@given(data=st.data())
def test_interruption_any_part_of_a_plan_leaves_the_rest_to_the_next(setting_type, data):
    case = Case(setting_type, data)
    whole = copy.deepcopy(case)
    whole.converge()
    plan = case.plan()
    case.take(plan, data.draw(st.integers(0, len(plan.steps)), "steps taken"))
    case.converge()
    assert case.state == whole.state


@every_kind
@given(data=st.data())
def test_ownership_nothing_else_on_the_server_is_touched(setting_type, data):
    case = Case(setting_type, data)
    before = copy.deepcopy(case.model.foreign(case.state, case.external, case.declared))
    for step in case.plan().steps:
        assert step.external == case.external
    case.converge()
    assert case.model.foreign(case.state, case.external, case.declared) == before
