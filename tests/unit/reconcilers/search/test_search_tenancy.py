"""What a search may hold when the documents of several tenants are in one index."""

from __future__ import annotations

from typing import Any

import pytest

from reconcilers.contract import TerminalError
from reconcilers.search.tenancy import check

TOP = {"top_hits": {}}


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
