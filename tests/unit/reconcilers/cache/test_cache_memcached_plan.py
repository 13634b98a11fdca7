"""Settings of Memcached: canonical forms, commands, steps."""

from __future__ import annotations

import pytest

from reconcilers.cache import memcached_settings as settings
from reconcilers.cache.model import HeldSettings, ObservedSettings
from reconcilers.cache.parameters import Verdict
from reconcilers.cache.plan import plan_settings
from reconcilers.contract import CONVERGED, ExternalId
from reconcilers.planning import Nodes
from schemas.cache import MemcachedConfig

CONFIG = ExternalId("cache.memcached_config", "config")
SHOWN = {
    "maxbytes": "67108864",
    "item_size_max": "1048576",
    "slab_automove": "1",
    "slab_automove_ratio": "0.80",
    "lru_segmented": "yes",
    "hot_lru_pct": "20",
    "warm_lru_pct": "40",
    "hot_max_factor": "0.20",
    "warm_max_factor": "2.00",
    "temp_lru": "no",
    "temporary_ttl": "61",
    "verbosity": "0",
}


def desired(**fields):
    return settings.declared("c", MemcachedConfig.model_validate({"target": "m", **fields}))


def seen(verdicts=None, **changes):
    return ObservedSettings(Nodes({"n1": HeldSettings(settings.held({**SHOWN, **changes}), verdicts or {})}))


@pytest.mark.parametrize(
    "fields",
    [
        {"memory_mb": 64},
        {"max_item": "1mb"},
        {"max_item": 1048576},
        {"slab_automove": 1, "slab_automove_ratio": 0.8},
        {"lru": {"mode": "segmented", "hot_pct": 20, "warm_pct": 40, "hot_max_factor": 0.2, "warm_max_factor": 2}},
        {"lru": {"temp_ttl_s": -1}},
        {"verbosity": 0},
        {},
    ],
)
def test_what_the_server_shows_in_other_units_is_the_same(fields):
    assert plan_settings(CONFIG, desired(**fields), seen(), 0) == CONVERGED


def test_a_temporary_ttl_that_is_switched_off_differs_though_the_number_is_kept():
    (step,) = plan_settings(CONFIG, desired(lru={"temp_ttl_s": 61}), seen(), 0).steps
    assert settings.commands(dict(step.changes[0][1])) == [(("/lru/temp_ttl_s",), "lru temp_ttl 61")]


def test_tuning_sends_all_four_and_keeps_what_is_not_declared():
    plan = plan_settings(CONFIG, desired(lru={"hot_pct": 10}), seen(), 0)
    assert [d.path for d in plan.differences] == ["/lru/hot_pct"]
    assert settings.commands(dict(plan.steps[0].changes[0][1])) == [(settings.TUNING, "lru tune 10 40 0.20 2.00")]


def test_a_mode_comes_before_its_tuning():
    (step,) = plan_settings(
        CONFIG, desired(lru={"mode": "segmented", "hot_pct": 10}), seen(lru_segmented="no"), 0
    ).steps
    assert [line for _, line in settings.commands(dict(step.changes[0][1]))] == [
        "lru mode segmented",
        "lru tune 10 40 0.20 2.00",
    ]


def test_what_needs_a_restart_is_said_with_the_flag_and_the_rest_is_changed():
    plan = plan_settings(CONFIG, desired(memory_mb=128, max_item="2mb"), seen(), 0)
    assert [step.summary() for step in plan.steps] == ["ChangeSettings /memory_mb=128"]
    assert plan.blocked is not None
    assert plan.blocked.reason == "RestartRequired"
    assert "-I 2097152" in plan.blocked.message


def test_what_was_refused_is_not_tried_again():
    refusals = {"/slab_automove": Verdict(reason="Refused", message="slabs automove 2: ERROR")}
    plan = plan_settings(CONFIG, desired(slab_automove=2), seen(refusals), 0)
    assert not plan.steps
    assert plan.blocked is not None


def test_retiring_leaves_the_settings():
    assert plan_settings(CONFIG, None, seen(), 0) == CONVERGED


@pytest.mark.parametrize(
    "fields",
    [
        {"memory_mb": 7},
        {"memory_mb": 9_999_999},
        {"lru": {"hot_pct": 50, "warm_pct": 40}},
        {"lru": {"mode": "flat", "hot_pct": 5}},
        {"max_item": "1.5mb"},
        {"verbosity": 3},
        {"surprise": 1},
    ],
)
def test_what_no_server_can_hold_is_refused(fields):
    with pytest.raises(ValueError, match="validation error"):
        desired(**fields)
