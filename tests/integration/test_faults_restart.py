"""The daemon stops, in order and otherwise, while it is written to, read from and projected: nothing is lost or told twice."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from controlplane.client.errors import ApiError, DaemonUnreachable
from controlplane.client.http import CoreplaneClient
from controlplane.client.stream import StreamEvent
from tests.e2e import audit
from tests.e2e.conditions import until
from tests.servers import DaemonProcess

pytestmark = pytest.mark.integration


def namespace(number: int) -> dict[str, Any]:
    return {"value": {"prefix": f"n{number}:", "layers": [{"target": "nowhere", "ttl_s": 60}]}}


async def write_on(client: CoreplaneClient, acknowledged: dict[str, int], first: int) -> None:
    """One setting after the other, until the daemon doesn't take them any more."""
    for number in range(first, first + 100_000):
        try:
            done = await client.put_setting("cache.namespace", f"n{number}", namespace(number))
        except (DaemonUnreachable, ApiError):
            return
        acknowledged[f"default/cache.namespace/n{number}"] = done["revision"]


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_what_was_acknowledged_before_the_end_is_there_after_it(daemon: DaemonProcess, how: str) -> None:
    acknowledged: dict[str, int] = {}
    async with daemon.client(attempts=1) as client:
        writers = [asyncio.create_task(write_on(client, acknowledged, 100_000 * number)) for number in range(8)]

        async def underway() -> bool:
            return len(acknowledged) > 100

        await until(underway, 20, "a hundred writes")
        await (daemon.stop if how == "stop" else daemon.kill)()
        await asyncio.gather(*writers)
    await daemon.start()
    async with daemon.client() as client:
        found = {f"default/cache.namespace/{s['name']}": s["revision"] async for s in client.list_settings()}

        async def announced() -> bool:
            report = await client.status()
            return bool(report["replica"]["lag"] == 0)

        await until(announced, 10, "caught up")
    assert acknowledged.items() <= found.items()
    await daemon.stop()
    books = await audit.books(daemon.data_dir)
    audit.check(books)


async def test_a_stream_goes_on_over_restarts_with_every_event_once_and_in_the_order_of_its_shard(
    daemon: DaemonProcess,
) -> None:
    seen: list[StreamEvent] = []

    async def read(client: CoreplaneClient) -> None:
        async for event in client.stream(from_="earliest"):
            seen.append(event)  # noqa: PERF401 - it is looked at while it grows

    async with daemon.client() as client, daemon.client() as reading:
        reader = asyncio.create_task(read(reading))
        try:
            for number in range(30):
                await client.put_setting("cache.namespace", f"n{number}", namespace(number))
                if number % 10 == 5:
                    await (daemon.stop if number == 15 else daemon.kill)()
                    await daemon.start()

            async def all_seen() -> bool:
                return len({e.data["setting"] for e in seen if e.event == "SettingAccepted"}) == 30

            await until(all_seen, 20, "the event of every setting")
            middle = len(seen) // 2
            resumed = reading.stream(last_event_id=seen[middle - 1].id)
            later = [event async for event in first(resumed, len(seen) - middle)]
        finally:
            reader.cancel()
            await asyncio.wait({reader})
    assert later == seen[middle : middle + len(later)]
    await daemon.stop()
    books = await audit.books(daemon.data_dir)
    audit.check(books)
    told, kept = defaultdict(list), defaultdict(list)
    for event in seen:
        told[event.data["shard"]].append(event.data["id"])
    for kept_event in books.events:
        if kept_event["tenant"] == "default":
            kept[kept_event["shard"]].append(kept_event["id"])
    for shard, ids in told.items():
        assert ids == kept[shard][: len(ids)]


async def first(stream: Any, count: int) -> Any:
    """The first events of a stream, which is then closed."""
    try:
        for _ in range(count):
            yield await anext(stream)
    finally:
        await stream.aclose()


async def ids_of_events(client: CoreplaneClient) -> list[str]:
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await client.events(limit=100, cursor=cursor)
        found += [event["id"] for event in page["items"]]
        cursor = page["next_cursor"]
        if not cursor:
            return found


def deleted(path: Path) -> None:
    path.unlink()


def garbled(path: Path) -> None:
    path.write_bytes(os.urandom(50_000))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def rotten_inside(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(byte ^ 0xFF for byte in content[4096:])
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [deleted, garbled, emptied, rotten_inside])
async def test_a_projection_that_was_harmed_is_made_anew_from_the_journal(daemon: DaemonProcess, harm: Any) -> None:
    before = await some_events(daemon)
    await daemon.stop()
    for suffix in ("-wal", "-shm"):
        daemon.data_dir.joinpath(f"projection.db{suffix}").unlink(missing_ok=True)
    harm(daemon.data_dir / "projection.db")
    await daemon.start()
    async with daemon.client() as client:

        async def back() -> bool:
            try:
                return set(await ids_of_events(client)) == before
            except ApiError as exc:
                if exc.status != 503:
                    raise
                return False

        await until(back, 20, "the events can be searched again")
        assert (await client.health())["ready"]


async def test_doctor_rebuilds_the_projection_of_a_stopped_daemon_and_of_no_other(daemon: DaemonProcess) -> None:
    before = await some_events(daemon)
    code, said = await doctor(daemon)
    assert code == 1
    assert str(daemon.pid) in said
    await daemon.stop()
    garbled(daemon.data_dir / "projection.db")
    code, said = await doctor(daemon)
    assert code == 0, said
    assert "rebuilt" in said
    await daemon.start()
    async with daemon.client() as client:
        assert set(await ids_of_events(client)) == before


async def some_events(daemon: DaemonProcess) -> set[str]:
    """Ids of all events of the tenant, once as many can be searched as there are settings."""
    async with daemon.client() as client:
        for number in range(20):
            await client.put_setting("cache.namespace", f"n{number}", namespace(number))

        async def projected() -> list[str]:
            page = await client.events(event_type="SettingAccepted", limit=500)
            return await ids_of_events(client) if len(page["items"]) == 20 else []

        return set(await until(projected, 10, "the events are projected"))


async def doctor(daemon: DaemonProcess) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "controlplane", "doctor", "--rebuild-projection", "--data", str(daemon.data_dir)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        out, _ = await process.communicate()
    assert b"Traceback" not in out
    return process.returncode, out.decode()
