"""What a declaration stands on by what its value names: pipelines before indices, parts before templates. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from reconcilers.search.definition import flattened, prefixed
from schemas import search

_NAMED: Final[Mapping[str, str]] = {
    "index.default_pipeline": "search.pipeline",
    "index.final_pipeline": "search.pipeline",
    "index.lifecycle.name": "search.lifecycle",
}


def of_index(value: search.Index) -> Sequence[str]:
    """Its pipelines, its lifecycle, its synonyms."""
    return [*_of_settings(value.settings), *_of_settings({"analysis": value.analysis})]


def of_component_template(value: search.ComponentTemplate) -> Sequence[str]:
    """What the indices made of it will name."""
    return list(_of_settings(value.template.get("settings") or {}))


def of_index_template(value: search.IndexTemplate) -> Sequence[str]:
    """The parts that it is composed of, and what the indices made of it will name."""
    parts = [f"search.component_template/{name}" for name in value.composed_of]
    return [*parts, *_of_settings(value.template.get("settings") or {})]


def of_alias(value: search.Alias) -> Sequence[str]:
    """The indices it stands for."""
    return [f"search.index/{name}" for name in value.indices]


def of_pipeline(value: search.Pipeline) -> Sequence[str]:
    """Pipelines and stored scripts that its processors call."""
    return list(_of_processors([*value.processors, *value.on_failure]))


def of_suggester(value: search.Suggester) -> Sequence[str]:
    """The index it is kept in."""
    return [f"search.index/{value.index}"]


def of_user(value: search.User) -> Sequence[str]:
    """Its roles."""
    return [f"search.role/{name}" for name in value.roles]


def of_snapshot_policy(value: search.SnapshotPolicy) -> Sequence[str]:
    """Where its snapshots lie."""
    return [f"search.repository/{value.repository}"]


def _of_settings(settings: Mapping[str, Any]) -> Iterator[str]:
    for name, held in prefixed(flattened(settings)).items():
        kind = _NAMED.get(name) or ("search.synonyms" if name.endswith(".synonyms_set") else None)
        if kind is not None and isinstance(held, str) and held != "_none":
            yield f"{kind}/{held}"


def _of_processors(processors: Sequence[Any]) -> Iterator[str]:
    for processor in processors:
        for name, held in processor.items() if isinstance(processor, Mapping) else ():
            if not isinstance(held, Mapping):
                continue
            if name == "pipeline" and isinstance(held.get("name"), str):
                yield f"search.pipeline/{held['name']}"
            if name == "script" and isinstance(held.get("id"), str):
                yield f"search.script/{held['id']}"
            nested = [*(held.get("on_failure") or ()), *([held["processor"]] if "processor" in held else ())]
            yield from _of_processors(nested)
