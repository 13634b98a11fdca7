"""Parameters of Redis: canonical forms, verdicts, steps."""

from __future__ import annotations

import pytest

from reconcilers.cache import parameters
from reconcilers.cache.model import HeldConfig, ObservedConfig, config
from reconcilers.cache.parameters import Verdict
from reconcilers.cache.plan import plan_config
from reconcilers.cache.steps import RewriteConfig, SetParameters
from reconcilers.contract import CONVERGED, ExternalId
from reconcilers.planning import Nodes
from schemas.cache import RedisConfig

CONFIG = ExternalId("cache.redis_config", "config")


def desired(persist=False, **fields):
    return config("c", RedisConfig(target="main", parameters=fields or {"maxmemory": "1mb"}, persist=persist))


def seen(held, silent=None, **more):
    nodes = held if isinstance(held, dict) and all(isinstance(h, HeldConfig) for h in held.values()) else None
    return ObservedConfig(Nodes(nodes or {"n1": HeldConfig(held, **more)}, silent or {}))


@pytest.mark.parametrize(
    ("name", "written", "held"),
    [
        ("maxmemory", "100mb", "104857600"),
        ("maxmemory", "1g", "1000000000"),
        ("maxmemory", "1GB", "1073741824"),
        ("maxmemory", " 5 ", "5"),
        ("maxmemory-clients", "10%", "10%"),
        ("maxmemory-policy", "ALLKEYS-LRU", "allkeys-lru"),
        ("appendonly", "YES", "yes"),
        ("hz", "1000", "500"),
        ("hz", "0", "1"),
        ("repl-backlog-size", "1", "16384"),
        ("notify-keyspace-events", "KEA", "AKE"),
        ("notify-keyspace-events", "Ex$", "$xE"),
        ("notify-keyspace-events", "KEg$lshzxetd", "AKE"),
        ("notify-keyspace-events", "", ""),
        ("oom-score-adj", "relative", "yes"),
        ("oom-score-adj-values", "0  200 800", "0 200 800"),
        ("latency-tracking-info-percentiles", "50.0 99.90", "50 99.9"),
        ("shutdown-on-sigterm", "now nosave", "nosave now"),
        ("save", "3600 1  300 100", "3600 1 300 100"),
        ("hash-max-ziplist-entries", "64", "64"),
        ("client-output-buffer-limit", "slave 1gb 0 0", "replica 1073741824 0 0"),
    ],
)
def test_two_spellings_of_a_value_are_one(name, written, held):
    assert parameters.canonical(name, written) == parameters.canonical(name, held)


def test_capitals_of_free_text_are_kept():
    assert parameters.canonical("replica-announce-ip", "Host") == "Host"


@pytest.mark.parametrize("name", ["maxmemory", "client-output-buffer-limit", "notify-keyspace-events", "save", "hz"])
@pytest.mark.parametrize("text", ["", "1mb", "KEA", "pubsub 1mb 1 0", "x y z", "9999999999999999999999"])
def test_a_canonical_form_is_its_own(name, text):
    once = parameters.canonical(name, text)
    assert parameters.canonical(name, once) == once


def test_of_output_buffer_limits_only_the_declared_classes_count():
    wanted = desired(**{"client-output-buffer-limit": "pubsub 64mb 16mb 60"})
    name = "client-output-buffer-limit"
    same = parameters.canonical(name, "normal 0 0 0 slave 268435456 67108864 60 pubsub 67108864 16777216 60")
    assert plan_config(CONFIG, wanted, seen({name: same}), 0) == CONVERGED
    other = parameters.canonical(name, "normal 0 0 0 slave 268435456 67108864 60 pubsub 1 1 60")
    (difference,) = plan_config(CONFIG, wanted, seen({name: other}), 0).differences
    assert difference.observed == "pubsub 1 1 60"


def test_all_differing_parameters_are_set_by_one_step():
    wanted = desired(maxmemory="1mb", hz=20, appendonly=False)
    plan = plan_config(CONFIG, wanted, seen({"maxmemory": "0", "hz": "10", "appendonly": "no"}), 0)
    assert plan.steps == (SetParameters(CONFIG, (("n1", (("hz", "20"), ("maxmemory", "1048576"))),)),)
    assert [(d.path, d.desired, d.observed) for d in plan.differences] == [
        ("/parameters/maxmemory", "1048576", "0"),
        ("/parameters/hz", "20", "10"),
    ]


