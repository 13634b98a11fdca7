"""Namespaces: values in, steps out."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reconcilers.cache.namespace import (
    NAMESPACE,
    Definition,
    DeregisterNamespace,
    RegisterNamespace,
    Registration,
    definition,
    parsed,
    plan,
)
from reconcilers.contract import CONVERGED, ExternalId, Plan
from schemas.cache import Namespace

VALUE = Namespace.model_validate(
    {
        "prefix": "shop:",
        "layers": [{"target": "redis", "ttl_s": 60}, {"target": "memcached", "ttl_s": 600}],
        "stale_s": 30,
        "tags": True,
    }
)
DESIRED = definition("products", VALUE)
EXTERNAL = ExternalId("cache.namespace", "shop:")

DEFINITIONS = st.builds(
    Definition,
    name=st.sampled_from(["a", "b"]),
    prefix=st.just("shop:"),
    layers=st.lists(
        st.tuples(st.sampled_from(["redis", "memcached"]), st.floats(0.1, 1e6)), min_size=1, max_size=3
    ).map(tuple),
    stale_s=st.floats(0, 1e6),
    tags=st.booleans(),
    budget_bytes=st.none() | st.integers(1, 2**40),
    budget_keys=st.none() | st.integers(1, 2**40),
)
OBSERVED = st.none() | st.builds(Registration, st.none() | DEFINITIONS, st.integers(0, 10**9))


def applied(world: Registration | None, decided: Plan) -> Registration | None:
    """The server, in ten lines."""
    for step in decided.steps:
        match step:
            case RegisterNamespace():
                world = Registration(step.definition, world.generation if world else 0)
            case DeregisterNamespace():
                world = None
    return world


def test_a_namespace_that_is_not_registered_is_registered() -> None:
    assert plan(EXTERNAL, DESIRED, None, 0.0).steps == (RegisterNamespace(EXTERNAL, DESIRED),)


def test_a_registered_namespace_is_left_alone_whatever_was_invalidated() -> None:
    assert plan(EXTERNAL, DESIRED, Registration(DESIRED, generation=8812), 0.0) == CONVERGED


def test_a_changed_lifetime_is_drift_on_its_path() -> None:
    held = replace(DESIRED, layers=(("redis", 5.0), ("memcached", 600.0)))
    decided = plan(EXTERNAL, DESIRED, Registration(held), 0.0)
    assert [difference.path for difference in decided.differences] == ["/layers"]
    assert len(decided.steps) == 1


def test_something_else_under_the_name_is_replaced() -> None:
    decided = plan(EXTERNAL, DESIRED, Registration(None, 7), 0.0)
    assert [step.name for step in decided.steps] == ["RegisterNamespace"]


def test_retiring_takes_the_registration_away_once() -> None:
    assert plan(EXTERNAL, None, Registration(DESIRED), 0.0).steps == (DeregisterNamespace(EXTERNAL),)
    assert plan(EXTERNAL, None, None, 0.0) == CONVERGED


def test_the_first_layer_is_the_authority_and_all_targets_are_required() -> None:
    assert NAMESPACE.target(VALUE) == "redis"
    assert NAMESPACE.requires(VALUE) == ["cache.target/redis", "cache.target/memcached"]
    assert NAMESPACE.identify("products", VALUE) == "shop:"


@given(DEFINITIONS)
def test_a_definition_survives_its_document(held: Definition) -> None:
    assert parsed(held.document) == held
    assert parsed(json.dumps(json.loads(held.document))) == held


@given(st.text() | st.sampled_from(["{}", "[]", "null", '{"name": 1}', '{"layers": [[1]]}']))
def test_what_is_no_definition_is_told_apart(document: str) -> None:
    assert parsed(document) is None


@given(DEFINITIONS | st.none(), OBSERVED)
def test_one_pass_converges_and_the_next_does_nothing(
    desired: Definition | None, observed: Registration | None
) -> None:
    world = applied(observed, plan(EXTERNAL, desired, observed, 0.0))
    assert plan(EXTERNAL, desired, world, 0.0) == CONVERGED


@given(DEFINITIONS | st.none(), OBSERVED)
def test_no_step_names_another_object_or_touches_the_generation(
    desired: Definition | None, observed: Registration | None
) -> None:
    decided = plan(EXTERNAL, desired, observed, 0.0)
    assert all(step.external == EXTERNAL for step in decided.steps)
    world = applied(observed, decided)
    if world is not None and observed is not None:
        assert world.generation == observed.generation
