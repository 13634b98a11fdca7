"""Models of Kafka for the laws of planners: see `planner_models`."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from reconcilers.contract import ExternalId, Step
from reconcilers.queue import configs
from reconcilers.queue.model import Held, ObservedTopic
from reconcilers.queue.steps import (
    AcceptRecreated,
    ChangeConfig,
    CreateTopic,
    DeleteTopic,
    RaisePartitions,
    ReassignReplicas,
)

BROKERS = (1, 2, 3)
CONFIG_KINDS = {"retention.ms": "LONG", "cleanup.policy": "LIST", "unclean.leader.election.enable": "BOOLEAN"}
CONFIG_KINDS |= {"min.insync.replicas": "INT", "flush.messages": "LONG", "segment.ms": "LONG"}
SPELT = {
    "retention.ms": [1000, " 01000", "2000"],
    "cleanup.policy": ["compact, delete", ["compact", "delete"], "delete"],
    "unclean.leader.election.enable": [True, "FALSE"],
}

topic_values = st.fixed_dictionaries(
    {"target": st.just("main")},
    optional={
        "topic": st.sampled_from(["orders", "bills"]),
        "partitions": st.integers(4, 6),  # fewer than there are is refused
        "replication_factor": st.integers(1, 3),
        "durability": st.sampled_from(["standard", "strict"]),
        "config": st.fixed_dictionaries({}, optional={name: st.sampled_from(some) for name, some in SPELT.items()}),
    },
)
topics = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["i1", "i2"]),
        "known": st.sampled_from([None, "i1"]),
        "replicas": st.lists(
            st.lists(st.sampled_from(BROKERS), min_size=1, max_size=3, unique=True).map(tuple), min_size=1, max_size=4
        ),
        "config": st.fixed_dictionaries(
            {},
            optional={
                "retention.ms": st.sampled_from(["1000", "9"]),
                "cleanup.policy": st.sampled_from(["delete", "compact,delete"]),
                "segment.ms": st.sampled_from(["7"]),
            },
        ),
        "ours": st.sets(st.sampled_from(["retention.ms", "segment.ms"])).map(sorted),
    }
)
topic_states = st.dictionaries(st.sampled_from(["orders", "bills", "n"]), topics).map(lambda held: {"cluster": held})


def observe_topic(state: Any, external: ExternalId, desired: Any) -> ObservedTopic | None:
    held = state["cluster"].get(external.name)
    if held is None:
        return None
    asked = desired.config if desired is not None else {}
    shown = {name: Held(held["config"].get(name, "0"), CONFIG_KINDS[name], name in held["config"]) for name in asked}
    return ObservedTopic(
        held["id"],
        tuple(held["replicas"]),
        shown,
        BROKERS,
        known_id=held["known"],
        known_config=frozenset(held["ours"]),
    )


def take_topic(state: Any, step: Step) -> None:
    held = state["cluster"]
    name = step.external.name
    match step:
        case CreateTopic(partitions=partitions, replication_factor=factor, config=config):
            shown = {key: configs.canonical(value, CONFIG_KINDS[key]) for key, value in config}
            replicas = [BROKERS[: factor or 1]] * (partitions or 1)
            held[name] = {"id": "i3", "known": "i3", "replicas": replicas, "config": shown, "ours": sorted(shown)}
        case DeleteTopic(topic_id=topic_id):
            if name in held and held[name]["id"] == topic_id:
                del held[name]
        case AcceptRecreated(topic_id=topic_id):
            held[name]["known"] = topic_id
        case ChangeConfig(values=values, reset=reset, declared=declared):
            shown = held[name]["config"]
            shown |= {key: configs.canonical(value, CONFIG_KINDS[key]) for key, value in values}
            for key in reset:
                shown.pop(key, None)
            held[name]["ours"] = list(declared)
        case RaisePartitions(count=count):
            replicas = held[name]["replicas"]
            replicas += [replicas[0]] * (count - len(replicas))
        case ReassignReplicas(replicas=moves):
            for part, on in moves:
                held[name]["replicas"][part] = on


def foreign_topic(state: Any, external: ExternalId, desired: Any) -> Any:
    """Other topics. Of this one, while it is wanted, what isn't declared: see the test of configurations on a broker."""
    return {name: one for name, one in state["cluster"].items() if name != external.name}
