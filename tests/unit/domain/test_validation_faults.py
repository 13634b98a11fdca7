"""Every fault of a document at once, each with its pointer and what to do; and what is stored of a sound one."""

from __future__ import annotations

import datetime as dt
import math
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from controlplane.domain.errors import Fault
from controlplane.domain.validation import check, check_one, owned_value, stored_body, unstorable, value_faults
from controlplane.log.codec import decode, encode
from schemas.kinds import KINDS as ALL_KINDS
from schemas.secret import SecretRef
from schemas.setting import Declaration


class Layer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    target: str
    ttl_s: Annotated[float, Field(gt=0)] = 1


class Value(BaseModel):
    model_config = ConfigDict(extra="forbid")
    target: str
    size: int | Literal["auto"] = "auto"
    mode: Literal["fast", "safe"] = "safe"
    password: SecretRef | None = None
    layers: list[Layer] = []
    on: bool = True
    tags: dict[str, str] = {}


KINDS = {"cache.thing": Value, "cache.target": Value}


def document(**more: Any) -> dict[str, Any]:
    return {"type": "cache.thing", "name": "a", "value": {"target": "redis"}, **more}


def faults(doc: Any, prefix: str = "") -> dict[str, str]:
    return {fault.path: fault.message for fault in check_one(doc, KINDS, prefix)[1]}


def of_value(**value: Any) -> dict[str, str]:
    return faults(document(value={"target": "redis", **value}))


def test_a_sound_document_has_no_faults():
    declaration, found = check_one(document(labels={"team": "shop"}, policy={"protect": True}), KINDS)
    assert found == []
    assert isinstance(declaration, Declaration)


def test_all_faults_of_all_declarations_come_at_once_with_their_pointers():
    sound, found = check(
        [
            document(),
            document(name="-", value={"target": 1, "layers": [{"target": "x"}, {"ttl_s": 0}], "on": "perhaps"}),
            document(name="b", valeu={}, policy={"drift": "ignore", "protekt": True}, labels={"a b": "x", "c": 1}),
        ],
        KINDS,
        "/settings",
    )
    assert [declaration.name for declaration in sound] == ["a"]
    assert {fault.path for fault in found} == {
        "/settings/1/name",
        "/settings/1/value/target",
        "/settings/1/value/layers/1/target",
        "/settings/1/value/layers/1/ttl_s",
        "/settings/1/value/on",
        "/settings/2/valeu",
        "/settings/2/policy/drift",
        "/settings/2/policy/protekt",
        "/settings/2/labels/a b",
        "/settings/2/labels/c",
    }


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        ({"sise": 1}, "/value/sise", "unknown field 'sise'; did you mean 'size'?"),
        ({"zzz": 1}, "/value/zzz", "unknown field 'zzz'"),
        ({"layers": [{"target": "x", "ttl": 1}]}, "/value/layers/0/ttl", "unknown field 'ttl'; did you mean 'ttl_s'?"),
        ({"layers": [{}]}, "/value/layers/0/target", "is required"),
        ({"layers": {}}, "/value/layers", "must be a list"),
        ({"layers": ["x"]}, "/value/layers/0", "must be a map"),
        ({"mode": "slow"}, "/value/mode", "must be 'fast' or 'safe'"),
        ({"size": "big"}, "/value/size", "must be a whole number, or must be 'auto'"),
        ({"layers": [{"target": "x", "ttl_s": 0}]}, "/value/layers/0/ttl_s", "must be greater than 0"),
        ({"target": 5}, "/value/target", "must be text"),
        ({"tags": {"a/b~c": 1}}, "/value/tags/a~1b~0c", "must be text"),
        ({"password": {}}, "/value/password", "give exactly one of from_env or from_file"),
        ({"password": {"from_env": ""}}, "/value/password/from_env", "must have at least 1 character"),
    ],
)
def test_a_fault_in_a_value_says_where_and_what_to_do(value: dict[str, Any], path: str, message: str):
    assert of_value(**value) == {path: message}


