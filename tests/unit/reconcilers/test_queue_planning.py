"""Topics: presets, risks, replicas; values in, steps out."""

from __future__ import annotations

import pytest

from reconcilers.contract import ExternalId
from reconcilers.queue import configs, durability, model
from reconcilers.queue.model import Held, ObservedTopic
from reconcilers.queue.plan import plan_topic
from reconcilers.queue.steps import ReassignReplicas
from schemas import queue

EXTERNAL = ExternalId("queue.topic", "orders")


def topic(**more):
    return model.topic("orders", queue.Topic.model_validate({"target": "main", **more}))


@pytest.mark.parametrize(
    ("preset", "replicas", "insync"),
    [("standard", None, "2"), ("standard", 1, "1"), ("standard", 2, "1"), ("strict", None, "2"), ("strict", 5, "3")],
)
def test_a_preset_sets_what_keeps_messages(preset, replicas, insync):
    found = topic(durability=preset, replication_factor=replicas)
    assert found.replication_factor == (replicas or 3)
    assert found.config["min.insync.replicas"] == insync
    assert found.config["unclean.leader.election.enable"] == "false"
    assert ("flush.messages" in found.config) is (preset == "strict")


def test_what_is_given_goes_before_the_preset():
    found = topic(durability="strict", config={"flush.messages": 100})
    assert found.config["flush.messages"] == "100"


@pytest.mark.parametrize(
    ("replicas", "config", "words"),
    [
        (1, {}, "replication_factor 1"),
        (3, {"unclean.leader.election.enable": "true"}, "may become leader"),
        (3, {"min.insync.replicas": "1"}, "only the leader has"),
        (2, {"min.insync.replicas": "3"}, "no message with acks=all"),
    ],
)
def test_risks_are_named(replicas, config, words):
    assert words in " ".join(durability.risks(replicas, config))


def test_the_presets_are_no_risk():
    for preset in ("standard", "strict"):
        replicas, config = durability.preset(preset, None)
        assert list(durability.risks(replicas, config)) == []


def observed(*replicas, brokers=(1, 2, 3), **more):
    return ObservedTopic("id", tuple(replicas), brokers=brokers, **more)


def test_more_replicas_go_to_the_brokers_that_hold_the_least():
    plan = plan_topic(EXTERNAL, topic(replication_factor=2), observed((1,), (2,), (1,)), 0.0)
    (step,) = plan.steps
    assert isinstance(step, ReassignReplicas)
    assert step.replicas == ((0, (1, 3)), (1, (2, 3)), (2, (1, 2)))
    assert plan.differences == (("/replication_factor", 2, 1),)


def test_fewer_replicas_keep_the_first():
    plan = plan_topic(EXTERNAL, topic(replication_factor=1), observed((2, 1), (3,)), 0.0)
    assert plan.steps == (ReassignReplicas(EXTERNAL, ((0, (2,)),)),)


def test_a_reassignment_under_way_is_waited_for_and_says_how_far_it_is():
    seen = observed((1, 2), (1, 2, 3), moving={0: (1, 3), 1: (1, 2)})
    plan = plan_topic(EXTERNAL, topic(replication_factor=2), observed((1, 2), (1, 2, 3), moving={1: (1, 2)}), 0.0)
    assert plan.steps == ()
    assert plan.wait_reason == "replicas are being copied: 1 of 2 partitions are done"
    assert plan_topic(EXTERNAL, topic(replication_factor=3), seen, 0.0).steps != ()


def test_more_replicas_than_brokers_are_refused_with_the_number():
    plan = plan_topic(EXTERNAL, topic(replication_factor=4), observed((1,)), 0.0)
    assert plan.steps == ()
    assert plan.blocked is not None
    assert plan.blocked.reason == "NotEnoughBrokers"


def test_while_settling_nothing_is_done_and_nothing_is_drift():
    seen = observed((1,), config={"retention.ms": Held("1", "LONG", is_set=True)}, settling="not shown yet")
    plan = plan_topic(EXTERNAL, topic(config={"retention.ms": 2}), seen, 0.0)
    assert (plan.steps, plan.differences, plan.wait_reason) == ((), (), "not shown yet")
    assert plan_topic(EXTERNAL, topic(config={"retention.ms": 1}), seen, 0.0).converged


def test_a_default_that_equals_what_is_declared_is_left_alone():
    seen = observed((1,), config={"retention.ms": Held("604800000", "LONG", is_set=False)})
    assert plan_topic(EXTERNAL, topic(config={"retention.ms": 604_800_000}), seen, 0.0).converged


@pytest.mark.parametrize(
    ("text", "kind", "shown"),
    [
        (" 0005000 ", "LONG", "5000"),
        ("TRUE", "BOOLEAN", "true"),
        ("compact, delete", "LIST", "compact,delete"),
        ("0.50", "DOUBLE", "0.5"),
        ("soon", "LONG", "soon"),
        ("lz4", "STRING", "lz4"),
    ],
)
def test_texts_are_compared_as_the_broker_shows_them(text, kind, shown):
    assert configs.canonical(text, kind) == shown
    assert configs.same(text, shown, kind)
    assert not configs.same(text, None, kind)


@pytest.mark.parametrize("name", ["no/slash", "", "..", "x" * 250, "__consumer_offsets"])
def test_a_name_that_kafka_refuses_is_refused_with_the_rule(name):
    with pytest.raises(ValueError, match=r"letters|Kafka's own"):
        queue.Topic.model_validate({"target": "main", "topic": name})
