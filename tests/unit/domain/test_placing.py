"""The log says where a setting is carried out, whatever a version of the program makes of its value."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.domain import history, placing, writes
from controlplane.domain.fold import State, fold
from controlplane.domain.requests import as_request
from controlplane.runtime.catalogue import Catalogue
from reconcilers.registry import SERVICES
from schemas.names import Key, parse_key

CATALOGUE = Catalogue(SERVICES)
KINDS = CATALOGUE.value_models()
CARTS = Key("default", "cache.namespace", "carts")
VALUE = {"prefix": "cart:", "layers": [{"target": "near", "ttl_s": 60}]}


def folded(*changes: dict[str, Any]) -> State:
    state = State()
    for offset, change in enumerate(changes):
        record = {"v": 1, "request_id": f"r{offset}", "actor": "ann", "at": "t", "changes": [change]}
        assert fold(state, offset, as_request(offset, record)).accepted
    return state


def declared(key: Key = CARTS, value: Any = VALUE, state: State | None = None, **more: Any) -> dict[str, Any]:
    entry = None if state is None else state.entries.get(str(key))
    return writes.declare(key, {"value": value, **more}, entry, KINDS)


def unplaced() -> dict[str, Any]:
    """As an earlier version stored it."""
    change = declared()
    return {**change, "body": placing.declared(change["body"])}


@pytest.mark.parametrize(
    ("key", "value", "target"),
    [
        (CARTS, VALUE, "near"),
        (Key("default", "cache.target", "near"), {"kind": "redis", "url": "redis://127.0.0.1"}, "near"),
        (Key("default", "cache.redis_config", "shop"), {"target": "far", "parameters": {"maxmemory": "1mb"}}, "far"),
    ],
)
def test_a_declaration_is_stored_with_its_target(key: Key, value: Any, target: str):
    assert declared(key, value)["body"]["target"] == target


def test_the_recorded_target_counts_and_not_what_this_version_would_make_of_the_value():
    change = declared()
    moved = {**change, "body": {**change["body"], "target": "elsewhere"}}
    entry = folded(moved).entries[str(CARTS)]
    assert CATALOGUE.target_of(parse_key(entry.key), entry.body).target == "elsewhere"
    assert Catalogue(SERVICES).resolve(entry).target.target == "elsewhere"


def test_a_setting_of_an_unknown_service_is_placed_by_what_was_recorded():
    body = {"value": {"somewhere": "else"}, "target": "t7"}
    assert CATALOGUE.target_of(Key("default", "later.thing", "x"), body).target == "t7"


def test_what_was_stored_without_a_target_is_placed_by_its_value_and_stays_unchanged_when_declared_again():
    state = folded(unplaced())
    entry = state.entries[str(CARTS)]
    assert CATALOGUE.target_of(CARTS, entry.body).target == "near"
    again = writes.declare(CARTS, {"value": VALUE}, entry, KINDS)
    assert again["body"] == entry.body
    changed = writes.declare(CARTS, {"value": {**VALUE, "prefix": "c:"}}, entry, KINDS)
    assert changed["body"]["target"] == "near"


def test_people_see_what_they_declared_and_nothing_of_the_record():
    change = declared(labels={"app": "shop"})
    record = {"v": 1, "request_id": "r", "actor": "ann", "at": "t", "changes": [change]}
    (row,) = history.history(str(CARTS), [(0, record)])
    assert "/target" not in row["changed"]
    assert "/labels/app" in row["changed"]
