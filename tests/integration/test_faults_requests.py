"""Requests at fault, sent to the real daemon: refused with every reason at once, nothing stored, nothing broken."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from yarl import URL

from controlplane.client.errors import ApiError
from controlplane.client.http import CoreplaneClient
from tests.e2e.conditions import condition_of, phase, until
from tests.servers import DaemonProcess

pytestmark = pytest.mark.integration

JSON = {"Content-Type": "application/json"}
ANSWERED_S = 20.0
NAMESPACE = {"value": {"prefix": "p:", "layers": [{"target": "nowhere", "ttl_s": 60}]}}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One daemon for all tests here; at the end it must have met no bug."""
    with asyncio.Runner() as runner:
        daemon = DaemonProcess(tmp_path_factory.mktemp("requests") / "coreplane", {})
        runner.run(daemon.start())
        yield daemon
        runner.run(daemon.stop())
    log = (daemon.data_dir / "daemon.log").read_text()
    assert "Traceback" not in log
    assert '"level": "error"' not in log


@pytest.fixture
async def client(running: DaemonProcess) -> AsyncIterator[CoreplaneClient]:
    async with running.client(attempts=1) as client:
        yield client


@pytest.fixture
async def http(running: DaemonProcess) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(running.url) as session:
        yield session


def path(name: str, setting_type: str = "cache.namespace") -> str:
    return f"/v1/tenants/default/settings/{setting_type}/{name}"


async def problem(response: aiohttp.ClientResponse, status: int) -> dict[str, Any]:
    text = await response.text()
    assert response.status == status, text
    assert response.content_type == "application/problem+json"
    found: dict[str, Any] = json.loads(text)
    return found


def fresh(prefix: str = "s") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\xff\xfe rubbish",
        b'{"value": ',
        b"[" * 100_000,
        b'{"value":' * 20_000,
        b'{"value": NaN}',
        b'{"value": 1e999}',
        b'"text"',
        b'{"value": {}, "value": {}}',
        b'\xef\xbb\xbf{"value": {}}',
        b'{"value": "\\ud800"}',
        b'{"value": ' + b"9" * 10_000 + b"}",
    ],
)
async def test_rubbish_is_malformed_or_invalid_and_stores_nothing(http: aiohttp.ClientSession, body: bytes) -> None:
    name = fresh()
    async with http.put(path(name), data=body, headers=JSON) as response:
        assert response.status in {400, 422}, await response.text()
        assert response.content_type == "application/problem+json"
    async with http.get(path(name)) as response:
        assert response.status == 404


async def test_a_huge_body_is_refused_by_its_length_and_by_what_arrives(running: DaemonProcess) -> None:
    part, parts = b" " * 65_536, 200
    declared = [f"Content-Length: {len(part) * parts}", [part] * parts]
    chunked = ["Transfer-Encoding: chunked", [b"10000\r\n" + part + b"\r\n"] * parts]
    for header, body in (declared, chunked):
        assert await refusal_while_sending(running, header, body) == {"status": 413, "reason": "TooLarge"}


async def refusal_while_sending(running: DaemonProcess, header: str, parts: list[bytes]) -> dict[str, Any]:
    """What a body is answered that isn't read to its end. An HTTP client would leave its connection behind, half sent."""
    host, port = running.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))

    async def send() -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    head = f"PUT {path(fresh())} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{header}\r\n\r\n"
    writer.write(head.encode())
    sending = asyncio.create_task(send())
    try:
        async with asyncio.timeout(ANSWERED_S):
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(
                next(line for line in answer.lower().split(b"\r\n") if b"content-length" in line).split(b":")[1]
            )
            found = json.loads(await reader.readexactly(length))
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return {name: found[name] for name in ("status", "reason")}


async def test_every_wrong_type_and_unknown_field_of_a_document_is_told_at_once(http: aiohttp.ClientSession) -> None:
    body = {
        "value": {"prefix": 7, "layers": [{"target": "main", "ttl_s": "soon", "color": "red"}], "stale_s": -1},
        "labels": {"team": 5},
        "policy": {"deletion": "maybe"},
        "depends_on": ["nonsense"],
    }
    async with http.put(path(fresh()), json=body) as response:
        found = await problem(response, 422)
    paths = {error["path"] for error in found["errors"]}
    assert paths >= {
        "/value/prefix",
        "/value/layers/0/ttl_s",
        "/value/layers/0/color",
        "/value/stale_s",
        "/labels/team",
        "/policy/deletion",
        "/depends_on/0",
    }
    assert all(error["message"] for error in found["errors"])


async def test_unknown_fields_and_parameters_are_refused_by_name(http: aiohttp.ClientSession) -> None:
    async with http.put(path(fresh()), json={**NAMESPACE, "valeu": {}}) as response:
        assert "valeu" in str(await problem(response, 400))
    async with http.put(path(fresh()), json=NAMESPACE, params={"dryrun": "true"}) as response:
        assert "dryrun" in str(await problem(response, 400))
    async with http.put(path(fresh()), data=b"a: 1", headers={"Content-Type": "text/plain"}) as response:
        await problem(response, 415)


@pytest.mark.parametrize(
    "name",
    [
        "%2e%2e",
        ".hidden",
        "a%2Fb",
        "a%0ab",
        "a%00b",
        "%C3%BCber",
        "x" * 129,
        "%20",
        "a%0a",
        "-dash",
        "a'b--",
        "%F0%9F%92%A9",
    ],
)
async def test_a_name_that_cant_be_one_is_refused(
    running: DaemonProcess, http: aiohttp.ClientSession, name: str
) -> None:
    url = URL(running.url + path(name), encoded=True)
    async with aiohttp.ClientSession() as session, session.put(url, json=NAMESPACE) as response:
        assert response.status in {404, 422}, await response.text()
    async with http.get("/v1/tenants/default/settings", params={"limit": "500"}) as response:
        assert "hidden" not in await response.text()


