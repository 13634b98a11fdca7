"""Documents streamed through the whole daemon: any number, flat memory, the fate of each item, what is said when it breaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import psutil
import pytest

from controlplane.client.http import CoreplaneClient
from tests.e2e.conditions import phase
from tests.integration.search_world import INDEX, login
from tests.servers import DaemonProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

MIB = 2**20
Rows = list[dict[str, Any]]


@pytest.fixture
async def client(daemon: DaemonProcess, elasticsearch_server: Any) -> AsyncIterator[CoreplaneClient]:
    auth, _ = login(elasticsearch_server)
    target = {"url": elasticsearch_server.url, "username": auth[0], "password": {"from_env": "ES_PASSWORD"}}
    await daemon.stop()
    await daemon.start(ES_PASSWORD=auth[1])
    async with daemon.client() as client:
        await client.put_setting("search.target", "main", {"value": target})
        yield client


async def declared(client: CoreplaneClient, index: str) -> None:
    properties = {"n": {"type": "integer"}, "filler": {"type": "keyword", "index": False, "doc_values": False}}
    settings = {"number_of_replicas": 0, "refresh_interval": "-1"}
    value = {"target": "main", "settings": settings, "mappings": {"dynamic": "strict", "properties": properties}}
    await client.put_setting(INDEX, index, {"value": value})
    await phase(client, INDEX, index, "Ready", 60)


def address(daemon: DaemonProcess, index: str) -> str:
    return f"{daemon.url}/v1/tenants/default/documents/main/{index}"


async def sent(daemon: DaemonProcess, index: str, body: Any, **params: str) -> tuple[int, Rows]:
    """The status, and the lines of the answer; those of an error are its problem."""
    headers = {"content-type": "application/x-ndjson"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(address(daemon, index), data=body, params=params, headers=headers) as answer,
    ):
        return answer.status, [json.loads(line) for line in (await answer.text()).splitlines()]


def item(number: Any, filler: str = "") -> bytes:
    return (
        json.dumps({"index": {"_id": str(number)}}).encode()
        + b"\n"
        + json.dumps({"n": number, "filler": filler}).encode()
        + b"\n"
    )


async def test_a_hundred_megabytes_are_indexed_with_flat_memory_and_what_is_refused_is_told(
    client: CoreplaneClient, daemon: DaemonProcess
) -> None:
    await declared(client, "stream-large")
    filler, items, wrong = "x" * 5_000, 20_000, range(0, 20_000, 4_999)
    process = psutil.Process(daemon.pid)
    before, highest = process.memory_info().rss, 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal highest
        for number in range(items):
            yield item("no number" if number in wrong else number, filler)
            if number % 200 == 0:
                highest = max(highest, process.memory_info().rss)

    status, rows = await sent(daemon, "stream-large", body())
    assert status == 200
    *failed, last = rows
    assert (last["written"], last["failed"], last["lines"]) == (items - len(wrong), len(wrong), 2 * items)
    assert "error" not in last
    assert [row["status"] for row in failed] == [400] * len(wrong)
    assert all("no number" in row["error"] for row in failed)
    assert highest - before < 40 * MIB, "it isn't held"
    await client.operate("search.bulk", {"index": "stream-large", "documents": [{"n": 1}], "refresh": True})
    found = await client.operate(
        "search.query", {"index": "stream-large", "size": 0, "body": {"track_total_hits": True}}
    )
    assert found["result"]["total"] == items - len(wrong) + 1


async def test_every_item_is_answered_while_the_body_still_arrives(
    client: CoreplaneClient, daemon: DaemonProcess
) -> None:
    await declared(client, "stream-duplex")
    goes_on = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"".join(map(item, range(1_000)))
        await goes_on.wait()
        yield item(1_000) + b'{"delete": {"_id": "0"}}\n{"create": {"_id": "1"}}\n{"n": 1}\n'

    url = address(daemon, "stream-duplex")
    async with (
        asyncio.timeout(120),
        aiohttp.ClientSession(headers={"content-type": "application/x-ndjson"}) as session,
        session.post(url, data=body(), params={"results": "all", "refresh": "true"}) as answer,
    ):
        first = [json.loads(await answer.content.readline()) for _ in range(1_000)]
        goes_on.set()
        rest = [json.loads(line) for line in (await answer.content.read()).splitlines()]
    assert [row["id"] for row in first] == [str(n) for n in range(1_000)]
    assert {row["result"] for row in first} == {"created"}
    assert [(row["action"], row["status"]) for row in rest[:-1]] == [("index", 201), ("delete", 200), ("create", 409)]
    assert (rest[-1]["written"], rest[-1]["failed"]) == (1_002, 1)


async def test_a_wrong_line_ends_it_and_says_how_far_it_came(client: CoreplaneClient, daemon: DaemonProcess) -> None:
    await declared(client, "stream-wrong")
    good = b"".join(map(item, range(1_500)))
    status, rows = await sent(daemon, "stream-wrong", good + b"not json\n" + item(9))
    assert status == 200
    assert (rows[-1]["written"], rows[-1]["lines"]) == (1_500, 3_000)
    assert rows[-1]["error"]["reason"] == "InvalidBulk"
    assert "line 3001: not JSON" in rows[-1]["error"]["message"]
    for index, body, said in (
        ("stream-wrong", b"not json\n", "line 1: not JSON"),
        ("stream-wrong", b'{"index": {"_index": ".security"}}\n{}\n', "writes to another index"),
        (".security", item(1), "name of one index"),
        ("stream-wrong,other", item(1), "name of one index"),
    ):
        status, (problem,) = await sent(daemon, index, body)
        assert status == 422
        assert said in problem["detail"]
    status, rows = await sent(daemon, "stream-not-there", item(1))
    assert (status, rows[-1]["failed"]) == (200, 1), "an index is never made by writing to it"
    assert rows[0]["status"] == 404


async def test_a_server_that_dies_meanwhile_is_told_in_the_last_line(
    client: CoreplaneClient, daemon: DaemonProcess, elasticsearch_server: Any
) -> None:
    await declared(client, "stream-outage")
    is_dead = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"".join(map(item, range(1_000)))
        await is_dead.wait()
        yield b"".join(map(item, range(1_000)))

    url = address(daemon, "stream-outage")
    try:
        async with (
            asyncio.timeout(120),
            aiohttp.ClientSession(headers={"content-type": "application/x-ndjson"}) as session,
            session.post(url, data=body(), params={"results": "all"}) as answer,
        ):
            for _ in range(1_000):
                await answer.content.readline()
            await elasticsearch_server.kill()
            is_dead.set()
            (last,) = [json.loads(line) for line in (await answer.content.read()).splitlines()]
    finally:
        await elasticsearch_server.start()
    assert (last["written"], last["lines"]) == (1_000, 2_000)
    assert last["error"]["reason"] in ("Unreachable", "Timeout")
