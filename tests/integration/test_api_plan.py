"""Plans as the API answers them, with no backend connected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from controlplane.api.parts import Foresight
from controlplane.api.routes import create_app
from controlplane.domain.writes import declare
from controlplane.runtime.foreseen import Previewed
from controlplane.runtime.preview import Proposal
from schemas.kinds import KINDS
from schemas.names import parse_key
from tests.integration.api_daemon import APP, BASE, REDIS, Api, bearer, daemon, token

PLAN = f"{BASE}/plan"
APPLY = f"{BASE}/apply"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with daemon() as running:
        yield running


def target(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "cache.target", "name": name, "value": REDIS} | more


USER = {"type": "cache.redis_user", "name": "app", "value": APP}


async def test_a_plan_tells_what_would_be_declared_and_stores_nothing(api: Api) -> None:
    await api.call("POST", APPLY, 200, json={"settings": [target("main"), target("b")]})
    document = {"settings": [target("main"), target("b", labels={"x": "y"}), USER]}
    plan = await api.call("POST", PLAN, 200, json=document)
    assert [(r["setting"], r["outcome"]) for r in plan["results"]] == [
        ("default/cache.target/main", "unchanged"),
        ("default/cache.target/b", "updated"),
        ("default/cache.redis_user/app", "created"),
    ]
    assert [r["changed"] for r in plan["results"]][:2] == [[], ["/labels/x"]]
    assert {"/value/commands", "/value/keys", "/value/target"} < set(plan["results"][2]["changed"])
    assert plan["unchanged"] == ["default/cache.target/main"]
    assert plan["unknown"] == [
        {
            "setting": "default/cache.redis_user/app",
            "reason": "TargetNotConnected",
            "message": "cache.target/main isn't connected",
        }
    ]
    assert (plan["steps"], plan["refused"]) == ([], [])
    assert await api.log.settings.end_offset() == 1
    dry = await api.call("POST", f"{APPLY}?dry_run=true", 200, json=document)
    assert [r["outcome"] for r in dry["results"]] == [r["outcome"] for r in plan["results"]]


async def test_the_same_body_in_yaml_is_the_same_plan(api: Api) -> None:
    text = "type: cache.target\nname: a\nvalue: {kind: redis, url: 'redis://localhost:6379'}\n"
    yaml = {"data": text.encode(), "headers": {"Content-Type": "application/yaml"}}
    plan = await api.call("POST", PLAN, 200, **yaml)
    again = await api.call("POST", PLAN, 200, json={"settings": [target("a")], "reason": "no part of it"})
    assert plan == again
    done = await api.call("POST", f"{APPLY}?plan={plan['plan_id']}", 200, **yaml)
    assert done["results"][0]["outcome"] == "created"


async def test_a_viewer_may_neither_plan_nor_roll_back() -> None:
    async with daemon(tokens=(token("vera", "viewer"), token("ed", "editor"))) as api:
        for path in (PLAN, f"{BASE}/rollback"):
            assert (await api.call("POST", path, 403, json={"settings": []}, headers=bearer("vera")))[
                "reason"
            ] == "Forbidden"
        await api.call("POST", PLAN, 200, json={"settings": [target("a")]}, headers=bearer("ed"))


async def test_a_protected_setting_keeps_a_plan_with_prune_out(api: Api) -> None:
    ours = [target("a", labels={"x": "y"}), target("b", labels={"x": "y"}, policy={"protect": True})]
    await api.call("POST", APPLY, 200, json={"settings": ours})
    prune = {"settings": [target("new")], "prune": {"labels": {"x": "y"}}}
    assert (await api.call("POST", f"{PLAN}?allow_prune=true", 409, json=prune))["reason"] == "Protected"


async def test_another_tenants_settings_are_no_part_of_a_plan(api: Api) -> None:
    elsewhere = BASE.replace("default", "other")
    await api.call("POST", f"{elsewhere}/apply", 200, json={"settings": [target("main")]})
    plan = await api.call("POST", PLAN, 200, json={"settings": [USER]})
    assert plan["unknown"][0]["reason"] == "TargetNotFound"


@dataclass
class Interfering:
    """Somebody declares what was planned, right after it was found to be as planned."""

    inner: Foresight
    api: Api

    async def foresee(self, proposal: Proposal) -> Previewed:
        found = await self.inner.foresee(proposal)
        change = declare(parse_key("default/cache.target/b"), {"value": REDIS, "labels": {"by": "bob"}}, None, KINDS)
        await self.api.parts.replica.submit([change], actor="bob", request_id="bobs")
        return found


async def test_a_setting_that_moves_between_the_check_and_the_fold_makes_the_plan_stale(api: Api) -> None:
    body = {"settings": [target("a"), target("b")]}
    plan = await api.call("POST", PLAN, 200, json=body)
    interfering = Interfering(api.parts.preview, api)
    async with TestClient(TestServer(create_app(replace(api.parts, preview=interfering)))) as client:
        response = await client.post(f"{APPLY}?plan={plan['plan_id']}", json=body)
        problem = await response.json()
    assert (response.status, problem["reason"]) == (409, "PlanStale")
    assert problem["errors"] == [{"path": "/default/cache.target/b", "message": "is at revision 1 now, expected none"}]
    await api.call("GET", f"{BASE}/settings/cache.target/a", 404)
