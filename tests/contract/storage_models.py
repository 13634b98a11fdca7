"""A model of an S3 server for the planners of the storage service."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from reconcilers.contract import ExternalId, Step
from reconcilers.storage import lifecycle, logins, model, parameters, policies, steps
from reconcilers.storage.lifecycle import Rule
from reconcilers.storage.model import Contents, HeldBucket, Versioning
from schemas.secret import SecretRef

State = dict[str, dict[str, Any]]
NODE = "server"

bucket_values = st.fixed_dictionaries(
    {"target": st.just("main")},
    optional={
        "bucket": st.sampled_from(["ours", "more"]),
        "versioning": st.sampled_from(["enabled", "suspended"]),
        "quota_bytes": st.sampled_from([0, 10, 500]),
        "tags": st.dictionaries(st.sampled_from("ab"), st.sampled_from("12")),
        "access": st.sampled_from(["private", "public-read", "public-read-write"]),
        "lifecycle": st.lists(
            st.fixed_dictionaries(
                {"id": st.sampled_from(["r1", "r2"]), "expire_days": st.integers(1, 3)},
                optional={"prefix": st.sampled_from(["", "tmp/"])},
            ),
            max_size=2,
            unique_by=lambda rule: rule["id"],
        ),
    },
)
rules = st.lists(
    st.builds(Rule, id=st.sampled_from(["r1", "theirs"]), expire_days=st.integers(1, 3)),
    max_size=2,
    unique_by=lambda rule: rule.id,
)
held_buckets = st.builds(
    HeldBucket,
    versioning=st.sampled_from([Versioning(), Versioning("enabled"), Versioning("enabled", ("x/*",))]),
    rules=rules.map(lambda found: lifecycle.parsed(lifecycle.document(map(lifecycle.text, found)))),
    quota_bytes=st.sampled_from([0, 10]),
    tags=st.sampled_from([(), (("a", "1"),), (("theirs", "1"),)]),
    access=st.sampled_from([policies.NOTHING, policies.public("ours", write=False)]),
)
bucket_states: st.SearchStrategy[State] = st.dictionaries(
    st.sampled_from(["ours", "more", "other"]),
    held_buckets.map(lambda held: {"held": held, "objects": 0}),  # emptying takes several plans
).map(lambda buckets: {NODE: buckets})


def observe_bucket(state: State, external: ExternalId, desired: Any) -> HeldBucket | None:
    found = state[NODE].get(external.name)
    if found is None:
        return None
    held: HeldBucket = found["held"]
    if desired is not None:
        return held
    return replace(held, contents=Contents(("key", str(found["objects"])) if found["objects"] else None))


def take_bucket(state: State, step: Step) -> None:
    buckets, name = state[NODE], step.external.name
    match step:
        case steps.CreateBucket():
            buckets.setdefault(name, {"held": HeldBucket(), "objects": 0})
        case steps.DropBucket():
            assert not buckets[name]["objects"]
            del buckets[name]
        case steps.EmptyBucket():
            buckets[name]["objects"] -= 1
        case _:
            buckets[name]["held"] = _changed(buckets[name]["held"], step, name)


def _changed(held: HeldBucket, step: Step, name: str) -> HeldBucket:
    match step:
        case steps.SetVersioning():
            return replace(held, versioning=step.versioning)
        case steps.SetQuota():
            return replace(held, quota_bytes=step.quota_bytes)
        case steps.SetTags():
            return replace(held, tags=model.tagged(model.tags_document(step.tags)))
        case steps.SetAccess():
            return replace(held, access=policies.parsed(step.policy.text()))
        case steps.SetLifecycle():
            return replace(held, rules=lifecycle.parsed(lifecycle.document(step.texts)))
        case steps.FreezeBucket():
            return replace(held, quota_bytes=model.FROZEN_BYTES, access=policies.frozen(name))
        case _:
            raise AssertionError(step)


def others(state: State, external: ExternalId, _desired: Any) -> Any:
    """Other objects of the kind."""
    return {name: held for name, held in state[NODE].items() if name != external.name}


# --- who may log in ----------------------------------------------------------------------------------------------------

A, B = SecretRef(from_env="A"), SecretRef(from_env="B")
NAMES = ("ours", "more")
DOCUMENTS = [
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": ["arn:aws:s3:::b/*"]}]}
    for action in ("s3:GetObject", ["s3:GetObject"], "s3:PutObject")
]
user_names = st.lists(st.sampled_from(["xxx", "yyy"]), unique=True)
policy_values = st.fixed_dictionaries(
    {"target": st.just("main"), "document": st.sampled_from(DOCUMENTS)}, optional={"policy": st.sampled_from(NAMES)}
)
policy_states: st.SearchStrategy[State] = st.dictionaries(
    st.sampled_from([*NAMES, "other"]), st.sampled_from(DOCUMENTS).map(policies.canonical)
).map(lambda found: {NODE: found})
user_values = st.fixed_dictionaries(
    {"target": st.just("main"), "secret_key": st.sampled_from([A, B]), "enabled": st.booleans()},
    optional={"access_key": st.sampled_from(NAMES), "policies": user_names, "groups": user_names},
)
user_states: st.SearchStrategy[State] = st.dictionaries(
    st.sampled_from([*NAMES, "other"]),
    st.fixed_dictionaries(
        {
            "secret": st.sampled_from([A, B]),
            "enabled": st.booleans(),
            "policies": st.frozensets(st.sampled_from(["xxx", "zzz"])),
            "groups": st.frozensets(st.sampled_from(["xxx", "zzz"])),
        }
    ),
).map(lambda found: {NODE: found})
group_values = st.fixed_dictionaries(
    {"target": st.just("main"), "enabled": st.booleans()},
    optional={
        "group": st.sampled_from(NAMES),
        "members": st.lists(st.sampled_from(["xxx", "yyy"]), unique=True),
        "policies": st.lists(st.sampled_from(["xxx", "yyy"]), unique=True),
    },
)
group_states: st.SearchStrategy[State] = st.dictionaries(
    st.sampled_from([*NAMES, "other"]),
    st.builds(
        logins.HeldGroup,
        st.booleans(),
        st.frozensets(st.sampled_from(["xxx", "zzz"])),
        st.frozensets(st.sampled_from(["xxx", "zzz"])),
    ),
).map(lambda found: {NODE: found})
key_values = st.fixed_dictionaries(
    {"target": st.just("main"), "user": st.just("alice"), "secret_key": st.sampled_from([A, B])},
    optional={
        "access_key": st.sampled_from(NAMES),
        "policy": st.sampled_from(DOCUMENTS),
        "enabled": st.booleans(),
        "description": st.sampled_from(["a", "b"]),
        "expires_at": st.sampled_from(["2030-01-01T00:00:00Z", "2031-01-01T00:00:00Z"]),
    },
)
key_states: st.SearchStrategy[State] = st.dictionaries(
    st.sampled_from([*NAMES, "other"]),
    st.builds(
        logins.Key,
        st.just("key"),
        st.just("alice"),
        st.sampled_from([A, B]),
        st.sampled_from([None, policies.canonical(DOCUMENTS[0])]),
        st.booleans(),
        st.sampled_from([None, 2_000_000_000]),
        st.sampled_from([None, "c"]),
    ),
).map(lambda found: {NODE: found})


def observe_policy(state: State, external: ExternalId, _desired: Any) -> Any:
    return state[NODE].get(external.name)


def take_policy(state: State, step: Step) -> None:
    if isinstance(step, logins.DropPolicy):
        state[NODE].pop(step.external.name, None)
    elif isinstance(step, logins.PutPolicy):
        state[NODE][step.external.name] = step.policy


def observe_user(state: State, external: ExternalId, desired: Any) -> logins.HeldUser | None:
    held = state[NODE].get(external.name)
    if held is None:
        return None
    current = desired is None or held["secret"] == desired.secret
    return logins.HeldUser(held["enabled"], current, held["policies"], held["groups"])


def take_user(state: State, step: Step) -> None:
    users, name = state[NODE], step.external.name
    match step:
        case logins.DropUser():
            users.pop(name, None)
        case logins.PutUser():
            kept = users.get(name, {"policies": frozenset(), "groups": frozenset()})
            users[name] = {**kept, "secret": step.secret, "enabled": step.enabled}
        case logins.SetUserStatus():
            users[name]["enabled"] = step.enabled
        case logins.SetUserPolicies():
            users[name]["policies"] = frozenset(step.policies)
        case logins.SetUserGroups():
            users[name]["groups"] = (users[name]["groups"] | set(step.join)) - set(step.leave)


def take_group(state: State, step: Step) -> None:
    groups, name = state[NODE], step.external.name
    held = groups.get(name, logins.HeldGroup(True, frozenset(), frozenset()))
    match step:
        case logins.DropGroup():
            groups.pop(name, None)
        case logins.PutMembers():
            groups[name] = replace(held, members=(held.members | set(step.add)) - set(step.remove))
        case logins.SetGroupStatus():
            groups[name] = replace(held, enabled=step.enabled)
        case logins.SetGroupPolicies():
            groups[name] = replace(held, policies=frozenset(step.policies))


def observe_key(state: State, external: ExternalId, desired: Any) -> logins.HeldKey | None:
    held: logins.Key | None = state[NODE].get(external.name)
    if held is None:
        return None
    current = desired is None or held.secret == desired.secret
    return logins.HeldKey(held.user, current, held.policy, held.enabled, held.expires_at, held.description or "")


def take_key(state: State, step: Step) -> None:
    keys, name = state[NODE], step.external.name
    match step:
        case logins.DropAccessKey():
            keys.pop(name, None)
        case logins.CreateAccessKey():
            keys[name] = step.key
        case logins.UpdateAccessKey():
            held = keys[name]
            kept = {"expires_at": step.key.expires_at or held.expires_at}
            keys[name] = replace(step.key, description=step.key.description or held.description, **kept)


# --- parameters --------------------------------------------------------------------------------------------------------

config_values = st.fixed_dictionaries(
    {
        "target": st.just("main"),
        "subsystem": st.just("api"),
        "settings": st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["1", 2, True]), min_size=1),
    }
)
config_states: st.SearchStrategy[State] = st.fixed_dictionaries(
    {name: st.sampled_from(["1", "2", "on"]) for name in ("a", "b", "c")}
).map(lambda found: {NODE: found})


def observe_config(state: State, _external: ExternalId, _desired: Any) -> parameters.HeldConfig:
    return parameters.HeldConfig(dict(state[NODE]))


def take_config(state: State, step: Step) -> None:
    if isinstance(step, parameters.SetConfig):
        state[NODE] |= dict(step.changes)


def foreign_parameters(state: State, _external: ExternalId, desired: Any) -> Any:
    return {name: value for name, value in state[NODE].items() if name not in desired}
