"""Models of Kafka for the laws of planners: see `planner_models`."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from reconcilers.contract import ExternalId, Step
from reconcilers.queue import configs
from reconcilers.queue.access import Binding, ObservedAcl, ObservedQuota, ObservedUser, entity_parts, principal_of
from reconcilers.queue.access_steps import ChangeAcls, DropCredential, SetCredential, SetQuotas
from reconcilers.queue.groups import ObservedGroup
from reconcilers.queue.model import Held, ObservedTopic
from reconcilers.queue.route_plan import InstallRoute, ObservedRoute
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


# --- users, permissions, quotas ------------------------------------------------------------------------------------------

permissions = st.lists(
    st.fixed_dictionaries(
        {
            "resource": st.sampled_from(["topic", "group"]),
            "name": st.sampled_from(["orders", "*"]),
            "operations": st.lists(st.sampled_from(["read", "describe"]), min_size=1, unique=True),
        }
    ),
    max_size=2,
)
limits = st.fixed_dictionaries(
    {}, optional={"producer_byte_rate": st.sampled_from([1.0, 2]), "request_percentage": st.just(50)}
)
user_values = st.fixed_dictionaries(
    {"target": st.just("main"), "password": st.sampled_from([{"from_env": "A"}, {"from_env": "B"}])},
    optional={
        "username": st.sampled_from(["alice", "bob"]),
        "mechanism": st.sampled_from(["SCRAM-SHA-256", "SCRAM-SHA-512"]),
        "iterations": st.sampled_from([4096, 8192]),
        "acls": permissions,
        "quotas": limits,
    },
)
acl_values = st.fixed_dictionaries(
    {"target": st.just("main"), "principal": st.sampled_from(["User:alice", "User:bob"]), "acls": permissions}
)
quota_values = st.fixed_dictionaries(
    {"target": st.just("main"), "user": st.sampled_from(["alice", "<default>"]), "quotas": limits},
    optional={"client_id": st.sampled_from(["app", "<default>"])},
)


def held_bindings(principal: str) -> Any:
    return st.sets(
        st.builds(
            Binding,
            st.just(principal),
            st.sampled_from(["*", "10.0.0.1"]),
            st.sampled_from(["read", "all"]),
            st.sampled_from(["allow", "deny"]),
            st.just("topic"),
            st.sampled_from(["orders", "*"]),
            st.sampled_from(["literal", "prefixed"]),
        ),
        max_size=3,
    )


accounts = st.fixed_dictionaries(
    {
        "credentials": st.dictionaries(
            st.sampled_from(["SCRAM-SHA-256", "SCRAM-SHA-512"]), st.sampled_from([4096, 8192]), min_size=1
        ),
        "password": st.sampled_from([None, "A", "B"]),
        "owned": st.sets(st.sampled_from(["acls", "quotas"])).map(sorted),
        "acls": held_bindings("User:alice"),
        "quotas": st.dictionaries(st.sampled_from(["producer_byte_rate", "consumer_byte_rate"]), st.just(1.0)),
    }
)
"""The owner of the permissions doesn't matter to the planner: it is asked for one user."""
user_states = st.dictionaries(st.sampled_from(["alice", "bob", "n"]), accounts).map(lambda held: {"cluster": held})
acl_states = st.fixed_dictionaries({}, optional={p: held_bindings(p) for p in ("User:alice", "User:bob")}).map(
    lambda held: {"cluster": held}
)
quota_states = st.dictionaries(
    st.sampled_from(["user=alice", "user=alice,client-id=app", "user=<default>"]),
    st.dictionaries(st.sampled_from(["producer_byte_rate", "consumer_byte_rate"]), st.just(1.0)),
).map(lambda held: {"cluster": held})


def observe_user(state: Any, external: ExternalId, desired: Any) -> ObservedUser | None:
    held = state["cluster"].get(external.name)
    if held is None:
        return None
    wanted = None if desired is None else desired.password.from_env
    return ObservedUser(
        dict(held["credentials"]),
        frozenset(held["acls"]),
        dict(held["quotas"]),
        wanted,
        written=held["password"],
        owned=frozenset(held["owned"]),
    )