def test_a_known_clamp_is_said_and_not_fought():
    plan = plan_config(CONFIG, desired(hz=1000), seen({"hz": "500"}), 0)
    assert plan.converged
    assert plan.warnings == ("hz: the server holds 500 for 1000",)


def test_a_learnt_clamp_is_said_and_not_fought():
    held = {"notify-keyspace-events": "AEKm"}
    verdicts = {"notify-keyspace-events": Verdict(held="AEKm")}
    plan = plan_config(CONFIG, desired(**{"notify-keyspace-events": "KEAmn"}), seen(held, verdicts=verdicts), 0)
    assert plan.converged
    assert "holds AEKm" in plan.warnings[0]


def test_a_learnt_clamp_does_not_excuse_another_value():
    verdicts = {"maxmemory": Verdict(held="7")}
    assert plan_config(CONFIG, desired(), seen({"maxmemory": "8"}, verdicts=verdicts), 0).steps


def test_what_the_server_does_not_know_blocks_and_the_rest_is_set():
    wanted = desired(maxmemory="1mb", nonsense="1")
    plan = plan_config(CONFIG, wanted, seen({"maxmemory": "0"}), 0)
    assert len(plan.steps) == 1
    assert plan.blocked is not None
    assert plan.blocked.reason == "UnknownParameter"


def test_what_needs_a_restart_blocks_with_the_servers_words_and_is_not_tried_again():
    verdicts = {"databases": parameters.refusal("CONFIG SET failed - can't set immutable config")}
    plan = plan_config(CONFIG, desired(databases=3), seen({"databases": "16"}, verdicts=verdicts), 0)
    assert not plan.steps
    assert plan.blocked is not None
    assert plan.blocked.reason == "RestartRequired"
    assert "immutable" in plan.blocked.message


@pytest.mark.parametrize(
    ("message", "name", "reason"),
    [
        (
            "CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config",
            "databases",
            "RestartRequired",
        ),
        ("CONFIG SET failed (possibly related to argument 'x') - can't set protected config", "x", "RestartRequired"),
        ("Unknown option or number of arguments for CONFIG SET - 'nonsense'", "nonsense", "UnknownParameter"),
        (
            "CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be a memory value",
            "maxmemory",
            "InvalidParameter",
        ),
    ],
)
def test_refusals_are_told_apart(message, name, reason):
    assert parameters.refused_parameter(message) == name
    assert parameters.refusal(message).reason == reason


def test_what_is_set_but_not_written_is_written_when_it_is_to_persist():
    held = {"maxmemory": "1048576"}
    assert plan_config(CONFIG, desired(persist=True), seen(held, unsaved=True), 0).steps == (
        RewriteConfig(CONFIG, ("n1",)),
    )
    assert plan_config(CONFIG, desired(persist=True), seen(held), 0).converged
    assert plan_config(CONFIG, desired(), seen(held, unsaved=True), 0).converged


def test_a_change_that_is_to_persist_is_written_in_the_same_step():
    (step,) = plan_config(CONFIG, desired(persist=True), seen({"maxmemory": "0"}, unsaved=True), 0).steps
    assert isinstance(step, SetParameters)
    assert step.persist


def test_a_server_without_a_file_is_a_warning():
    plan = plan_config(CONFIG, desired(persist=True), seen({"maxmemory": "1048576"}, has_file=False, unsaved=True), 0)
    assert plan.converged
    assert "without a configuration file" in plan.warnings[0]


def test_retiring_leaves_the_values():
    assert plan_config(CONFIG, None, seen({}), 0) == CONVERGED


def test_each_node_gets_what_it_lacks():
    good, bad = HeldConfig({"maxmemory": "1048576"}), HeldConfig({"maxmemory": "0"})
    plan = plan_config(CONFIG, desired(), seen({"n1": good, "n2": bad}), 0)
    assert plan.steps == (SetParameters(CONFIG, (("n2", (("maxmemory", "1048576"),)),)),)
    assert plan.differences[0].path == "/parameters/maxmemory@n2"
