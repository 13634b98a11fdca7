"""What a tenant may declare on a Kafka that isn't its own alone."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.runtime.sharing import trespasses
from reconcilers.contract import ExternalId
from reconcilers.registry import SERVICES
from schemas.names import parse_key

KINDS = {kind.setting_type: kind for kind in SERVICES["queue"].kinds}
TARGET = "default/queue.target/main"
PASSWORD = {"from_env": "PW"}


class Shares:
    """The target is shared with acme."""

    def prefix(self, tenant: str, _target: str) -> str | None:
        return "acme." if tenant == "acme" else None

    def prefixes(self, _target: str) -> dict[str, str]:
        return {"acme": "acme."}


def beyond(tenant: str, setting_type: str, name: str, **value: Any) -> list[str]:
    """Paths of what isn't allowed."""
    kind = KINDS[setting_type]
    model = kind.value.model_validate({"target": "default/main", **value})
    external = ExternalId(setting_type, kind.identify(name, model))
    key = parse_key(f"{tenant}/{setting_type}/{name}")
    return [one.path for one in trespasses(key, TARGET, external, kind=kind, value=model, shares=Shares())]


def permission(resource: str, name: str | None, **more: Any) -> dict[str, Any]:
    return {"resource": resource, "name": name, "operations": ["describe"], **more}


def user(*acls: dict[str, Any]) -> dict[str, Any]:
    return {"username": "acme.app", "password": PASSWORD, "acls": list(acls)}


def route(**more: Any) -> dict[str, Any]:
    return {"source": "acme.a", "to": ["acme.b"], **more}


MINE = ("topic", "acme.orders")
ALLOWED: list[tuple[str, dict[str, Any]]] = [
    ("queue.topic", {"topic": "acme.orders", "config": {"retention.ms": 1}}),
    ("queue.user", user(permission(*MINE), permission("group", "acme.", pattern="prefixed"))),
    ("queue.acl", {"principal": "User:acme.cn", "acls": [permission("transactional_id", "acme.t")]}),
    ("queue.quota", {"user": "acme.app", "client_id": "anything", "quotas": {"request_percentage": 5}}),
    ("queue.quota", {"client_id": "acme.batch", "quotas": {"request_percentage": 5}}),
    ("queue.group", {"group": "acme.readers"}),
    ("queue.route", route(on_error={"dead_letter": "acme.dead"})),
]
BEYOND: list[tuple[str, dict[str, Any], list[str]]] = [
    ("queue.topic", {"topic": "orders"}, [""]),
    ("queue.topic", {"topic": "acme"}, [""]),
    ("queue.user", {**user(), "username": "app"}, [""]),
    ("queue.user", user(permission(*MINE), permission("topic", "*")), ["/acls/1/name"]),
    ("queue.user", user(permission("topic", "acme", pattern="prefixed")), ["/acls/0/name"]),
    ("queue.user", user(permission("cluster", None)), ["/acls/0/resource"]),
    ("queue.user", user(permission("topic", "orders", permission="deny")), ["/acls/0/name"]),
    ("queue.acl", {"principal": "User:*", "acls": [permission(*MINE)]}, [""]),
    ("queue.acl", {"principal": "User:acme.cn", "acls": [permission("group", "theirs")]}, ["/acls/0/name"]),
    ("queue.quota", {"user": "<default>", "client_id": "acme.x", "quotas": {}}, [""]),
    ("queue.quota", {"client_id": "<default>", "quotas": {}}, [""]),
    ("queue.quota", {"ip": "10.0.0.1", "connection_creation_rate": 1}, [""]),
    ("queue.group", {"group": "theirs"}, [""]),
    ("queue.route", route(source="orders"), ["/source"]),
    ("queue.route", route(to=["acme.b", "c"], on_error={"dead_letter": "d"}), ["/to/1", "/on_error/dead_letter"]),
]


@pytest.mark.parametrize(("setting_type", "value"), ALLOWED)
def test_within_its_prefix_a_tenant_declares_every_kind_and_the_owner_none(setting_type: str, value: dict[str, Any]):
    assert beyond("acme", setting_type, "acme.n", **value) == []
    assert beyond("default", setting_type, "acme.n", **value) == [""]


@pytest.mark.parametrize(("setting_type", "value", "paths"), BEYOND)
def test_what_reaches_further_is_told_by_its_path(setting_type: str, value: dict[str, Any], paths: list[str]):
    assert beyond("acme", setting_type, "acme.n", **value) == paths


def test_a_route_is_named_within_the_prefix_too():
    assert beyond("acme", "queue.route", "mine", **route()) == [""]


def test_targets_are_at_one_place_in_whichever_order_and_spelling():
    def place(*servers: str) -> Any:
        service = SERVICES["queue"]
        assert service.target is not None
        assert service.places is not None
        return service.places(service.target.model_validate({"bootstrap_servers": list(servers)}))

    assert place("b:9092", "A:9092") == place("a:9092", "B:9092", "b:9092")
    assert place("127.0.0.1:9092") == place("localhost:9092")
    assert place("a:9092") != place("a:9093")
