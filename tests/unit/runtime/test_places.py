"""Which targets lead to one server."""

from __future__ import annotations

from controlplane.domain.status import KeyStatus
from controlplane.runtime.catalogue import TargetId
from controlplane.runtime.places import Places, told

ONE, OTHER, THIRD = (TargetId("default", "queue", name) for name in ("one", "other", "third"))
HERE, THERE = ("queue", (("a", 9092),)), ("queue", (("b", 9092),))


def reached(target: TargetId, address: object, identity: str) -> KeyStatus:
    return KeyStatus(target.key, remembered=told(address, identity))


def test_targets_at_one_address_are_one_from_the_beginning() -> None:
    places = Places()
    assert list(places.learn(ONE, HERE, None)) == [ONE]
    assert list(places.learn(OTHER, HERE, None)) == [OTHER]
    assert list(places.learn(THIRD, THERE, None)) == [THIRD]
    assert places.of(ONE) == places.of(OTHER) != places.of(THIRD)


def test_targets_whose_servers_say_that_they_are_one_are_one() -> None:
    places = Places()
    places.learn(ONE, HERE, None)
    places.learn(OTHER, THERE, None)
    places.learn(THIRD, THERE, None)
    assert list(places.learn(ONE, HERE, reached(ONE, HERE, "x"))) == [ONE]
    assert set(places.learn(OTHER, THERE, reached(OTHER, THERE, "x"))) == {OTHER, THIRD}
    assert places.of(ONE) == places.of(OTHER) == places.of(THIRD)
    assert list(places.learn(ONE, HERE, reached(ONE, HERE, "x"))) == []
    assert list(places.learn(ONE, HERE, reached(ONE, HERE, "y"))) == [ONE]
    assert places.of(ONE) != places.of(OTHER)


def test_a_target_that_is_declared_elsewhere_was_not_reached_there_yet() -> None:
    places = Places()
    places.learn(ONE, HERE, reached(ONE, HERE, "x"))
    before = places.of(ONE)
    assert list(places.learn(ONE, THERE, reached(ONE, HERE, "x"))) == [ONE]
    assert places.of(ONE) != before


def test_identities_of_other_services_are_others() -> None:
    places, cache = Places(), TargetId("default", "cache", "one")
    places.learn(ONE, HERE, reached(ONE, HERE, "x"))
    places.learn(cache, ("cache", "a"), reached(cache, ("cache", "a"), "x"))
    assert places.of(ONE) != places.of(cache)
