"""The comparer of schemas: what narrows is named, what widens passes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model

from schemas.compatibility import incompatibilities


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    n: int = 0


class NarrowInner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    n: Annotated[int, Field(ge=0)] = 0


class Tree(BaseModel):
    children: list[Tree] = []


class NarrowTree(BaseModel):
    children: Annotated[list[NarrowTree], Field(max_length=2)] = []


def schema(annotation: Any, default: Any = ...) -> dict[str, Any]:
    return create_model("Doc", field=(annotation, default)).model_json_schema()


NARROWER = [
    (int, str, "type narrowed"),
    (int | None, int, "alternative"),
    (int | str, int, "alternative"),
    (float, int, "type narrowed"),
    (str, Literal["a"], "alternative|const|enum"),
    (Literal["a", "b"], Literal["a"], "const|enum"),
    (Literal["a", "b"], Literal["a", "c"], "enum narrowed"),
    (str, Annotated[str, Field(pattern="^a")], "pattern"),
    (Annotated[str, Field(pattern="^a")], Annotated[str, Field(pattern="^b")], "pattern"),
    (int, Annotated[int, Field(ge=0)], "minimum"),
    (Annotated[int, Field(le=9)], Annotated[int, Field(le=8)], "maximum"),
    (list[int], Annotated[list[int], Field(min_length=1)], "minItems"),
    (list[int | str], list[int], "alternative"),
    (dict[str, Any], dict[str, int], "was anything|type narrowed"),
    (Inner, NarrowInner, "minimum"),
    (list[Inner], list[NarrowInner], "minimum"),
    (Inner | None, NarrowInner | None, "alternative"),
    (Tree, NarrowTree, "maxItems"),
]

WIDER = [
    (int, float),
    (int, int | None),
    (int, int | str),
    (Literal["a"], Literal["a", "b"]),
    (Literal["a"], str),
    (Annotated[str, Field(pattern="^a")], str),
    (Annotated[int, Field(ge=0)], Annotated[int, Field(ge=-1)]),
    (Annotated[int, Field(le=8)], int),
    (dict[str, int], dict[str, Any]),
    (NarrowInner, Inner),
    (NarrowTree, Tree),
    (Tree, Tree),
    (Any, Any),
]


@pytest.mark.parametrize(("old", "new", "why"), NARROWER)
def test_a_narrower_schema_is_incompatible_and_says_where(old: Any, new: Any, why: str):
    found = incompatibilities(schema(old), schema(new))
    assert found
    assert any(word in line for line in found for word in why.split("|")), found
    assert all(line.startswith("/field") for line in found)


@pytest.mark.parametrize(("old", "new"), WIDER)
def test_a_wider_schema_is_compatible(old: Any, new: Any):
    assert incompatibilities(schema(old), schema(new)) == []


def test_a_removed_property_and_a_newly_required_one_are_incompatible():
    old = create_model("Doc", a=(int, ...), b=(int, 0)).model_json_schema()
    assert incompatibilities(old, create_model("Doc", a=(int, ...)).model_json_schema()) == ["/b: property removed"]
    newer = create_model("Doc", a=(int, ...), b=(int, ...)).model_json_schema()
    assert incompatibilities(old, newer) == ["/b: newly required"]


def test_a_new_optional_property_is_compatible():
    old = create_model("Doc", a=(int, ...)).model_json_schema()
    assert incompatibilities(old, create_model("Doc", a=(int, ...), b=(int, 0)).model_json_schema()) == []


def test_a_map_that_is_closed_to_unknown_fields_is_narrower_than_an_open_one():
    class Open(BaseModel):
        n: int = 0

    class Closed(BaseModel):
        model_config = ConfigDict(extra="forbid")
        n: int = 0

    assert incompatibilities(Open.model_json_schema(), Closed.model_json_schema()) == ["/*: was anything, is nothing"]
    assert incompatibilities(Closed.model_json_schema(), Open.model_json_schema()) == []


def test_words_for_people_may_change():
    assert (
        incompatibilities({"type": "string", "title": "A"}, {"type": "string", "title": "B", "description": "x"}) == []
    )


def test_a_keyword_it_does_not_know_counts_when_it_changes():
    assert incompatibilities({"type": "array"}, {"type": "array", "contains": {"type": "integer"}}) == [
        "/: contains changed"
    ]
