"""A full disk: the daemon refuses writes and says so, serves what it knows, and goes on by itself when there is room."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import redis.asyncio as redis_client

from controlplane.client.errors import ApiError
from controlplane.client.http import CoreplaneClient
from tests.e2e import audit
from tests.e2e.conditions import all_ready, until
from tests.servers import DaemonProcess

pytestmark = pytest.mark.integration

DISK_BYTES = 24 * 1024 * 1024
FILLING = "x" * 1000
WAYS = ("a limit", "a small disk") if os.geteuid() == 0 else ("a limit",)
"""Mounting takes root; files that may not grow are refused by the same path of the system."""


class Limit:
    """No file of the daemon may grow beyond what its largest has now."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self._daemon = daemon

    def fill(self) -> None:
        largest = max(path.stat().st_size for path in self._daemon.data_dir.iterdir() if path.is_file())
        self._set(max(largest, 1_000_000))

    def make_room(self) -> None:
        self._set(resource.RLIM_INFINITY)

    def _set(self, size_bytes: int) -> None:
        psutil.Process(self._daemon.pid).rlimit(psutil.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


class SmallDisk:
    """A file system in memory on which something else takes the room."""

    def __init__(self, directory: Path) -> None:
        self._ballast = directory / "ballast"

    def fill(self) -> None:
        with self._ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                return

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)


async def ran(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    async with asyncio.timeout(20):
        assert await process.wait() == 0, command


@pytest.fixture(params=WAYS)
async def full(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[DaemonProcess, Any]]:
    """A daemon, and what fills its disk."""
    directory = tmp_path / "disk"
    directory.mkdir()
    small = request.param == "a small disk"
    if small:
        await ran("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(directory))
    daemon = DaemonProcess(directory / "coreplane", {"runtime": {"backoff_cap_s": 2.0, "sample_s": 0.5}})
    try:
        await daemon.start()
        yield daemon, SmallDisk(directory) if small else Limit(daemon)
        await daemon.clean_up()
    finally:
        if small:
            await ran("umount", "--lazy", str(directory))


def user(number: int) -> dict[str, Any]:
    value = {"target": "main", "commands": ["+@read"], "keys": [f"k{number}:*"]}
    return {"value": value, "reason": FILLING}


async def test_a_full_disk_refuses_writes_keeps_reads_and_is_left_behind(
    full: tuple[DaemonProcess, Any], redis_server: Any
) -> None:
    daemon, disk = full
    acknowledged: dict[str, int] = {}

    async def write(client: CoreplaneClient, number: int) -> ApiError | None:
        try:
            done = await client.put_setting("cache.redis_user", f"u{number}", user(number))
        except ApiError as exc:
            return exc
        acknowledged[f"default/cache.redis_user/u{number}"] = done["revision"]
        return None

    async with daemon.client(attempts=1) as client:
        await client.put_setting("cache.target", "main", {"value": {"kind": "redis", "url": redis_server.url}})
        await client.put_setting("cache.redis_user", "first", user(0), wait="Ready")
        disk.fill()
        refused: list[ApiError] = []
        for number in range(2_000):
            error = await write(client, number)
            refused += [error] if error else []
            if len(refused) == 10:
                break
        assert len(refused) == 10, f"{len(acknowledged)} writes went through"
        assert {(error.status, error.reason) for error in refused} == {(503, "LogUnavailable")}
        assert all("nothing was stored" in error.detail for error in refused)
        # Reads go on, and nothing that was refused is in them.
        found = {
            f"default/cache.redis_user/{s['name']}" async for s in client.list_settings(setting_type="cache.redis_user")
        }
        assert found == {*acknowledged, "default/cache.redis_user/first"}
        assert (await client.get_setting("cache.redis_user", "first"))["status"]["phase"] == "Ready"
        noticed = await hints(daemon)
        await drift_by_hand(redis_server, "first")

        async def seen() -> bool:
            return await hints(daemon) > noticed

        await until(seen, 20, "the drift is noticed")
        assert not await exists(redis_server, "first"), "an effect without a record of its beginning"
        disk.make_room()

        async def written_again() -> bool:
            return await write(client, 10_000) is None

        await until(written_again, 20, "writes are taken again")

        async def repaired() -> bool:
            return await exists(redis_server, "first")

        await until(repaired, 30, "what drifted meanwhile is repaired")
        await all_ready(client, 30)

        async def recovered() -> bool:
            return bool((await client.health())["ready"])

        await until(recovered, 30, "the daemon is ready again")
        found_revisions = {
            f"default/cache.redis_user/{s['name']}": s["revision"]
            async for s in client.list_settings(setting_type="cache.redis_user")
        }
        assert acknowledged.items() <= found_revisions.items()
    await daemon.stop()
    audit.check(await audit.books(daemon.data_dir))
    assert "task crashed" not in (daemon.data_dir / "daemon.log").read_text(errors="replace")


async def hints(daemon: DaemonProcess) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{daemon.url}/metrics") as response:
        rows = [row for row in (await response.text()).splitlines() if row.startswith("coreplane_hints_total{")]
    return sum(float(row.rpartition(" ")[2]) for row in rows)


async def drift_by_hand(server: Any, name: str) -> None:
    async with redis_client.from_url(server.url) as admin:
        await admin.acl_deluser(name)


async def exists(server: Any, name: str) -> bool:
    async with redis_client.from_url(server.url) as admin:
        return await admin.acl_getuser(name) is not None