def test_a_list_is_called_too_short_only_when_it_is():
    class Value(BaseModel):
        items: Annotated[tuple[int, ...], Field(min_length=2)]

    kinds = {"cache.thing": Value}
    _, found = check_one(document(value={"items": [1, "x", 3]}), kinds)
    assert found == [Fault("/value/items/1", "must be a whole number")]
    _, found = check_one(document(value={"items": ["x"]}), kinds)
    assert [fault.path for fault in found] == ["/value/items/0", "/value/items"]
    assert found[1].message.startswith("must have at least 2 items")


def test_a_secret_in_the_wrong_place_is_not_repeated_in_the_message():
    for value in ({"password": "hunter2"}, {"password": ["hunter2"]}, {"size": "hunter2"}, {"on": "hunter2"}):
        assert "hunter2" not in repr(of_value(**value))
    assert "from_env" in of_value(password="hunter2")["/value/password"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cache.thimg", "unknown setting type; did you mean 'cache.thing'?; there are: cache.target, cache.thing"),
        ("nonsense", "unknown setting type; there are: cache.target, cache.thing"),
        (7, "unknown setting type; there are: cache.target, cache.thing"),
        (None, "is required, for example cache.namespace"),
    ],
)
def test_an_unknown_type_is_one_fault_that_names_the_known_ones(kind: Any, message: str):
    assert faults(document(type=kind)) == {"/type": message}


def test_what_is_missing_is_named():
    assert faults({}) == {
        "/name": "is required",
        "/type": "is required, for example cache.namespace",
        "/value": "is required",
    }


@pytest.mark.parametrize("doc", [None, 1, "x", [], ["type"]])
def test_a_document_that_is_not_a_map_is_refused(doc: Any):
    assert check_one(doc, KINDS, "/settings/0") == (
        None,
        [Fault("/settings/0", "a declaration is a map with type, name and value")],
    )


def test_a_key_declared_twice_is_refused_and_both_places_are_named():
    sound, found = check([document(), document(name="b"), document()], KINDS, "/settings")
    assert [declaration.name for declaration in sound] == ["a", "b"]
    assert found == [Fault("/settings/2/name", "cache.thing/a is declared at /settings/0 already: keep one of the two")]


def test_references_are_to_other_settings_of_known_types():
    found = faults(document(depends_on=["cache.thing/a", "cache.thinx/b", "cache.thing/b", "no reference"]))
    assert found == {"/depends_on/3": "must be a reference type/name, for example cache.target/redis"}
    found = faults(document(depends_on=["cache.thing/a", "cache.thinx/b", "cache.thing/b"]))
    assert set(found) == {"/depends_on/0", "/depends_on/1"}
    assert "itself" in found["/depends_on/0"]
    assert "did you mean 'cache.thing'" in found["/depends_on/1"]


LAYERS = [{"target": "x", "ttl_s": 5}, {"target": "y"}]


@pytest.mark.parametrize("path", ["/size", "/layers", "/layers/0/ttl_s", "/tags/a~1b"])
def test_a_declared_path_that_the_value_can_do_without_may_be_ignored(path: str):
    value = {"target": "redis", "size": 1, "layers": LAYERS, "tags": {"a/b": "c"}}
    declaration, found = check_one(document(value=value, policy={"ignore": [path]}), KINDS)
    assert found == []
    assert declaration is not None
    assert owned_value(stored_body(declaration)) != value


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nothing", "declares nothing"),
        ("/layers/7/ttl_s", "declares nothing"),
        ("/layers/0/ttl", "declares nothing"),
        ("/mode", "declares nothing"),
        ("/target", "isn't valid without it"),
        ("/layers/0/target", "isn't valid without it"),
        ("/layers/0", "element of a list"),
        ("size", "JSON pointer"),
    ],
)
def test_a_path_that_cannot_be_ignored_is_refused_with_the_reason(path: str, words: str):
    found = faults(document(value={"target": "redis", "layers": LAYERS}, policy={"ignore": [path]}))
    assert list(found) == ["/policy/ignore/0"]
    assert words in found["/policy/ignore/0"]


