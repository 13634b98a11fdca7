"""What every store of the projection does with events, metrics and positions; see `projection_stores`."""

import asyncio
import itertools
import statistics
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.domain.errors import Refused
from controlplane.log import codec
from controlplane.log.ports import Entry, Place, Stream
from controlplane.projection.documents import Batch, DeadLetter, documents
from controlplane.projection.ports import StoreUnavailable
from controlplane.projection.queries import Aggregate, EventFilter, MetricFilter
from schemas.names import timestamp

T0 = 1_767_225_600.0
"""2026-01-01, a multiple of every interval used here."""


_ids = itertools.count()


def event(at=0.0, **fields):
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, str(next(_ids)))),
        "event_type": "Converged",
        "timestamp": timestamp(T0 + at),
        "service_name": "cache",
        "details": {},
        "status": "info",
        "tenant": "acme",
        "setting": None,
        "actor": None,
        **fields,
    }


def metric(at=0.0, value=1.0, **fields):
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, str(next(_ids)))),
        "metric_type": "keys",
        "timestamp": timestamp(T0 + at),
        "service_name": "cache",
        "value": value,
        "tags": {"target": "main"},
        "tenant": "acme",
        **fields,
    }


def batch_of(*records):
    return documents(
        Entry(Stream.METRICS if "metric_type" in record else Stream.EVENTS, 0, offset, "key", codec.encode(record))
        for offset, record in enumerate(records)
    )


async def put(store, *records):
    await store.write(batch_of(*records), {})


async def ids(store, **wanted):
    return [item["id"] for item in (await store.events(EventFilter("acme", **wanted))).items]


# --- writing -----------------------------------------------------------------------------------------------------------


async def test_a_new_store_is_empty_and_at_no_position(store):
    assert await store.positions() == {}
    assert (await store.events(EventFilter("acme"))).items == []
    assert (await store.metrics(MetricFilter("acme"))).items == []


async def test_documents_and_positions_are_there_after_closing_and_opening(new_store):
    first = new_store()
    one = event(details={"odd": "ünïcode \u0000 \n"}, of_a_newer_writer=[1, None])
    await first.write(batch_of(one, metric()), {Place(Stream.EVENTS, 3): 17, Place(Stream.METRICS, 0): 1})
    await first.close()
    second = new_store()
    assert await second.positions() == {Place(Stream.EVENTS, 3): 17, Place(Stream.METRICS, 0): 1}
    assert (await second.events(EventFilter("acme"))).items == [one]
    await second.close()


async def test_writing_again_duplicates_nothing(store):
    records = [event(), event(details={"n": 2}), metric(), metric(5)]
    await put(store, *records, *records)
    await put(store, *records)
    await store.write(Batch(dead_letters=[DeadLetter("events", 1, 2, "k", "why", b"x")] * 2), {})
    assert len((await store.events(EventFilter("acme"))).items) == 2
    assert len((await store.events(EventFilter("acme", text="Converged"))).items) == 2
    assert len((await store.metrics(MetricFilter("acme"))).items) == 2
    assert len(await store.dead_letters()) == 1


async def test_a_position_moves_to_what_was_written_last(store):
    place = Place(Stream.EVENTS, 0)
    await store.write(Batch(), {place: 5})
    await store.write(Batch(), {place: 9})
    assert await store.positions() == {place: 9}


async def test_dead_letters_say_where_they_stood_and_why(store):
    await store.write(Batch(dead_letters=[DeadLetter("events", 1, 2, "some/key", "not msgpack", b"abc")]), {})
    assert await store.dead_letters() == [
        {"stream": "events", "shard": 1, "offset": 2, "key": "some/key", "reason": "not msgpack", "size_bytes": 3}
    ]


async def test_a_reset_store_is_new(store):
    await store.write(batch_of(event(), metric()), {Place(Stream.EVENTS, 0): 1})
    await store.events(EventFilter("acme"))
    await store.reset()
    assert await store.positions() == {}
    assert await ids(store) == []
    assert await store.metric_types("acme") == []
    await put(store, event(), metric())
    assert len(await ids(store)) == 1
    assert len((await store.metrics(MetricFilter("acme"))).items) == 1


async def test_a_closed_store_says_that_it_is_unavailable(new_store):
    store = new_store()
    await store.positions()
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.events(EventFilter("acme"))


