"""What the control plane doesn't let itself be cut off by, whatever is declared."""

from __future__ import annotations

from typing import Any

import pytest

from reconcilers.contract import ExternalId
from reconcilers.queue import own
from reconcilers.registry import SERVICES

KINDS = {kind.setting_type: kind for kind in SERVICES["queue"].kinds}
RESERVED = frozenset({"coreplane.settings", "User:coreplane"})
DENIED = [
    {"resource": "topic", "name": "coreplane.", "pattern": "prefixed", "operations": ["all"], "permission": "deny"}
]
GIVEN = [{"resource": "topic", "name": "news", "operations": ["read"]}]
FEW = {"request_percentage": 0.001}


def declared(setting_type: str, value: dict[str, Any]) -> tuple[str, Any]:
    """(name of the object, desired)"""
    kind = KINDS[setting_type]
    model = kind.value.model_validate({"target": "main", **value})
    return ExternalId(setting_type, kind.identify("n", model)).name, kind.desired("n", model)


def reason(setting_type: str, value: dict[str, Any], *, retiring: bool = False) -> str | None:
    name, desired = declared(setting_type, value)
    refused = own.affair(RESERVED, setting_type, name, None if retiring else desired)
    return refused and refused.reason


CUTS: list[tuple[str, dict[str, Any], str]] = [
    ("queue.topic", {"topic": "coreplane.settings", "config": {"retention.ms": 1}}, "OwnTopic"),
    ("queue.topic", {"topic": "coreplane.routes.default.main"}, "OwnTopic"),
    ("queue.topic", {"topic": "coreplane.canary.acme.other"}, "OwnTopic"),
    ("queue.user", {"username": "coreplane", "password": {"from_env": "PW"}}, "OwnUser"),
    ("queue.user", {"username": "coreplane", "password": {"from_env": "PW"}, "quotas": FEW}, "OwnUser"),
    ("queue.acl", {"principal": "User:coreplane", "acls": DENIED}, "OwnUser"),
    ("queue.acl", {"principal": "User:coreplane", "acls": []}, "OwnUser"),
]


@pytest.mark.parametrize(("setting_type", "value", "why"), CUTS)
def test_what_is_its_own_is_neither_changed_nor_taken_away(setting_type: str, value: dict[str, Any], why: str):
    assert reason(setting_type, value) == why
    assert reason(setting_type, value, retiring=True) == why


@pytest.mark.parametrize(
    ("setting_type", "value"),
    [
        ("queue.topic", {"topic": "coreplane.settings-of-mine"}),
        ("queue.user", {"username": "alice", "password": {"from_env": "PW"}, "quotas": FEW}),
        ("queue.acl", {"principal": "User:alice", "acls": DENIED}),
        ("queue.acl", {"principal": "User:*", "acls": GIVEN}),
        ("queue.quota", {"user": "alice", "quotas": FEW}),
        ("queue.group", {"group": "coreplane.router.default.main"}),
        ("queue.route", {"source": "coreplane.settings", "to": ["copies"]}),
    ],
)
def test_what_is_somebody_else_s_is_left_to_him(setting_type: str, value: dict[str, Any]):
    assert reason(setting_type, value) is None


def test_what_everybody_is_denied_it_is_denied_too():
    value = {"principal": "User:*", "acls": [*GIVEN, *DENIED]}
    assert reason("queue.acl", value) == "OwnUser"
    assert reason("queue.acl", value, retiring=True) is None


@pytest.mark.parametrize("place", ["to", "dead_letter"])
def test_no_route_writes_into_its_records(place: str):
    value: dict[str, Any] = {"source": "orders", "to": ["copies"]}
    for topic in ("coreplane.settings", "coreplane.routes.acme.another-target"):
        more = {"to": ["copies", topic]} if place == "to" else {"on_error": {"dead_letter": topic}}
        assert reason("queue.route", {**value, **more}) == "OwnTopic"


@pytest.mark.parametrize(
    ("login", "principal", "acls", "refused"),
    [
        ("admin", "User:admin", DENIED, True),
        ("admin", "User:admin", GIVEN, False),
        ("admin", "User:alice", DENIED, False),
        ("ANONYMOUS", "User:admin", DENIED, False),
        ("admin", "User:*", DENIED, True),
        ("admin", "User:*", GIVEN, False),
    ],
)
def test_whom_the_target_logs_in_as_is_denied_nothing(login: str, principal: str, acls: Any, refused: bool):
    name, desired = declared("queue.acl", {"principal": principal, "acls": acls})
    found = own.denial(login, "queue.acl", name, desired)
    assert (found is not None and found.reason == "SelfLockout") is refused
    assert own.denial(login, "queue.acl", name, None) is None


SELVES = own.Selves(frozenset({"admin"}), frozenset({"10.0.0.7"}))
SLOW, FAST = {"producer_byte_rate": 1000.0}, {"producer_byte_rate": 1e9}
RARE, OFTEN = {"connection_creation_rate": 1.0}, {"connection_creation_rate": 100.0}
LIMITS: list[tuple[str, dict[str, dict[str, float]], str, dict[str, float], bool]] = [
    ("its own", {}, "user=admin", SLOW, True),
    ("its own, with room", {}, "user=admin", FAST, False),
    ("that of its client", {}, "user=admin,client-id=coreplane", SLOW, True),
    ("that of all its clients", {}, "user=admin,client-id=<default>", SLOW, True),
    ("that of another client of its", {}, "user=admin,client-id=batch", SLOW, False),
    ("everybody's", {}, "user=<default>", SLOW, True),
    ("everybody's, with room", {}, "user=<default>", FAST, False),
    ("everybody's, having one of its own", {"user=admin": FAST}, "user=<default>", SLOW, False),
    ("everybody's, having one of its own for something else", {"user=admin": OFTEN}, "user=<default>", SLOW, True),
    ("every client's", {}, "client-id=<default>", SLOW, True),
    ("every client's, having one as a user", {"user=<default>": FAST}, "client-id=<default>", SLOW, False),
    ("its client's", {}, "client-id=coreplane", SLOW, True),
    ("another client's", {}, "client-id=batch", SLOW, False),
    ("another user's", {}, "user=alice", SLOW, False),
    (
        "its own, which kept off everybody's, taken away",
        {"user=admin": FAST, "user=<default>": SLOW},
        "user=admin",
        {},
        True,
    ),
    ("its own, which kept off nothing, taken away", {"user=admin": FAST}, "user=admin", {}, False),
    (
        "its own, which is low already, raised",
        {"user=admin": SLOW},
        "user=admin",
        {"producer_byte_rate": 2000.0},
        False,
    ),
    ("its own, which is low already, as it is", {"user=admin": SLOW}, "user=admin", SLOW, False),
    ("its own, which is low already, lowered", {"user=admin": SLOW}, "user=admin", {"producer_byte_rate": 1.0}, True),
    ("its address's", {}, "ip=10.0.0.7", RARE, True),
    ("every address's", {}, "ip=<default>", RARE, True),
    ("every address's, having one of its own", {"ip=10.0.0.7": OFTEN}, "ip=<default>", RARE, False),
    ("another address's", {}, "ip=10.0.0.8", RARE, False),
]


@pytest.mark.parametrize(
    ("held", "entity", "wanted", "refused"), [one[1:] for one in LIMITS], ids=[one[0] for one in LIMITS]
)
def test_no_limit_holds_it_up(held: Any, entity: str, wanted: dict[str, float], refused: bool):
    found = own.throttle(SELVES, held, entity, wanted)
    assert (found is not None and found.reason == "SelfThrottled") is refused
