"""Tenants as settings: they come and go, have quotas, and an audit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.api_daemon import REDIS, Api, bearer, daemon, token

SYSTEM = "/v1/tenants/system/settings"
ACME = "/v1/tenants/acme"
ROOT = bearer("root")


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    tokens = (token("root", "admin"), token("ed", "editor"), token("acme", "admin", ("acme",)))
    async with daemon(tokens=tokens) as running:
        yield running


async def put(api: Api, path: str, value: Any, status: int | None = None, who: str = "root") -> Any:
    return await api.call("PUT", path, status, json={"value": value}, headers=bearer(who))


def target(number: int) -> str:
    return f"{ACME}/settings/cache.target/t{number}"


async def tenant(api: Api, status: int = 201, **quotas: float) -> None:
    await put(api, f"{SYSTEM}/access.tenant/acme", {"quotas": quotas} if quotas else {}, status)


async def test_a_tenant_comes_with_its_setting_and_goes_when_it_is_empty(api: Api) -> None:
    await api.call("GET", f"{ACME}/settings", 404, headers=ROOT)
    await tenant(api)
    await put(api, target(1), REDIS, 201)
    assert "acme" in (await api.call("GET", "/v1/status", 200, headers=ROOT))["tenants"]
    refused = await api.call("DELETE", f"{SYSTEM}/access.tenant/acme", 409, headers=ROOT)
    assert "has 1 settings" in refused["detail"]


async def test_administration_stands_in_the_system_and_nothing_else_does(api: Api) -> None:
    await tenant(api)
    assert "system" in (await put(api, f"{ACME}/settings/access.tenant/x", {}, 422))["detail"]
    share = {"target": "default/cache.target/r", "tenant": "acme", "prefix": "acme."}
    assert "system" in (await put(api, f"{ACME}/settings/access.share/x", share, 422))["detail"]
    assert "alone" in (await put(api, f"{SYSTEM}/cache.target/x", REDIS, 422))["detail"]
    await put(api, f"{SYSTEM}/access.tenant/system", {}, 422)
    grants = [{"role": "viewer", "tenants": ["default"]}]
    faults = (await put(api, f"{ACME}/settings/access.token/x", {"sha256": "0" * 64, "grants": grants}, 422))["errors"]
    assert [fault["path"] for fault in faults] == ["/value/grants/0/tenants"]


async def test_an_admin_of_a_tenant_makes_its_tokens_and_an_editor_does_not(api: Api) -> None:
    await tenant(api)
    value = {"sha256": token("made", "viewer").sha256, "grants": [{"role": "viewer"}]}
    await put(api, f"{ACME}/settings/access.token/made", value, 403, "ed")
    await put(api, f"{ACME}/settings/access.token/made", value, 201, "acme")
    listed = await api.call("GET", f"{ACME}/settings", 200, headers=bearer("made"))
    assert listed["items"] == [], "who isn't admin doesn't see who has tokens"
    await api.call("GET", "/v1/tenants/default/settings", 403, headers=bearer("made"))


async def test_a_tenant_has_as_many_settings_as_its_quota(api: Api) -> None:
    await tenant(api, settings=2)
    declared = [{"type": "cache.target", "name": f"t{number}", "value": REDIS} for number in range(3)]
    body = {"settings": declared}
    refused = await api.call("POST", f"{ACME}/apply", 429, json=body, headers=ROOT)
    assert (refused["reason"], refused["status"]) == ("QuotaExceeded", 429)
    await api.call("POST", f"{ACME}/apply", 200, json={"settings": declared[:2]}, headers=ROOT)
    assert (await api.raw("PUT", target(9), json={"value": REDIS}, headers=ROOT)).headers["Retry-After"] == "60"
    await put(api, target(1), {**REDIS, "save_acl": True}, 200)
    await tenant(api, 200, settings=3)
    await put(api, target(9), REDIS, 201)


async def test_writes_and_operations_have_a_rate_for_each_tenant(api: Api) -> None:
    await tenant(api, writes_per_s=0.001, operations_per_s=0.001)
    await put(api, target(1), REDIS, 201)
    for method, path in (("PUT", target(2)), ("DELETE", target(1)), ("POST", f"{ACME}/apply")):
        body = (
            {"settings": [{"type": "cache.target", "name": "t3", "value": REDIS}]}
            if "apply" in path
            else {"value": REDIS}
        )
        response = await api.raw(method, path, json=body, headers=ROOT)
        assert response.status == 429, path
        assert int(response.headers["Retry-After"]) > 900
    await api.call("POST", f"{ACME}/operations/cache.echo", 200, headers=ROOT)
    await api.call("POST", f"{ACME}/operations/cache.echo", 429, headers=ROOT)
    await put(api, target(1).replace("acme", "default"), REDIS, 201)
    await api.call("GET", f"{ACME}/settings", 200, headers=ROOT)


async def test_a_token_has_a_rate_of_its_own(api: Api) -> None:
    grants = [{"role": "viewer"}]
    value = {"sha256": token("slow", "viewer").sha256, "grants": grants, "requests_per_s": 0.001}
    await put(api, "/v1/tenants/default/settings/access.token/slow", value, 201)
    await api.call("GET", "/v1/tenants/default/settings", 200, headers=bearer("slow"))
    await api.call("GET", "/v1/tenants/default/settings", 429, headers=bearer("slow"))
    await api.call("GET", "/v1/tenants/default/settings", 200, headers=ROOT)


async def audit(api: Api, who: str = "root", status: int = 200, **query: str) -> Any:
    return await api.call("GET", f"{ACME}/audit", status, params=query, headers=bearer(who))


def rows(page: Any) -> list[tuple[str, str, str, str]]:
    return [(row["actor"], row["action"], row["setting"].split("/")[-1], row["outcome"]) for row in page["items"]]


async def test_the_audit_says_who_did_what_and_who_was_refused(api: Api) -> None:
    await tenant(api)
    await put(api, target(1), REDIS, 201)
    await put(api, target(2), REDIS, 201, "acme")
    await api.call("DELETE", target(1), 202, headers=bearer("ed"))
    for _ in range(3):
        await put(api, f"{ACME}/settings/access.token/x", {}, 422, "root")
        await api.call("DELETE", f"{ACME}/settings/access.token/x", 403, headers=bearer("ed"))
    page = await audit(api)
    everything = [
        ("ed", "retire", "t1", "accepted"),
        ("acme", "declare", "t2", "accepted"),
        ("root", "declare", "t1", "accepted"),
    ]
    assert rows(page) == everything
    (refused,) = page["refused"]
    assert (refused["actor"], refused["method"], refused["reason"], refused["count"]) == (
        "ed",
        "DELETE",
        "Forbidden",
        3,
    )
    assert rows(await audit(api, actor="acme")) == [everything[1]]
    assert rows(await audit(api, setting="cache.target/t1")) == [everything[0], everything[2]]
    assert (
        rows(await audit(api, since="2100-01-01T00:00:00Z"))
        == rows(await audit(api, until="2000-01-01T00:00:00Z"))
        == []
    )
    assert rows(await audit(api, "acme")) == everything
    await audit(api, "ed", 403)


async def test_the_audit_comes_in_pages_without_gap_or_repetition(api: Api) -> None:
    await tenant(api)
    for number in range(7):
        await put(api, target(number), REDIS, 201)
    found, cursor = [], None
    while True:
        page = await audit(api, limit="3", **({"cursor": cursor} if cursor else {}))
        found += [name for _, _, name, _ in rows(page)]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == [f"t{number}" for number in reversed(range(7))]
    for wrong in ("x", "1", "1:x", ":", "9" * 30 + ":1"):
        await audit(api, status=400, cursor=wrong)
