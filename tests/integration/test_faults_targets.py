"""Backends and secrets that fail: what the statuses say meanwhile, and that everything comes back by itself."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis_client

from controlplane.client.errors import ApiError
from controlplane.client.http import CoreplaneClient
from schemas.cache_layout import registration_key
from tests.e2e import audit
from tests.e2e.conditions import all_ready, condition_of, phase, until
from tests.servers import DaemonProcess

pytestmark = pytest.mark.integration

USER = {"target": "main", "passwords": [{"from_file": "secrets/app"}], "commands": ["+@read"], "keys": ["app:*"]}


@pytest.fixture
async def client(daemon: DaemonProcess) -> AsyncIterator[CoreplaneClient]:
    write_secret(daemon, "app", "of-the-app")
    async with daemon.client() as client:
        yield client


@pytest.fixture
async def admin(redis_server: Any) -> AsyncIterator[Any]:
    admin = redis_client.from_url(redis_server.url, decode_responses=True)
    yield admin
    await admin.aclose()


def write_secret(daemon: DaemonProcess, name: str, text: str) -> Path:
    path = daemon.data_dir / "secrets" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n")
    return path


async def declare(client: CoreplaneClient, url: str, **more: Any) -> None:
    await client.put_setting("cache.target", "main", {"value": {"kind": "redis", "url": url, **more}})


async def events(client: CoreplaneClient, event_type: str, setting: str | None = None) -> list[dict[str, Any]]:
    page = await client.events(event_type=event_type, setting=setting, limit=500)
    return list(page["items"])


async def told(client: CoreplaneClient, event_type: str, setting: str | None = None, count: int = 1) -> list[Any]:
    async def enough() -> list[dict[str, Any]]:
        found = await events(client, event_type, setting)
        return found if len(found) >= count else []

    return await until(enough, 15, f"{count} {event_type} of {setting}")


async def test_of_two_settings_for_one_user_the_older_has_it_and_the_younger_says_who(
    client: CoreplaneClient, redis_server: Any, admin: Any
) -> None:
    await declare(client, redis_server.url)
    await client.put_setting("cache.redis_user", "elder", {"value": {**USER, "username": "shared"}}, wait="Ready")
    younger = {**USER, "username": "shared", "keys": ["other:*"]}
    await client.put_setting("cache.redis_user", "younger", {"value": younger})
    conflict = condition_of(await phase(client, "cache.redis_user", "younger", "Stalled"), "Stalled")
    assert conflict["reason"] == "Conflict"
    assert "default/cache.redis_user/elder" in conflict["message"]
    await client.patch_setting("cache.redis_user", "elder", {"value": {"commands": ["+@write"]}}, wait="Ready")
    assert "~app:*" in " ".join((await admin.acl_getuser("shared"))["keys"])
    await client.delete_setting("cache.redis_user", "younger", wait="Gone")
    assert await admin.acl_getuser("shared") is not None, "retiring the younger took the elder's user away"
    await client.put_setting("cache.redis_user", "younger", {"value": younger})
    await client.delete_setting("cache.redis_user", "elder", wait="Gone")
    await phase(client, "cache.redis_user", "younger", "Ready")
    assert (await admin.acl_getuser("shared"))["keys"] == ["~other:*"]


@pytest.mark.parametrize("username", ['we!rd"user*?', "ünï-cødé", "[x]\\y", "a" * 256, "'; DROP", "{0}%s"])
async def test_a_user_with_an_odd_name_lives_a_whole_life(
    client: CoreplaneClient, redis_server: Any, admin: Any, username: str
) -> None:
    username = username.replace(" ", "")
    await declare(client, redis_server.url)
    value = {**USER, "username": username}
    done = await client.put_setting("cache.redis_user", "odd", {"value": value}, wait="Ready", wait_s=15)
    assert done["status"]["phase"] == "Ready", done["status"]
    assert (await admin.acl_getuser(username))["keys"] == ["~app:*"]
    await client.put_setting("cache.redis_user", "odd", {"value": {**value, "keys": ["new:*"]}}, wait="Ready")
    assert (await admin.acl_getuser(username))["keys"] == ["~new:*"]
    await client.delete_setting("cache.redis_user", "odd", wait="Gone")
    assert username not in await admin.acl_users()


async def test_a_secret_that_isnt_there_is_named_and_used_as_soon_as_it_is(
    daemon: DaemonProcess, client: CoreplaneClient, redis_server: Any, admin: Any
) -> None:
    await declare(client, redis_server.url)
    value = {**USER, "passwords": [{"from_file": "secrets/late"}]}
    await client.put_setting("cache.redis_user", "app", {"value": value})
    stalled = condition_of(await phase(client, "cache.redis_user", "app", "Stalled"), "Stalled")
    assert stalled["reason"] == "SecretNotFound"
    assert "secrets/late" in stalled["message"]
    assert "app" not in await admin.acl_users()
    assert len(await told(client, "Stalled", "default/cache.redis_user/app")) == 1
    write_secret(daemon, "late", "here-at-last")
    await phase(client, "cache.redis_user", "app", "Ready")
    await admin.execute_command("AUTH", "app", "here-at-last")
    assert len(await events(client, "Stalled", "default/cache.redis_user/app")) == 1, "an event for each try"


async def test_a_target_that_is_down_at_the_start_is_said_and_taken_up_when_it_comes(
    client: CoreplaneClient, redis_server: Any
) -> None:
    await redis_server.stop()
    await declare(client, redis_server.url)
    await client.put_setting("cache.redis_user", "app", {"value": USER})

    async def down() -> bool:
        target = await client.get_setting("cache.target", "main")
        return (
            bool(condition_of(target, "Ready")["reason"] == "Unreachable") if target["status"]["conditions"] else False
        )

    await until(down, 15, "the target is said to be Unreachable")
    report = await client.status()
    (target,) = report["targets"]
    assert (target["up"], target["reason"]) == (False, "Unreachable")
    assert str(redis_server.port) in target["message"]
    assert await events(client, "ActionStarted") == []
    await redis_server.restart()
    await all_ready(client, 20)


async def test_a_target_that_goes_down_leaves_everything_unknown_and_comes_back_with_everything(
    client: CoreplaneClient, redis_server: Any, admin: Any
) -> None:
    await declare(client, redis_server.url)
    for name in ("one", "two", "three"):
        await client.put_setting("cache.redis_user", name, {"value": USER}, wait="Ready")
    await redis_server.kill()
    for name in ("one", "two", "three"):
        assert condition_of(await phase(client, "cache.redis_user", name, "Unknown"), "Ready")["status"] == "Unknown"
    down = await told(client, "TargetDown")
    assert down[0]["details"]["reason"] == "Unreachable"
    # What is declared meanwhile isn't lost, and what is retired meanwhile goes.
    await client.put_setting("cache.redis_user", "four", {"value": USER})
    await client.delete_setting("cache.redis_user", "one")
    await redis_server.restart()

    async def as_declared() -> bool:
        return sorted(await admin.acl_users()) == sorted(["coreplane", "default", "two", "three", "four"])

    await until(as_declared, 20, "the users that were lost are back")
    await all_ready(client, 20)
    assert len(await told(client, "TargetUp", count=2)) == 2
    assert len(await events(client, "TargetDown")) == 1, "one event for each transition"


async def test_a_target_that_falls_silent_is_unknown_and_goes_on_when_it_speaks(
    client: CoreplaneClient, redis_server: Any
) -> None:
    await declare(client, redis_server.url)
    await client.put_setting("cache.redis_user", "app", {"value": USER}, wait="Ready")
    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        await client.patch_setting("cache.redis_user", "app", {"value": {"keys": ["new:*"]}})
        await phase(client, "cache.redis_user", "app", "Unknown", 30)
        assert (await client.health())["ready"], "a backend that is down is no reason for the daemon not to be ready"
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)
    await all_ready(client, 30)


async def test_a_wrong_password_is_said_tried_seldom_and_works_once_it_is_right(
    daemon: DaemonProcess, client: CoreplaneClient, redis_server: Any, admin: Any
) -> None:
    await admin.acl_setuser(
        "boss", enabled=True, passwords=["+right"], categories=["+@all"], keys=["*"], channels=["*"]
    )
    write_secret(daemon, "boss", "not-this-one")
    await declare(client, redis_server.url, username="boss", password={"from_file": "secrets/boss"})
    await client.put_setting("cache.redis_user", "app", {"value": USER})
    stalled = condition_of(await phase(client, "cache.target", "main", "Stalled"), "Stalled")
    assert stalled["reason"] == "AuthenticationFailed"
    assert "not-this-one" not in str(await client.events()), "the password is told"

    async def tries() -> int:
        text = await metrics(client)
        rows = [line for line in text.splitlines() if line.startswith("coreplane_target_connect_failures_total")]
        return int(sum(float(row.rpartition(" ")[2]) for row in rows))

    async def more_tries() -> bool:
        return await tries() >= before + 3

    before, connected = await tries(), await connections(admin)
    await until(more_tries, 30, "three more tries")
    made, asked = await connections(admin) - connected, await tries() - before
    assert made <= asked + 1, f"{made} connections for {asked} tries"
    assert len(await told(client, "TargetDown")) == 1
    write_secret(daemon, "boss", "right")
    await all_ready(client, 20)


async def metrics(client: CoreplaneClient) -> str:
    async with client._transport.session().get(f"{client.url}/metrics") as response:
        return await response.text()


async def connections(admin: Any) -> int:
    return int((await admin.info("stats"))["total_connections_received"])


async def test_a_target_whose_own_secret_is_missing_is_taken_up_when_it_comes(
    daemon: DaemonProcess, client: CoreplaneClient, redis_server: Any, admin: Any
) -> None:
    await admin.acl_setuser(
        "boss", enabled=True, passwords=["+right"], categories=["+@all"], keys=["*"], channels=["*"]
    )
    await declare(client, redis_server.url, username="boss", password={"from_file": "secrets/boss"})
    await client.put_setting("cache.redis_user", "app", {"value": USER})
    stalled = condition_of(await phase(client, "cache.target", "main", "Stalled"), "Stalled")
    assert stalled["reason"] == "SecretNotFound"
    assert "secrets/boss" in stalled["message"]
    write_secret(daemon, "boss", "right")
    await all_ready(client, 20)


async def test_a_target_that_is_retired_and_declared_anew_works_and_no_event_comes_twice(
    daemon: DaemonProcess, client: CoreplaneClient, redis_server: Any
) -> None:
    for _ in range(4):
        await declare(client, redis_server.url)
        await client.put_setting("cache.redis_user", "app", {"value": USER}, wait="Ready")
        await client.delete_setting("cache.redis_user", "app", wait="Gone")
        await client.delete_setting("cache.target", "main", wait="Gone")
    await daemon.stop()
    audit.check(await audit.books(daemon.data_dir))


async def test_a_namespace_cant_move_to_another_first_layer_where_it_would_leave_its_registration_behind(
    client: CoreplaneClient, redis_server: Any, memcached_server: Any
) -> None:
    await declare(client, redis_server.url)
    memcached = {"kind": "memcached", "url": memcached_server.url}
    await client.put_setting("cache.target", "other", {"value": memcached})
    main, other = {"target": "main", "ttl_s": 60}, {"target": "other", "ttl_s": 60}
    value = {"prefix": "moving:", "layers": [main]}
    await client.put_setting("cache.namespace", "moving", {"value": value}, wait="Ready")
    for layers in ([other], [other, main]):
        with pytest.raises(ApiError) as refused:
            await client.put_setting("cache.namespace", "moving", {"value": {**value, "layers": layers}})
        assert refused.value.status == 422
        assert refused.value.errors[0].path == "/value/layers/0/target"
    more = {**value, "layers": [main, other]}
    await client.put_setting("cache.namespace", "moving", {"value": more}, wait="Ready")


@pytest.mark.parametrize("moved", ["user", "prefix"])
async def test_a_setting_whose_object_gets_another_name_says_so_and_leaves_the_object_alone(
    client: CoreplaneClient, redis_server: Any, admin: Any, moved: str
) -> None:
    await declare(client, redis_server.url)
    if moved == "user":
        setting_type, value, renamed = "cache.redis_user", USER, {**USER, "username": "renamed"}
    else:
        setting_type = "cache.namespace"
        value = {"prefix": "old:", "layers": [{"target": "main", "ttl_s": 60}]}
        renamed = {**value, "prefix": "new:"}
    await client.put_setting(setting_type, "moving", {"value": value}, wait="Ready")
    await client.put_setting(setting_type, "moving", {"value": renamed})
    stalled = condition_of(await phase(client, setting_type, "moving", "Stalled"), "Stalled")
    assert stalled["reason"] == "Renamed"
    assert "renamed" not in await admin.acl_users()
    assert not await admin.exists(registration_key("new:"))
    await client.put_setting(setting_type, "moving", {"value": value}, wait="Ready")
    await client.put_setting(setting_type, "moving", {"value": renamed})
    await client.delete_setting(setting_type, "moving", wait="Gone")
    assert "moving" not in await admin.acl_users()
    assert not await admin.exists(registration_key("old:"))