async def test_questions_are_answered_while_batches_are_written(store):
    async def write():
        for n in range(30):
            await put(store, *(event(n) for _ in range(20)))

    async def ask():
        return [len(await ids(store, limit=1000)) for _ in range(30)]

    _, seen, others = await asyncio.gather(write(), ask(), ask())
    assert seen == sorted(seen)
    assert others == sorted(others)
    assert all(count % 20 == 0 for count in seen + others)
    assert len(await ids(store, limit=1000)) == 600


# --- events ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted",
    [
        {"event_type": "Stalled"},
        {"service_name": "queue"},
        {"status": "failed"},
        {"setting": "acme/cache.redis_user/app"},
        {"since": T0 + 10},
        {"until": T0 + 5, "status": "failed"},
        {"service_name": "queue", "event_type": "Stalled", "status": "failed", "since": T0, "text": "deep"},
    ],
)
async def test_filters_find_exactly_what_they_say(store, wanted):
    choices = itertools.product(
        ("Converged", "Stalled"),
        ("cache", "queue"),
        ("info", "failed"),
        (None, "acme/cache.redis_user/app"),
        (0, 5, 10),
        ("deep sea", "shallow"),
    )
    events = [
        event(at, event_type=kind, service_name=service, status=status, setting=setting, details={"water": [water]})
        for kind, service, status, setting, at, water in choices
    ]
    await put(store, *events)
    exact = {name: value for name, value in wanted.items() if name not in ("since", "until", "text")}
    since, until = timestamp(wanted.get("since", 0)), timestamp(wanted.get("until", 4e9))
    expected = [
        one
        for one in events
        if all(one[name] == value for name, value in exact.items())
        and since <= one["timestamp"] < until
        and ("text" not in wanted or one["details"]["water"] == ["deep sea"])
    ]
    assert expected
    newest_first = sorted(expected, key=lambda one: (one["timestamp"], one["id"]), reverse=True)
    assert (await store.events(EventFilter("acme", limit=1000, **wanted))).items == newest_first


