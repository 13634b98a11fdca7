"""Every route and every caller: made from the route table, so that a new route is tested without being mentioned here."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientTimeout

from controlplane.api.routes import ROUTES
from controlplane.api.stream import Streams, follow
from controlplane.api.table import Route
from controlplane.config import Token
from controlplane.domain.access import Role
from schemas.event import EventType
from schemas.names import SERVICES
from tests.integration.api_daemon import Api, bearer, daemon, token, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

GUARDED = [route for route in ROUTES if route.role is not Role.PUBLIC]
IN_TENANT = [route for route in GUARDED if route.in_tenant]
NAMING_A_SERVICE = [route for route in IN_TENANT if re.search(r"\{(type|service|operation)\}", route.path)]
OF_A_SERVICE = [route for route in IN_TENANT if route.service]

ROLES: tuple[Any, ...] = ("viewer", "editor", "admin")
TOKENS = (
    *(token(role, role, ("default",)) for role in ROLES),
    *(token(f"foreign-{role}", role, ("other",)) for role in ROLES),
    *(token(f"everywhere-{role}", role) for role in ROLES),
    token("cache-admin", "admin", ("default",)).model_copy(update={"services": ("cache",)}),
    token("queue-admin", "admin", ("default",)).model_copy(update={"services": ("queue",)}),
    Token.model_validate({**token("late", "admin").model_dump(), "expires_at": "2020-01-01T00:00:00Z"}),
)
MARK = "markthatnobodyelsemaysee"


@dataclass
class Answered:
    status: int
    body: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api() -> AsyncIterator[Api]:
    async with daemon(tokens=TOKENS, streams=Streams(heartbeat_s=0.05)) as running:
        for tenant, kind in (("other", "cache.target"), ("default", "queue.topic"), ("default", "access.token")):
            await _plant(running, f"{tenant}/{kind}/{MARK}")
        await until(lambda: _projected(running))
        yield running


async def _plant(api: Api, key: str) -> None:
    """A setting and an event that only some may see."""
    value = {"note": MARK, "sha256": "0" * 64, "grants": [{"role": "viewer"}]}
    change = {"op": "declare", "key": key, "expected": None, "body": {"value": value, "labels": {"mark": MARK}}}
    await api.parts.replica.submit([change], actor=MARK, request_id=key)
    for event_type in (EventType.CONVERGED, EventType.DRIFT_DETECTED):
        await api.happen(event_type, key, mark=MARK, differences=[{"path": "/note", "desired": MARK, "observed": MARK}])


async def _projected(api: Api) -> bool:
    found = await api.call("GET", "/v1/tenants/default/events", 200, headers=bearer("everywhere-admin"))
    return len(found["items"]) == 4


async def ask(api: Api, route: Route, name: str | None, tenant: str = "default", **query: str) -> Answered:
    """Call the route, without a body, as somebody; of a stream the first moments are read."""
    path = route.path.format(
        tenant=tenant,
        type="cache.target",
        name=MARK,
        service="cache",
        operation="cache.echo",
        file="x",
        target="main",
        path="a",
    )
    headers = {} if name is None else bearer(name)
    response = await api.client.request(
        route.method, path, headers=headers, params=query, timeout=ClientTimeout(total=60)
    )
    if route.handler is not follow or response.status != 200:
        return Answered(response.status, await response.text())
    read = b""
    async with asyncio.timeout(30):
        while read.count(b": alive") < 2:
            read += await response.content.readany()
    response.close()
    return Answered(response.status, read.decode())


def shown(route: Route) -> str:
    return f"{route.method} {route.path}"


@pytest.mark.parametrize("route", GUARDED, ids=shown)
async def test_nobody_without_a_good_token_gets_in(api: Api, route: Route) -> None:
    for name in (None, "nobody", "late"):
        assert (await ask(api, route, name)).status == 401, name


@pytest.mark.parametrize("route", GUARDED, ids=shown)
async def test_a_lesser_role_is_refused_and_a_sufficient_one_is_let_in(api: Api, route: Route) -> None:
    for role in ROLES:
        refused = (await ask(api, route, f"everywhere-{role}")).status in {401, 403}
        assert refused == (Role[role.upper()] < route.role), role


@pytest.mark.parametrize("route", IN_TENANT, ids=shown)
async def test_no_role_in_another_tenant_helps(api: Api, route: Route) -> None:
    for role in ROLES:
        answered = await ask(api, route, f"foreign-{role}")
        assert answered.status == 403, role
        assert MARK not in answered.body
        answered = await ask(api, route, role, "other")
        assert answered.status == 403, role
        assert MARK not in answered.body


@pytest.mark.parametrize("route", IN_TENANT, ids=shown)
async def test_the_systems_tenant_is_for_its_admins(api: Api, route: Route) -> None:
    for name in ("viewer", "editor", "admin", "foreign-admin", "everywhere-viewer", "everywhere-editor"):
        assert (await ask(api, route, name, "system")).status == 403, name
    assert (await ask(api, route, "everywhere-admin", "system")).status not in {401, 403}


@pytest.mark.parametrize("route", NAMING_A_SERVICE, ids=shown)
async def test_a_role_for_another_service_is_no_role(api: Api, route: Route) -> None:
    assert (await ask(api, route, "queue-admin")).status == 403
    assert (await ask(api, route, "cache-admin")).status not in {401, 403}


@pytest.mark.parametrize("route", OF_A_SERVICE, ids=shown)
async def test_what_belongs_to_one_service_is_not_for_others(api: Api, route: Route) -> None:
    assert (await ask(api, route, "queue-admin")).status == 403


@pytest.mark.parametrize("route", GUARDED, ids=shown)
async def test_nothing_of_other_tenants_and_services_is_in_any_answer(api: Api, route: Route) -> None:
    """Also where the route names neither: lists, events, the stream, and whatever is added."""
    for query in _queries(route):
        for name in ("cache-admin", "foreign-viewer"):
            answered = await ask(api, route, name, **query)
            asked_for = answered.status >= 400  # a problem repeats what was asked for
            assert asked_for or MARK not in answered.body, (name, query, answered.body)


def _queries(route: Route) -> list[dict[str, str]]:
    """Without parameters, and with those that reach furthest."""
    known = {field.alias or name for name, field in route.query.model_fields.items()}
    far = {"from": "earliest", "text": MARK, "limit": "1000", "label": f"mark={MARK}", "setting": f"queue.topic/{MARK}"}
    found = [{}, *({name: value} for name, value in far.items() if name in known)]
    if route.handler is follow:
        found = [{"from": "earliest"}]
    elif "from" in known:
        found.append({"from": "1", "to": "3"})
    services = next((name for name in ("service_name", "service") if name in known), None)
    beginning = {"from": "earliest"} if route.handler is follow else {}
    return found + ([{services: service, **beginning} for service in SERVICES[:6]] if services else [])


async def test_a_body_names_no_service_that_its_sender_has_no_role_for(api: Api) -> None:
    declared = {"type": "access.token", "name": "x", "value": {"sha256": "1" * 64, "grants": [{"role": "viewer"}]}}
    bodies: dict[str, Any] = {
        "apply": {"settings": [declared]},
        "plan": {"settings": [declared]},
        "import": {"type": "queue.topic", "target": "main"},
        "rollback": {"to": "2000-01-01T00:00:00Z"},
    }
    for path, body in bodies.items():
        response = await api.raw("POST", f"/v1/tenants/default/{path}", json=body, headers=bearer("cache-admin"))
        assert response.status == 403, path
        assert (await response.text()).count(MARK) == 0


async def test_an_admin_of_all_sees_what_is_planted(api: Api) -> None:
    """Else the tests above would find nothing because there is nothing."""
    for path in ("settings", "events", "export"):
        assert MARK in await (await api.raw("GET", f"/v1/tenants/default/{path}", headers=bearer("admin"))).text(), path
    stream = next(route for route in ROUTES if route.handler is follow)
    assert MARK in (await ask(api, stream, "admin", **{"from": "earliest"})).body
