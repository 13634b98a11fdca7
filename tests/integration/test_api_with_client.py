"""The application and the client for applications, joined: both keep to one contract."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.client.errors import ApiError, Gone
from controlplane.client.http import CoreplaneClient
from controlplane.log.ports import Stream
from schemas.event import EventType
from tests.integration.api_daemon import APP, REDIS, daemon


async def test_what_the_client_asks_the_daemon_answers() -> None:
    async with daemon() as api, CoreplaneClient(str(api.client.make_url("/"))) as client:
        made = await client.put_setting("cache.target", "main", {"value": REDIS, "reason": "begin"}, if_absent=True)
        await client.patch_setting("cache.target", "main", {"labels": {"a": "b"}}, if_match=made["revision"])
        assert (await client.get_setting("cache.target", "main", at=1))["labels"] == {}
        user = {"type": "cache.redis_user", "name": "app", "value": APP}
        applied = await client.apply([user], reason="more")
        assert [result["outcome"] for result in applied["results"]] == ["created"]
        assert [item["name"] async for item in client.list_settings(service="cache", page=1)] == ["app", "main"]
        assert [row["revision"] for row in await client.history("cache.target", "main")] == [2, 1]
        assert {found["name"] for found in await client.export()} == {"app", "main"}
        assert (await client.reconcile("cache.target", "main"))["name"] == "main"
        assert (await client.operate("cache.echo", {"a": 1}))["result"]["body"] == {"a": 1}
        assert (await client.events(service_name="cache", limit=5))["items"] == []
        assert (await client.metrics(tags={"a": "b"}, interval="1m"))["items"] == []
        assert (await client.schemas("cache.target"))["title"]
        assert (await client.status())["replica"]["position"] == 3
        assert await client.health() == {"ready": True, "reasons": []}
        assert (await client.delete_setting("cache.redis_user", "app"))["retiring"] is True
        with pytest.raises(ApiError) as refused:
            await client.put_setting("cache.target", "main", {"value": {"kind": "none"}})
        assert [fault.path for fault in refused.value.errors] == ["/value/kind"]


async def test_the_stream_of_the_client_goes_on_where_it_was() -> None:
    async with daemon() as api, CoreplaneClient(str(api.client.make_url("/"))) as client:
        key = "default/cache.target/main"
        happened = [await api.happen(EventType.CONVERGED, key) for _ in range(3)]
        async with asyncio.timeout(20):
            first = await anext(client.stream(from_="earliest"))
            assert first.data["id"] == happened[0]
            later = client.stream(last_event_id=first.id)
            assert [(await anext(later)).data["id"] for _ in range(2)] == happened[1:]
            await later.aclose()
        await api.log.journal.trim(Stream.EVENTS, "2100-01-01T00:00:00Z")
        with pytest.raises(Gone):
            await anext(client.stream(last_event_id=first.id))