async def test_pages_give_every_event_once_even_when_many_share_a_time(store):
    await put(store, *(event(n // 7) for n in range(100)))
    expected = await ids(store, limit=1000)
    got, cursor = [], None
    while True:
        page = await store.events(EventFilter("acme", limit=9, cursor=cursor))
        got += [item["id"] for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert got == expected
    assert len(set(got)) == 100


async def test_a_cursor_is_not_moved_by_what_arrives_meanwhile(store):
    await put(store, *(event(n) for n in range(10)))
    first = await store.events(EventFilter("acme", limit=4))
    expected = (await ids(store))[4:]
    await put(store, *(event(100 + n) for n in range(10)))
    assert await ids(store, cursor=first.next_cursor) == expected


async def test_a_last_page_that_is_full_has_no_next_one(store):
    await put(store, *(event(n) for n in range(4)))
    assert (await store.events(EventFilter("acme", limit=4))).next_cursor is None


async def test_text_finds_words_in_type_setting_actor_and_details(store):
    one = event(
        event_type="ActionFailed",
        setting="acme/cache.redis_user/checkout",
        actor="ann@example.org",
        details={"message": "WRONGPASS invalid Größe", "drift": [{"path": "/ttl_s", "desired": 300}]},
    )
    await put(store, one, event(setting="acme/cache.namespace/other"))
    for text in (
        *("ActionFailed", "actionfailed", "checkout", "redis_user", "cache.redis_user/checkout", "ann@example.org"),
        *("wrongpass", "größe INVALID", "ttl_s 300", "check*", "invalid ---", '"invalid"', "user redis"),
    ):
        assert await ids(store, text=text) == [one["id"]], text
    for text in ("nothing", "checkout nothing", "heckout", "check", "user_redis"):
        assert await ids(store, text=text) == [], text


async def test_a_word_of_very_many_events_is_found_in_pages_like_a_rare_one(store):
    await put(store, *(event(n // 3, details={"word": "common", "rest": n % 2}) for n in range(2_200)))
    await put(store, event(5, details={"word": "rare"}), event(5, tenant="rival", details={"word": "common rare"}))
    assert len(await ids(store, text="rare")) == 1
    got, cursor = [], None
    while True:
        page = await store.events(EventFilter("acme", text="common", limit=1000, cursor=cursor))
        got += [item["id"] for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    everything = [event_id for event_id in await ids(store, limit=1000) if event_id in got]
    assert len(got) == len(set(got)) == 2_200
    assert got[: len(everything)] == everything


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text() | st.text(alphabet='"*()^:-+{}~ANDORNEAR \0\ud800é'))
async def test_any_text_is_answered_and_never_an_error(store, text):
    page = await store.events(EventFilter("acme", text=text))
    assert page.next_cursor is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet=st.characters(categories=("L", "Nd"), max_codepoint=0x2FF), min_size=1))
async def test_a_word_of_the_details_is_found_by_itself(store, text):
    one = event(details={"message": f"before {text} after"})
    await put(store, one)
    assert one["id"] in await ids(store, text=text, limit=1000)


async def test_nothing_is_seen_of_services_that_are_left_out(store):
    names = ("cache", "queue", "access")
    await put(store, *(event(service_name=name) for name in names), *(metric(service_name=name) for name in names))

    async def seen(services):
        return [
            {item["service_name"] for item in page.items}
            for page in (
                await store.events(EventFilter("acme", services=services)),
                await store.events(EventFilter("acme", services=services, text="Converged")),
                await store.metrics(MetricFilter("acme", services=services)),
                await store.metrics(MetricFilter("acme", services=services, interval_s=60)),
            )
        ]

    assert await seen(None) == [set(names)] * 4
    assert await seen(frozenset({"cache", "queue"})) == [{"cache", "queue"}] * 4
    assert await seen(frozenset({"search"})) == await seen(frozenset()) == [set()] * 4
    both = EventFilter("acme", service_name="access", services=frozenset({"cache"}))
    assert (await store.events(both)).items == []


async def test_nothing_of_another_tenant_is_ever_seen(store):
    theirs = [event(n, tenant="rival", details={"secret_plan": "word"}) for n in range(5)]
    await put(store, event(9, details={"word": 1}), *theirs, metric(), metric(tenant="rival", metric_type="rival_keys"))
    for wanted in ({}, {"text": "word"}, {"service_name": "cache"}, {"status": "info"}, {"event_type": "Converged"}):
        page = await store.events(EventFilter("acme", limit=1, **wanted))
        assert [item["tenant"] for item in page.items] == ["acme"]
        assert page.next_cursor is None
    rival = await store.events(EventFilter("rival", limit=2))
    after = await store.events(EventFilter("acme", cursor=rival.next_cursor))
    assert all(item["tenant"] == "acme" for item in after.items)
    assert [item["tenant"] for item in (await store.metrics(MetricFilter("acme"))).items] == ["acme"]
    assert len((await store.metrics(MetricFilter("acme", interval_s=60))).items) == 1
    assert [found.metric_type for found in await store.metric_types("acme")] == ["keys"]
    evidence = await store.evidence("acme", "cache", T0 - 1, T0 + 100)
    assert {row["tenant"] for row in (*evidence.events, *evidence.metrics)} == {"acme"}
    assert await store.metric_types("nobody") == []


# --- metrics -----------------------------------------------------------------------------------------------------------


async def test_points_come_as_they_were_written_newest_first_in_pages(store):
    points = [metric(n, n, tags={"target": "main", "node": str(n % 3)}, unit="1") for n in range(20)]
    await put(store, *points)
    got, cursor = [], None
    while True:
        page = await store.metrics(MetricFilter("acme", limit=7, cursor=cursor))
        got += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert got == points[::-1]


async def test_metrics_are_found_by_service_type_tags_time_and_value(store):
    await put(
        store,
        metric(0, 1.0),
        metric(1, 2.0, metric_type="hits"),
        metric(2, 3.0, service_name="queue"),
        metric(3, 4.0, tags={"target": "main", "node": "a"}),
        metric(4, 5.0, tags={"target": "other"}),
    )

    async def values(**wanted):
        return [item["value"] for item in (await store.metrics(MetricFilter("acme", **wanted))).items]

    assert await values(metric_type="hits") == [2.0]
    assert await values(service_name="queue") == [3.0]
    assert await values(tags={"target": "main"}, service_name="cache") == [4.0, 2.0, 1.0]
    assert await values(tags={"target": "main", "node": "a"}) == [4.0]
    assert await values(since=T0 + 1, until=T0 + 3) == [3.0, 2.0]
    assert await values(minimum=2, maximum=4) == [4.0, 3.0, 2.0]


@pytest.mark.parametrize("aggregate", list(Aggregate))
async def test_series_hold_one_value_per_interval_and_set_of_tags(store, aggregate):
    values = [((n * 7919) % 101) / 2 for n in range(60)]
    await put(store, *(metric(n, value) for n, value in enumerate(values)), metric(3, 9.0, tags={"target": "other"}))
    expected = {
        Aggregate.AVG: statistics.fmean,
        Aggregate.MIN: min,
        Aggregate.MAX: max,
        Aggregate.SUM: sum,
        Aggregate.LAST: lambda slot: slot[-1],
        Aggregate.P95: lambda slot: sorted(slot)[-(-95 * len(slot) // 100) - 1],
    }[aggregate]
    page = await store.metrics(MetricFilter("acme", metric_type="keys", interval_s=20, aggregate=aggregate))
    main, other = page.items
    assert page.next_cursor is None
    assert (main["tags"], other["tags"]) == ({"target": "main"}, {"target": "other"})
    assert (main["service_name"], main["metric_type"], main["interval_s"]) == ("cache", "keys", 20)
    assert [point["timestamp"] for point in main["points"]] == [timestamp(T0 + at) for at in (0, 20, 40)]
    assert [point["value"] for point in main["points"]] == pytest.approx(
        [expected(values[begin : begin + 20]) for begin in (0, 20, 40)]
    )
    assert [point["value"] for point in other["points"]] == [9.0]


async def test_series_with_too_many_points_are_refused_with_what_to_do(store):
    await put(store, *(metric(n) for n in range(20_001)))
    with pytest.raises(Refused, match="longer interval"):
        await store.metrics(MetricFilter("acme", interval_s=1))
    assert len((await store.metrics(MetricFilter("acme", interval_s=3600))).items[0]["points"]) == 6


async def test_metric_types_are_listed_with_the_names_of_their_tags(store):
    await put(store, metric(tags={"target": "a"}), metric(tags={"node": "b"}), metric(metric_type="hits", tags={}))
    await put(store, metric(service_name="queue"))
    assert [tuple(found) for found in await store.metric_types("acme", "cache")] == [
        ("cache", "hits", ()),
        ("cache", "keys", ("node", "target")),
    ]
    assert len(await store.metric_types("acme")) == 3


# --- evidence and retention --------------------------------------------------------------------------------------------


async def test_evidence_is_of_one_service_and_time_oldest_first(store):
    inside = [event(n) for n in (10, 12, 14)]
    points = [metric(n, n) for n in (10, 12, 14)]
    await put(store, *inside, *points, event(5), event(15), event(11, service_name="queue"))
    await put(store, metric(5), metric(15), metric(11, service_name="queue"))
    evidence = await store.evidence("acme", "cache", T0 + 10, T0 + 15)
    assert (list(evidence.events), list(evidence.metrics)) == (inside, points)
    assert (evidence.events_complete, evidence.thinned_to_s) == (True, None)


async def test_much_evidence_is_thinned_to_points_that_were_measured(store):
    points = [metric(n, n, tags={"node": str(n % 4)}) for n in range(24_000)]
    await put(store, *points)
    evidence = await store.evidence("acme", "cache", T0, T0 + 24_000)
    measured = {point["id"]: point for point in points}
    assert 5_000 < len(evidence.metrics) <= 20_010
    assert all(measured[row["id"]] == row for row in evidence.metrics)
    assert {row["tags"]["node"] for row in evidence.metrics} == {"0", "1", "2", "3"}
    assert evidence.thinned_to_s == pytest.approx(4.8)


async def test_of_very_many_events_the_newest_are_evidence(store):
    events = [event(n) for n in range(5_050)]
    await put(store, *events)
    evidence = await store.evidence("acme", "cache", T0, T0 + 10_000)
    assert list(evidence.events) == events[50:]
    assert not evidence.events_complete


async def test_trimming_drops_what_is_older_and_nothing_else(store):
    place = Place(Stream.EVENTS, 0)
    old = [event(n, tenant=tenant, details={"age": "old"}) for n in range(5) for tenant in ("acme", "rival")]
    await store.write(batch_of(*old, event(50, details={"age": "new"})), {place: 11})
    await put(store, metric(0), metric(50), metric(0, metric_type="gone"))
    assert tuple(await store.trim(T0 + 50, T0 + 50)) == (10, 2)
    assert len(await ids(store)) == 1
    assert await ids(store, text="old") == []
    assert len(await ids(store, text="new")) == 1
    assert (await store.events(EventFilter("rival"))).items == []
    assert len((await store.metrics(MetricFilter("acme"))).items) == 1
    assert [found.metric_type for found in await store.metric_types("acme")] == ["keys"]
    assert await store.positions() == {place: 11}
    assert tuple(await store.trim(T0 + 50, T0 + 50)) == (0, 0)
    await put(store, metric(60, metric_type="gone"))
    assert len((await store.metrics(MetricFilter("acme", metric_type="gone"))).items) == 1
