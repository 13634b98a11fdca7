"""Journal records become documents or dead letters; nothing vanishes."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.status import Condition, KeyStatus, public, to_wire
from controlplane.log import codec
from controlplane.log.ports import Entry, Place, Stream
from controlplane.projection.documents import Batch, documents, positions_after, rfc3339
from schemas.names import parse_timestamp, timestamp

EVENT = {
    "id": "e1",
    "event_type": "ActionSucceeded",
    "timestamp": "2026-01-02T03:04:05.000006Z",
    "service_name": "cache",
    "details": {"step": "SetUser", "reasons": ["Größe", {"limit": 12}]},
    "status": "succeeded",
    "tenant": "acme",
    "setting": "acme/cache.redis_user/app",
    "actor": "ann",
    "revision": 7,
}
METRIC = {
    "id": "m1",
    "metric_type": "used_memory_bytes",
    "timestamp": "2026-01-02T03:04:05.000006Z",
    "service_name": "cache",
    "value": 12,
    "tags": {"target": "main", "node": "a"},
    "tenant": "acme",
}


def entry(record, stream=Stream.EVENTS, offset=0):
    data = record if record is None or isinstance(record, bytes) else codec.encode(record)
    return Entry(stream, 3, offset, "acme/cache.redis_user/app", data)


def test_an_event_becomes_a_document_that_keeps_everything():
    batch = documents([entry({**EVENT, "colour": "of a newer writer"})])
    (document,) = batch.events
    assert json.loads(document.body) == {**EVENT, "colour": "of a newer writer"}
    assert (document.tenant, document.event_type, document.status) == ("acme", "ActionSucceeded", "succeeded")
    assert rfc3339(document.at_us) == EVENT["timestamp"]
    assert document.text.split() == [
        *("ActionSucceeded", "acme/cache.redis_user/app", "ann", "step", "reasons", "SetUser", "Größe", "limit", "12")
    ]


def test_an_unknown_event_type_of_a_newer_writer_is_no_reason_to_refuse():
    assert documents([entry({**EVENT, "event_type": "PigsFlew", "status": "levitating"})]).events


def test_a_metric_becomes_a_document_with_sorted_tags_and_what_it_has_more():
    (document,) = documents([entry({**METRIC, "unit": "B"}, Stream.METRICS)]).metrics
    assert (document.value, document.tags, document.extra) == (12.0, '{"node":"a","target":"main"}', '{"unit":"B"}')


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"id": None}, "id is None"),
        ({"tenant": ""}, "tenant is ''"),
        ({"timestamp": "yesterday"}, "timestamp is 'yesterday'"),
        ({"timestamp": "2026-01-02T03:04:05"}, "not a time with an offset"),
        ({"details": "text"}, "details is a str"),
        ({"details": {"raw": b"\x00"}}, "not JSON"),
        ({"details": {"share": math.nan}}, "not JSON"),
        ({"setting": 7}, "setting is 7"),
    ],
)
def test_an_event_that_is_none_becomes_a_dead_letter_that_says_why(changed, reason):
    batch = documents([entry({**EVENT, **changed}, offset=9)])
    (letter,) = batch.dead_letters
    assert reason in letter.reason
    assert (letter.stream, letter.shard, letter.offset) == ("events", 3, 9)
    assert codec.decode(letter.data)["event_type"] == "ActionSucceeded"
    assert not batch.events


@pytest.mark.parametrize("value", [None, True, "12", math.nan, math.inf])
def test_a_metric_without_a_finite_number_becomes_a_dead_letter(value):
    batch = documents([entry({**METRIC, "value": value}, Stream.METRICS)])
    assert not batch.metrics
    assert "not a finite number" in batch.dead_letters[0].reason


@pytest.mark.parametrize("data", [None, b"", b"\xc1", b"\x93\x01\x02\x03", codec.encode(EVENT) + b"x"])
def test_undecodable_bytes_become_a_dead_letter_beside_their_sound_neighbours(data):
    batch = documents([entry(EVENT), entry(data, offset=1), entry({**EVENT, "id": "e2"}, offset=2)])
    assert [document.id for document in batch.events] == ["e1", "e2"]
    assert [letter.offset for letter in batch.dead_letters] == [1]


@pytest.mark.parametrize("name", ["details", "of_a_newer_writer"])
def test_what_is_nested_too_deeply_to_be_read_back_becomes_a_dead_letter(name):
    nested = {}
    for _ in range(400):
        nested = {"a": nested}
    batch = documents([entry({**EVENT, name: nested})])
    assert "nested deeper" in batch.dead_letters[0].reason


def test_positions_are_one_past_the_last_record_of_each_place():
    entries = [entry(EVENT, offset=4), entry(METRIC, Stream.METRICS, 2), entry(EVENT, offset=9)]
    assert positions_after(entries) == {Place(Stream.EVENTS, 3): 10, Place(Stream.METRICS, 3): 3}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.lists(
        st.binary(max_size=40)
        | st.dictionaries(st.sampled_from(sorted({*EVENT, *METRIC})), json_values).map(codec.encode)
        | st.tuples(st.sampled_from([EVENT, METRIC]), st.dictionaries(st.sampled_from(sorted(EVENT)), json_values)).map(
            lambda pair: codec.encode({**pair[0], **pair[1]})
        )
    ),
    st.sampled_from([Stream.EVENTS, Stream.METRICS]),
)
def test_every_record_whatever_it_holds_becomes_exactly_one_document_or_dead_letter(records, stream):
    batch = documents([entry(data, stream, offset) for offset, data in enumerate(records)])
    assert sum(map(len, batch)) == len(records)
    for document in batch.events:
        json.loads(document.body)


@given(st.floats(min_value=0, max_value=4e9))
def test_a_time_survives_the_way_through_microseconds(instant):
    text = timestamp(instant)
    (document,) = documents([entry({**EVENT, "timestamp": text})]).events
    assert rfc3339(document.at_us) == text
    assert document.at_us == round(parse_timestamp(text) * 1_000_000)


STATUS = KeyStatus(
    "acme/cache.redis_user/app",
    revision=7,
    conditions=(Condition("Ready", "False", "SecretNotFound", "no variable X", "2026-01-02T03:04:05Z"),),
    drift=(("/keys/0", {"a": [1, None]}, "app:*"),),
    remembered=(("fingerprint", "for the next owner"),),
)


def stated(offset, key=STATUS.key, *, shard=3, **fields):
    return Entry(Stream.STATUS, shard, offset, key, codec.encode({**to_wire(STATUS), "key": key, **fields}))


def test_a_status_becomes_a_document_without_what_only_a_takeover_needs():
    (document,) = documents([stated(41, of_a_newer_writer=1)]).statuses
    assert (document.id, document.version, document.revision) == ("3/acme/cache.redis_user/app", 42, 7)
    assert (document.tenant, document.service_name, document.phase) == ("acme", "cache", "Pending")
    assert (list(document.conditions), list(document.reasons)) == (["Ready=False"], ["SecretNotFound"])
    assert document.text.split() == [
        *("acme/cache.redis_user/app", "SecretNotFound", "no", "variable", "X", "/keys/0", "a", "1", "app:*")
    ]
    told = json.loads(document.body)
    assert told == {
        **public(STATUS),
        **{name: told[name] for name in ("setting", "tenant", "setting_type", "name")},
    } | {
        "service_name": "cache",
        "revision": 7,
    }
    assert "for the next owner" not in document.body


def test_of_the_statuses_of_one_setting_in_one_shard_only_the_newest_goes_out():
    tombstone = Entry(Stream.STATUS, 3, 9, "acme/cache.redis_user/old", None)
    entries = [stated(5), stated(6, "acme/cache.redis_user/old"), stated(8), tombstone, stated(2, shard=1)]
    found = {(one.id, one.version): one.body is None for one in documents([*entries, stated(5)]).statuses}
    assert found == {
        ("3/acme/cache.redis_user/app", 9): False,
        ("3/acme/cache.redis_user/old", 10): True,
        ("1/acme/cache.redis_user/app", 3): False,
    }


def test_a_shards_own_records_are_nothing_to_project():
    entries = [Entry(Stream.STATUS, 0, 1, "#settings", b"anything"), Entry(Stream.STATUS, 0, 2, "#taken", None)]
    assert documents(entries) == Batch([], [], [], [])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Entry(Stream.STATUS, 0, 1, "acme/cache.redis_user/app", b"\xc1"), "not a msgpack map"),
        (Entry(Stream.STATUS, 0, 1, "nobody", None), "not a setting's"),
        (stated(1, conditions=7), "not iterable"),
        (stated(1, revision="newest"), "not a number"),
        (Entry(Stream.STATUS, 0, 1, "acme/cache.redis_user/b", codec.encode(to_wire(STATUS))), "it is of"),
        (stated(1, drift=[{"path": "/a", "desired": b"raw", "observed": 1}]), "not JSON"),
    ],
)
def test_a_status_that_is_none_becomes_a_dead_letter_that_says_why(record, reason):
    (letter,) = documents([record]).dead_letters
    assert reason in letter.reason
    assert (letter.stream, letter.offset) == ("status", 1)


@given(st.dictionaries(st.sampled_from(sorted(to_wire(STATUS))), json_values))
def test_a_status_of_any_content_becomes_a_document_or_a_dead_letter(fields):
    record = Entry(Stream.STATUS, 0, 1, STATUS.key, codec.encode({**to_wire(STATUS), **fields}))
    batch = documents([record])
    assert len(batch.statuses) + len(batch.dead_letters) == 1
