"""Two tenants on one Redis, by the real daemon: neither gets at what is the other's, and what is shared can be taken back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from controlplane.client.errors import ApiError
from controlplane.client.http import CoreplaneClient
from reconcilers.cache.acl import CONFINED
from tests.integration.api_daemon import until
from tests.servers import DaemonProcess

pytestmark = pytest.mark.integration

SHARE = {"target": "default/cache.target/redis", "tenant": "acme", "prefix": "acme:"}
OPEN: dict[str, Any] = {"target": "default/redis", "username": "acme:app", "nopass": True, "keys": ["acme:*"]}
USER: dict[str, Any] = {**OPEN, "commands": ["+@all", *CONFINED]}


@pytest.fixture
async def owner(daemon: DaemonProcess, redis_server: Any) -> AsyncIterator[CoreplaneClient]:
    async with daemon.client() as client:
        value = {"kind": "redis", "url": redis_server.url}
        await client.put_setting("cache.target", "redis", {"value": value}, wait="Ready", wait_s=60)
        yield client


@pytest.fixture
async def system(daemon: DaemonProcess) -> AsyncIterator[CoreplaneClient]:
    async with daemon.client(tenant="system") as client:
        await client.put_setting("access.tenant", "acme", {"value": {}})
        yield client


@pytest.fixture
async def acme(
    daemon: DaemonProcess, owner: CoreplaneClient, system: CoreplaneClient
) -> AsyncIterator[CoreplaneClient]:
    """A tenant with whom the owner's Redis is shared."""
    await system.put_setting("access.share", "acme-redis", {"value": SHARE})
    async with daemon.client(tenant="acme") as client:
        yield client


async def ready(client: CoreplaneClient, setting_type: str, name: str, value: dict[str, Any]) -> None:
    made = await client.put_setting(setting_type, name, {"value": value}, wait="Ready", wait_s=60)
    assert made["status"]["phase"] == "Ready", made["status"]


async def reason(client: CoreplaneClient, setting_type: str, name: str) -> str:
    status = (await client.get_setting(setting_type, name))["status"]
    return next((c["reason"] for c in status["conditions"] if c["type"] == "Stalled" and c["status"] == "True"), "")


async def faults(client: CoreplaneClient, value: dict[str, Any], setting_type: str = "cache.redis_user") -> list[str]:
    """Paths within the value that are refused."""
    with pytest.raises(ApiError) as refused:
        await client.put_setting(setting_type, "app", {"value": value})
    assert refused.value.status == 422
    return [fault.path.partition("/value")[2] for fault in refused.value.errors]


async def test_a_user_of_another_tenant_gets_no_further_than_its_prefix(
    acme: CoreplaneClient, redis_server: Any
) -> None:
    await ready(acme, "cache.redis_user", "app", USER)
    async with (
        Redis.from_url(redis_server.url) as admin,
        Redis.from_url(redis_server.url, username="acme:app", password="any", decode_responses=True) as app,
    ):
        await admin.set("shop:secret", "s")
        await app.set("acme:a", "1")
        assert await app.get("acme:a") == "1"
        for command in (
            ("GET", "shop:secret"),
            ("DEL", "shop:secret"),
            ("COPY", "shop:secret", "acme:b"),
            ("EVAL", "return redis.call('GET', 'shop:secret')", "0"),
            ("SCAN", "0"),
            ("KEYS", "*"),
            ("RANDOMKEY",),
            ("DBSIZE",),
            ("FLUSHALL",),
            ("SWAPDB", "0", "1"),
            ("FUNCTION", "FLUSH"),
            ("CONFIG", "GET", "*"),
            ("ACL", "LIST"),
            ("CLIENT", "LIST"),
            ("PUBSUB", "CHANNELS"),
            ("PUBLISH", "shop:news", "x"),
        ):
            with pytest.raises(ResponseError, match=r"permission|access"):
                await app.execute_command(*command)
        assert await admin.get("shop:secret") == b"s"


async def test_what_would_reach_beyond_the_prefix_is_refused_with_its_path(acme: CoreplaneClient) -> None:
    assert await faults(acme, {**USER, "username": "storefront"}) == [""]
    assert await faults(acme, {**USER, "keys": ["acme:*", "*", "%R~shop:*", "%RW~acme:x"]}) == ["/keys/1", "/keys/2"]
    assert await faults(acme, {**USER, "channels": ["acme:*", "news"]}) == ["/channels/1"]
    assert await faults(acme, {**USER, "selectors": ["(+get ~shop:*)"]}) == ["/selectors"]
    assert await faults(acme, {**USER, "commands": ["+@all"]}) == ["/commands"]
    assert await faults(acme, {**USER, "commands": [*CONFINED, "+flushall"]}) == ["/commands"]
    pages = {"prefix": "shop:", "layers": [{"target": "default/redis", "ttl_s": 60}]}
    assert await faults(acme, pages, "cache.namespace") == [""]
    second = {"prefix": "acme:", "layers": [{"target": "own", "ttl_s": 60}, {"target": "default/redis", "ttl_s": 60}]}
    assert await faults(acme, second, "cache.namespace") == [""]
    whole = {"target": "default/redis", "parameters": {"maxmemory": "1mb"}}
    assert await faults(acme, whole, "cache.redis_config") == ["/target"]


