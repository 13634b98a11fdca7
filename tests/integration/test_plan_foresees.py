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
        up, down = await asyncio.open_connection(self.host, self.port)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, down, hiredis.Reader(encoding="utf-8", errors="replace")))
                tasks.create_task(self._pump(up, writer, None))
        finally:
            for side in (down, writer):
                side.close()

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