def take_user(state: Any, step: Step) -> None:
    held = state["cluster"]
    new = {"credentials": {}, "password": None, "owned": [], "acls": set(), "quotas": {}}
    one = held.setdefault(step.external.name, new)
    match step:
        case SetCredential(mechanism=mechanism, iterations=iterations, password=password):
            one["credentials"][mechanism] = iterations
            one["password"] = password.from_env
        case DropCredential(mechanism=mechanism):
            one["credentials"].pop(mechanism, None)
            if not one["credentials"]:
                del held[step.external.name]
        case ChangeAcls():
            one["acls"] = changed(one["acls"], step)
            one["owned"] = step.owned.split(",") if step.owned is not None else one["owned"]
        case SetQuotas():
            one["quotas"] = limited(one["quotas"], step)
            one["owned"] = step.owned.split(",") if step.owned is not None else one["owned"]


def changed(held: Any, step: ChangeAcls) -> set[Binding]:
    return set() if step.everything else (set(held) | set(step.add)) - set(step.remove)


def limited(held: Any, step: SetQuotas) -> dict[str, float]:
    values = {**held, **dict(step.values)}
    return {name: value for name, value in values.items() if value is not None}


def observe_acl(state: Any, external: ExternalId, _desired: Any) -> ObservedAcl | None:
    held = state["cluster"].get(external.name)
    return ObservedAcl(frozenset(held)) if held else None


def take_acl(state: Any, step: Step) -> None:
    assert isinstance(step, ChangeAcls)
    assert principal_of(step.principal.removeprefix("User:")) == step.external.name
    state["cluster"][step.principal] = changed(state["cluster"].get(step.principal, set()), step)


def observe_quota(state: Any, external: ExternalId, _desired: Any) -> ObservedQuota | None:
    held = state["cluster"].get(external.name)
    return ObservedQuota(held) if held else None


def take_quota(state: Any, step: Step) -> None:
    assert isinstance(step, SetQuotas)
    assert ",".join(f"{kind}={name}" for kind, name in entity_parts(step.entity).items()) == step.external.name
    state["cluster"][step.entity] = limited(state["cluster"].get(step.entity, {}), step)


route_values = st.fixed_dictionaries(
    {"target": st.just("main"), "source": st.sampled_from(["orders", "bills"]), "to": st.just(["copies"])},
    optional={
        "priority": st.integers(0, 2),
        "when": st.fixed_dictionaries({"json": st.dictionaries(st.sampled_from(["a", "/a/b"]), st.integers(0, 2))}),
    },
)
route_states = st.dictionaries(st.sampled_from(["n", "other"]), st.sampled_from(['{"source":"bills"}', "{}"])).map(
    lambda held: {"cluster": held}
)


def observe_route(state: Any, external: ExternalId, _desired: Any) -> ObservedRoute | None:
    held = state["cluster"].get(external.name)
    return None if held is None else ObservedRoute(held, partitions=2, going=2, routers=1)


def take_route(state: Any, step: Step) -> None:
    if isinstance(step, InstallRoute):
        state["cluster"][step.external.name] = step.definition
    else:
        state["cluster"].pop(step.external.name)


group_values = st.fixed_dictionaries({"target": st.just("main")}, optional={"max_lag": st.integers(5, 9)})
group_states = st.builds(ObservedGroup, st.just("Stable"), st.integers(0, 2), st.integers(0, 5)).map(
    lambda group: {"cluster": {"n": group}}
)


def observe_group(state: Any, external: ExternalId, _desired: Any) -> ObservedGroup | None:
    found: ObservedGroup | None = state["cluster"].get(external.name)
    return found


def others(state: Any, external: ExternalId, _desired: Any) -> Any:
    return {name: one for name, one in state["cluster"].items() if name != external.name}
