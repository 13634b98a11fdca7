"""What a document becomes in Elasticsearch, and what comes back: nothing is lost on the way, and everything has its day."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.status import Condition, KeyStatus, LastAction, to_wire
from controlplane.log.codec import encode
from controlplane.log.ports import Entry, Stream
from controlplane.projection import elasticsearch_address, elasticsearch_layout, elasticsearch_questions
from controlplane.projection.documents import documents, event_document, metric_document
from controlplane.projection.elasticsearch_layout import (
    Names,
    day_of,
    event_action,
    event_of,
    generation_of,
    status_action,
    status_of,
)
from schemas.names import timestamp

NAMES = Names("cp", 3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def event(**fields):
    return {
        "id": "one",
        "event_type": "Converged",
        "timestamp": timestamp(1_767_225_600),
        "service_name": "cache",
        "details": {},
        "status": "info",
        "tenant": "acme",
        **fields,
    }


def stored(record):
    return msgspec.json.decode(event_action(NAMES, event_document(record)).source)


@given(
    details=st.dictionaries(st.text(), JSON, max_size=4), more=st.dictionaries(st.text(min_size=1), JSON, max_size=3)
)
def test_any_event_comes_back_as_it_was(details, more):
    record = {**more, **event(details=details)}
    try:
        source = stored(record)
    except UnicodeEncodeError:
        return  # half a character is no text: such a record is put aside
    assert event_of(source) == record


@pytest.mark.parametrize(
    "fields",
    [
        {"timestamp": "2026-01-01T02:00:00+02:00"},
        {"generation": 2**70, "revision": "seven", "shard": 3, "correlation_id": 5},
        {"setting": None, "actor": None, "of_a_newer_writer": [1, {"a": None}]},
        {"details": {"a\0b": 1, "": 2}},
    ],
)
def test_what_has_no_field_of_its_own_is_kept_all_the_same(fields):
    record = event(**fields)
    assert event_of(stored(record)) == record
    allowed = elasticsearch_layout.templates("cp")["cp-events"]["template"]["mappings"]["properties"]
    assert set(stored(record)) <= set(allowed), "mappings are strict"


def test_names_that_cannot_be_indexed_are_not_indexed():
    assert "details" in stored(event(details={"a.b": {"c": 1}}))
    assert "details" not in stored(event(details={"deep": [{"a\0b": 1}]}))
    assert "details" not in stored(event(details={"x" * 9000: 1}))


@given(at_us=st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_a_document_lies_in_the_index_of_its_own_day(at_us):
    index = NAMES.of_day("events", at_us)
    begin, end = day_of(index)
    assert begin <= at_us < end
    assert generation_of(index) == 3
    assert NAMES.alias_of(index) == "cp-events"


def test_names_of_others_are_not_ours():
    assert generation_of("cp-events") is None
    assert day_of(NAMES.meta) is None
    assert NAMES.alias_of(NAMES.dead_letters) == "cp-deadletters"


@given(desired=JSON, observed=JSON)
def test_any_status_comes_back_as_it_was(desired, observed):
    status = KeyStatus(
        "acme/cache.redis_user/app",
        revision=3,
        conditions=(Condition("Ready", "False", "Drifted", "differs", timestamp(0)),),
        drift=(("/a", desired, observed),),
        last_action=LastAction("SetUser", "failed", timestamp(0), 2),
    )
    try:
        (document,) = documents([Entry(Stream.STATUS, 1, 4, status.key, encode(to_wire(status)))]).statuses
        action = status_action(NAMES, document)
    except (UnicodeEncodeError, OverflowError):
        return  # half a character is no text, and msgpack has an end of numbers
    source = msgspec.json.decode(action.source)
    assert status_of({name: source[name] for name in source if name != "text"}) == msgspec.json.decode(document.body)
    allowed = elasticsearch_layout.templates("cp")["cp-status"]["template"]["mappings"]["properties"]
    assert set(source) <= set(allowed), "mappings are strict"


def test_a_status_replaces_what_is_older_and_a_tombstone_deletes_it():
    known = encode(to_wire(KeyStatus("acme/cache.redis_user/app")))
    entries = [
        Entry(Stream.STATUS, 1, 4, "acme/cache.redis_user/app", known),
        Entry(Stream.STATUS, 1, 7, "a/b.c/d", None),
    ]
    index, delete = (status_action(NAMES, one).line.split(b"\n") for one in documents(entries).statuses)
    head = {"_index": "cp-status-g3", "version_type": "external"}
    assert msgspec.json.decode(index[0]) == {"index": {**head, "_id": "1/acme/cache.redis_user/app", "version": 5}}
    assert msgspec.json.decode(delete[0]) == {"delete": {**head, "_id": "1/a/b.c/d", "version": 8}}
    assert (len(index), delete[1:]) == (3, [b""])
    assert generation_of(NAMES.statuses) == 3
    assert NAMES.alias_of(NAMES.statuses) == "cp-status"
    assert day_of(NAMES.statuses) is None, "no retention takes it"


def test_a_metric_comes_back_with_its_tags_in_order():
    metric = {
        "id": "m",
        "metric_type": "keys",
        "timestamp": timestamp(1_767_225_600),
        "service_name": "cache",
        "value": 1.5,
        "tags": {"b": "2", "a": "1"},
        "tenant": "acme",
        "unit": "1",
    }
    source = msgspec.json.decode(elasticsearch_layout.metric_action(NAMES, metric_document(metric)).source)
    assert elasticsearch_layout.metric_of(source) == metric


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://es:9200", ("http://es:9200", "coreplane")),
        ("http://es", ("http://es:9200", "coreplane")),
        ("https://es.example/path/?prefix=shop", ("https://es.example:443/path", "shop")),
    ],
)
def test_an_address_is_read(url, expected):
    address = elasticsearch_address.parse(url)
    assert (address.url, address.prefix) == expected


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://", "names a host"),
        ("http://a:x", "port"),
        ("http://me:secret@a:1", "projection.username"),
        ("http://a:1?prefix=Bad", "prefix of small letters"),
        ("http://a:1?index=x", "no options but prefix and ca_file"),
    ],
)
def test_an_address_that_is_wrong_is_refused_without_showing_a_password(url, said):
    with pytest.raises(ValueError, match=said) as caught:
        elasticsearch_address.parse(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, []),
        ("--- *", []),
        ("Größe", [{"match_phrase": {"text": "Größe"}}]),
        ("Größ*", [{"prefix": {"text": "groß"}}]),
        ("a.b*", [{"match_phrase_prefix": {"text": {"query": "a.b", "max_expansions": 1000}}}]),
    ],
)
def test_words_become_phrases_and_beginnings(text, expected):
    assert elasticsearch_questions.words(text) == expected
