from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.documents import parse_json, parse_yaml, yaml_text
from controlplane.domain.documents import document_of
from controlplane.domain.errors import Refused

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    (
        "yes",
        "off",
        "null",
        "~",
        "2026-01-31",
        "12:30:45",
        "0x1f",
        "0123",
        "1e3",
        ".inf",
        "<<",
        "=",
        "- a",
        "#",
        "&a",
        "*a",
        "!x",
    )
)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=20,
)


@given(st.lists(_values.filter(lambda value: value is not None), max_size=3))
def test_yaml_that_was_written_reads_back_the_same(documents: list[Any]) -> None:
    assert parse_yaml(yaml_text(documents).encode()) == documents


@given(_values)
def test_json_that_was_written_reads_back_the_same(value: Any) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@given(st.binary(max_size=300) | st.text("[]{}:-,&*a1 \n\"'|>!?%", max_size=100).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for parse in (parse_json, parse_yaml):
        with suppress(Refused):
            parse(data)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1,\n "b" 2}', "line 2"),
        ('{"a": 1, "a": 2}', "'a' appears twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ("[" * 100_000, "nested too deeply"),
        ("\ufeff", "not JSON"),
    ],
)
def test_the_refusal_of_json_says_where_and_why(text: str, said: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_json(text.encode())
    assert said in refused.value.detail


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: [", "line 3"),
        ("a: 1\nb: 2\na: 3", "line 3: the name 'a' appears twice"),
        ("- {a: {b: 1, b: 2}}", "'b' appears twice"),
        ("[" * 100_000, "nest"),  # PyYAML 6.0.4 refuses by itself, in words of its own
        ("a: !!python/name:os.system x", "could not determine a constructor"),
        ("a: &a [*a]", "aliases expand to too much"),
        ("? {a: 1}\n: b", "unhashable"),
    ],
)
def test_the_refusal_of_yaml_says_where_and_why(text: str, said: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_yaml(text.encode())
    assert said in refused.value.detail


def test_a_byte_that_is_not_utf8_is_named() -> None:
    with pytest.raises(Refused) as refused:
        parse_json(b'{"a": "\xff"}')
    assert "byte 7 is 0xff" in refused.value.detail


def test_a_document_may_be_a_declaration_a_list_or_an_apply() -> None:
    one, two, three = ({"type": "t", "name": name, "value": {}} for name in "abc")
    document = document_of([one, [two], {"settings": [three], "prune": {"labels": {"a": "b"}}, "reason": "r"}])
    assert (document.settings, document.prune, document.reason) == ([one, two, three], {"a": "b"}, "r")


def test_an_empty_selection_to_prune_is_kept_to_be_refused() -> None:
    assert document_of([{"settings": [], "prune": {"labels": {}}}]).prune == {}


def test_a_fault_in_one_of_several_documents_names_the_document() -> None:
    with pytest.raises(Refused) as refused:
        document_of([{"settings": []}, {"settings": [], "colour": 1}])
    assert [fault.path for fault in refused.value.faults] == ["/1/colour"]
