"""Plans over the real daemon and a real Redis: what they say, that they touch nothing, and when they are stale."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import hiredis
import pytest
from redis.asyncio import Redis

from controlplane.client.errors import ApiError
from controlplane.client.http import CoreplaneClient
from schemas.cache import SCRATCH_USER_PREFIX
from tests.conftest import RealServer
from tests.integration.cache_world import world
from tests.servers import DaemonProcess

pytestmark = pytest.mark.integration

DEADLINE_S = 20.0
READS = {
    ("ACL", "GETUSER"),
    ("ACL", "LIST"),
    ("ACL", "USERS"),
    ("ACL", "DRYRUN"),
    ("CONFIG", "GET"),
    ("SLOWLOG", "LEN"),
    ("CLIENT", "LIST"),
    ("CLIENT", "SETINFO"),
    ("CLIENT", "SETNAME"),
    ("INFO",),
    ("HELLO",),
    ("PING",),
    ("HMGET",),
    ("SCAN",),
    ("DBSIZE",),
    ("MEMORY", "USAGE"),
}


@dataclass
class Tap:
    """A wire between the daemon and its Redis that remembers every command."""

    host: str
    port: int
    url: str = ""
    commands: list[list[str]] = field(default_factory=list)
    wires: set[asyncio.Task[Any]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.wires.add(task)
        try:
            up, down = await asyncio.open_connection(self.host, self.port)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._pump(reader, down, hiredis.Reader(encoding="utf-8", errors="replace")))
                    tasks.create_task(self._pump(up, writer, None))
            finally:
                down.close()
        finally:
            writer.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, parser: Any) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65_536):
                if parser is not None:
                    parser.feed(data)
                    while (command := parser.gets()) is not False:
                        self.commands.append(command)
                sink.write(data)
                await sink.drain()
        sink.close()

    def writes(self) -> list[list[str]]:
        """Every command that isn't a read."""
        return [c for c in self.commands if not READS & {(c[0].upper(),), tuple(word.upper() for word in c[:2])}]


@asynccontextmanager
async def tapped(server: RealServer) -> AsyncIterator[Tap]:
    tap = Tap(server.host, server.port)
    listener = await asyncio.start_server(tap.serve, "127.0.0.1", 0)
    tap.url = f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield tap
    finally:
        listener.close()
        for wire in tap.wires:
            wire.cancel()
        await asyncio.wait(tap.wires)


@pytest.fixture
async def redis(redis_server: RealServer) -> AsyncIterator[Redis]:
    client: Redis = Redis.from_url(redis_server.url, decode_responses=True)
    yield client
    await client.aclose()


@pytest.fixture
async def client(daemon: DaemonProcess) -> AsyncIterator[CoreplaneClient]:
    async with daemon.client() as client:
        yield client


def target(url: str, name: str = "main") -> dict[str, Any]:
    return {"type": "cache.target", "name": name, "value": {"kind": "redis", "url": url}}


def user(name: str = "app", commands: Sequence[str] = ("+@read",), **more: Any) -> dict[str, Any]:
    value = {"target": "main", "commands": list(commands), "keys": ["app:*"], "passwords": []}
    return {"type": "cache.redis_user", "name": name, "value": value} | more


async def connected(client: CoreplaneClient, url: str, name: str = "main") -> None:
    made = target(url, name)
    await client.put_setting("cache.target", name, {"value": made["value"]}, wait="Ready", wait_s=DEADLINE_S)


async def applied(client: CoreplaneClient, *settings: dict[str, Any], **options: Any) -> None:
    """Apply, and wait until all is as declared."""
    done = await client.apply(settings, **options)
    for result in done["results"]:
        if result["outcome"] != "retired":
            await settled(client, *result["setting"].split("/")[1:], generation=result["generation"])


async def settled(client: CoreplaneClient, setting_type: str, name: str, *, generation: int) -> None:
    async def ready() -> bool:
        status = (await client.get_setting(setting_type, name))["status"]
        return bool(status["phase"] == "Ready" and status["observed_generation"] >= generation)

    await until(ready)


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():
            await asyncio.sleep(0.02)


