"""A search that stays among the documents of its tenant. Pure.

The tenant's filter is part of the query, and a search body has parts that the query doesn't bound: a `global` aggregation,
`knn`, `suggest`, a runtime field that puts itself in the place of the tenant's. So the body may hold only what works on the
hits of its query.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from reconcilers.contract import TerminalError

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
