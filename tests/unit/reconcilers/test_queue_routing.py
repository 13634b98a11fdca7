"""Which messages a route takes, and what stands in its records and beside its offsets."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcilers.queue import routing
from reconcilers.queue.routing import Count, Message, NotJson, Table
from schemas import queue


def route(**more):
    return queue.Route.model_validate({"target": "main", "source": "orders", "to": ["copies"], **more})


def message(document=None, headers=(), key=None):
    value = None if document is None else json.dumps(document).encode()
    return Message(key, value, [(name, text.encode()) for name, text in headers])


ORDER = {"order": {"country": "DE", "total": 120.5, "paid": True, "lines": [{"sku": "a1"}], "note": None}}


@pytest.mark.parametrize(
    ("when", "taken"),
    [
        ({}, True),
        ({"json": {"order.country": "DE"}}, True),
        ({"json": {"/order/country": "FR"}}, False),
        ({"json": {"order.country": {"in": ["FR", "DE"]}}}, True),
        ({"json": {"order.country": {"prefix": "D"}}}, True),
        ({"json": {"order.country": {"ne": "DE"}}}, False),
        ({"json": {"order.total": {"gt": 120, "lte": 120.5}}}, True),
        ({"json": {"order.total": {"lt": 120}}}, False),
        ({"json": {"order.paid": True}}, True),
        ({"json": {"order.paid": 1}}, False),
        ({"json": {"order.lines.0.sku": "a1"}}, True),
        ({"json": {"order.lines.1.sku": {"exists": False}}}, True),
        ({"json": {"order.missing": {"exists": True}}}, False),
        ({"json": {"order.country": {"gt": 1}}}, False),
        ({"headers": {"kind": "new"}}, True),
        ({"headers": {"kind": "old"}}, False),
        ({"headers": {"size": {"gte": 10}}}, True),
        ({"headers": {"size": 12}}, True),
        ({"headers": {"none": {"exists": False}}}, True),
        ({"key": {"prefix": "cust"}}, True),
        ({"key": "customer-2"}, False),
        ({"headers": {"kind": "new"}, "json": {"order.country": "FR"}}, False),
    ],
)
def test_a_route_takes_what_its_when_says(when, taken):
    one = message(ORDER, [("kind", "new"), ("size", "12")], b"customer-1")
    assert routing.predicate(route(when=when).when)(one) is taken


def test_a_path_into_what_is_not_json_can_not_be_answered():
    with pytest.raises(NotJson):
        routing.predicate(route(when={"json": {"a": 1}}).when)(Message(None, b"no", ()))


def table(**routes):
    found = Table()
    for name, one in routes.items():
        found = found.changed(name, routing.record(routing.definition(name, one), {0: 7}))
    return found


def test_the_table_is_what_its_records_say_and_a_tombstone_takes_one_away():
    found = table(a=route(priority=1), b=route(source="bills", delivery="exactly_once"))
    assert found.sources == {"orders", "bills"}
    assert found.transactional("bills")
    assert not found.transactional("orders")
    assert (found.begin("orders", 0), found.begin("orders", 9)) == (7, 0)
    assert found.changed("b", None).sources == {"orders"}
    assert found.changed("a", b"rubbish").sources == {"bills"}


def test_the_highest_priority_that_matches_takes_a_message_alone():
    vip = {"headers": {"vip": "yes"}}
    found = table(low=route(), high=route(priority=5, when=vip), beside=route(priority=5, when=vip, to=["vips"]))
    taken, unsure = routing.taking(found.of("orders"), message(headers=[("vip", "yes")]))
    assert [one.name for one in taken] == ["beside", "high"]
    assert unsure is None
    assert [one.name for one in routing.taking(found.of("orders"), message())[0]] == ["low"]


def test_what_can_not_be_answered_is_buried_only_where_there_is_a_place_and_nobody_takes_it():
    when, dead = {"json": {"a": 1}}, {"dead_letter": "dead"}
    poison = Message(None, b"no", ())
    without = table(a=route(when=when))
    assert routing.taking(without.of("orders"), poison) == ([], None)
    found = table(a=route(when=when, on_error=dead))
    assert routing.taking(found.of("orders"), poison)[1] is found.routes["a"]
    both = table(a=route(when=when, on_error=dead), b=route())
    assert [one.name for one in routing.taking(both.of("orders"), poison)[0]] == ["b"]


def test_the_same_declaration_is_the_same_definition_in_whatever_spelling():
    one = routing.definition("n", route(when={"json": {"a.b": 1}}, priority=0))
    assert one == routing.definition("n", route(when={"json": {"/a/b": 1}}))
    installed = routing.installed("n", routing.record(one, {0: 1}))
    assert installed is not None
    assert installed.text == one
    assert installed.digest == routing.digest(one)


NUMBERS = st.integers(0, 10**12)


@given(st.dictionaries(st.integers(0, 2), st.tuples(NUMBERS, NUMBERS, NUMBERS)), NUMBERS)
def test_progress_reads_back(counted, until):
    routes = [
        routing.installed(str(n), routing.record(routing.definition("n", route(priority=n)), {})) for n in range(3)
    ]
    counts = {routes[n].digest: Count(*pair) for n, pair in counted.items()}
    found = routing.progress_in(routing.progress(routes, counts, until))
    assert found == ({one.digest: counts.get(one.digest, Count()) for one in routes}, until)
    assert routing.progress_in("somebody else's") == ({}, 0)
    assert routing.progress_in("v2 7 abc:1:2:3") == ({"abc": Count(1, 2, 3)}, 7)
    assert routing.progress_in("v2 7 abc:1:2:3:4:5") == ({"abc": Count(1, 2, 3, 4)}, 7)
    assert routing.progress_in(None) == ({}, 0)


def test_a_dead_letter_keeps_its_headers_and_loses_the_others_when_it_lives_again():
    headers = [("trace", b"1")]
    dead = routing.dead_letter(headers, "n", "why", ("orders", 2, 17), 5)
    told = dict(dead)
    assert (told["coreplane.dead.topic"], told["coreplane.dead.offset"]) == (b"orders", b"17")
    assert routing.living(dead) == headers
    assert len(routing.dead_letter(dead, "n", "again", ("dead", 0, 0), 6)) == len(dead)


def test_names_of_long_targets_stay_legal_and_apart():
    long = routing.table_topic("t" * 128, "x" * 128), routing.table_topic("t" * 128, "x" * 127 + "y")
    assert max(map(len, long)) <= 249
    assert long[0] != long[1]