def test_a_field_that_is_owned_as_empty_when_left_out_cannot_be_ignored():
    value = {"target": "redis", "keys": ["app:*"], "passwords": []}
    user = {"type": "cache.redis_user", "name": "a", "value": value}
    _, (fault,) = check_one({**user, "policy": {"ignore": ["/keys"]}}, ALL_KINDS)
    assert fault.path == "/policy/ignore/0"
    assert "owned as empty" in fault.message
    assert check_one({**user, "policy": {"ignore": ["/passwords"]}}, ALL_KINDS)[1] == []


def test_paths_that_can_be_ignored_only_one_by_one_are_refused_together():
    class Either(BaseModel):
        a: int | None = None
        b: int | None = None

        def model_post_init(self, context: Any) -> None:
            if self.a is None and self.b is None:
                msg = "give a or b"
                raise ValueError(msg)

    doc = document(value={"a": 1, "b": 2}, policy={"ignore": ["/a", "/b"]})
    _, found = check_one(doc, {"cache.thing": Either})
    assert [fault.path for fault in found] == ["/policy/ignore"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, "finite"),
        (-math.inf, "finite"),
        (2**64, "too large"),
        (-(2**63) - 1, "too large"),
        ("\ud800", "Unicode"),
        (dt.date(2026, 1, 31), "quotes"),
        (b"x", "quotes"),
        ({1: "x"}, "names in a map must be text"),
        ({"\udfff": "x"}, "names in a map must be text"),
    ],
)
def test_what_the_log_cannot_hold_is_refused_before_it_gets_there(value: Any, words: str):
    found = faults(document(value={"target": "redis", "tags": [value]}))
    assert list(found) == ["/value/tags/0"]
    assert words in found["/value/tags/0"]


def test_nesting_without_end_is_refused():
    deep: Any = {}
    for _ in range(5000):
        deep = [deep]
    (fault,) = unstorable({"value": deep})
    assert "nested deeper" in fault.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_is_storable_survives_the_codec(value: Any):
    if unstorable(value) == []:
        assert decode(encode({"value": value})) == {"value": value}


@given(st.dictionaries(st.sampled_from(["type", "name", "value", "labels", "depends_on", "policy", "x"]), JSON))
def test_rubbish_gets_faults_and_never_an_exception(doc: dict[str, Any]):
    declaration, found = check_one(doc, KINDS, "/settings/0")
    assert (declaration is None) == bool(found)
    assert all(fault.path.startswith("/settings/0") and fault.message for fault in found)


def test_the_stored_body_is_what_was_written_and_no_default():
    declaration, _ = check_one(
        document(
            value={"target": "redis", "size": "12", "password": {"from_env": "X"}},
            depends_on=["cache.thing/c", "cache.thing/b", "cache.thing/c"],
            policy={"ignore": ["/size"], "deletion": None, "interval_s": 5},
        ),
        KINDS,
    )
    assert declaration is not None
    assert stored_body(declaration) == {
        "value": {"target": "redis", "size": "12", "password": {"from_env": "X"}},
        "labels": {},
        "depends_on": ["cache.thing/b", "cache.thing/c"],
        "policy": {"ignore": ["/size"], "interval_s": 5.0},
    }
    assert decode(encode(stored_body(declaration))) == stored_body(declaration)


def test_owned_is_the_value_without_what_is_ignored_and_the_body_stays_whole():
    body = {
        "value": {"size": 1, "layers": [{"target": "x", "ttl_s": 5}]},
        "policy": {"ignore": ["/layers/0/ttl_s", "/gone"]},
    }
    assert owned_value(body) == {"size": 1, "layers": [{"target": "x"}]}
    assert body["value"]["layers"] == [{"target": "x", "ttl_s": 5}]
    assert owned_value({"value": {"a": 1}}) == {"a": 1}


def test_the_body_of_an_operation_is_checked_in_the_same_words():
    assert value_faults({"target": 5, "x": 1}, Value) == [
        Fault("/target", "must be text"),
        Fault("/x", "unknown field 'x'"),
    ]
