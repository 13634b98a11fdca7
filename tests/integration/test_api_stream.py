from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
from aiohttp import ClientResponse

from controlplane.api.stream import Streams
from controlplane.config import HttpConfig
from controlplane.log.ports import Stream
from schemas.event import EventType
from tests.integration.api_daemon import BASE, Api, bearer, daemon, token, until

STREAM = f"{BASE}/stream"
A, B = "default/cache.namespace/a", "default/cache.namespace/b"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with daemon() as running:
        yield running


class Frame(NamedTuple):
    id: str
    event: str
    data: Any


async def frames(response: ClientResponse) -> AsyncIterator[Frame]:
    """The events of a stream; comments are left out."""
    fields: dict[str, str] = {}
    async for line in response.content:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name and value and name != "":
            fields[name] = value
        elif not line.strip():
            if "data" in fields:
                yield Frame(fields["id"], fields["event"], json.loads(fields["data"]))
            fields = {}


async def take(response: ClientResponse, count: int) -> list[Frame]:
    found: list[Frame] = []
    async with asyncio.timeout(20):
        async for frame in frames(response):
            found.append(frame)
            if len(found) == count:
                break
    return found


async def test_events_come_as_they_happen_from_now_on(api: Api) -> None:
    await api.happen(EventType.CONVERGED, A)
    async with api.client.get(STREAM) as response:
        assert response.content_type == "text/event-stream"
        assert response.headers["X-Correlation-Id"]
        ident = await api.happen(EventType.DRIFT_DETECTED, A, drift=[])
        (frame,) = await take(response, 1)
    assert (frame.event, frame.data["id"], frame.data["setting"]) == ("DriftDetected", ident, A)


async def test_every_cursor_resumes_right_after_its_event(api: Api) -> None:
    happened = [await api.happen(EventType.CONVERGED, A, shard=number % 3) for number in range(12)]
    async with api.client.get(f"{STREAM}?from=earliest") as response:
        everything = await take(response, 12)
    assert sorted(frame.data["id"] for frame in everything) == sorted(happened)
    for place, frame in enumerate(everything[:-1]):
        async with api.client.get(STREAM, headers={"Last-Event-ID": frame.id}) as response:
            later = await take(response, len(everything) - place - 1)
        before = {other.data["id"] for other in everything[: place + 1]}
        assert sorted(other.data["id"] for other in later) == sorted(set(happened) - before)
        for shard in range(3):
            order = [other.data["timestamp"] for other in later if other.data["shard"] == shard]
            assert order == sorted(order)


async def test_where_a_reader_was_outranks_where_it_began(api: Api) -> None:
    for _ in range(2):
        await api.happen(EventType.CONVERGED, A)
    async with api.client.get(f"{STREAM}?from=earliest") as response:
        first, second = await take(response, 2)
    async with api.client.get(f"{STREAM}?from=earliest", headers={"Last-Event-ID": first.id}) as response:
        assert await take(response, 1) == [second]


async def test_filters_choose_and_other_tenants_stay_out(api: Api) -> None:
    await api.happen(EventType.CONVERGED, "other/cache.namespace/a")
    await api.happen(EventType.CONVERGED, A)
    await api.happen(EventType.STALLED, A)
    wanted = await api.happen(EventType.STALLED, B)
    for query in ("setting=cache.namespace/b", f"setting={B}&event_type=Stalled&service_name=cache&status=info"):
        async with api.client.get(f"{STREAM}?from=earliest&{query}") as response:
            (frame,) = await take(response, 1)
        assert frame.data["id"] == wanted


async def test_a_cursor_below_retention_is_gone_and_names_the_oldest(api: Api) -> None:
    for _ in range(3):
        await api.happen(EventType.CONVERGED, A)
    async with api.client.get(f"{STREAM}?from=earliest") as response:
        first, *_ = await take(response, 1)
    await api.log.journal.trim(Stream.EVENTS, "2100-01-01T00:00:00Z")
    problem = await api.call("GET", STREAM, 410, headers={"Last-Event-ID": first.id})
    assert problem["reason"] == "Gone"
    ident = await api.happen(EventType.CONVERGED, B)
    async with api.client.get(STREAM, params={"from": problem["oldest"]}) as response:
        assert (await take(response, 1))[0].data["id"] == ident


async def test_a_cursor_of_another_journal_is_gone(api: Api) -> None:
    assert (await api.call("GET", f"{STREAM}?from=ff.0.0.0", 410))["oldest"] == "0.0.0.0"


@pytest.mark.parametrize("cursor", ["x", "0", "0.0.0.0.0", "-1.0.0.0", "0.0.0.", f"{'f' * 40}.0.0.0"])
async def test_what_is_no_cursor_is_refused(api: Api, cursor: str) -> None:
    assert (await api.call("GET", STREAM, 400, params={"from": cursor}))["reason"] == "Malformed"


async def test_a_quiet_stream_gives_signs_of_life_that_move_the_resume_point() -> None:
    async with (
        daemon(streams=Streams(heartbeat_s=0.02)) as api,
        api.client.get(f"{STREAM}?event_type=Stalled") as response,
    ):
        await api.happen(EventType.CONVERGED, A)
        async with asyncio.timeout(20):
            while b"id: 1.0.0.0" not in await response.content.readline():
                pass


async def test_one_stream_too_many_is_refused_for_now() -> None:
    async with daemon(http=HttpConfig(max_streams=1)) as api:
        async with api.client.get(STREAM):
            refused = await api.raw("GET", STREAM)
            assert (refused.status, refused.headers["Retry-After"]) == (429, "5")

        async def admitted() -> bool:
            async with api.client.get(STREAM) as again:
                return again.status == 200

        await until(admitted)


async def test_no_token_holds_the_streams_of_the_others() -> None:
    async with daemon(tokens=(token("ann", "viewer"), token("bob", "viewer")), auth={"max_streams": 1}) as api:

        async def admitted(name: str) -> bool:
            async with api.client.get(STREAM, headers=bearer(name)) as response:
                return response.status == 200

        async with api.client.get(STREAM, headers=bearer("ann")):
            refused = await api.call("GET", STREAM, 429, headers=bearer("ann"))
            assert "default" not in refused["detail"]
            assert "1 streams open" in refused["detail"]
            assert await admitted("bob")
        await until(lambda: admitted("ann"))


async def test_a_reader_that_takes_nothing_is_dropped_with_its_resume_point() -> None:
    async with daemon(streams=Streams(stall_s=0.3)) as api:

        async def given_up() -> float | None:
            return api.parts.metrics.value("coreplane_streams_dropped_total")

        last = ""
        for _ in range(80):
            last = await api.happen(EventType.CONVERGED, A, padding="x" * 200_000)
        async with api.client.get(f"{STREAM}?from=earliest") as response:
            await until(given_up, 60)
            *seen, dropped = [frame async for frame in frames(response)]
        assert 0 < len(seen) < 80
        assert (dropped.event, dropped.data["resume"]) == ("dropped", seen[-1].id)
        async with api.client.get(STREAM, headers={"Last-Event-ID": dropped.id}) as response:
            rest = await take(response, 80 - len(seen))
        assert rest[-1].data["id"] == last


async def test_streams_end_when_the_daemon_does() -> None:
    streams = Streams()
    async with daemon(streams=streams) as api, api.client.get(STREAM) as response:
        streams.closing.set()
        async with asyncio.timeout(20):
            await response.read()
    assert streams.open == 0
