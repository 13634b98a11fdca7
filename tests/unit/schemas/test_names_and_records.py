"""Spelling of keys and times; what a change request and a secret reference may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from schemas.names import Key, event_id, parse_key, parse_timestamp, setting_id, timestamp
from schemas.record import ChangeRequest
from schemas.secret import SecretRef, references_in

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)
TYPES = st.from_regex(r"(cache|queue|mesh)\.[a-z][a-z0-9_]{0,20}", fullmatch=True)


@given(NAMES, TYPES, NAMES)
def test_a_key_reads_back_as_it_was_written(tenant: str, setting_type: str, name: str):
    key = Key(tenant, setting_type, name)
    assert parse_key(str(key)) == key
    assert key.reference == f"{setting_type}/{name}"
    assert setting_type.startswith(key.service + ".")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "default/cache.target",
        "default/cache.target/a/b",
        "/cache.target/a",
        "default/nothing.target/a",
        "default/cache.Target/a",
        "default/cache.target/-a",
        "default/cache.target/a b",
        "default/cache.target/a\n",
        "default\n/cache.target/a",
        "default/cache.target/" + "a" * 129,
    ],
)
def test_what_is_not_a_key_is_refused(text: str):
    with pytest.raises(ValueError, match="is not a key"):
        parse_key(text)


def test_ids_that_were_published_stay_what_they_are():
    assert setting_id("default/cache.target/redis") == "f71bc050-b205-542b-9023-be53ecc91267"
    assert event_id("incarnation", 7) == "6fed603b-fd6a-520d-aa13-7e9c6d921386"


@given(st.floats(0, 4_000_000_000), st.floats(0, 4_000_000_000))
def test_the_order_of_timestamps_as_text_is_the_order_of_time(one: float, other: float):
    early, late = sorted((one, other))
    assert timestamp(early) <= timestamp(late)
    assert abs(parse_timestamp(timestamp(one)) - one) < 1e-5


def test_a_time_without_a_zone_is_refused_with_advice():
    with pytest.raises(ValueError, match="2026-01-31T12:00:00Z"):
        parse_timestamp("2026-01-31T12:00:00")


def request(**change: object) -> dict[str, object]:
    return {"v": 1, "request_id": "r", "actor": "ann", "at": "2026-01-31T12:00:00Z", "changes": [change]}


@pytest.mark.parametrize(
    "change",
    [
        {"op": "declare", "key": "k"},
        {"op": "retire", "key": "k", "body": {"value": {}}},
        {"op": "merge", "key": "k"},
        {"op": "forget", "key": "k", "expected": -1},
        {"op": "retire", "key": "k", "deletion": "archive"},
    ],
)
def test_a_change_that_says_two_things_or_none_is_refused(change: dict[str, object]):
    with pytest.raises(ValidationError):
        ChangeRequest.model_validate(request(**change))


def test_a_change_request_changes_something_and_names_its_version():
    with pytest.raises(ValidationError):
        ChangeRequest.model_validate({**request(), "changes": []})
    with pytest.raises(ValidationError):
        ChangeRequest.model_validate({**request(op="forget", key="k"), "v": 2})


@pytest.mark.parametrize(
    "value", [{}, {"from_env": "A", "from_file": "/a"}, {"from_env": ""}, {"from_vault": "x"}, "pw"]
)
def test_a_secret_reference_is_exactly_one_place(value: object):
    with pytest.raises(ValidationError):
        SecretRef.model_validate(value)


def test_references_are_found_wherever_they_stand():
    class Value(BaseModel):
        one: SecretRef
        many: dict[str, list[SecretRef]]
        text: str = "x"

    places = [SecretRef(from_env=name) for name in "abc"]
    value = Value(one=places[0], many={"x": [places[1]], "y": [places[2]]})
    assert list(references_in(value)) == places
    assert list(references_in({"values": [value]})) == places
    assert str(places[0]) == "from_env: a"
