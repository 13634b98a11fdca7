"""Statuses as the projection has them: found by what they say, in pages, by nobody of another tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from controlplane.client.http import CoreplaneClient
from controlplane.domain.status import KeyStatus, converged, public, stalled
from tests.integration.api_daemon import BASE, Api, bearer, daemon, token, until

OTHERS = "/v1/tenants/other/statuses"
MINE = {"headers": bearer("mine")}


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    queues = token("queues", "viewer", ("default",)).model_copy(update={"services": ("queue",)})
    tokens = (queues, token("mine", "viewer", ("default",)), token("theirs", "viewer", ("other",)))
    async with daemon(tokens=tokens) as running:
        yield running


def status(key: str, *, reason: str = "") -> KeyStatus:
    known = KeyStatus(key, revision=4, observed_generation=2)
    return stalled(known, 0.0, reason, "no variable REDIS_PASSWORD") if reason else converged(known, 0.0, "app")


async def names(api: Api, query: str = "", count: int | None = None) -> list[str]:
    """Of what is found; waits until there are so many."""

    async def found() -> list[str] | None:
        items = (await api.call("GET", f"{BASE}/statuses?{query}", 200, **MINE))["items"]
        return [item["name"] for item in items] if count in (None, len(items)) else None

    return list(await until(found)) if count else list(await found() or ())


async def three(api: Api) -> None:
    await api.observe(status("default/cache.redis_user/app"))
    await api.observe(status("default/cache.redis_user/bad", reason="SecretNotFound"))
    await api.observe(status("default/queue.topic/orders"))
    await api.observe(status("other/cache.redis_user/secret"))
    assert await names(api, count=3) == ["app", "bad", "orders"]


async def test_the_newest_status_of_each_setting_is_found_by_what_it_says(api: Api) -> None:
    await three(api)
    assert await names(api, "service=queue") == ["orders"]
    assert await names(api, "type=cache.redis_user&phase=Ready") == ["app"]
    assert await names(api, "condition=Stalled%3DTrue&condition=Ready%3DFalse") == ["bad"]
    assert await names(api, "reason=SecretNotFound") == ["bad"]
    assert await names(api, "setting=cache.redis_user/app") == ["app"]
    assert await names(api, "text=redis_password") == ["bad"]
    await api.observe(status("default/cache.redis_user/bad"))
    assert await names(api, "phase=Ready", count=3) == ["app", "bad", "orders"]
    assert await names(api, "text=redis_password") == []


async def test_a_status_is_as_its_schema_says_and_as_the_setting_has_it(api: Api) -> None:
    known = status("default/cache.redis_user/bad", reason="SecretNotFound")
    await api.observe(known)
    await names(api, count=1)
    page = await api.call("GET", f"{BASE}/statuses", 200, **MINE)
    schemas = (await api.call("GET", "/openapi.json", 200))["components"]
    Draft202012Validator({"$ref": "#/components/schemas/Statuses", "components": schemas}).validate(page)
    (item,) = page["items"]
    assert {name: item[name] for name in public(known)} == public(known)
    assert (item["setting"], item["revision"]) == (known.key, 4)


async def test_pages_go_on_where_the_last_one_ended(api: Api) -> None:
    await three(api)
    first = await api.call("GET", f"{BASE}/statuses?limit=2", 200, **MINE)
    assert await names(api, f"limit=2&cursor={first['next_cursor']}") == ["orders"]
    last = await api.call("GET", f"{BASE}/statuses?limit=3", 200, **MINE)
    assert last["next_cursor"] is None


async def test_a_status_that_is_gone_is_found_no_more(api: Api) -> None:
    await three(api)
    await api.forget("default/cache.redis_user/bad")
    assert await names(api, count=2) == ["app", "orders"]


async def test_a_token_of_one_tenant_sees_no_status_of_another(api: Api) -> None:
    await three(api)
    assert (await api.call("GET", OTHERS, 403, **MINE))["reason"] == "Forbidden"
    theirs = {"headers": bearer("theirs")}
    assert [item["name"] for item in (await api.call("GET", OTHERS, 200, **theirs))["items"]] == ["secret"]
    await api.call("GET", f"{BASE}/statuses", 403, **theirs)
    await api.call("GET", f"{BASE}/statuses", 401)
    assert await names(api, "setting=other/cache.redis_user/secret") == await names(api, "text=secret") == []


async def test_a_token_of_one_service_sees_the_statuses_of_no_other(api: Api) -> None:
    await three(api)
    seen = await api.call("GET", f"{BASE}/statuses", 200, headers=bearer("queues"))
    assert [item["name"] for item in seen["items"]] == ["orders"]
    assert (await api.call("GET", f"{BASE}/statuses?service=cache", 200, headers=bearer("queues")))["items"] == []


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("condition=Ready", "?condition"),
        ("condition=Happy%3DTrue", "?condition"),
        ("phase=Fine", "?phase"),
        ("service=disco", "?service"),
        ("limit=0", "?limit"),
        ("cursor=%00", "?cursor"),
        ("since=2026-01-01T00:00:00Z", "?since"),
    ],
)
async def test_what_cannot_be_meant_is_refused_by_name(api: Api, query: str, path: str) -> None:
    problem: Any = await api.call("GET", f"{BASE}/statuses?{query}", 400, **MINE)
    assert path in problem["detail"] or path in [fault["path"] for fault in problem["errors"]]


async def test_the_client_asks_for_statuses_too(api: Api) -> None:
    await three(api)
    async with CoreplaneClient(str(api.client.make_url("/")), token="secret-mine") as client:
        found = await client.statuses(conditions=["Stalled=True"], service="cache", limit=5)
    assert [item["name"] for item in found["items"]] == ["bad"]
