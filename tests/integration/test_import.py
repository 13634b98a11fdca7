"""Import over the real daemon and a real Redis: what it gives converges without a single write."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from controlplane.client.errors import ApiError
from controlplane.client.http import CoreplaneClient
from tests.conftest import RealServer
from tests.integration.test_plan_foresees import Tap, connected, tapped
from tests.servers import DaemonProcess

pytestmark = pytest.mark.integration

USER = "cache.redis_user"
ACL_FILE = """\
# as ACL SAVE writes it
user default on nopass sanitize-payload ~* &* +@all
user web:1 on #5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8 ~page:* resetchannels -@all +@read
user batch on >swordfish ~job:* %R~page:* &done.* -@all +@write +@read -keys (~tmp:* resetchannels -@all +@all)
user nobody off sanitize-payload resetchannels -@all
"""


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
    """Connected to the Redis by the tap."""
    async with daemon.client() as client:
        await connected(client, tap.url)
        yield client


def lasting(tap: Tap) -> list[list[str]]:
    """Commands that leave something behind: not those on scratch users, which are how the server is asked."""
    return [command for command in tap.writes() if not command[2].startswith("__coreplane_scratch_")]


async def ready(client: CoreplaneClient, settings: list[dict], timeout_s: float = 60.0) -> None:
    for one in settings:
        answer = await client.put_setting(
            one["type"], one["name"], {"value": one["value"]}, wait="Ready", wait_s=timeout_s
        )
        assert answer["status"]["phase"] == "Ready", answer["status"]


async def test_what_was_imported_converges_by_the_servers_own_count_without_a_write(client, redis, tap):
    for line in ACL_FILE.splitlines()[2:]:
        _, name, *rules = line.replace("(~tmp:* resetchannels -@all +@all)", "").split()
        await redis.execute_command("ACL", "SETUSER", name, *rules)
    await redis.execute_command("ACL", "SETUSER", "batch", "(~tmp:* +@all)")
    await redis.config_set("maxmemory", "100mb")
    before = await redis.execute_command("ACL", "LIST")
    users = await client.discover(USER, "main", "[!c]*")
    config = await client.discover("cache.redis_config", "main")
    assert [one["name"] for one in users["settings"]] == ["batch", "nobody", "web-1"]
    assert {one["setting"] for one in users["fill_in"]} == {f"default/{USER}/batch", f"default/{USER}/web-1"}
    assert users["skipped"] == config["skipped"] == []
    assert config["settings"][0]["value"]["parameters"]["maxmemory"] == str(100 * 1024 * 1024)
    plan = await client.plan(users["settings"] + config["settings"])
    assert (plan["steps"], plan["unknown"], plan["refused"]) == ([], [], [])
    await ready(client, users["settings"] + config["settings"])
    assert lasting(tap) == []
    assert await redis.execute_command("ACL", "LIST") == before
    events = await client.events(limit=500)
    assert "ActionStarted" not in {event["event_type"] for event in events["items"]}
    again = await client.discover(USER, "main", "[!c]*")
    assert again["settings"] == []
    assert {one["setting"] for one in again["declared"]} == {
        f"default/{USER}/{n}" for n in ("batch", "nobody", "web-1")
    }


async def test_a_file_gives_what_the_server_that_loaded_it_gives(client, redis, tap):
    for line in ACL_FILE.splitlines()[1:]:
        _, name, *rules = line.replace("(~tmp:* resetchannels -@all +@all)", "").split()
        await redis.execute_command("ACL", "SETUSER", name, "reset", *rules)
    await redis.execute_command("ACL", "SETUSER", "batch", "(~tmp:* resetchannels -@all +@all)")
    found = await client.convert(ACL_FILE, "main")
    assert [one["name"] for one in found["settings"]] == ["default", "web-1", "batch", "nobody"]
    assert "swordfish" not in str(found)
    assert (await client.plan(found["settings"]))["steps"] == []
    await ready(client, found["settings"])
    assert lasting(tap) == []


async def test_what_cant_be_imported_is_told_why(client, redis_server):
    refused = [
        (client.discover("cache.nothing", "main"), 422, "cache.redis_user"),
        (client.discover(USER, "nowhere"), 404, "declare it first"),
        (client.discover("cache.memcached_config", "main"), 422, "memcached"),
        (client.convert("no such file", "main"), 422, "redis_acl"),
        (client.convert("user a on", "main", file_format="nonsense"), 422, "redis_acl"),
        (client.convert("user a on rubbish", "main"), 422, "line 1"),
    ]
    for call, status, told in refused:
        with pytest.raises(ApiError) as raised:
            await call
        assert (raised.value.status, told in raised.value.detail) == (status, True), raised.value.detail
    await redis_server.kill()
    with pytest.raises(ApiError) as raised:
        await client.discover(USER, "main")
    assert raised.value.reason == "BackendUnreachable"
