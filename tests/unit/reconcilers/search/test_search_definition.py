"""Definitions of indices, what differs, and which changes the server's word isn't enough for."""

from __future__ import annotations

from typing import Any

import pytest

from reconcilers.search.changes import classified, indexing_components
from reconcilers.search.definition import (
    Body,
    carried,
    changed_settings,
    definition,
    differences,
    flattened,
    new_fields,
    same_setting,
)
from reconcilers.search.generations import Generation, Mark, generation, mark_of, marked, number_of
from reconcilers.search.model import Verdict
from schemas.search import Index


def body(settings: Any = None, mappings: Any = None) -> Body:
    return Body(settings or {}, mappings or {}, {})


def held(settings: Any = None, mappings: Any = None) -> Generation:
    return Generation("i-g1-00000000", 1, settings or {}, mappings or {}, {"i": {}})


def test_settings_in_every_spelling_are_one() -> None:
    spellings = [{"refresh_interval": "1s"}, {"index": {"refresh_interval": "1s"}}, {"index.refresh_interval": "1s"}]
    found = [definition("i", Index.model_validate({"target": "t", "settings": one})).body.settings for one in spellings]
    assert found == [{"index.refresh_interval": "1s"}] * 3
    assert flattened({"a": {"b": [1], "c": {}}}) == {"a.b": [1]}


def test_a_preset_is_spelled_out_and_gives_way() -> None:
    value = Index.model_validate({"target": "t", "tuning": "ingest", "settings": {"refresh_interval": "2s"}})
    found = definition("i", value)
    assert found.body.settings["index.refresh_interval"] == "2s"
    assert found.body.settings["index.translog.durability"] == "async"
    assert "translog.durability=async" in found.notes[0]


@pytest.mark.parametrize(
    ("name", "one", "other", "same"),
    [
        ("index.number_of_replicas", 1, "1", True),
        ("index.analysis.analyzer.a.filter", "lowercase", ["lowercase"], True),
        ("index.blocks.write", True, "true", True),
        ("index.refresh_interval", "1000ms", "1s", False),
        ("index.refresh_interval", None, None, True),
    ],
)
def test_values_of_settings(name: str, one: Any, other: Any, same: bool) -> None:
    assert same_setting(name, one, other) is same


def test_too_much_in_a_component_of_the_analysis_is_taken_away() -> None:
    wanted = {"index.analysis.filter.s.type": "stop"}
    have = {**wanted, "index.analysis.filter.s.ignore_case": "true", "index.analysis.filter.other.type": "stop"}
    assert changed_settings(wanted, have) == {"index.analysis.filter.s.ignore_case": None}


def test_a_declared_field_is_owned_whole_and_others_not_at_all() -> None:
    wanted = {"properties": {"a": {"type": "text"}}}
    more = {"properties": {"a": {"type": "text", "fields": {"x": {"type": "keyword"}}}, "dynamic": {"type": "long"}}}
    assert differences(body(mappings=wanted), {}, more, {}) == ()
    other = {"properties": {"a": {"type": "text", "index": False}}}
    assert [one.path for one in differences(body(mappings=wanted), {}, other, {})] == ["/mappings/properties/a"]


def test_the_mark_is_no_difference() -> None:
    wanted = {"_meta": {"owner": "shop"}}
    assert differences(body(mappings=wanted), {}, {"_meta": marked({"owner": "shop"}, Mark("old"))}, {}) == ()
    assert mark_of({"_meta": marked(None, Mark("old", checkpoints={"0": 3}))}) == Mark("old", checkpoints={"0": 3})
    assert mark_of({"_meta": {"coreplane": {"phase": "unheard of"}}}) is None


def test_fields_that_nobody_declared_are_taken_over() -> None:
    old = {"properties": {"a": {"type": "text", "fields": {"s": {"type": "completion"}}}, "dyn": {"type": "long"}}}
    wanted = {"properties": {"a": {"type": "keyword"}}}
    assert carried(wanted, old) == {
        "properties": {"a": {"type": "keyword", "fields": {"s": {"type": "completion"}}}, "dyn": {"type": "long"}}
    }
    nested = {"properties": {"a": {"properties": {"b": {"type": "long"}}}}}
    assert carried(wanted, nested) == {"properties": {"a": {"type": "keyword"}}}


def test_new_fields_are_those_that_old_documents_lack() -> None:
    have = {"properties": {"a": {"type": "text"}}}
    wanted = {"properties": {"a": {"type": "text", "fields": {"k": {"type": "keyword"}}}, "b": {"type": "long"}}}
    assert new_fields(wanted, have) == ("/properties/a/fields/k", "/properties/b")


CHAIN = {
    "index.analysis.analyzer.stored.tokenizer": "standard",
    "index.analysis.analyzer.stored.filter": ["both"],
    "index.analysis.analyzer.asked.filter": ["both", "synonyms"],
    "index.analysis.filter.both.type": "multiplexer",
    "index.analysis.filter.both.filters": ["deep", "lowercase, other"],
}
FIELDS = {"properties": {"t": {"type": "text", "analyzer": "stored", "search_analyzer": "asked"}}}


def test_what_indexing_goes_through_is_found_through_every_reference() -> None:
    found = indexing_components(CHAIN, FIELDS)
    assert {("analyzer", "stored"), ("filter", "both"), ("filter", "deep"), ("filter", "other")} <= found
    assert ("analyzer", "asked") not in found
    assert ("filter", "synonyms") not in found


@pytest.mark.parametrize(
    ("setting", "how", "expected"),
    [
        ("index.refresh_interval", "in_place", "in_place"),
        ("index.codec", "reopen", "reopen"),
        ("index.number_of_shards", "final setting", "migrate"),
        ("index.number_of_routing_shards", "reopen", "migrate"),
        ("index.analysis.filter.deep.type", "reopen", "migrate"),
        ("index.analysis.filter.synonyms.type", "reopen", "reopen"),
    ],
)
def test_the_servers_word_and_the_guards(setting: str, how: str, expected: str) -> None:
    changes = classified(body({setting: "new"}), held(CHAIN, FIELDS), Verdict(settings={setting: how}))
    found = {"in_place": changes.settings, "reopen": changes.reopen, "migrate": changes.migrate}
    assert [name for name, part in found.items() if part] == [expected]


def test_losing_the_source_is_refused() -> None:
    changes = classified(body(mappings={"_source": {"enabled": False}}), held(), Verdict())
    assert changes.refused is not None
    assert changes.refused.reason == "DataLoss"


@pytest.mark.parametrize(
    ("index", "number"),
    [("shop", 0), ("shop-g7-0a1b2c3d", 7), ("shop-games", None), ("shop-g7-xyz", None), ("myshop-g1-00000000", None)],
)
def test_names_of_generations(index: str, number: int | None) -> None:
    assert number_of("shop", index) == number
    found = generation("shop", index, {"aliases": {}})
    assert (found is None) is (number is None)
