"""Models of Elasticsearch that the search service's planners are tried on.

`state` is node → object name → what is there. The model of indices takes changes in place; migrations have tests of their
own, because they take more than one plan.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from reconcilers.contract import ExternalId, Step
from reconcilers.search.definition import Body
from reconcilers.search.generations import Generation, Mark
from reconcilers.search.model import ObservedIndex, Verdict
from reconcilers.search.steps import ChangeIndex, CreateIndex, DropIndex

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
