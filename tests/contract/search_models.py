"""Models of Elasticsearch that the search service's planners are tried on.

`state` is node → object name → what is there. The model of indices takes changes in place; migrations have tests of their
own, because they take more than one plan.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from reconcilers.contract import ExternalId, Step
from reconcilers.search import documents
from reconcilers.search.definition import Body
from reconcilers.search.documents import Held, PutDocument, RemoveDocument
from reconcilers.search.generations import Generation, Mark
from reconcilers.search.model import ObservedIndex, Verdict
from reconcilers.search.snapshots import RemoveSnapshot, Taken, TakeSnapshot, snapshot_name
from reconcilers.search.steps import ChangeIndex, CreateIndex, DropIndex
from reconcilers.search.suggesters import PutSubfield, SeenSuggester

State = dict[str, dict[str, Any]]

FIELDS = {
    "title": st.just({"type": "text"}),
    "n": st.just({"type": "long"}),
    "tag": st.just({"type": "keyword"}),
}
index_values = st.fixed_dictionaries(
    {"target": st.just("main")},
    optional={
        "settings": st.fixed_dictionaries(
            {}, optional={"refresh_interval": st.sampled_from(["1s", "5s"]), "number_of_replicas": st.integers(0, 1)}
        ),
        "mappings": st.fixed_dictionaries({"properties": st.fixed_dictionaries({}, optional=FIELDS)}),
        "tuning": st.sampled_from(["ingest", "search", "balanced"]),
        "aliases": st.dictionaries(st.sampled_from(["a", "b"]), st.just({}), max_size=2),
    },
)
indices = st.fixed_dictionaries(
    {
        "settings": st.fixed_dictionaries(
            {"index.number_of_shards": st.just("1")},
            optional={"index.refresh_interval": st.sampled_from(["1s", "30s"]), "index.priority": st.just("3")},
        ),
        "mappings": st.fixed_dictionaries({"properties": st.fixed_dictionaries({}, optional=FIELDS)}),
        "aliases": st.dictionaries(st.sampled_from(["a", "foreign"]), st.just({}), max_size=2),
    }
)
index_states = st.dictionaries(st.sampled_from(["n", "other"]), indices).map(
    lambda found: {"cluster": {name: {**one, "name": f"{name}-g1-00000000"} for name, one in found.items()}}
)


def observe_index(state: State, external: ExternalId, desired: Any) -> ObservedIndex | None:
    held = state["cluster"].get(external.name)
    if held is None:
        return None
    aliases = {external.name: {}, **held["aliases"]}
    one = Generation(held["name"], 1, held["settings"], held["mappings"], aliases, Mark("serving"))
    canonical = (
        None if desired is None else Body(_spelled(desired.body.settings), desired.body.mappings, desired.body.aliases)
    )
    return ObservedIndex(one, (one,), canonical, Verdict())


def _spelled(settings: Any) -> dict[str, Any]:
    return {name: str(value) for name, value in settings.items()}


def take_index(state: State, step: Step) -> None:
    cluster, name = state["cluster"], step.external.name
    if isinstance(step, CreateIndex):
        body = step.body
        held = {"settings": {"index.number_of_shards": "1", **_spelled(body.settings)}, "mappings": {"properties": {}}}
        cluster[name] = {**held, "aliases": dict(body.aliases), "name": step.index}
        _mapped(cluster[name], body.mappings)
    elif isinstance(step, ChangeIndex):
        cluster[name]["settings"] |= _spelled(step.settings)
        cluster[name]["aliases"] |= step.aliases
        _mapped(cluster[name], step.mappings)
    elif isinstance(step, DropIndex):
        cluster.pop(name, None)


def _mapped(held: dict[str, Any], mappings: Any) -> None:
    held["mappings"] = {"properties": {**held["mappings"].get("properties", {}), **mappings.get("properties", {})}}


def others(state: State, external: ExternalId, _desired: Any) -> Any:
    return {name: one for name, one in state["cluster"].items() if name != external.name}


# --- documents ---------------------------------------------------------------------------------------------------------

BODIES: dict[str, list[dict[str, Any]]] = {
    documents.COMPONENT_TEMPLATE: [{"template": {"settings": {"a": 1}}}, {"template": {}, "version": 2}],
    documents.INDEX_TEMPLATE: [{"index_patterns": ["a-*"]}, {"index_patterns": ["b-*"], "priority": 3}],
    documents.ALIAS: [
        {"indices": ["i"]},
        {"indices": ["i", "j"], "write_index": "j"},
        {"indices": ["i"], "routing": "r"},
    ],
    documents.PIPELINE: [{"processors": []}, {"processors": [{"set": {"field": "a", "value": 1}}], "description": "d"}],
    documents.SCRIPT: [{"source": "1"}, {"source": "2", "context": "score"}],
    documents.SYNONYMS: [{"rules": ["a, b"]}, {"rules": ["a => b", "c, d"]}],
    documents.LIFECYCLE: [{"phases": {"hot": {}}}, {"phases": {"hot": {}, "delete": {"min_age": "1d"}}}],
    documents.REPOSITORY: [{"settings": {"location": "a"}}, {"kind": "s3", "settings": {"bucket": "b"}}],
    documents.ROLE: [{"cluster": ["monitor", "all"]}, {"indices": [{"names": ["a"], "privileges": ["read"]}]}],
    documents.USER: [
        {"password": {"from_env": "A"}, "roles": ["a"]},
        {"password": {"from_env": "A"}, "enabled": False, "username": "other"},
    ],
    documents.CLUSTER_SETTINGS: [{"settings": {"a.b": 1}}, {"settings": {"a": {"b": 2, "c": "x"}}}],
}
IN_PART = (documents.LIFECYCLE, documents.REPOSITORY, documents.CLUSTER_SETTINGS)


def document_values(setting_type: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.sampled_from([{"target": "main", **body} for body in BODIES[setting_type]])


def document_states(setting_type: str) -> st.SearchStrategy[State]:
    held = st.sampled_from([{}, {"stranger": 1}, {"a.b": 1, "kept": True}])
    names = ["n", "other"] if setting_type != documents.CLUSTER_SETTINGS else [documents.CLUSTER]
    least = 0 if setting_type != documents.CLUSTER_SETTINGS else 1
    return st.dictionaries(st.sampled_from(names), held, min_size=least).map(lambda found: {"cluster": found})


def observe_document(state: State, external: ExternalId, desired: Any) -> Any:
    held = state["cluster"].get(external.name)
    if held is None:
        return None
    return Held(held, {} if desired is None else desired.body, in_part=external.setting_type in IN_PART)


def take_document(state: State, step: Step) -> None:
    cluster, name = state["cluster"], step.external.name
    if isinstance(step, PutDocument):
        kept = cluster.get(name, {}) if step.external.setting_type in IN_PART else {}
        cluster[name] = {**kept, **step.document.body}
    elif isinstance(step, RemoveDocument):
        cluster.pop(name, None)


def foreign_documents(state: State, external: ExternalId, declared: Any) -> Any:
    kept = {name: one for name, one in state["cluster"].items() if name != external.name}
    if external.setting_type == documents.CLUSTER_SETTINGS:
        own = state["cluster"].get(external.name, {})
        return kept, {name: value for name, value in own.items() if name not in declared.body}
    return kept


# --- snapshots and suggesters ------------------------------------------------------------------------------------------

policy_values = st.fixed_dictionaries(
    {"target": st.just("main"), "repository": st.just("r"), "indices": st.just(["*"]), "keep": st.integers(2, 3)},
    optional={"every_s": st.sampled_from([60, 3600])},
)
policy_states = st.lists(st.sampled_from([-30.0, -100.0, -7200.0]), max_size=1).map(
    lambda times: {"cluster": {"snapshots": [Taken(snapshot_name("n", at), at, "SUCCESS") for at in times]}}
)


def observe_policy(state: State, _external: ExternalId, desired: Any) -> Any:
    return () if desired is None else tuple(state["cluster"]["snapshots"])


def take_snapshot(state: State, step: Step) -> None:
    held = state["cluster"]["snapshots"]
    if isinstance(step, TakeSnapshot):
        held.append(Taken(step.snapshot, 0.0, "SUCCESS"))
    elif isinstance(step, RemoveSnapshot):
        held[:] = [one for one in held if one.name != step.snapshot]


suggester_values = st.fixed_dictionaries(
    {
        "target": st.just("main"),
        "index": st.just("i"),
        "field": st.just("title"),
        "kind": st.sampled_from(["completion", "term", "phrase", "prefix"]),
    },
    optional={"mapping": st.just({"analyzer": "simple"})},
)
suggester_states = st.dictionaries(
    st.sampled_from(["completion", "terms", "other"]), st.just({"type": "text", "analyzer": "standard"}), max_size=2
).map(lambda fields: {"cluster": {"fields": fields}})


def observe_suggester(state: State, _external: ExternalId, desired: Any) -> Any:
    if desired is None:
        return None
    return SeenSuggester("i-g1", "text", state["cluster"]["fields"].get(desired.subfield), desired.mapping)


def take_subfield(state: State, step: Step) -> None:
    if isinstance(step, PutSubfield):
        state["cluster"]["fields"][step.subfield] = dict(step.mapping)


def foreign_fields(state: State, _external: ExternalId, declared: Any) -> Any:
    return {name: one for name, one in state["cluster"]["fields"].items() if name != declared.subfield}