def steps(plan: dict[str, Any]) -> list[tuple[str, str]]:
    return [(step["setting"].rpartition("/")[2], step["step"]) for step in plan["steps"]]


def reasons(told: list[dict[str, Any]]) -> dict[str, str]:
    return {one["setting"].rpartition("/")[2]: one["reason"] for one in told}


async def refused(call: Awaitable[Any], status: int = 409) -> ApiError:
    with pytest.raises(ApiError) as raised:
        await call
    assert raised.value.status == status, raised.value
    return raised.value


async def test_the_plan_of_a_new_user_shows_its_step_and_touches_nothing(
    client: CoreplaneClient, redis_server: RealServer, redis: Redis
) -> None:
    async with tapped(redis_server) as tap:
        await connected(client, tap.url)
        users, position = await redis.acl_list(), (await client.status())["replica"]
        tap.commands.clear()
        plan = await client.plan([user()])
        assert steps(plan) == [("app", "SetUser")]
        assert plan["results"][0] | {"changed": []} == {
            "setting": "default/cache.redis_user/app",
            "outcome": "created",
            "changed": [],
            "differences": [{"path": "/username", "desired": "app", "observed": None}],
        }
        assert (plan["unchanged"], plan["unknown"], plan["refused"]) == ([], [], [])
        written = tap.writes()
        assert written, "the server was asked what it makes of the rules"
        for command in written:
            assert [word.upper() for word in command[:2]] in (["ACL", "SETUSER"], ["ACL", "DELUSER"]), command
            assert all(name.startswith(SCRATCH_USER_PREFIX) for name in command[2:3]), command
        assert await redis.acl_list() == users
        assert (await client.status())["replica"] == position
        await refused(client.get_setting("cache.redis_user", "app"), 404)


async def test_what_was_planned_is_applied_and_a_plan_after_that_is_empty(
    client: CoreplaneClient, redis_server: RealServer, redis: Redis
) -> None:
    await connected(client, redis_server.url)
    config = {
        "type": "cache.redis_config",
        "name": "shop",
        "value": {"target": "main", "parameters": {"maxmemory": "64mb"}},
    }
    document = [config, user(depends_on=["cache.redis_config/shop"])]
    plan = await client.plan(document)
    assert steps(plan) == [("shop", "SetParameters"), ("app", "SetUser")]
    assert plan["steps"][1]["waits_for"] == ["default/cache.redis_config/shop"]
    await applied(client, *document, plan=plan["plan_id"])
    assert (await redis.config_get("maxmemory"))["maxmemory"] == str(64 * 1024 * 1024)
    again = await client.plan(document)
    assert (again["steps"], again["unknown"], again["refused"]) == ([], [], [])
    assert [key.rpartition("/")[2] for key in again["unchanged"]] == ["shop", "app"]
    done = await client.apply(document, plan=again["plan_id"])
    assert {result["outcome"] for result in done["results"]} == {"unchanged"}


async def test_a_plan_is_stale_when_somebody_changed_the_server_by_hand_since(
    client: CoreplaneClient, redis_server: RealServer, redis: Redis
) -> None:
    await connected(client, redis_server.url)
    plan = await client.plan([user()])
    await redis.execute_command("ACL", "SETUSER", "app", "on", "nopass", "+@all", "~*")
    stale = await refused(client.apply([user()], plan=plan["plan_id"]))
    assert stale.reason == "PlanStale"
    assert [error.path for error in stale.errors] == ["/default/cache.redis_user/app"]
    assert "AlreadyExists" in stale.errors[0].message
    await refused(client.get_setting("cache.redis_user", "app"), 404)
    taken_over = user(policy={"adopt": "always"})
    plan = await client.plan([taken_over])
    assert {one["path"] for one in plan["results"][0]["differences"]} >= {"/keys", "/commands"}
    await redis.execute_command("ACL", "SETUSER", "app", "resetkeys", "~other:*")
    stale = await refused(client.apply([taken_over], plan=plan["plan_id"]))
    assert "now to be done: SetUser app" in stale.errors[0].message
    await redis.execute_command("ACL", "SETUSER", "app", "resetkeys", "~*")
    await applied(client, taken_over, plan=plan["plan_id"])
    assert await redis.acl_getuser("app") | {"keys": ["~app:*"]} == await redis.acl_getuser("app")


