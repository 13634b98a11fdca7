"""`coreplane up` as a person meets it first: a process of its own, with its servers, on a fresh data directory."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis.asyncio as redis_client
import yaml

from controlplane import devstack
from controlplane.client.http import CoreplaneClient
from schemas.names import timestamp
from tests.e2e import audit
from tests.e2e.conditions import all_ready, condition_of, until

pytestmark = pytest.mark.e2e

EXAMPLE = Path(devstack.__file__).parent / "example" / "shop.yaml"
OURS = (
    "acl|setuser",
    "acl|deluser",
    "config|set",
    "config|rewrite",
    "hset",
    "sadd",
    "set",
    "del",
    "eval",
    "client|kill",
)


@dataclass
class Shell:
    """Runs `coreplane` on one data directory."""

    data: Path

    async def __call__(self, *arguments: str, code: int = 0, within_s: float = 60) -> str:
        """Its output; both streams when the exit code isn't as expected."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "controlplane", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment(),
        )
        async with asyncio.timeout(within_s):
            out, err = await process.communicate()
        assert process.returncode == code, (arguments, out.decode(), err.decode())
        assert b"Traceback" not in err
        return (out if code == 0 else err).decode()

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COREPLANE_")}
        return {**kept, "COREPLANE_DATA": str(self.data), "COLUMNS": "200"}

    async def up(self) -> str:
        return await self("up", "--detach", "--port", "0", "--services", "cache")

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data / "up.json").read_text())
        return found

    def url(self, backend: str) -> str:
        return next(str(one["url"]) for one in self.record()["backends"] if one["name"] == backend)


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    shell = Shell(tmp_path / "data")
    yield shell
    await shell("down")


@pytest.fixture
async def up(shell: Shell) -> Shell:
    await shell.up()
    return shell


