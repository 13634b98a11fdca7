"""Names that are free, values that are sound, and why some objects are left out."""

from __future__ import annotations

from dataclasses import replace

from controlplane.runtime.imported import Known, imported
from reconcilers.cache.reconciler import REDIS_USER, SERVICE
from reconcilers.contract import Discovered, ExternalId

NOTHING = Known("default", "main", {}, frozenset())


def users(*found, known=NOTHING, kind=REDIS_USER):
    return imported([(kind, one) for one in found], known)


def test_what_is_found_becomes_a_declaration_at_its_target():
    answer = users(Discovered("app", {"keys": ["app:*"]}, {"/passwords": "name it"})).document()
    assert answer["settings"] == [
        {"type": "cache.redis_user", "name": "app", "value": {"target": "main", "keys": ["app:*"]}}
    ]
    assert answer["fill_in"] == [
        {"setting": "default/cache.redis_user/app", "path": "/value/passwords", "message": "name it"}
    ]


def test_what_is_declared_already_is_set_apart():
    owners = {ExternalId("cache.redis_user", "app"): "default/cache.redis_user/web"}
    answer = users(Discovered("app", {}), known=replace(NOTHING, owners=owners)).document()
    assert answer["settings"] == []
    assert answer["declared"] == [
        {"type": "cache.redis_user", "external": "app", "setting": "default/cache.redis_user/web"}
    ]


def test_a_name_that_is_taken_gets_a_number_and_the_value_says_who_is_meant():
    known = replace(NOTHING, keys=frozenset({"default/cache.redis_user/app", "default/cache.redis_user/app-2"}))
    answer = users(Discovered("app", {}), known=known).document()
    assert answer["settings"] == [
        {"type": "cache.redis_user", "name": "app-3", "value": {"target": "main", "username": "app"}}
    ]


def test_two_objects_never_get_one_name():
    answer = users(Discovered("a-b", {"username": "a:b"}), Discovered("a-b", {"username": "a/b"})).document()
    assert [(one["name"], one["value"]["username"]) for one in answer["settings"]] == [("a-b", "a:b"), ("a-b-2", "a/b")]


def test_an_object_that_cant_be_named_otherwise_is_left_out():
    known = replace(NOTHING, keys=frozenset({"default/cache.redis_user/app"}))
    answer = users(Discovered("app", {}), known=known, kind=replace(REDIS_USER, named_by=None)).document()
    assert (answer["settings"], len(answer["skipped"])) == ([], 1)


def test_what_has_no_words_or_isnt_sound_is_left_out_with_the_reason():
    answer = users(Discovered("a", {}, undeclarable="no word"), Discovered("b", {"keys": "no list"})).document()
    assert [(one["name"], one["reason"].split(":")[0]) for one in answer["skipped"]] == [
        ("a", "no word"),
        ("b", "/keys"),
    ]


def test_what_is_dropped_later_leaves_nothing_to_fill_in():
    answer = users(Discovered("app", {}, {"/passwords": "name it"}))
    answer.drop("default/cache.redis_user/app", "it would be changed")
    assert answer.document() == {
        "settings": [],
        "fill_in": [],
        "skipped": [{"type": "cache.redis_user", "name": "app", "reason": "it would be changed"}],
        "declared": [],
    }


def test_every_format_has_a_name_of_its_own():
    assert len({one.name for one in SERVICE.formats}) == len(SERVICE.formats)