async def test_a_plan_is_stale_when_its_settings_were_declared_since_and_for_another_document(
    client: CoreplaneClient, redis_server: RealServer
) -> None:
    await connected(client, redis_server.url)
    await applied(client, user())
    changed = user(commands=["+@write"])
    plan = await client.plan([changed])
    other = await refused(client.apply([user(commands=["+@all"])], plan=plan["plan_id"]))
    assert (other.reason, other.errors[0].path) == ("PlanStale", "/settings")
    done = await client.apply([changed], plan=plan["plan_id"], idempotency_key="planned")
    assert done["results"][0]["outcome"] == "updated"
    again = await refused(client.apply([changed], plan=plan["plan_id"]))
    assert again.errors[0].message == f"was declared since, at revision {done['revision']}"
    assert await client.apply([changed], plan=plan["plan_id"], idempotency_key="planned") == done
    nonsense = await refused(client.apply([changed], plan="nonsense"), 400)
    assert nonsense.errors[0].path == "?plan"


async def test_prune_is_foreseen_and_held_to_the_same_safety_share(
    client: CoreplaneClient, redis_server: RealServer
) -> None:
    labels = {"app": "shop"}
    ours = [user(name, labels=labels) for name in ("a", "b", "c", "d")]
    await connected(client, redis_server.url)
    await applied(client, *ours)
    share = await refused(client.plan(ours[:2], prune=labels))
    assert share.reason == "PruneRefused"
    plan = await client.plan(ours[:3], prune=labels)
    assert steps(plan) == [("d", "DropUser")]
    assert [result["outcome"] for result in plan["results"]] == ["unchanged"] * 3 + ["retired"]
    await client.put_setting("cache.redis_user", "e", {"value": user()["value"], "labels": labels})
    stale = await refused(client.apply(ours[:3], prune=labels, plan=plan["plan_id"], allow_prune=True))
    assert stale.reason == "PlanStale"


async def test_faults_of_a_planned_document_are_those_of_an_applied_one(client: CoreplaneClient) -> None:
    bad = [user() | {"colour": 1}, {"type": "cache.redis_user", "name": "x", "value": {"target": "main", "keys": 5}}]
    planned, applied_ = await refused(client.plan(bad), 422), await refused(client.apply(bad), 422)
    assert (planned.errors, planned.reason) == (applied_.errors, applied_.reason)


async def test_what_isnt_connected_is_unknown_and_rules_the_server_refuses_are_refused(
    client: CoreplaneClient, redis_server: RealServer
) -> None:
    await connected(client, redis_server.url)
    nowhere = target("redis://127.0.0.1:1", "nowhere")
    await client.apply([nowhere])

    async def tried() -> bool:
        return (await client.get_setting("cache.target", "nowhere"))["status"]["phase"] == "Unknown"

    await until(tried)
    lost, later = user("lost"), user("later")
    lost["value"]["target"], later["value"]["target"] = "nowhere", "new"
    missing = user("missing")
    missing["value"]["target"] = "missing"
    plan = await client.plan(
        [lost, target(redis_server.url, "new"), later, missing, user("bad", ["+nonsense"]), user("good")]
    )
    assert steps(plan) == [("good", "SetUser")]
    assert reasons(plan["unknown"]) == {
        "lost": "Unreachable",
        "later": "TargetNotConnected",
        "missing": "TargetNotFound",
    }
    assert reasons(plan["refused"]) == {"bad": "InvalidRule"}


