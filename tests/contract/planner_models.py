"""Models of the servers that planners are tried on: per kind, some ten lines that hold a state and take steps.

`state` is node → object name → what is there. What a model holds is what its `observe` shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from reconcilers.cache import acl, memcached_settings
from reconcilers.cache.acl import Account, Permissions
from reconcilers.cache.model import HeldConfig, HeldSettings, ObservedConfig, ObservedSettings, ObservedUser
from reconcilers.cache.namespace import DeregisterNamespace, RegisterNamespace, Registration
from reconcilers.cache.steps import ChangeSettings, DropUser, RewriteConfig, SetParameters, SetUser
from reconcilers.contract import ExternalId, Step
from reconcilers.planning import Nodes
from schemas.secret import SecretRef
from tests.contract import queue_models, search_models, storage_models

State = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Model:
    """One kind's declarations, states of its server, and how the server behaves."""

    values: st.SearchStrategy[Mapping[str, Any]]
    states: st.SearchStrategy[State]
    observe: Callable[[State, ExternalId, Any], Any]
    take: Callable[[State, Step], None]
    foreign: Callable[[State, ExternalId, Any], Any]
    """The part of a state that the declaration doesn't own."""


def on_nodes(objects: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[State]:
    return st.sampled_from([["n1"], ["n1", "n2"]]).flatmap(
        lambda names: st.fixed_dictionaries(dict.fromkeys(names, objects))
    )


def names_but(state: State, *owned: str) -> State:
    return {node: {name: one for name, one in objects.items() if name not in owned} for node, objects in state.items()}


# --- parameters of redis -----------------------------------------------------------------------------------------------

PARAMETERS = ("maxmemory", "hz", "timeout", "appendonly")
SPELLINGS = {
    "maxmemory": ["1mb", "1048576", "0", "1g"],
    "hz": [10, "10", 100],
    "timeout": [0, "5"],
    "appendonly": [True, "YES", "no"],
}
HELD = {"maxmemory": ["0", "1048576"], "hz": ["10", "100"], "timeout": ["0", "5"], "appendonly": ["yes", "no"]}

parameter_values = st.fixed_dictionaries(
    {
        "target": st.just("main"),
        "parameters": st.fixed_dictionaries({}, optional={n: st.sampled_from(SPELLINGS[n]) for n in PARAMETERS}).filter(
            bool
        ),
        "persist": st.booleans(),
    }
)
parameter_states = on_nodes(
    st.fixed_dictionaries({**{n: st.sampled_from(HELD[n]) for n in PARAMETERS}, "unsaved": st.booleans()})
)


def observe_parameters(state: State, _external: ExternalId, desired: Any) -> ObservedConfig:
    asked = desired.parameters if desired is not None else {}
    rows = {
        node: HeldConfig({name: held[name] for name in asked}, unsaved=held["unsaved"]) for node, held in state.items()
    }
    return ObservedConfig(Nodes(rows))


def take_parameters(state: State, step: Step) -> None:
    if isinstance(step, RewriteConfig):
        for node in step.nodes:
            state[node]["unsaved"] = False
    elif isinstance(step, SetParameters):
        for node, rows in step.changes:
            state[node] |= {**dict(rows), "unsaved": not step.persist}


# --- users -------------------------------------------------------------------------------------------------------------

A, B = SecretRef(from_env="A"), SecretRef(from_env="B")
user_values = st.fixed_dictionaries(
    {"target": st.just("main"), "enabled": st.booleans()},
    optional={
        "username": st.sampled_from(["alice", "bob"]),
        "passwords": st.lists(st.sampled_from([A, B]), max_size=2, unique=True),
        "commands": st.lists(st.sampled_from(["+get", "+@read", "-set", "+@all"]), max_size=3),
        "keys": st.lists(st.sampled_from(["app:*", "%R~ro:*"]), unique=True),
        "selectors": st.lists(st.sampled_from(["(+set ~x:*)"]), max_size=1),
        "kill_on_revoke": st.booleans(),
    },
)


def made_of(user: acl.User, held: Account | None) -> Account:
    """What the server makes of a declaration."""
    commands = " ".join(["-@all", *(rule for rule in user.rules if rule[0] in "+-")])
    root = Permissions(commands, tuple(sorted(rule for rule in user.rules if rule[0] in "~%")), ())
    selectors = tuple(Permissions(rule, (), ()) for rule in user.rules if rule[0] == "(")
    kept = held.passwords if held is not None else frozenset()
    passwords = kept if user.passwords is None else frozenset(map(str, user.passwords))
    return Account(user.enabled, False, passwords, root, selectors)


accounts = st.builds(
    Account,
    enabled=st.booleans(),
    nopass=st.just(False),
    passwords=st.sets(st.sampled_from([str(A), str(B), "stranger"])).map(frozenset),
    root=st.builds(
        Permissions, st.sampled_from(["-@all", "+@all", "-@all +get"]), st.sampled_from([(), ("~*",)]), st.just(())
    ),
    selectors=st.just(()),
)
user_states = on_nodes(st.dictionaries(st.sampled_from(["alice", "bob", "n"]), accounts))


def observe_user(state: State, external: ExternalId, desired: Any) -> ObservedUser | None:
    held = {node: users.get(external.name) for node, users in state.items()}
    if not any(held.values()):
        return None
    wanted = {node: made_of(desired, one) for node, one in held.items()} if desired is not None else {}
    return ObservedUser(Nodes(held), wanted)


def take_user(state: State, step: Step) -> None:
    for node, users in state.items():
        if isinstance(step, DropUser) and node in step.nodes:
            users.pop(step.external.name, None)
        elif isinstance(step, SetUser) and (not step.nodes or node in step.nodes):
            users[step.external.name] = made_of(step.user, users.get(step.external.name))


# --- settings of memcached ---------------------------------------------------------------------------------------------

setting_values = st.fixed_dictionaries(
    {"target": st.just("main")},
    optional={
        "memory_mb": st.integers(8, 64),
        "slab_automove": st.integers(0, 2),
        "lru": st.fixed_dictionaries(
            {},
            optional={
                "hot_pct": st.integers(1, 20),
                "warm_max_factor": st.floats(0.1, 9),
                "temp_ttl_s": st.integers(-1, 99),
            },
        ),
    },
)
setting_states = on_nodes(
    st.fixed_dictionaries(
        {
            "/memory_mb": st.integers(8, 64).map(str),
            "/slab_automove": st.sampled_from("012"),
            "/lru/hot_pct": st.just("20"),
            "/lru/warm_pct": st.sampled_from(["40", "20"]),
            "/lru/hot_max_factor": st.just("0.20"),
            "/lru/warm_max_factor": st.just("2.00"),
            "/lru/temp_ttl_s": st.sampled_from(["-1", "61"]),
            "/verbosity": st.just("0"),
        }
    )
)


def observe_settings(state: State, _external: ExternalId, _desired: Any) -> ObservedSettings:
    return ObservedSettings(Nodes({node: HeldSettings(dict(held)) for node, held in state.items()}))


def take_settings(state: State, step: Step) -> None:
    if isinstance(step, ChangeSettings):
        for node, rows in step.changes:
            for paths, _line in memcached_settings.commands(dict(rows)):
                state[node] |= {path: dict(rows)[path] for path in paths}


# --- namespaces --------------------------------------------------------------------------------------------------------

namespace_values = st.fixed_dictionaries(
    {
        "prefix": st.sampled_from(["shop:", "cart:"]),
        "layers": st.lists(
            st.fixed_dictionaries({"target": st.sampled_from(["l2", "l3"]), "ttl_s": st.floats(1, 99)}),
            min_size=1,
            max_size=2,
            unique_by=lambda layer: layer["target"],
        ),
        "tags": st.booleans(),
    }
)
namespace_states: st.SearchStrategy[State] = st.dictionaries(
    st.sampled_from(["shop:", "cart:", "other:"]), st.builds(Registration, st.none(), st.integers(0, 9))
).map(lambda registered: {"n1": registered})


def take_namespace(state: State, step: Step) -> None:
    registered = state["n1"]
    if isinstance(step, DeregisterNamespace):
        registered.pop(step.external.name, None)
    elif isinstance(step, RegisterNamespace):
        before = registered.get(step.external.name, Registration(None))
        registered[step.external.name] = Registration(step.definition, before.generation)


def named(state: State, external: ExternalId, _desired: Any) -> State:
    return names_but(state, external.name)


MODELS: Mapping[str, Model] = {
    "cache.redis_config": Model(
        parameter_values,
        parameter_states,
        observe_parameters,
        take_parameters,
        lambda state, _external, desired: names_but(state, "unsaved", *desired.parameters),
    ),
    "cache.redis_user": Model(user_values, user_states, observe_user, take_user, named),
    "cache.memcached_config": Model(
        setting_values,
        setting_states,
        observe_settings,
        take_settings,
        lambda state, _external, desired: names_but(state, *desired),
    ),
    "cache.namespace": Model(
        namespace_values,
        namespace_states,
        lambda state, external, _desired: state["n1"].get(external.name),
        take_namespace,
        named,
    ),
    "queue.topic": Model(
        queue_models.topic_values,
        queue_models.topic_states,
        queue_models.observe_topic,
        queue_models.take_topic,
        queue_models.others,
    ),
    "queue.group": Model(
        queue_models.group_values,
        queue_models.group_states,
        queue_models.observe_group,
        lambda state, step: None,
        queue_models.others,
    ),
    "queue.route": Model(
        queue_models.route_values,
        queue_models.route_states,
        queue_models.observe_route,
        queue_models.take_route,
        queue_models.others,
    ),
    "queue.user": Model(
        queue_models.user_values,
        queue_models.user_states,
        queue_models.observe_user,
        queue_models.take_user,
        queue_models.others,
    ),
    "queue.acl": Model(
        queue_models.acl_values,
        queue_models.acl_states,
        queue_models.observe_acl,
        queue_models.take_acl,
        queue_models.others,
    ),
    "queue.quota": Model(
        queue_models.quota_values,
        queue_models.quota_states,
        queue_models.observe_quota,
        queue_models.take_quota,
        queue_models.others,
    ),
    "storage.bucket": Model(
        storage_models.bucket_values,
        storage_models.bucket_states,
        storage_models.observe_bucket,
        storage_models.take_bucket,
        storage_models.others,
    ),
    "storage.policy": Model(
        storage_models.policy_values,
        storage_models.policy_states,
        storage_models.observe_policy,
        storage_models.take_policy,
        storage_models.others,
    ),
    "storage.user": Model(
        storage_models.user_values,
        storage_models.user_states,
        storage_models.observe_user,
        storage_models.take_user,
        storage_models.others,
    ),
    "storage.group": Model(
        storage_models.group_values,
        storage_models.group_states,
        storage_models.observe_policy,
        storage_models.take_group,
        storage_models.others,
    ),
    "storage.access_key": Model(
        storage_models.key_values,
        storage_models.key_states,
        storage_models.observe_key,
        storage_models.take_key,
        storage_models.others,
    ),
    "storage.server_config": Model(
        storage_models.config_values,
        storage_models.config_states,
        storage_models.observe_config,
        storage_models.take_config,
        storage_models.foreign_parameters,
    ),
    "search.index": Model(
        search_models.index_values,
        search_models.index_states,
        search_models.observe_index,
        search_models.take_index,
        search_models.others,
    ),
    **{
        setting_type: Model(
            search_models.document_values(setting_type),
            search_models.document_states(setting_type),
            search_models.observe_document,
            search_models.take_document,
            search_models.foreign_documents,
        )
        for setting_type in search_models.BODIES
    },
    "search.snapshot_policy": Model(
        search_models.policy_values,
        search_models.policy_states,
        search_models.observe_policy,
        search_models.take_snapshot,
        lambda _state, _external, _desired: None,
    ),
    "search.suggester": Model(
        search_models.suggester_values,
        search_models.suggester_states,
        search_models.observe_suggester,
        search_models.take_subfield,
        search_models.foreign_fields,
    ),
}
