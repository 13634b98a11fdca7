"""Tokens from the command line to the backend and back: made, used, expired, revoked, by the real daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.client.errors import ApiError
from controlplane.client.http import CoreplaneClient
from tests.integration.api_daemon import token, until
from tests.integration.cli_shell import Shell
from tests.servers import DaemonProcess

pytestmark = pytest.mark.integration

PAGES: dict[str, Any] = {"value": {"prefix": "p:", "layers": [{"target": "redis", "ttl_s": 60}]}}
ADMIN = token("root", "admin").model_dump(mode="json", exclude_none=True)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[DaemonProcess]:
    """A daemon with one configured token, to make others with."""
    process = DaemonProcess(tmp_path / "coreplane", {"auth": {"tokens": [ADMIN]}})
    await process.start()
    yield process
    await process.clean_up()


async def typed(process: DaemonProcess, *arguments: str, code: int = 0) -> str:
    """In a thread: the verbs run loops of their own."""
    shell = Shell(process.url, process.data_dir)
    return await asyncio.to_thread(shell, "--token", "secret-root", *arguments, code=code)


async def refused(client: CoreplaneClient, setting_type: str = "cache.namespace") -> int:
    try:
        await client.put_setting(setting_type, "pages", PAGES)
    except ApiError as exc:
        return exc.status
    return 0


async def test_a_token_made_by_the_command_line_does_what_it_is_for_and_nothing_else(guarded: DaemonProcess) -> None:
    made = (await typed(guarded, "token", "create", "ci", "--role", "editor", "--service", "cache")).strip()
    assert made.startswith("cp_")
    assert made not in (guarded.data_dir / "daemon.log").read_text()
    async with guarded.client(token=made) as ci:
        assert await refused(ci) == 0
        assert await refused(ci, "queue.topic") == 403
        with pytest.raises(ApiError, match="needs admin"):
            await ci.get_setting("access.token", "ci")
        assert (await ci.history("cache.namespace", "pages"))[0]["actor"] == "default/ci"
    listed = (await typed(guarded, "token", "list")).splitlines()
    assert listed[1].split()[:5] == ["ci", "editor", "cache", "default", "-"]
    assert "412" in await typed(guarded, "token", "create", "ci", code=1)


async def test_a_token_is_ready_when_it_counts_and_gone_when_it_is_revoked(guarded: DaemonProcess) -> None:
    made = (await typed(guarded, "token", "create", "ci", "--role", "editor")).strip()
    async with guarded.client(token="secret-root") as root, guarded.client(token=made) as ci:

        async def phase() -> bool:
            return bool((await root.get_setting("access.token", "ci"))["status"]["phase"] == "Ready")

        await until(phase, 60)
        assert await refused(ci) == 0
        await typed(guarded, "token", "revoke", "ci")
        assert await refused(ci) == 401
        await typed(guarded, "wait", "access.token", "ci", "--for", "Gone")

        async def told() -> bool:
            events = (await root.events(setting="default/access.token/ci"))["items"]
            types = [event["event_type"] for event in events]
            return types[-1:] == ["SettingAccepted"] and {"SettingRetired", "SettingForgotten"} <= {*types}

        await until(told, 60)


async def test_revoking_a_token_ends_its_streams(guarded: DaemonProcess) -> None:
    made = (await typed(guarded, "token", "create", "watcher")).strip()
    standing = asyncio.Event()

    async def watch() -> None:
        async with guarded.client(token=made) as watcher:
            async for _ in watcher.stream(watcher=lambda up: standing.set() if up else None):
                pass

    watching = asyncio.create_task(watch())
    async with asyncio.timeout(60):
        await standing.wait()
        await typed(guarded, "token", "revoke", "watcher")
        with pytest.raises(ApiError) as ended:
            await watching
    assert ended.value.status == 401


async def test_a_token_is_refused_once_it_has_expired(guarded: DaemonProcess) -> None:
    made = (await typed(guarded, "token", "create", "short", "--role", "editor", "--expires", "1s")).strip()
    async with guarded.client(token=made) as short:

        async def over() -> bool:
            return await refused(short) == 401

        await until(over, 60)
    assert "expired" in await typed(guarded, "token", "list")


async def test_tokens_outlive_the_daemon_and_are_enough_by_themselves(guarded: DaemonProcess) -> None:
    made = (
        await typed(guarded, "--tenant", "system", "token", "create", "ops", "--role", "admin", "--in", "*")
    ).strip()
    await guarded.stop()
    guarded.content = {"auth": {"required": True}}
    await guarded.start()
    async with guarded.client(token=made) as ops, guarded.client(token="secret-root") as root:
        assert await refused(ops) == 0
        assert await refused(root) == 401
        assert (await ops.history("cache.namespace", "pages"))[0]["actor"] == "system/ops"


async def test_nobody_makes_a_token_that_may_do_more_than_they(guarded: DaemonProcess) -> None:
    grants = [{"role": "admin", "services": ["cache", "access"]}]
    declared = {"value": {"sha256": token("part", "admin").sha256, "grants": grants}}
    async with guarded.client(token="secret-root") as root:
        await root.put_setting("access.token", "part", declared)
    async with guarded.client(token="secret-part") as part:
        await part.put_setting(
            "access.token",
            "less",
            {"value": {"sha256": "1" * 64, "grants": [{"role": "viewer", "services": ["cache"]}]}},
        )
        for grant in ({"role": "viewer"}, {"role": "admin", "services": ["queue"]}):
            with pytest.raises(ApiError, match="nobody hands on more than they hold"):
                await part.put_setting("access.token", "more", {"value": {"sha256": "2" * 64, "grants": [grant]}})


async def test_a_revoked_token_stays_revoked_whatever_is_rolled_back(guarded: DaemonProcess) -> None:
    made = (await typed(guarded, "token", "create", "ci", "--role", "editor")).strip()
    async with guarded.client(token="secret-root") as root:
        before = (await root.get_setting("access.token", "ci"))["revision"]
        await typed(guarded, "token", "revoke", "ci")
        await root.rollback(before)
        with pytest.raises(ApiError, match="isn't rolled back"):
            await root.rollback(before, settings=["access.token/ci"])
    async with guarded.client(token=made) as ci:
        assert await refused(ci) == 401
