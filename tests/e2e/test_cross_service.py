"""An application over four services: declared in one apply, in the order of what stands on what; taken away in one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from controlplane.client.http import CoreplaneClient
from reconcilers.queue import kafka_users
from tests.e2e.conditions import all_ready, until
from tests.integration.four_services import SECRET, TARGETS, FourServices, connected
from tests.integration.queue_world import unique
from tests.integration.test_queue_topics import overrides
from tests.servers import DaemonProcess

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

DEADLINE_S = 150.0
APP = {"app": "shop"}
GOES = {"deletion": "delete", "allow": ["DropIndex", "EmptyBucket"]}


@pytest.fixture
async def four(
    daemon: DaemonProcess, redis_server: Any, kafka_broker: Any, minio_server: Any, elasticsearch_server: Any
) -> AsyncIterator[FourServices]:
    async with connected(daemon, redis_server, kafka_broker, minio_server, elasticsearch_server) as found:
        yield found


def setting(reference: str, value: dict[str, Any], *needs: str) -> dict[str, Any]:
    setting_type, name = reference.split("/")
    policy = GOES if ".target" not in setting_type else {}
    return {
        "type": setting_type,
        "name": name,
        "labels": APP,
        "depends_on": list(needs),
        "policy": policy,
        "value": value,
    }


IMPLIED = {
    "cache.namespace/pages": ["cache.target/redis"],
    "queue.acl/billing": ["queue.topic/orders"],
    "queue.user/web": ["queue.topic/orders"],
    "storage.user/web": ["storage.policy/web"],
    "search.user/web": ["search.role/web"],
    "search.alias/all": ["search.index/products"],
    "search.index/products": ["search.pipeline/clean"],
}
"""Setting → what it stands on by what its value names, under whatever name that is declared."""


def application(own: str) -> list[dict[str, Any]]:
    """What stands on something comes first, so that the order of the file isn't the order of the work. Objects have names
    of their own, which no other test has."""
    on = {"cache": "redis", "queue": "kafka", "storage": "minio", "search": "elasticsearch"}
    cache, queue, storage, search = ({"target": target} for target in on.values())
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"arn:aws:s3:::{own}/*"]}],
    }
    orders = {"resource": "topic", "name": own, "operations": ["read"]}
    return [
        setting("cache.namespace/pages", {"prefix": "page:", "layers": [{**cache, "ttl_s": 60}]}, "search.alias/all"),
        setting("search.alias/all", {**search, "alias": f"{own}-all", "indices": [own]}, "search.user/web"),
        setting(
            "search.user/web",
            {**search, "username": own, "roles": [f"{own}-reads"], "password": SECRET},
            "storage.user/web",
        ),
        setting(
            "search.index/products",
            {
                **search,
                "index": own,
                "settings": {"index.default_pipeline": f"{own}-clean", "index.refresh_interval": "3s"},
            },
        ),
        setting(
            "storage.user/web",
            {**storage, "access_key": own, "secret_key": SECRET, "policies": [own]},
            "queue.user/web",
        ),
        setting("storage.policy/web", {**storage, "policy": own, "document": document}, "storage.bucket/images"),
        setting("queue.acl/billing", {**queue, "principal": f"User:{own}-b", "acls": [orders]}),
        setting(
            "queue.user/web", {**queue, "username": own, "password": SECRET, "acls": [orders]}, "cache.redis_user/web"
        ),
        setting("cache.redis_user/web", {**cache, "commands": ["+@read"], "keys": ["page:*"], "passwords": [SECRET]}),
        setting("queue.topic/orders", {**queue, "topic": own, "partitions": 2, "replication_factor": 1}),
        setting("storage.bucket/images", {**storage, "bucket": own, "versioning": "enabled"}),
        setting(f"search.pipeline/{own}-clean", {**search, "processors": [{"trim": {"field": "title"}}]}),
        setting(f"search.role/{own}-reads", {**search, "indices": [{"names": [own], "privileges": ["read"]}]}),
    ]


def standing(declared: list[dict[str, Any]], own: str) -> dict[str, set[str]]:
    """Setting → all that it stands on: its target, what it says, what its value names."""
    names = {"search.role/web": f"search.role/{own}-reads", "search.pipeline/clean": f"search.pipeline/{own}-clean"}
    found: dict[str, set[str]] = {}
    for one in declared:
        reference = f"{one['type']}/{one['name']}"
        target = {name for name in TARGETS if name.partition(".")[0] == one["type"].partition(".")[0]} - {reference}
        implied = {names.get(name, name) for name in IMPLIED.get(reference, ())}
        found[reference] = {*one["depends_on"], *target, *implied}
    return found


async def first_of(client: CoreplaneClient, event_type: str) -> dict[str, str]:
    """Setting → when it first had an event of the type."""
    items = (await client.events(event_type=event_type, limit=1000))["items"]
    found = sorted((event["timestamp"], event["setting"].partition("/")[2]) for event in items)
    return {name: at for at, name in reversed(found)}


async def phases(client: CoreplaneClient) -> dict[str, str]:
    return {
        f"{one['setting_type']}/{one['name']}": one["status"]["phase"] async for one in client.list_settings(labels=APP)
    }


async def held(four: FourServices, own: str) -> set[str]:
    """Which of the application's objects the servers have."""
    ask = four.search.wire.ask
    traces = await four.kafka(lambda admin: own in admin.list_topics())
    buckets = {one.name for one in await four.minio.backend.discover("storage.bucket", own)}
    found = {
        "redis user": "web" in await four.redis.execute_command("ACL", "USERS"),
        "topic": traces,
        "bucket": own in buckets,
        "minio user": bool(await four.minio.backend.discover("storage.user", own)),
        "index": await ask("GET", f"/{own}", absent=None) is not None,
        "search user": await ask("GET", f"/_security/user/{own}", absent=None) is not None,
    }
    return {name for name, there in found.items() if there}