@pytest.mark.parametrize("name", ["x" * 128, "A.b-C_9", "0", "constructor", "null", "None.-_"])
async def test_an_odd_name_that_is_one_lives_a_whole_life(client: CoreplaneClient, name: str) -> None:
    value = {**NAMESPACE["value"], "prefix": f"{name}:"[:100]}
    created = await client.put_setting("cache.namespace", name, {"value": value})
    assert (await client.get_setting("cache.namespace", name))["revision"] == created["revision"]

    async def told() -> list[Any]:
        page = await client.events(setting=f"default/cache.namespace/{name}", event_type="SettingAccepted")
        return list(page["items"])

    assert len(await until(told, 10, "the event of the odd name")) == 1
    await client.delete_setting("cache.namespace", name, wait="Gone", wait_s=10)
    with pytest.raises(ApiError, match="404"):
        await client.get_setting("cache.namespace", name)


async def test_of_many_writers_with_one_etag_exactly_one_gets_through(client: CoreplaneClient) -> None:
    name = fresh()
    first = (await client.put_setting("cache.namespace", name, NAMESPACE))["revision"]

    async def change(number: int) -> str:
        value = {**NAMESPACE["value"], "stale_s": number + 1}
        try:
            await client.put_setting("cache.namespace", name, {"value": value}, if_match=first)
        except ApiError as exc:
            return f"{exc.status} {exc.reason}"
        return "changed"

    said = await asyncio.gather(*(change(number) for number in range(20)))
    assert sorted(said) == ["412 PreconditionFailed"] * 19 + ["changed"]
    assert len(await client.history("cache.namespace", name)) == 2
    with pytest.raises(ApiError) as stale:
        await client.delete_setting("cache.namespace", name, if_match=first)
    assert stale.value.status == 412


async def test_of_many_creators_exactly_one_finds_the_name_free(client: CoreplaneClient) -> None:
    name = fresh()

    async def create(number: int) -> str:
        value = {**NAMESPACE["value"], "stale_s": number + 1}
        try:
            await client.put_setting("cache.namespace", name, {"value": value}, if_absent=True)
        except ApiError as exc:
            return exc.reason
        return "created"

    said = await asyncio.gather(*(create(number) for number in range(20)))
    assert sorted(said) == ["PreconditionFailed"] * 19 + ["created"]


async def test_one_request_sent_many_times_at_once_is_done_once_and_answered_alike(client: CoreplaneClient) -> None:
    name, key = fresh(), fresh("key")
    answers = await asyncio.gather(
        *(client.put_setting("cache.namespace", name, NAMESPACE, idempotency_key=key) for _ in range(30))
    )
    assert len({(answer["revision"], answer["generation"]) for answer in answers}) == 1
    assert len(await client.history("cache.namespace", name)) == 1
    await client.put_setting("cache.namespace", name, {"value": {**NAMESPACE["value"], "tags": True}})
    again = await client.put_setting("cache.namespace", name, NAMESPACE, idempotency_key=key)
    assert again["revision"] == answers[0]["revision"]
    assert len(await client.history("cache.namespace", name)) == 2

    async def accepted() -> list[Any]:
        page = await client.events(setting=f"default/cache.namespace/{name}", event_type="SettingAccepted")
        return list(page["items"]) if len(page["items"]) >= 2 else []

    assert len(await until(accepted, 10, "both revisions announced")) == 2
    with pytest.raises(ApiError) as other:
        await client.put_setting("cache.namespace", fresh(), NAMESPACE, idempotency_key=key)
    assert other.value.status == 409


async def test_a_cycle_of_dependencies_is_told_and_heals_when_it_is_broken(client: CoreplaneClient) -> None:
    names = [fresh("cycle") for _ in range(3)]
    settings = [
        {
            "type": "cache.namespace",
            "name": name,
            "value": {**NAMESPACE["value"], "prefix": f"{name}:"},
            "depends_on": [f"cache.namespace/{names[(number + 1) % 3]}"],
        }
        for number, name in enumerate(names)
    ]
    await client.apply(settings)
    for name in names:
        stalled = condition_of(await phase(client, "cache.namespace", name, "Stalled"), "Stalled")
        assert stalled["reason"] == "DependencyCycle"
        assert all(other in stalled["message"] for other in names)
    await client.patch_setting("cache.namespace", names[0], {"depends_on": []})
    for name in names:
        await phase(client, "cache.namespace", name, "Pending")  # for its target, which nobody declared


async def test_an_apply_with_one_fault_stores_nothing_of_it(client: CoreplaneClient) -> None:
    names = [fresh("batch") for _ in range(3)]
    settings = [{"type": "cache.namespace", "name": name, **NAMESPACE} for name in names]
    settings[1]["value"] = {"prefix": ""}
    with pytest.raises(ApiError) as refused:
        await client.apply(settings)
    assert refused.value.status == 422
    assert {fault.path for fault in refused.value.errors} >= {"/settings/1/value/prefix", "/settings/1/value/layers"}
    assert [s["name"] async for s in client.list_settings() if s["name"] in names] == []


async def test_a_client_that_leaves_in_the_middle_of_its_body_hurts_nobody(running: DaemonProcess) -> None:
    host, port = running.url.removeprefix("http://").split(":")
    head = f"PUT {path(fresh())} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    for _ in range(20):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.encode() + b'{"value"')
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"\x16\x03\x01\x02\x00\x01\x00" * 100)
    await writer.drain()
    writer.close()
    async with running.client(attempts=1) as client:
        assert (await client.health())["ready"]
