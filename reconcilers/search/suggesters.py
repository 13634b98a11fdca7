"""Suggesters: the sub-field that one needs, and the query that asks it. Desired, observed, planner. Pure.

`completion` needs a sub-field of that type; the others work on the field itself, or on a sub-field with an analysis of their
own when `mapping` is given (shingles for `phrase`, edge n-grams for `prefix`). A sub-field is added in place and the old
documents are run through it; changed it can't be: the server says so. A migration of the index takes it over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from reconcilers.contract import CONVERGED, Difference, ExternalId, Instant, Kind, Plan, Step, TerminalError
from reconcilers.search import confining, implied
from reconcilers.search.documents import own_name
from schemas import search

SUGGESTER: Final = "search.suggester"
SUFFIXES: Final = {"completion": "completion", "term": "terms", "phrase": "phrases", "prefix": "prefixes"}
SUGGESTIONS: Final = "suggestions"


@dataclass(frozen=True, slots=True)
class Suggester:
    """What is declared."""

    alias: str
    field: str
    kind: str
    mapping: Mapping[str, Any] | None
    """Of the sub-field; None when it needs none."""

    @property
    def subfield(self) -> str:
        """Its name below the field."""
        return SUFFIXES[self.kind]


@dataclass(frozen=True, slots=True)
class SeenSuggester:
    """What the index has of it."""

    index: str
    type: str | None
    """Of the field; None when there is no such field."""
    held: Mapping[str, Any] | None = None
    """The sub-field."""
    wanted: Mapping[str, Any] | None = None
    """The declared one in the server's words."""


@dataclass(frozen=True, slots=True)
class PutSubfield(Step):
    """Add the sub-field, and run the old documents through it."""

    index: str
    field: str
    subfield: str
    mapping: Mapping[str, Any]

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        place = f"{self.field}.{self.subfield}"
        return {"external": self.external.name, "index": self.index, "field": place, "mapping": dict(self.mapping)}


def suggester(_name: str, value: search.Suggester) -> Suggester:
    """The declaration."""
    mapping: dict[str, Any] | None = None
    if value.kind == "completion":
        mapping = {"type": "completion", **value.mapping}
    elif value.mapping:
        mapping = {"type": "text", **value.mapping}
    return Suggester(value.index, value.field, value.kind, mapping)


def plan_suggester(
    external: ExternalId, desired: Suggester | None, observed: SeenSuggester | None, _now: Instant
) -> Plan:
    """Add what is missing. A retired suggester leaves its sub-field: fields can't be removed in place."""
    if desired is None or observed is None:
        return CONVERGED
    if observed.type is None:
        message = f"{observed.index} has no field {desired.field}"
        return Plan(blocked=TerminalError(message, reason="FieldNotFound"))
    if desired.mapping is None or observed.held == observed.wanted:
        return CONVERGED
    found = (Difference("/mapping", observed.wanted, observed.held),)
    return Plan((PutSubfield(external, observed.index, desired.field, desired.subfield, desired.mapping),), found)


def request_of(value: search.Suggester, asked: search.Suggest) -> dict[str, Any]:
    """The body of the search that asks it."""
    name = f"{value.field}.{SUFFIXES[value.kind]}" if value.mapping or value.kind == "completion" else value.field
    options = dict(value.options)
    match value.kind:
        case "completion":
            contexts = {"contexts": asked.contexts} if asked.contexts else {}
            completion = {"skip_duplicates": True, **options, **contexts, "field": name, "size": asked.size}
            one: dict[str, Any] = {"prefix": asked.text, "completion": completion}
        case "term":
            one = {"text": asked.text, "term": {**options, "field": name, "size": asked.size}}
        case "phrase":
            phrase = {"direct_generator": [{"field": name}], **options, "field": name, "size": asked.size}
            one = {"text": asked.text, "phrase": phrase}
        case _:
            query = {"match": {name: {"query": asked.text, **options}}}
            if not value.mapping:
                query = {"match_bool_prefix": {name: {"query": asked.text, **options}}}
            return {"size": asked.size, "query": query, "_source": [value.field]}
    return {"size": 0, "suggest": {SUGGESTIONS: one}}


def suggestions_of(value: search.Suggester, answer: Mapping[str, Any], size: int) -> list[dict[str, Any]]:
    """`[{text, score, …}]`, best first, each text once."""
    if value.kind == "prefix":
        rows = [{"text": _at(hit["_source"], value.field), "score": hit["_score"]} for hit in answer["hits"]["hits"]]
    else:
        options = [(part, one) for part in answer["suggest"][SUGGESTIONS] for one in part["options"]]
        rows = [_option(part, one) for part, one in options]
    unique = {str(row["text"]): row for row in reversed(rows)}
    return [row for row in rows if unique.pop(str(row["text"]), None) is not None][:size]


def _option(part: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, Any]:
    score = one.get("score", one.get("_score"))
    told = {"id": one["_id"]} if "_id" in one else {"for": part["text"]}
    return {"text": one["text"], "score": score, **told, **({"freq": one["freq"]} if "freq" in one else {})}


def _at(source: Mapping[str, Any], field: str) -> Any:
    value: Any = source
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def field_at(mappings: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """The field of a mapping by its dotted path; None when there is none."""
    here: Any = mappings
    for part in path.split("."):
        here = here.get("properties", {}).get(part) if isinstance(here, Mapping) else None
    return here if isinstance(here, Mapping) else None


KIND: Final = Kind(
    SUGGESTER,
    search.Suggester,
    own_name,
    suggester,
    plan_suggester,
    preexisting=True,
    requires=implied.of_suggester,
    confine=confining.suggester,
)