def processes_of(data: Path) -> list[psutil.Process]:
    """Everything that runs for a data directory: it stands in a command line or is where the process is at home."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), process.cwd()]
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
        if process.pid != os.getpid() and any(str(data) in word for word in words):
            found.append(process)
    return found


async def nothing_is_left(data: Path) -> None:
    async def gone() -> bool:
        return not processes_of(data)

    await until(gone, 20, "no process of the data directory is left")


async def test_a_fresh_machine_is_up_with_every_setting_of_the_example_ready_and_down_leaves_nothing(
    shell: Shell,
) -> None:
    greeting = await shell.up()
    settings = json.loads(await shell("get", "-o", "json"))
    assert len(settings) >= 12
    assert {setting["status"]["phase"] for setting in settings} == {"Ready"}
    assert shell.record()["url"] in greeting
    assert all(setting["name"] in greeting for setting in settings)
    mine = processes_of(shell.data)
    assert len(mine) >= 3, "daemon, Redis and Memcached"
    assert "up on" in await shell("up", "--detach", code=1)
    assert "is down" in await shell("down")
    await nothing_is_left(shell.data)
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in mine)
    assert "nothing is up" in await shell("down")
    found = await audit.books(shell.data)
    audit.check(found)
    assert (shell.data / "up.log").exists()


async def test_the_same_apply_again_does_nothing_at_all(up: Shell) -> None:
    async with CoreplaneClient(up.record()["url"]) as client, redis_client.from_url(up.url("redis")) as redis:
        await all_ready(client)
        position = (await client.status())["replica"]["position"]
        ready_at = timestamp(time.time())
        writes = await calls(redis)
        said = await up("apply", "-f", str(EXAMPLE), "--wait")
        assert "created" not in said
        assert "updated" not in said
        await client.reconcile("cache.redis_user", "storefront")
        await looked_at_again(client)
        assert (await client.status())["replica"]["position"] == position
        assert (await client.events(limit=1))["items"][0]["timestamp"] <= ready_at
        assert await calls(redis) == writes


async def calls(redis: Any) -> dict[str, int]:
    """How often anything that changes what is declared was called on the server."""
    stats = await redis.info("commandstats")
    counts = {name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()}
    return {name: count for name, count in counts.items() if name in OURS}


async def looked_at_again(client: CoreplaneClient) -> None:
    """Until the controller has made a pass over something since now."""
    before = await reconciled(client)

    async def more() -> bool:
        return await reconciled(client) > before

    await client.reconcile("cache.redis_user", "checkout")
    await until(more, 10, "another pass")


async def reconciled(client: CoreplaneClient) -> float:
    async with client._transport.session().get(f"{client.url}/metrics") as response:
        rows = (await response.text()).splitlines()
    return sum(float(row.rpartition(" ")[2]) for row in rows if row.startswith("coreplane_reconciled_total{"))


async def test_what_is_changed_by_hand_is_repaired_with_an_event_naming_path_desired_and_observed(up: Shell) -> None:
    async with CoreplaneClient(up.record()["url"]) as client, redis_client.from_url(up.url("redis")) as redis:
        await redis.acl_deluser("storefront")
        await redis.execute_command("ACL", "SETUSER", "checkout", "-@scripting", "~all-that:*")
        await redis.config_set("maxmemory-policy", "noeviction")

        async def repaired() -> bool:
            user, other = await redis.acl_getuser("storefront"), await redis.acl_getuser("checkout")
            policy = (await redis.config_get("maxmemory-policy"))["maxmemory-policy"]
            return user is not None and "all-that" not in str(other["keys"]) and policy == "allkeys-lfu"

        await until(repaired, 10, "everything is as declared")
        await all_ready(client)
        for setting, observed in (
            ("cache.redis_user/storefront", None),
            ("cache.redis_user/checkout", None),
            ("cache.redis_config/shop", "noeviction"),
        ):
            drift = (await drifts(client, setting))[0]
            assert set(drift) == {"path", "desired", "observed"}
            assert drift["desired"] != drift["observed"]
            if setting.startswith("cache.redis_config"):
                assert drift == {
                    "path": "/parameters/maxmemory-policy",
                    "desired": "allkeys-lfu",
                    "observed": observed,
                }
        described = await up("describe", "cache.redis_user", "storefront")
        assert "DriftDetected" in described


async def drifts(client: CoreplaneClient, setting: str) -> list[dict[str, Any]]:
    async def found() -> list[dict[str, Any]]:
        page = await client.events(event_type="DriftDetected", setting=f"default/{setting}")
        return [row for event in page["items"] for row in event["details"]["drift"]]

    return await until(found, 10, f"drift of {setting}")


async def test_a_change_of_the_example_converges_and_who_did_it_when_is_told(up: Shell, tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all(EXAMPLE.read_text()))
    changed = next(document for document in documents if document["name"] == "analytics")
    changed["value"]["passwords"] = changed["value"]["passwords"][1:]
    file = tmp_path / "changed.yaml"
    file.write_text(yaml.safe_dump(changed))
    await up("apply", "-f", str(file), "--wait", "--reason", "the rotation is done")
    newest, first = json.loads(await up("history", "cache.redis_user", "analytics", "-o", "json"))
    assert newest["reason"] == "the rotation is done"
    assert newest["changed"][0].startswith("/value/passwords")
    assert newest["actor"] == first["actor"] != ""
    async with redis_client.from_url(up.url("redis")) as redis:
        assert len((await redis.acl_getuser("analytics"))["passwords"]) == 1


async def test_up_again_goes_on_with_what_was_declared(up: Shell) -> None:
    await up("delete", "cache.namespace/carts", "--wait")
    await up("down")
    await nothing_is_left(up.data)
    await up.up()
    names = {setting["name"] for setting in json.loads(await up("get", "cache.namespace", "-o", "json"))}
    assert names == {"product-pages", "sessions", "search-suggestions"}
    async with CoreplaneClient(up.record()["url"]) as client:
        await all_ready(client)
        target = await client.get_setting("cache.target", "redis")
        assert condition_of(target, "Ready")["status"] == "True"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_however_up_ends_no_server_is_left_behind(shell: Shell, number: signal.Signals) -> None:
    with (shell.data.parent / "output").open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "controlplane", "up", "--port", "0", "--no-example", "--services", "cache"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=shell.environment(),
        )

    async def recorded() -> bool:
        return (shell.data / "up.json").exists()

    try:
        await until(recorded, 30, "it is up")
        servers = {backend["pid"] for backend in shell.record()["backends"]}
        assert servers <= {running.pid for running in processes_of(shell.data)}
    finally:
        process.send_signal(number)
        async with asyncio.timeout(30):
            code = await process.wait()
    assert code == (-number if number == signal.SIGKILL else 0)
    await nothing_is_left(shell.data)


async def test_a_server_of_up_that_is_killed_comes_back_with_everything_declared(up: Shell) -> None:
    pid = next(one["pid"] for one in up.record()["backends"] if one["name"] == "redis")
    os.kill(pid, signal.SIGKILL)
    async with CoreplaneClient(up.record()["url"]) as client:

        async def back() -> bool:
            page = await client.events(event_type="TargetUp", setting="default/cache.target/redis")
            return len(page["items"]) >= 2

        await until(back, 30, "the target is up again")
        await all_ready(client, 30)
    async with redis_client.from_url(up.url("redis")) as redis:
        assert {"storefront", "checkout", "analytics", "ops", "search-indexer"} <= set(await redis.acl_users())
