"""What a search may hold when the documents of several tenants are in one index."""

from __future__ import annotations

from typing import Any

import pytest

from reconcilers.contract import TerminalError
from reconcilers.search.tenancy import Bound, check, fields_of, suggestion
from schemas.search import Suggest, Suggester

TOP = {"top_hits": {}}
OWN = {"name": "whose", "type": "CATEGORY", "path": "tenant"}
BOUND = Bound("ours", frozenset({"tenant"}))


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ({"aggs": {"all": {"global": {}, "aggs": {"t": TOP}}}}, None),
        (
            {"aggregations": {"a": {"terms": {"field": "b"}, "aggs": {"s": {"significant_terms": {"field": "c"}}}}}},
            None,
        ),
        ({"knn": {"field": "v", "query_vector": [1], "k": 3}}, None),
        ({"suggest": {"s": {"prefix": "a", "completion": {"field": "c"}}}}, None),
        ({"runtime_mappings": {"tenant": {"type": "keyword", "script": "emit('ours')"}}}, None),
        ({"post_filter": {"terms": {"id": {"index": "others", "id": "1", "path": "ids"}}}}, None),
        ({}, {"bool": {"must": [{"more_like_this": {"like": [{"_id": "1"}]}}]}}),
        ({}, {"wrapper": {"query": "e30="}}),
    ],
)
def test_what_looks_beyond_the_hits_is_refused(body: dict[str, Any], query: dict[str, Any] | None) -> None:
    with pytest.raises(TerminalError, match="other tenants") as caught:
        check(body, query, None)
    assert caught.value.reason == "NotOfTheTenant"


def test_what_works_on_the_hits_is_let_through() -> None:
    body = {
        "aggs": {"global": {"terms": {"field": "brand"}, "aggs": {"best": TOP}}},
        "sort": ["n"],
        "highlight": {"fields": {"title": {}}},
        "post_filter": {"terms": {"brand": ["a", "b"]}},
    }
    check(body, {"match": {"title": "shoe"}}, {"term": {"n": 1}})


def suggester(kind: str = "completion", **more: Any) -> Suggester:
    return Suggester.model_validate({"target": "main", "index": "i", "field": "title", "kind": kind, **more})


def mapped(*contexts: dict[str, Any]) -> dict[str, Any]:
    completion = {"type": "completion", "contexts": list(contexts)}
    return {"properties": {"title": {"type": "text", "fields": {"completion": completion}}}}


def test_a_completion_is_asked_for_the_context_of_the_tenant_alone() -> None:
    other = {"name": "brand", "type": "CATEGORY", "path": "brand"}
    body = suggestion(suggester(), Suggest(suggester="s", text="a"), BOUND, [mapped(other, OWN), mapped(OWN)])
    assert body["suggest"]["suggestions"]["completion"]["contexts"] == {"whose": [{"context": "ours"}]}


def test_texts_that_begin_so_are_those_of_the_tenant() -> None:
    body = suggestion(suggester("prefix"), Suggest(suggester="s", text="a"), BOUND, [])
    assert body["query"]["bool"]["filter"] == [{"term": {"tenant": "ours"}}]


@pytest.mark.parametrize(
    ("value", "more", "contexts", "says"),
    [
        (suggester("term"), {}, [OWN], "use completion or prefix"),
        (suggester("phrase"), {}, [OWN], "use completion or prefix"),
        (suggester(), {}, [], r"declare mapping\.contexts: \[\{name: tenant, type: category, path: tenant\}\]"),
        (suggester(), {}, [{**OWN, "path": "brand"}], "declare"),
        (suggester(), {}, [{"name": "tenant", "type": "CATEGORY"}], "declare"),
        (suggester(), {}, [{**OWN, "type": "GEO"}], "declare"),
        (suggester(), {"contexts": {"brand": ["b"]}}, [OWN], "leave them out"),
        (suggester(options={"contexts": {"whose": ["theirs"]}}), {}, [OWN], "leave them out"),
    ],
)
def test_suggestions_that_would_mix_tenants_are_refused_with_what_to_do(
    value: Suggester, more: dict[str, Any], contexts: list[dict[str, Any]], says: str
) -> None:
    with pytest.raises(TerminalError, match=says) as caught:
        suggestion(value, Suggest(suggester="s", text="a", **more), BOUND, [mapped(*contexts)])
    assert caught.value.reason == "NotOfTheTenant"
    assert "give each tenant an index" in caught.value.message


def test_every_index_that_is_asked_needs_the_context_and_the_same_field() -> None:
    asked = Suggest(suggester="s", text="a")
    with pytest.raises(TerminalError, match="declare"):
        suggestion(suggester(), asked, BOUND, [mapped(OWN), mapped()])
    with pytest.raises(TerminalError, match="declare"):
        suggestion(suggester(), asked, Bound("ours", frozenset({"tenant", "owner"})), [mapped(OWN)])


@pytest.mark.parametrize(
    "described",
    [
        {"products-g2-0123abcd": {"aliases": {"products": {}}}},
        {"products-g1-0123abcd": {}},
        {"products": {}},
        {"elsewhere": {"aliases": {}}, "old": {"aliases": {"all": {}, "products": {}}}},
    ],
)
def test_whatever_name_is_asked_the_index_behind_it_counts(described: dict[str, Any]) -> None:
    assert fields_of(described, {"products": "tenant", "other": "owner"}) == {"tenant"}
    assert fields_of(described, {"other": "owner"}) == frozenset()