async def test_every_kind_can_be_planned(
    client: CoreplaneClient, redis_server: RealServer, memcached_server: RealServer
) -> None:
    await connected(client, redis_server.url)
    memory = {"type": "cache.target", "name": "memory", "value": {"kind": "memcached", "url": memcached_server.url}}
    await client.put_setting("cache.target", "memory", {"value": memory["value"]}, wait="Ready", wait_s=DEADLINE_S)
    document = [
        {"type": "cache.memcached_config", "name": "m", "value": {"target": "memory", "memory_mb": 80}},
        {
            "type": "cache.namespace",
            "name": "n",
            "value": {"prefix": "n:", "layers": [{"target": "main", "ttl_s": 60}]},
        },
        user(),
    ]
    plan = await client.plan(document)
    assert [step for _, step in steps(plan)] == ["ChangeSettings", "RegisterNamespace", "SetUser"], plan
    await applied(client, *document, plan=plan["plan_id"])
    assert (await client.plan(document))["steps"] == []


async def test_a_bad_change_is_rolled_back_while_it_is_being_reconciled(
    client: CoreplaneClient, redis_server: RealServer, redis: Redis
) -> None:
    await connected(client, redis_server.url)
    good = [user(f"u{number}") for number in range(40)]
    await applied(client, *good)
    revision = (await client.get_setting("cache.redis_user", "u0"))["revision"]
    await client.apply([user(f"u{number}", ["+@all", "-@dangerous"]) for number in range(50)], reason="oops")
    listed = await client.rollback(revision, dry_run=True)
    assert {result["outcome"] for result in listed["results"]} == {"updated", "retired", "unchanged"}
    done = await client.rollback(revision, reason="undo oops")
    assert [result["outcome"] for result in done["results"]].count("updated") == 40
    for number in range(40):
        await settled(client, "cache.redis_user", f"u{number}", generation=3)

    async def only_the_good_are_left() -> bool:
        return {name for name in await redis.acl_users() if name.startswith("u")} == {one["name"] for one in good}

    await until(only_the_good_are_left)
    plan = await client.plan(good)
    assert (plan["steps"], len(plan["unchanged"])) == ([], 40)
    newest = (await client.history("cache.redis_user", "u0"))[0]
    assert (newest["reason"], newest["revision"]) == ("undo oops", done["revision"])


@pytest.mark.parametrize("kind", ["redis", "memcached"])
async def test_a_namespace_that_was_only_planned_is_not_measured(
    kind: str, redis_server: RealServer, memcached_server: RealServer
) -> None:
    real = {"prefix": "real:", "layers": [{"target": "main", "ttl_s": 60}]}
    async with world({"redis": redis_server, "memcached": memcached_server}[kind].url) as target:
        await target.declare("cache.namespace", real, "real")
        await target.look("cache.namespace", real, "real")
        await target.look("cache.namespace", real | {"prefix": "planned:"}, "planned")
        await target.look("cache.namespace", real, "real", retiring=True)
        measured = {m.tags.get("namespace") for m in await target.backend.sample()} - {None}
    assert measured == {"real"}


async def counted(redis: Redis) -> dict[str, int]:
    """How often the server says it executed each command that isn't a read."""
    stats = await redis.info("commandstats")
    reads = {"|".join(words).lower() for words in READS} | {"auth", "select", "client|reply", "command"}
    names = {name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()}
    return {name: calls for name, calls in names.items() if name not in reads}


async def test_a_plan_moves_none_of_the_servers_counters_of_what_isnt_a_read(client, redis, redis_server):
    await connected(client, redis_server.url)
    config = {"target": "main", "parameters": {"maxmemory": "100mb", "hz": "20"}}
    declared = [user(), {"type": "cache.redis_config", "name": "shop", "value": config}]
    first = await client.plan(declared)  # what the server makes of rules it is asked once, on a scratch user
    before = await counted(redis)
    for _ in range(3):
        again = await client.plan(declared)
        assert [step["step"] for step in again["steps"]] == ["SetUser", "SetParameters"]
        assert again["plan_id"] == first["plan_id"]
    assert await counted(redis) == before
