"""What kind of change leads from what is there to what is declared: the server's verdict, and guards on top of it. Pure.

The server is asked on an empty shadow of the index (see `shadow`), so there is no table of settings or parameters here.
Three things it accepts are not harmless and are guarded:

- an analysis that indexing uses: the server takes it by a reopen, and old documents silently keep their old tokens;
- `number_of_routing_shards`: taken by a reopen, but it decides which shard a document is in;
- `_source.enabled: false`: taken at once, and new documents lose their source for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from reconcilers.contract import TerminalError
from reconcilers.search.definition import ANALYSIS, Body, changed_settings, differing_mappings, same_alias
from reconcilers.search.generations import Generation
from reconcilers.search.model import Verdict

_PARTS: Final = ("analyzer", "normalizer", "filter", "char_filter", "tokenizer")


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be done to an index, by how it can be done."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    mappings: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, Any] = field(default_factory=dict)
    reopen: Mapping[str, Any] = field(default_factory=dict)
    """Settings that need the index to be closed."""
    migrate: tuple[str, ...] = ()
    """Why nothing less than a migration does it."""
    refused: TerminalError | None = None


def classified(wanted: Body, held: Generation, verdict: Verdict) -> Changes:
    """The changes, by how they can be done."""
    refused = _lossy(wanted.mappings, held.mappings)
    changed = changed_settings(wanted.settings, held.settings)
    mapping_differs = any(True for _ in differing_mappings(wanted.mappings, held.mappings))
    migrate = [f"mapping: {verdict.mapping}"] if verdict.mapping is not None and mapping_differs else []
    in_place: dict[str, Any] = {}
    reopen: dict[str, Any] = {}
    for name, value in changed.items():
        how = verdict.settings.get(name, "in_place")
        why = _guarded(name, wanted, held)
        if how == "in_place":
            in_place[name] = value
        elif how == "reopen" and why is None:
            reopen[name] = value
        else:
            migrate.append(f"{name.removeprefix('index.')}: {why or how}")
    aliases = {name: props for name, props in wanted.aliases.items() if not same_alias(props, held.aliases.get(name))}
    mappings = wanted.mappings if mapping_differs else {}
    return Changes(in_place, mappings, aliases, reopen, tuple(migrate), refused)


def _lossy(wanted: Mapping[str, Any], held: Mapping[str, Any]) -> TerminalError | None:
    source, before = wanted.get("_source", {}), held.get("_source", {})
    if source.get("enabled") is False and before.get("enabled") is not False:
        message = "_source.enabled: false would lose the documents for ever: no reindex, no update; declare a new index for it"
        return TerminalError(message, reason="DataLoss")
    return None


def _guarded(name: str, wanted: Body, held: Generation) -> str | None:
    """Why a setting that the server takes by a reopen needs a migration all the same."""
    if name == "index.number_of_routing_shards":
        return "it decides in which shard a document is"
    if name.startswith(ANALYSIS):
        kind, _, rest = name.removeprefix(ANALYSIS).partition(".")
        component = (kind, rest.partition(".")[0])
        if component in indexing_components({**held.settings, **wanted.settings}, held.mappings):
            return f"{component[0]} {component[1]} is used when documents are indexed: old ones would keep their old tokens"
    return None


def indexing_components(settings: Mapping[str, Any], mappings: Mapping[str, Any]) -> set[tuple[str, str]]:
    """(kind, name) of every component of the analysis that indexing goes through."""
    names = {("analyzer", "default")}
    for one in _fields(mappings):
        names |= {(kind, str(one[kind])) for kind in ("analyzer", "normalizer") if kind in one}
    waiting, reached = list(names), set(names)
    while waiting:
        kind, name = waiting.pop()
        for part in ("filter", "char_filter", "tokenizer"):
            used = settings.get(f"{ANALYSIS}{kind}.{name}.{part}", ())
            for inner in (used,) if isinstance(used, str) else used or ():
                if (part, inner) not in reached:
                    reached.add((part, str(inner)))
                    waiting.append((part, str(inner)))
        for inner in _nested_filters(settings, kind, name):
            if inner not in reached:
                reached.add(inner)
                waiting.append(inner)
    return reached


def _nested_filters(settings: Mapping[str, Any], kind: str, name: str) -> Iterator[tuple[str, str]]:
    """`multiplexer` and `condition` filters name others."""
    for key in ("filters", "filter"):
        if kind == "filter":
            inner = settings.get(f"{ANALYSIS}filter.{name}.{key}", ())
            for one in (inner,) if isinstance(inner, str) else inner or ():
                yield from (("filter", part.strip()) for part in str(one).split(","))


def _fields(mappings: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for key in ("properties", "fields"):
        for one in mappings.get(key, {}).values():
            yield one
            yield from _fields(one)
