"""Which objects a discovery means, and what their settings are called."""

from __future__ import annotations

import re

import pytest

from reconcilers.cache import memcached_settings
from reconcilers.cache.discovered import DEFAULTS
from reconcilers.discovery import matches, setting_name
from schemas.cache import MemcachedConfig, RedisConfig
from schemas.names import NAME_PATTERN


@pytest.mark.parametrize(
    ("name", "match", "reserved", "meant"),
    [
        ("app", "*", False, True),
        ("app", "a?p", False, True),
        ("App", "app", False, False),
        ("team:app", "team:*", False, True),
        ("default", "*", True, False),
        ("default", "default", True, True),
        ("a[1]", "a[1]", False, False),
        ("a[1]", "a[1]", True, True),
    ],
)
def test_a_glob_means_names_and_reserved_ones_only_by_themselves(name, match, reserved, meant):
    assert matches(name, match, reserved=reserved) is meant


@pytest.mark.parametrize(
    ("name", "setting"),
    [("app", "app"), ("team:app", "team-app"), ("_hidden", "hidden"), ("é€", "unnamed"), ("a" * 200, "a" * 128)],
)
def test_names_become_names_of_settings(name, setting):
    assert setting_name(name) == setting
    assert re.fullmatch(NAME_PATTERN, setting)


def test_every_parameter_that_can_be_discovered_can_be_declared():
    value = RedisConfig.model_validate({"target": "main", "parameters": dict(DEFAULTS)})
    assert value.parameters.keys() == DEFAULTS.keys()


def test_what_a_memcached_holds_is_declared_as_it_is_shown():
    rows = {"/memory_mb": "64", "/lru/mode": "segmented", "/lru/hot_pct": "20", "/lru/hot_max_factor": "0.20"}
    value = memcached_settings.value_of(rows)
    assert value == {"memory_mb": 64, "lru": {"mode": "segmented", "hot_pct": 20, "hot_max_factor": 0.2}}
    assert memcached_settings.declared("n", MemcachedConfig.model_validate({"target": "main", **value})) == rows


def test_tuning_of_a_mode_that_has_none_and_broken_megabytes_are_left_out():
    assert memcached_settings.value_of({"/memory_mb": "64.5", "/lru/mode": "flat", "/lru/hot_pct": "20"}) == {
        "lru": {"mode": "flat"}
    }
