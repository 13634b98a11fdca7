"""Drift as data over the real daemon and a real Redis: open, resolved, recurring, muted; and what is reported isn't touched."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from controlplane.client.http import CoreplaneClient
from schemas.names import timestamp
from tests.conftest import RealServer
from tests.integration.test_plan_foresees import Tap, connected, tapped
from tests.servers import DaemonProcess

pytestmark = pytest.mark.integration

SHOP, APP = ("cache.redis_config", "shop"), ("cache.redis_user", "app")
DEADLINE_S = 60.0
WRITES = ("acl|setuser", "acl|deluser", "config|set", "config|rewrite", "client|kill")


@pytest.fixture
async def redis(redis_server: RealServer) -> AsyncIterator[Redis]:
    client: Redis = Redis.from_url(redis_server.url, decode_responses=True)
    yield client
    await client.aclose()


@pytest.fixture
async def tap(redis_server: RealServer) -> AsyncIterator[Tap]:
    async with tapped(redis_server) as tap:
        yield tap


@pytest.fixture
async def client(daemon: DaemonProcess, tap: Tap) -> AsyncIterator[CoreplaneClient]:
    async with daemon.client() as client:
        await connected(client, tap.url)
        yield client


async def declared(client: CoreplaneClient, policy: dict[str, Any], **parameters: str) -> None:
    names = {name.replace("_", "-"): text for name, text in parameters.items()}
    body = {"value": {"target": "main", "parameters": names}, "policy": policy}
    answer = await client.put_setting(*SHOP, body, wait="Ready", wait_s=DEADLINE_S)
    assert answer["status"]["phase"] == "Ready", answer


async def rows(client: CoreplaneClient, **filters: str) -> dict[str, tuple[str, int]]:
    """Path → state and number of episodes."""
    return {row["path"]: (row["state"], row["episodes"]) for row in (await client.drift(**filters))["items"]}


async def until(condition: Any) -> Any:
    async with asyncio.timeout(DEADLINE_S):
        while not (found := await condition()):
            await asyncio.sleep(0.05)
    return found


async def writes(redis: Redis) -> dict[str, int]:
    """How often each command was executed that changes what is declared, by the server's own count."""
    stats = await redis.info("commandstats")
    return {name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in WRITES}


async def looked(client: CoreplaneClient, tap: Tap, times: int = 5) -> None:
    """Until the daemon has looked so many times more at the server."""
    for _ in range(times):
        seen = sum(command[0] == "CONFIG" for command in tap.commands)
        await client.reconcile(*SHOP)

        async def again(seen: int = seen) -> bool:
            return sum(command[0] == "CONFIG" for command in tap.commands) > seen

        await until(again)


async def test_what_is_only_reported_is_never_written_by_the_servers_own_count(client, redis, tap):
    await declared(client, {"drift": "report"}, maxmemory="100mb", maxmemory_samples="7")
    value = {"target": "main", "commands": ["+@read"], "keys": ["app:*"], "passwords": []}
    await client.put_setting(*APP, {"value": value, "policy": {"drift": "report"}}, wait="Ready", wait_s=DEADLINE_S)
    await redis.config_set("maxmemory", "1gb")
    await redis.execute_command("ACL", "SETUSER", "app", "+set")
    await until(lambda: has(client, {"/maxmemory": "open"}, "/commands"))
    before = await writes(redis)
    await looked(client, tap)
    await client.reconcile(*APP)
    assert await writes(redis) == before
    assert (await client.get_setting(*SHOP))["status"]["phase"] == "Drifted"
    assert (await client.drift(state="open"))["counts"]["open"] == 2
    assert (await redis.config_get("maxmemory"))["maxmemory"] == str(1024**3)
    await redis.config_set("maxmemory", "100mb")
    await until(lambda: has(client, {"/maxmemory": "resolved"}))
    row = next(row for row in (await client.drift(setting="/".join(SHOP)))["items"])
    assert (row["policy"], row["until"] > row["since"]) == ("report", True)


async def has(client: CoreplaneClient, states: dict[str, str], *also: str) -> bool:
    """Are the parameters in these states, and are the other paths there too?"""
    found = await rows(client)
    return all(found.get(f"/parameters{path}", ("",))[0] == state for path, state in states.items()) and all(
        path in found for path in also
    )


async def test_what_keeps_coming_back_is_recurring(client, redis):
    await declared(client, {}, maxmemory="100mb", maxmemory_samples="7")
    for number in (1, 2):
        await redis.config_set("maxmemory", "1gb")

        async def resolved(number: int = number) -> bool:
            state, episodes = (await rows(client)).get("/parameters/maxmemory", ("", 0))
            return episodes == number and state == ("recurring" if number > 1 else "resolved")

        await until(resolved)
    assert (await redis.config_get("maxmemory"))["maxmemory"] == str(100 * 1024 * 1024)
    told = await client.drift(state="recurring")
    assert (told["counts"]["recurring"], told["complete"]) == (1, True)
    assert await rows(client, service="queue") == {}
    assert await rows(client, state="open") == {}


async def test_what_is_muted_is_left_as_it_is_and_still_counted(client, redis, tap):
    ignore = {"path": "/parameters/maxmemory", "reason": "tuned by hand", "until": "2999-01-01T00:00:00Z"}
    await declared(client, {"ignore": [ignore]}, maxmemory="100mb", maxmemory_samples="7")
    await redis.config_set("maxmemory", "1gb")

    async def muted() -> Any:
        return (await client.drift(state="muted"))["items"]

    (row,) = await until(muted)
    assert (row["path"], row["muted"]["reason"]) == ("/parameters/maxmemory", "tuned by hand")
    before = await writes(redis)
    await looked(client, tap)
    assert await writes(redis) == before
    setting = await client.get_setting(*SHOP)
    assert setting["status"]["phase"] == "Ready"
    assert setting["status"]["muted"][0]["observed"] == str(1024**3)
    told = (await client.explain(*SHOP, path="/parameters/maxmemory"))["paths"][0]
    assert (told["observed"], told["muted"]["reason"]) == (str(1024**3), "tuned by hand")


async def test_what_is_muted_until_a_time_is_put_right_after_it_and_not_before(client, redis):
    end = time.time() + 4
    ignore = {"path": "/parameters/maxmemory", "reason": "for the sale", "until": timestamp(end)}
    await declared(client, {"ignore": [ignore], "interval_s": 0.5}, maxmemory="100mb", maxmemory_samples="7")
    await redis.config_set("maxmemory", "1gb")

    async def repaired() -> bool:
        return (await redis.config_get("maxmemory"))["maxmemory"] == str(100 * 1024 * 1024)

    await until(repaired)
    assert time.time() >= end


async def test_an_ignored_path_as_people_wrote_it_before_still_is_one(client, redis, tap):
    await declared(client, {"ignore": ["/parameters/maxmemory"]}, maxmemory="100mb", maxmemory_samples="7")
    await redis.config_set("maxmemory", "1gb")
    await looked(client, tap, 2)

    async def muted() -> Any:
        return (await client.drift(state="muted"))["items"]

    (row,) = await until(muted)
    assert (row["path"], row["muted"]) == ("/parameters/maxmemory", {"reason": "", "until": None})
    assert (await redis.config_get("maxmemory"))["maxmemory"] == str(1024**3)
