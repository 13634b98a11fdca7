from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from controlplane.api.routes import ROUTES
from reconcilers.contract import Evidence, Service, Unreachable
from schemas.event import EventType
from schemas.kinds import KINDS
from tests.integration.api_daemon import BASE, REDIS, TARGET, Api, daemon, until


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with daemon() as running:
        yield running


async def test_every_route_is_described_and_every_reference_resolves(api: Api) -> None:
    document = await api.call("GET", "/openapi.json", 200)
    assert document["openapi"] == "3.1.0"
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES}
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(ROUTES)
    known = document["components"]["schemas"]
    assert set(references(document)) <= {f"#/components/schemas/{name}" for name in known}
    for schema in known.values():
        Draft202012Validator.check_schema(schema)


async def test_query_parameters_are_described_as_what_may_be_sent(api: Api) -> None:
    document = await api.call("GET", "/openapi.json", 200)
    described = {p["name"]: p for p in document["paths"]["/v1/tenants/{tenant}/settings"]["get"]["parameters"]}
    assert described["phase"]["schema"] == {"$ref": "#/components/schemas/Phase"}
    assert described["cursor"]["schema"] == {"type": "string", "maxLength": 2000}
    assert described["cursor"]["description"]
    assert described["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for inner in value.values() for found in references(inner)]
    return [found for inner in value for found in references(inner)] if isinstance(value, list) else []


async def test_a_setting_is_as_its_schema_says(api: Api) -> None:
    setting = await api.put(TARGET, REDIS, 201)
    schema = await api.call("GET", "/v1/schemas/setting", 200)
    Draft202012Validator(schema).validate(setting)


async def test_every_kind_has_its_schema(api: Api) -> None:
    listed = await api.call("GET", "/v1/schemas", 200)
    assert {item["type"] for item in listed["items"]} >= set(KINDS)
    for item in listed["items"]:
        Draft202012Validator.check_schema(await api.call("GET", item["url"], 200))


async def test_operations_are_listed_with_what_they_take(api: Api) -> None:
    listed = await api.call("GET", "/v1/operations", 200)
    assert [item["operation"] for item in listed["items"]] == ["cache.echo"]
    Draft202012Validator.check_schema(listed["items"][0]["request"])
    problem = await api.call("POST", f"{BASE}/operations/cache.nope", 404, json={})
    assert "there are: cache.echo" in problem["detail"]


async def test_health_and_readiness_are_told_apart(api: Api) -> None:
    assert await api.call("GET", "/healthz", 200) == {"status": "alive"}
    assert await api.call("GET", "/readyz", 200) == {"ready": True, "reasons": []}
    trouble = {"part": "projection", "reason": "Rebuilding", "message": "3 of 5"}
    async with daemon(troubles=lambda: [trouble]) as troubled:
        assert await troubled.call("GET", "/readyz", 503) == {"ready": False, "reasons": [trouble]}
        assert (await troubled.call("GET", "/v1/status", 200))["ready"] is False


async def test_a_replica_that_stopped_is_not_ready_but_still_answers_reads(api: Api) -> None:
    await api.put(TARGET, REDIS, 201)
    await api.log.settings.append(b"rubbish")
    problem = await until(lambda: _not_ready(api))
    assert problem["reasons"][0]["reason"] == "Stopped"
    assert "offset 1" in problem["reasons"][0]["message"]
    await api.call("GET", TARGET, 200)
    assert (await api.put(TARGET, REDIS, 503, labels={"a": "b"}))["reason"] == "LogUnavailable"


async def _not_ready(api: Api) -> Any:
    answered = await api.call("GET", "/readyz")
    return None if answered["ready"] else answered


async def test_the_status_says_where_this_replica_is(api: Api) -> None:
    await api.put(TARGET, REDIS, 201)
    status = await api.call("GET", "/v1/status", 200)
    assert status["replica"] == {"position": 1, "lag": 0, "stopped": None}
    assert (status["ready"], status["settings"], status["shards"]) == (True, 1, [0])


async def test_requests_are_counted_by_the_pattern_of_their_path(api: Api) -> None:
    await api.put(TARGET, REDIS, 201)
    await api.call("GET", "/nothing/at/all", 404)
    await api.raw("PROPFIND", "/healthz")
    response = await api.raw("GET", "/metrics")
    text = await response.text()
    assert response.content_type == "text/plain"
    route = "/v1/tenants/{tenant}/settings/{type}/{name}"
    assert f'coreplane_http_requests_total{{method="PUT",route="{route}",status="201"}} 1.0' in text
    assert 'coreplane_http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
    assert 'method="other"' in text


async def test_the_page_and_what_it_loads_are_there(api: Api) -> None:
    page = await api.raw("GET", "/")
    assert (page.status, page.content_type) == (200, "text/html")
    loaded = set(re.findall(r'(?:src|href)="(/web/[^"]+)"', await page.text()))
    assert loaded == {"/web/app.js", "/web/style.css", "/web/icon.svg"}
    types = {path: (await api.raw("GET", path)).content_type for path in loaded}
    assert types["/web/style.css"] == "text/css"
    assert types["/web/app.js"] == "text/javascript"
    assert types["/web/icon.svg"] == "image/svg+xml"
    assert (await api.raw("GET", "/web/..%2Froutes.py")).status == 404


@pytest.mark.parametrize("path", ["/", "/web/app.js", "/web/style.css"])
async def test_the_page_runs_only_what_this_daemon_serves(api: Api, path: str) -> None:
    served = await api.raw("GET", path)
    policy = dict(part.strip().split(" ", 1) for part in served.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert not {"script-src", "style-src", "connect-src"} & set(policy)
    assert served.headers["X-Content-Type-Options"] == "nosniff"
    text = await served.text()
    assert not re.search(r"<style|<script(?![^>]* src=)|\sstyle=|\son[a-z]+=\"|innerHTML|https?://", text)


async def test_events_are_found_in_the_projection_by_tenant_and_filter(api: Api) -> None:
    await api.happen(EventType.STALLED, "other/cache.target/main")
    await api.happen(EventType.CONVERGED, "default/cache.target/main")
    wanted = await api.happen(EventType.STALLED, "default/cache.target/main", reason="SecretNotFound")

    async def found() -> Any:
        query = "service_name=cache&event_type=Stalled&setting=cache.target/main&since=1970-01-01T00:00:00Z"
        return (await api.call("GET", f"{BASE}/events?{query}", 200))["items"]

    assert [event["id"] for event in await until(found)] == [wanted]
    pages = await api.call("GET", f"{BASE}/events?limit=1", 200)
    rest = await api.call("GET", f"{BASE}/events?limit=1&cursor={pages['next_cursor']}", 200)
    assert [page["items"][0]["event_type"] for page in (pages, rest)] == ["Stalled", "Converged"]


async def test_an_analysis_gets_what_is_known_of_its_service() -> None:
    def analyse(evidence: Evidence) -> dict[str, Any]:
        return {"settings": [setting["name"] for setting in evidence.settings], "events": len(evidence.events)}

    async def connect(_: Any) -> Any:
        raise Unreachable("never opened here")

    service = Service("cache", (), KINDS["cache.target"], connect, analyse=analyse)
    async with daemon(services={"cache": service}) as api:
        await api.put(TARGET, REDIS, 201)
        await api.put(TARGET.replace("default", "other"), REDIS, 201)
        await api.happen(EventType.CONVERGED, "default/cache.target/main")

        async def analysed() -> bool:
            found = await api.call("GET", f"{BASE}/analytics/cache?since=1970-01-01T00:00:00Z", 200)
            return bool(found == {"settings": ["main"], "events": 1})

        await until(analysed)
        await api.call("GET", f"{BASE}/analytics/queue", 404)


async def test_heads_are_answered_without_a_body(api: Api) -> None:
    assert (await api.raw("HEAD", "/healthz")).status == 200
    assert (await api.raw("HEAD", f"{BASE}/stream")).status == 405


async def test_metrics_can_be_asked_for_when_there_are_none(api: Api) -> None:
    assert await api.call("GET", f"{BASE}/metrics", 200) == {"items": [], "next_cursor": None}
    series = await api.call("GET", f"{BASE}/metrics?interval=5m&aggregate=p95&tag=a=b&since=2026-01-01T00:00:00Z", 200)
    assert series["items"] == []
    assert await api.call("GET", f"{BASE}/metrics/types?service_name=cache", 200) == {"items": []}
