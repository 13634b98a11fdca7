"""A model of an S3 server for the planners of the storage service."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from reconcilers.contract import ExternalId, Step
from reconcilers.storage import lifecycle, model, policies, steps
from reconcilers.storage.lifecycle import Rule
from reconcilers.storage.model import Contents, HeldBucket, Versioning

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


def foreign_buckets(state: State, external: ExternalId, _desired: Any) -> Any:
    """Other buckets."""
    return {name: held for name, held in state[NODE].items() if name != external.name}
