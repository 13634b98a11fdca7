"""What of a cache declaration is refused before anything is stored, and with which words."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from schemas.cache import Inspect, Invalidate, Namespace, RedisConfig, RedisUser, Target

LAYER = {"target": "main", "ttl_s": 5}


def messages(model, value):
    with pytest.raises(ValidationError) as caught:
        model.model_validate(value)
    return " | ".join(f"/{'/'.join(map(str, e['loc']))}: {e['msg']}" for e in caught.value.errors(include_url=False))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"kind": "redis"}, "exactly one of url or nodes"),
        ({"kind": "redis", "url": "redis://h", "nodes": ["redis://g"]}, "exactly one of url or nodes"),
        ({"kind": "redis", "url": "memcached://h:1"}, "redis:// or rediss://"),
        ({"kind": "redis", "url": "redis://u:p@h"}, "must not hold credentials"),
        ({"kind": "redis", "url": "redis://h:99999"}, "number up to 65535"),
        ({"kind": "redis", "url": "redis://:6379"}, "names no host"),
        ({"kind": "redis", "url": "redis://h/a/b"}, "number of a database"),
        ({"kind": "redis", "url": "redis://h", "tls": {}}, "rediss://"),
        ({"kind": "redis", "url": "redis://h", "username": "ops"}, "username needs a password"),
        ({"kind": "redis", "nodes": ["redis://h", "redis://h:6379"]}, "named twice"),
        ({"kind": "memcached", "url": "memcached://h", "username": "u"}, "no users"),
        ({"kind": "memcached", "url": "memcached://h/1"}, "scheme, host and port"),
        ({"kind": "etcd", "url": "etcd://h"}, "'redis' or 'memcached'"),
        ({"kind": "redis", "url": "redis://h", "colour": "red"}, "/colour"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(value, words):
    assert words in messages(Target, value)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "at least 1"),
        ({"port": 1}, "/parameters/port/[key]: Value error, port can't be managed here"),
        ({"requirepass": "x"}, "its value is a secret"),
        ({"slaveof": "h 1"}, "failover"),
        ({"MaxMemory": 1}, "lower-case"),
        ({"maxmemory*": 1}, "lower-case"),
        ({"hz": None}, "text, a number, or true or false"),
        ({"hz": [1]}, "text, a number, or true or false"),
        ({"hz": "1\n2"}, "control characters"),
        ({"slave-priority": 1, "replica-priority": 2}, "two names of one parameter"),
    ],
)
def test_a_parameter_that_would_do_harm_is_refused(parameters, words):
    assert words in messages(RedisConfig, {"target": "main", "parameters": parameters})


def test_all_faults_of_parameters_are_told_at_once():
    told = messages(RedisConfig, {"target": "main", "parameters": {"port": 1, "dir": "/", "hz": None}})
    assert all(path in told for path in ("/parameters/port", "/parameters/dir", "/parameters/hz"))


def test_values_of_parameters_become_text():
    value = RedisConfig.model_validate(
        {"target": "m", "parameters": {"a": True, "b": False, "c": 5, "d": 1.50, "e": " x "}}
    )
    assert value.parameters == {"a": "yes", "b": "no", "c": "5", "d": "1.5", "e": "x"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"username": "a b"}, "no spaces"),
        ({"username": ""}, "not empty"),
        ({"username": "__coreplane_scratch_1"}, "the daemon's own"),
        ({"commands": ["get"]}, "a command rule is"),
        ({"commands": ["+get ~*"]}, "a command rule is"),
        ({"commands": [">password"]}, "a command rule is"),
        ({"keys": ["~app:*"]}, "write the pattern alone"),
        ({"keys": ["allkeys"]}, "write the pattern alone"),
        ({"keys": ["%X~app:*"]}, "%R~pattern"),
        ({"keys": ["a b"]}, "no spaces"),
        ({"channels": ["&news"]}, "write the pattern alone"),
        ({"selectors": ["+get"]}, "in parentheses"),
        ({"selectors": ["(+get (x))"]}, "in parentheses"),
        ({"passwords": ["plain"]}, "/passwords/0"),
        ({"nopass": True, "passwords": [{"from_env": "A"}]}, "either nopass or passwords"),
    ],
)
def test_a_rule_that_means_something_else_is_refused(fields, words):
    assert words in messages(RedisUser, {"target": "main", **fields})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"prefix": "", "layers": [LAYER]}, "/prefix"),
        ({"prefix": "a b", "layers": [LAYER]}, "/prefix"),
        ({"prefix": "coreplane:x", "layers": [LAYER]}, "the daemon's own"),
        ({"prefix": "a:", "layers": []}, "/layers"),
        ({"prefix": "a:", "layers": [LAYER, LAYER]}, "a target of its own"),
        ({"prefix": "a:", "layers": [{"target": "main", "ttl_s": 0}]}, "/layers/0/ttl_s"),
        ({"prefix": "a:", "layers": [LAYER], "budget_keys": 0}, "/budget_keys"),
    ],
)
def test_a_namespace_that_can_not_be_kept_apart_is_refused(value, words):
    assert words in messages(Namespace, value)


@pytest.mark.parametrize("value", [{}, {"keys": ["a"], "all": True}, {"all": False}, {"keys": []}])
def test_an_invalidation_says_exactly_what_goes(value):
    assert messages(Invalidate, {"namespace": "n", **value})


@pytest.mark.parametrize("value", [{}, {"target": "a", "namespace": "b"}, {"target": "a", "sample": 0}])
def test_an_inspection_looks_at_one_thing(value):
    assert messages(Inspect, value)
