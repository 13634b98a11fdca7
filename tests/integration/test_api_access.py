from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from controlplane.api.routes import ROUTES
from tests.integration.api_daemon import BASE, REDIS, TARGET, Api, bearer, daemon, token

OTHER = TARGET.replace("default", "other")


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    tokens = (token("vera", "viewer"), token("ed", "editor", ("default",)), token("ada", "admin"))
    async with daemon(tokens=tokens) as running:
        yield running


async def test_who_has_no_token_may_do_what_is_public_and_nothing_else(api: Api) -> None:
    public = {route.path for route in ROUTES if not route.role}
    assert public == {
        "/",
        "/web/{file}",
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/v1/operations",
        "/v1/schemas",
        "/v1/schemas/{type}",
    }
    for route in ROUTES:
        path = route.path.format(
            tenant="default",
            type="cache.target",
            name="main",
            service="cache",
            operation="cache.echo",
            file="style.css",
            target="main",
            path="bucket/key",
        )
        response = await api.raw(route.method, path)
        assert (response.status == 401) == (route.path not in public), path
        assert ("WWW-Authenticate" in response.headers) == (response.status == 401)


async def test_unknown_tokens_and_other_schemes_are_refused(api: Api) -> None:
    for value in ("Bearer nonsense", "Bearer", "Basic c2VjcmV0LWFkYQ==", "secret-ada", "Bearer \u00fc"):
        assert (await api.call("GET", TARGET, 401, headers={"Authorization": value}))["reason"] == "Unauthenticated"


async def test_a_viewer_reads_and_an_editor_writes(api: Api) -> None:
    assert (await api.call("PUT", TARGET, 403, json={"value": REDIS}, headers=bearer("vera")))["reason"] == "Forbidden"
    made = await api.call("PUT", TARGET, 201, json={"value": REDIS}, headers=bearer("ed"))
    assert await api.call("GET", TARGET, 200, headers=bearer("vera")) == made
    await api.call("POST", f"{BASE}/operations/cache.echo", 403, headers=bearer("vera"))
    for method, path in (("DELETE", TARGET), ("POST", f"{BASE}/apply"), ("POST", f"{TARGET}/reconcile")):
        await api.call(method, path, 403, headers=bearer("vera"))


async def test_a_token_reaches_its_tenants_only(api: Api) -> None:
    await api.call("PUT", OTHER, 403, json={"value": REDIS}, headers=bearer("ed"))
    await api.call("PUT", OTHER, 201, json={"value": REDIS}, headers=bearer("ada"))
    await api.call("GET", OTHER, 403, headers=bearer("ed"))
    await api.call("GET", OTHER.replace("other", "nobody"), 403, headers=bearer("ed"))
    await api.call("GET", OTHER.replace("other", "nobody"), 404, headers=bearer("ada"))


async def test_the_status_shows_the_targets_of_ones_own_tenants(api: Api) -> None:
    api.looked.targets = [{"tenant": tenant, "service": "cache", "target": "main"} for tenant in ("default", "other")]
    await api.call("PUT", OTHER, 201, json={"value": REDIS}, headers=bearer("ada"))
    mine = await api.call("GET", "/v1/status", 200, headers=bearer("ed"))
    assert ([target["tenant"] for target in mine["targets"]], mine["tenants"], mine["settings"]) == (
        ["default"],
        ["default"],
        0,
    )
    assert len((await api.call("GET", "/v1/status", 200, headers=bearer("ada")))["targets"]) == 2


async def test_the_metrics_of_all_tenants_are_for_those_who_see_all(api: Api) -> None:
    assert (await api.raw("GET", "/metrics", headers=bearer("vera"))).status == 200
    assert (await api.raw("GET", "/metrics", headers=bearer("ed"))).status == 403


async def test_the_name_of_the_token_is_the_actor_whatever_the_caller_says(api: Api) -> None:
    headers = {**bearer("ed"), "X-Actor": "somebody else"}
    await api.call("PUT", TARGET, 201, json={"value": REDIS}, headers=headers)
    history = await api.call("GET", f"{TARGET}/history", 200, headers=bearer("vera"))
    assert history["items"][0]["actor"] == "ed"


async def test_without_tokens_callers_may_say_who_they_are() -> None:
    async with daemon() as api:
        await api.call("PUT", TARGET, 201, json={"value": REDIS})
        await api.call("PUT", TARGET, 200, json={"value": REDIS, "labels": {"a": "b"}}, headers={"X-Actor": "ann"})
        history = await api.call("GET", f"{TARGET}/history", 200)
        assert [row["actor"] for row in history["items"]] == ["ann", "anonymous@loopback"]


async def test_without_tokens_a_foreign_host_header_is_refused(api: Api) -> None:
    async with daemon() as open_to_all:
        await open_to_all.call("GET", "/v1/status", 403, headers={"Host": "evil.example:8470"})
        for host in ("localhost:8470", "127.0.0.1", "[::1]:8470"):
            await open_to_all.call("GET", "/v1/status", 200, headers={"Host": host})
    await api.call("GET", "/v1/status", 200, headers={"Host": "coreplane.example", **bearer("ada")})
