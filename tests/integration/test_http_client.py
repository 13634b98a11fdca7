"""CoreplaneClient against the daemon's real HTTP application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from controlplane.client.errors import ApiError, DaemonUnreachable
from controlplane.client.http import CoreplaneClient
from schemas.event import EventType
from tests.integration.api_daemon import APP, REDIS, Api, daemon

USER = "cache.redis_user"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with daemon() as running:
        yield running


@pytest.fixture
async def coreplane(api: Api) -> AsyncIterator[CoreplaneClient]:
    async with CoreplaneClient(f"http://127.0.0.1:{api.client.port}", actor="ann") as client:
        yield client


async def test_a_setting_is_put_patched_read_and_retired(coreplane: CoreplaneClient) -> None:
    made = await coreplane.put_setting(USER, "app", {"value": APP, "reason": "new"})
    patched = await coreplane.patch_setting(USER, "app", {"value": {"keys": ["b:*"]}}, if_match=made["revision"])
    assert patched["value"] == {**APP, "keys": ["b:*"]}
    assert (await coreplane.get_setting(USER, "app", at=made["revision"]))["value"] == APP
    assert [row["actor"] for row in await coreplane.history(USER, "app")] == ["ann", "ann"]
    assert (await coreplane.reconcile(USER, "app"))["name"] == "app"
    assert (await coreplane.delete_setting(USER, "app"))["retiring"]


async def test_a_write_with_the_same_key_is_done_once(coreplane: CoreplaneClient) -> None:
    first = await coreplane.put_setting(USER, "app", {"value": APP}, idempotency_key="k")
    await coreplane.put_setting(USER, "app", {"value": {**APP, "keys": ["b:*"]}})
    again = await coreplane.put_setting(USER, "app", {"value": APP}, idempotency_key="k")
    assert again["revision"] == first["revision"]


async def test_a_stale_write_and_a_second_creation_are_refused(coreplane: CoreplaneClient) -> None:
    await coreplane.put_setting(USER, "app", {"value": APP}, if_absent=True)
    for precondition in ({"if_absent": True}, {"if_match": 99}):
        with pytest.raises(ApiError) as caught:
            await coreplane.put_setting(USER, "app", {"value": APP}, **precondition)
        assert caught.value.status == 412


async def test_every_fault_comes_with_its_path(coreplane: CoreplaneClient) -> None:
    declarations = [{"type": USER, "name": "app", "value": {**APP, "commands": 7, "kesy": 1}}]
    with pytest.raises(ApiError) as caught:
        await coreplane.apply(declarations)
    assert {fault.path for fault in caught.value.errors} == {"/settings/0/value/commands", "/settings/0/value/kesy"}
    assert caught.value.reason == "Invalid"


async def test_lists_go_over_all_pages(coreplane: CoreplaneClient) -> None:
    declarations = [
        {"type": USER, "name": f"u{n}", "value": APP, "labels": {"even": str(n % 2 == 0)}} for n in range(7)
    ]
    await coreplane.apply([{"type": "cache.target", "name": "main", "value": REDIS}, *declarations])
    names = [item["name"] async for item in coreplane.list_settings(setting_type=USER, page=2)]
    assert names == [f"u{n}" for n in range(7)]
    even = [item["name"] async for item in coreplane.list_settings(labels={"even": "True"}, service="cache", page=3)]
    assert even == ["u0", "u2", "u4", "u6"]
    assert [d["name"] for d in await coreplane.export(labels={"even": "False"})] == ["u1", "u3", "u5"]


async def test_a_wait_that_ends_late_answers_with_the_status(coreplane: CoreplaneClient) -> None:
    setting = await coreplane.put_setting(USER, "app", {"value": APP}, wait="Ready", wait_s=0.05)
    assert setting["status"]["phase"] == "Pending"


async def test_an_operation_answers_with_its_result(coreplane: CoreplaneClient) -> None:
    answer = await coreplane.operate("cache.echo", {"a": 1})
    assert answer["result"]["body"] == {"a": 1}


async def test_the_daemon_says_how_it_is(coreplane: CoreplaneClient) -> None:
    assert (await coreplane.health())["ready"] is True
    assert (await coreplane.status())["replica"]["lag"] == 0
    assert USER in {item["type"] for item in (await coreplane.schemas())["items"]}
    assert (await coreplane.schemas(USER))["type"] == "object"


async def test_a_stream_goes_on_after_the_event_that_was_seen_last(api: Api, coreplane: CoreplaneClient) -> None:
    ids = [await api.happen(EventType.CONVERGED, f"default/{USER}/app", shard=n % 3) for n in range(6)]
    first = await taken(coreplane, 3, from_="earliest")
    rest = await taken(coreplane, 3, last_event_id=first[-1].id)
    assert sorted(event.data["id"] for event in [*first, *rest]) == sorted(ids)


async def test_a_stream_outlives_its_connection(api: Api, coreplane: CoreplaneClient) -> None:
    seen: list[bool] = []
    started = asyncio.Event()

    def watcher(connected: bool) -> None:
        seen.append(connected)
        started.set()

    async with aclosing(coreplane.stream(event_type="Converged", watcher=watcher)) as stream:
        following = asyncio.ensure_future(anext(stream))
        await started.wait()
        cut(api)
        expected = await api.happen(EventType.CONVERGED, f"default/{USER}/app")
        assert (await following).data["id"] == expected
    assert seen == [True, False, True]


async def test_a_filter_that_makes_no_sense_ends_the_stream(coreplane: CoreplaneClient) -> None:
    with pytest.raises(ApiError) as caught:
        await taken(coreplane, 1, event_type="Nonsense")
    assert caught.value.status == 400


async def test_nobody_there_is_said(unused_tcp_port: int) -> None:
    async with CoreplaneClient(f"http://127.0.0.1:{unused_tcp_port}", attempts=2) as client:
        with pytest.raises(DaemonUnreachable) as caught:
            await client.status()
    assert caught.value.cause == "Connection refused"


async def taken(coreplane: CoreplaneClient, count: int, **place: Any) -> list[Any]:
    """The next `count` events."""
    found: list[Any] = []
    async with asyncio.timeout(20), aclosing(coreplane.stream(**place)) as stream:
        async for event in stream:
            found.append(event)
            if len(found) == count:
                break
    return found


def cut(api: Api) -> None:
    """Break every connection of the server."""
    server = api.client.server.runner.server
    assert server is not None
    for connection in list(server.connections):
        assert connection.transport is not None
        connection.transport.abort()
