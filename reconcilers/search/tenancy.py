"""A search that stays among the documents of its tenant. Pure.

The tenant's filter is part of the query, and a search body has parts that the query doesn't bound: a `global` aggregation,
`knn`, `suggest`, a runtime field that puts itself in the place of the tenant's. So the body may hold only what works on the
hits of its query.

Suggesters don't look at queries. One of `completion` can be asked for a context, and the server takes what matches any of
the contexts that it is given: so the tenant's is the only one that it gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reconcilers.contract import TerminalError
from reconcilers.search.generations import alias_of_generation
from reconcilers.search.suggesters import SUFFIXES, field_at, request_of
from schemas.search import Suggest, Suggester

BOUNDED: Final = frozenset(
    {
        *("_source", "aggregations", "aggs", "collapse", "docvalue_fields", "explain", "fields", "highlight"),
        *("min_score", "post_filter", "rescore", "script_fields", "search_after", "seq_no_primary_term", "sort"),
        *("stored_fields", "terminate_after", "track_scores", "track_total_hits", "version"),
    }
)
UNBOUNDED: Final = frozenset({"global", "significant_terms", "significant_text", "parent", "children"})
"""Aggregations that look at other documents than the hits."""
ELSEWHERE: Final = frozenset({"more_like_this", "percolate", "indexed_shape", "wrapper"})
"""Parts of queries that may read a document by its id, or hide that they do; and `terms` with a lookup."""


def check(body: Mapping[str, Any], *queries: Mapping[str, Any] | None) -> None:
    """Raises `TerminalError` NotOfTheTenant, with the part that would leave the tenant's documents."""
    for name in sorted(body.keys() - BOUNDED):
        raise _refused(name)
    for name in ("aggs", "aggregations"):
        for part in _aggregations(body.get(name)):
            if part in UNBOUNDED:
                raise _refused(f"aggregation {part}")
    for part in _looked_up([*queries, body]):
        raise _refused(f"query {part}")


def _refused(what: str) -> TerminalError:
    message = f"{what} would look at documents of other tenants: the index has a tenant_field"
    return TerminalError(message, reason="NotOfTheTenant")


def _aggregations(named: Any) -> Iterator[str]:
    """Types of all aggregations, nested ones too."""
    for one in named.values() if isinstance(named, Mapping) else ():
        for kind, inner in one.items() if isinstance(one, Mapping) else ():
            if kind in ("aggs", "aggregations"):
                yield from _aggregations(inner)
            else:
                yield kind


def _looked_up(node: Any) -> Iterator[str]:
    """Clauses that read a document which isn't among the hits."""
    for one in node if isinstance(node, list) else ():
        yield from _looked_up(one)
    for name, inner in node.items() if isinstance(node, Mapping) else ():
        if name in ELSEWHERE or (name == "terms" and _is_lookup(inner)):
            yield str(name)
        yield from _looked_up(inner)


def _is_lookup(terms: Any) -> bool:
    return isinstance(terms, Mapping) and any(isinstance(one, Mapping) and "index" in one for one in terms.values())


# --- suggestions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bound:
    """What suggestions have to stay within."""

    tenant: str
    fields: frozenset[str]
    """The `tenant_field` of each index that is asked."""


def fields_of(described: Mapping[str, Any], confined: Mapping[str, str]) -> frozenset[str]:
    """The `tenant_field` of each of these indices, of those declared by alias. Two targets may be one server: any counts."""
    names: set[str] = set()
    for index, document in described.items():
        names |= {index, alias_of_generation(index) or index, *document.get("aliases", {})}
    return frozenset(confined[name] for name in names & confined.keys())


def suggestion(value: Suggester, asked: Suggest, bound: Bound, mappings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The body that asks a suggester for the tenant's own texts. Raises `TerminalError` NotOfTheTenant.

    `mappings`: those of all indices that are asked.
    """
    if value.kind == "prefix":
        body = request_of(value, asked)
        own = [{"term": {field: bound.tenant}} for field in sorted(bound.fields)]
        return {**body, "query": {"bool": {"must": [body["query"]], "filter": own}}}
    field = ", ".join(sorted(bound.fields))
    if value.kind != "completion":
        raise _mixed(f"a {value.kind} suggester can't be confined to a tenant ({field}): use completion or prefix")
    if asked.contexts or "contexts" in value.options:
        raise _mixed(f"contexts are alternatives to the server: leave them out, it is asked for that of {field} alone")
    names = [_contexts(mapping, value, bound.fields) for mapping in mappings]
    shared = sorted(frozenset.intersection(*names))
    if not shared:
        context = f"{{name: {field}, type: category, path: {field}}}"
        raise _mixed(f"the completion has no context on {field}: declare mapping.contexts: [{context}]")
    contexts = {shared[0]: [{"context": bound.tenant}]}
    return request_of(value, asked.model_copy(update={"contexts": contexts}))


def _mixed(why: str) -> TerminalError:
    message = f"it would suggest texts of other tenants: {why}; or give each tenant an index"
    return TerminalError(message, reason="NotOfTheTenant")


def _contexts(mapping: Mapping[str, Any], value: Suggester, fields: frozenset[str]) -> frozenset[str]:
    """Names of the contexts of a completion that are the tenant: taken from its field, and all of it is one field."""
    field = field_at(mapping, value.field) or {}
    declared = field.get("fields", {}).get(SUFFIXES[value.kind], {}).get("contexts", ())
    return frozenset(
        str(one["name"])
        for one in declared
        if str(one.get("type")).lower() == "category" and fields == {one.get("path")}
    )