async def test_an_application_comes_in_one_apply_and_goes_in_one_retire(four: FourServices):
    client, own = four.client, unique("shop")
    declared = [*application(own), *({**one, "labels": APP} for one in four.declarations)]
    needs = standing([*declared[:-4], *({**one, "depends_on": []} for one in four.declarations)], own)
    await client.apply(declared, reason="opening")
    await all_ready(client, DEADLINE_S)
    assert (await phases(client)).keys() == needs.keys()
    assert len(await held(four, own)) == 6

    async def projected() -> bool:
        return needs.keys() - set(TARGETS) <= (await first_of(client, "Converged")).keys()

    await until(projected, DEADLINE_S, "the events are projected")
    converged, started = await first_of(client, "Converged"), await first_of(client, "ActionStarted")
    assert started.keys() == needs.keys() - set(TARGETS)
    for name, at in started.items():
        for needed in needs[name] - set(TARGETS):
            assert converged[needed] <= at, f"{name} began before {needed} was there"

    await client.apply([], prune=APP, allow_prune=True, reason="closing")

    async def gone() -> bool:
        return await phases(client) == {}

    await until(gone, DEADLINE_S, "everything is gone")
    assert await held(four, own) == set()
    forgotten = {name: await forgotten_at(client, name) for name in needs}
    for name, below in needs.items():
        assert all(forgotten[name] <= forgotten[needed] for needed in below), f"{name} went after what it stands on"


async def forgotten_at(client: CoreplaneClient, name: str) -> int:
    """The revision at which the setting left the state: the log's own order."""
    newest = (await client.history(*name.split("/")))[0]
    assert newest["op"] == "forget"
    return int(newest["revision"])


OTHERWISE: dict[str, dict[str, Any]] = {
    "queue.topic/orders": {"config": {"retention.ms": "60000"}},
    "queue.acl/billing": {"acls": []},
    "storage.bucket/images": {"versioning": "suspended"},
    "search.index/products": {"settings": {"index.refresh_interval": "7s"}},
    "cache.redis_user/web": {"commands": ["+@all"]},
}


async def world(four: FourServices, own: str) -> dict[str, Any]:
    """What OTHERWISE changes, as the servers have it."""
    index = (await four.search.wire.ask("GET", f"/{own}/_settings", params={"flat_settings": "true"})).values()
    return {
        "user": await four.redis.execute_command("ACL", "LIST"),
        "topic": await overrides(four.kafka, own),
        "permissions": await four.kafka(lambda admin: kafka_users.bindings_of(admin, [f"User:{own}-b"])),
        "bucket": await four.minio.raw(own, "versioning"),
        "refresh": [one["settings"].get("index.refresh_interval") for one in index],
    }


async def test_the_past_is_told_and_comes_back_while_reconciling_goes_on(four: FourServices):
    client, own = four.client, unique("shop")
    done = await client.apply([*application(own), *({**one, "labels": APP} for one in four.declarations)])
    good = done["revision"]
    await all_ready(client, DEADLINE_S)
    before, seen = await client.export(), await world(four, own)
    again = await client.apply(before, dry_run=True)
    assert {result["outcome"] for result in again["results"]} == {"unchanged"}, "an export is what was declared"

    bad = [_merged(one, OTHERWISE[name]) for one in before if (name := _name(one)) in OTHERWISE]
    new = setting("cache.redis_user/extra", {"target": "redis", "commands": ["+@read"]})
    changed = (await client.apply([*bad, new], reason="oops"))["revision"]
    await client.delete_setting("cache.namespace", "pages", wait="Gone", wait_s=60)
    told = await client.diff(good, changed)
    assert {one["setting"].partition("/")[2] for one in told["items"]} == {*OTHERWISE, "cache.redis_user/extra"}
    assert await client.export(at=good) == before
    planned = await client.rollback(good, dry_run=True)
    assert {step["setting"].partition("/")[2] for step in planned["steps"]} >= {"cache.namespace/pages"}

    await client.apply([one for one in bad if one["type"] != "queue.acl"], reason="and again, nobody waits")
    await client.rollback(good, reason="back")
    await all_ready(client, DEADLINE_S)
    assert await client.export() == before
    assert await world(four, own) == seen
    history = await client.history("queue.topic", "orders")
    assert [one["reason"] for one in history[:2]] == ["back", "oops"]
    await client.apply([], prune=APP, allow_prune=True)


def _merged(declaration: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    value = dict(declaration["value"])
    for field, new in changed.items():
        value[field] = {**value[field], **new} if field == "settings" else new
    return {**declaration, "value": value}


def _name(declaration: dict[str, Any]) -> str:
    return f"{declaration['type']}/{declaration['name']}"


async def test_a_cycle_over_services_is_named_with_what_is_implied(four: FourServices):
    client, own = four.client, unique("cycle")
    declared = application(own)
    topic = next(one for one in declared if one["type"] == "queue.topic")
    topic["depends_on"] = ["cache.namespace/pages"]  # stands on alias, users, and by an implied reference the topic
    await client.apply([*four.declarations, *declared])

    async def named() -> bool:
        status = (await client.get_setting("queue.topic", "orders"))["status"]
        message = next((c["message"] for c in status["conditions"] if c["type"] == "Stalled"), "")
        return status["phase"] == "Stalled" and all(
            name in message
            for name in ("queue.user/web", "storage.user/web", "search.alias/all", "cache.namespace/pages")
        )

    await until(named, DEADLINE_S, "the cycle is named")
    await client.apply([], prune=APP, allow_prune=True)