async def test_nothing_is_shared_with_who_was_not_given_it(
    daemon: DaemonProcess, owner: CoreplaneClient, system: CoreplaneClient
) -> None:
    async with daemon.client(tenant="acme") as stranger:
        for target in ("default/redis", "default/nothing", "nobody/redis"):
            assert await faults(stranger, {**USER, "target": target}) == [""]


async def test_the_owner_leaves_the_names_of_others_alone(acme: CoreplaneClient, owner: CoreplaneClient) -> None:
    assert await faults(owner, {"target": "redis", "username": "acme:app", "nopass": True}) == [""]
    await ready(
        owner, "cache.redis_user", "app", {"target": "redis", "nopass": True, "keys": ["*"], "commands": ["+get"]}
    )


async def test_invalidation_drops_the_tenants_keys_and_no_others(
    acme: CoreplaneClient, owner: CoreplaneClient, redis_server: Any
) -> None:
    await ready(
        acme, "cache.namespace", "pages", {"prefix": "acme:p:", "layers": [{"target": "default/redis", "ttl_s": 60}]}
    )
    async with Redis.from_url(redis_server.url) as admin:
        await admin.mset({"acme:p:1": "1", "shop:p:1": "1"})
        await acme.operate("cache.invalidate", {"namespace": "pages", "all": True})
        assert await admin.exists("acme:p:1") == 0
        assert await admin.exists("shop:p:1") == 1
    with pytest.raises(ApiError):
        await acme.operate("cache.inspect", {"target": "default/redis"})
    mine = {event["tenant"] for event in (await owner.events(limit=1000))["items"]}
    theirs = {event["tenant"] for event in (await acme.events(limit=1000))["items"]}
    assert (mine, theirs) == ({"default"}, {"acme"})


async def test_what_is_no_longer_shared_is_no_longer_touched(
    acme: CoreplaneClient, system: CoreplaneClient, redis_server: Any
) -> None:
    await ready(acme, "cache.redis_user", "app", USER)
    await system.delete_setting("access.share", "acme-redis")

    async def stalled() -> bool:
        return await reason(acme, "cache.redis_user", "app") == "NotShared"

    await until(stalled, 60)
    async with Redis.from_url(redis_server.url) as admin:
        await admin.acl_deluser("acme:app")
        await acme.reconcile("cache.redis_user", "app")
        await acme.delete_setting("cache.redis_user", "app", wait="Gone", wait_s=60)
        assert await admin.acl_getuser("acme:app") is None
    events = [event["event_type"] for event in (await acme.events(setting="cache.redis_user/app"))["items"]]
    assert events.count("ActionStarted") == 1


async def test_prefixes_on_one_target_do_not_overlap(acme: CoreplaneClient, system: CoreplaneClient) -> None:
    await system.put_setting("access.tenant", "more", {"value": {}})
    for prefix in ("acme:", "acme:sub:"):
        with pytest.raises(ApiError, match="409"):
            await system.put_setting("access.share", "more", {"value": {**SHARE, "tenant": "more", "prefix": prefix}})
    await system.put_setting("access.share", "more", {"value": {**SHARE, "tenant": "more", "prefix": "more:"}})
    with pytest.raises(ApiError, match="422"):
        await system.put_setting("access.share", "bad", {"value": {**SHARE, "prefix": "a*:"}})


async def test_targets_of_two_tenants_that_lead_to_one_server_do_not_fight_over_it(
    daemon: DaemonProcess, owner: CoreplaneClient, system: CoreplaneClient, redis_server: Any
) -> None:
    await ready(owner, "cache.redis_user", "app", {"target": "redis", "nopass": True, "commands": ["+get"]})
    async with daemon.client(tenant="acme") as acme:
        url = redis_server.url.replace("127.0.0.1", "localhost")
        await acme.put_setting(
            "cache.target", "mine", {"value": {"kind": "redis", "url": url}}, wait="Ready", wait_s=60
        )
        await acme.put_setting(
            "cache.redis_user", "app", {"value": {"target": "mine", "nopass": True, "commands": ["+set"]}}
        )

        async def conflict() -> bool:
            return await reason(acme, "cache.redis_user", "app") == "Conflict"

        await until(conflict, 60)
        told = str((await acme.get_setting("cache.redis_user", "app"))["status"])
        assert "another tenant" in told
        assert "default/" not in told
        await owner.delete_setting("cache.redis_user", "app", wait="Gone", wait_s=60)
        await ready(acme, "cache.redis_user", "app", {"target": "mine", "nopass": True, "commands": ["+set"]})
