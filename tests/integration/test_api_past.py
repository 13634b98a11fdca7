"""Time travel over HTTP: lists, exports and differences as of a place or a time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.api_daemon import BASE, REDIS, Api, daemon

pytestmark = pytest.mark.integration


async def fill(api: Api, count: int = 3) -> list[dict[str, Any]]:
    """Targets t0, t1 … one after the other, then t0 once more with another label."""
    made = [await api.put(f"{BASE}/settings/cache.target/t{n}", REDIS, 201, reason=f"r{n}") for n in range(count)]
    return [*made, await api.put(f"{BASE}/settings/cache.target/t0", REDIS, 200, labels={"team": "shop"})]


async def names(api: Api, query: str) -> list[str]:
    return [item["name"] for item in (await api.call("GET", f"{BASE}/settings?{query}", 200))["items"]]


async def test_a_list_as_of_a_revision_and_as_of_a_time():
    async with daemon() as api:
        made = await fill(api)
        assert await names(api, "at=0") == []
        assert await names(api, f"at={made[1]['revision']}") == ["t0", "t1"]
        assert await names(api, f"at={made[1]['updated_at']}") == ["t0", "t1"]
        assert await names(api, "at=2000-01-01T00:00:00Z") == []
        assert await names(api, "at=2999-01-01T00:00:00Z") == ["t0", "t1", "t2"]
        assert await names(api, f"at={made[2]['revision']}&label=team=shop") == []
        assert await names(api, f"at={made[3]['revision']}&label=team=shop") == ["t0"]


async def test_pages_of_the_past_stay_whole_while_the_present_moves():
    async with daemon() as api:
        made = await fill(api, 5)
        at, found, cursor = made[4]["revision"], [], ""
        while cursor is not None:
            page = await api.call("GET", f"{BASE}/settings?at={at}&limit=2&cursor={cursor}", 200)
            found += [item["name"] for item in page["items"]]
            cursor = page["next_cursor"]
            await api.put(f"{BASE}/settings/cache.target/t{len(found)}x", REDIS)
        assert found == ["t0", "t1", "t2", "t3", "t4"]


async def test_an_export_of_the_past_and_one_setting_of_the_past_agree():
    async with daemon() as api:
        made = await fill(api)
        for revision in {one["revision"] for one in made}:
            for one in (await api.call("GET", f"{BASE}/export?at={revision}", 200))["settings"]:
                then = await api.call("GET", f"{BASE}/settings/{one['type']}/{one['name']}?at={revision}", 200)
                assert (then["value"], then["labels"]) == (one["value"], one.get("labels", {}))


async def test_differences_between_two_places_and_from_then_to_now():
    async with daemon() as api:
        made = await fill(api)
        told = await api.call("GET", f"{BASE}/diff?from={made[0]['revision']}", 200)
        assert [(i["setting"], i["outcome"]) for i in told["items"]] == [
            ("default/cache.target/t0", "updated"),
            ("default/cache.target/t1", "created"),
            ("default/cache.target/t2", "created"),
        ]
        assert told["items"][0]["changed"] == ["/labels/team"]
        assert (told["from"], told["to"]) == (made[0]["revision"], made[3]["revision"])
        narrow = await api.call("GET", f"{BASE}/diff?from=0&to={made[1]['updated_at']}&type=cache.target", 200)
        assert [i["after"]["reason"] for i in narrow["items"]] == ["r0", "r1"]
        assert (await api.call("GET", f"{BASE}/diff?from=0&label=team=shop", 200))["items"][0]["outcome"] == "created"
        await api.call("GET", f"{BASE}/diff", 400)
        await api.call("GET", f"{BASE}/diff?from=yesterday", 400)


async def test_the_phase_of_the_past_isnt_kept():
    async with daemon() as api:
        assert "isn't kept" in (await api.call("GET", f"{BASE}/settings?at=0&phase=Ready", 400))["detail"]
        await api.call("GET", f"{BASE}/settings?at=nonsense", 400)


async def test_other_tenants_have_a_past_of_their_own():
    async with daemon() as api:
        made = await fill(api)
        other = BASE.replace("default", "other")
        assert (await api.call("GET", f"{other}/settings?at={made[-1]['revision']}", 200))["items"] == []
        assert (await api.call("GET", f"{other}/diff?from=0", 200))["items"] == []


async def test_many_may_ask_for_different_places_at_once():
    async with daemon() as api:
        made = await fill(api, 8)
        found = await asyncio.gather(*(names(api, f"at={one['revision']}") for one in made[:-1]))
        assert [len(one) for one in found] == list(range(1, 9))
