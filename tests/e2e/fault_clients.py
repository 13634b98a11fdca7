"""Clients of a cluster under faults, and the history of what they were told."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from controlplane.client.errors import ApiError, DaemonUnreachable
from controlplane.client.http import CoreplaneClient

LATER = frozenset({429, 503, 504})
"""Not an answer yet: the same request is repeated under the same id."""
PASSWORDS = ("first", "second")
COMMANDS = ("+@read", "+@write", "+@hash", "-@dangerous", "+get")
USERS = 3
COUNTERS = ("c0", "c1", "c2")
TTL_S = 10
"""A counter stands at the `ttl_s` of its namespace minus this."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Told:
    """A definite answer to one write."""

    tenant: str
    request_id: str
    key: str
    accepted: bool
    revision: int
    """Of the key, when it was accepted."""
    value: Any = None


@dataclass
class Streamed:
    """What one connection of a stream delivered."""

    tenant: str
    ids: list[str] = field(default_factory=list)


@dataclass
class History:
    """Everything that clients were told."""

    told: list[Told] = field(default_factory=list)
    streamed: list[Streamed] = field(default_factory=list)
    repeats: int = 0


class Client:
    """Writes through whichever replica comes to hand, until the answer is definite."""

    def __init__(self, name: str, tenant: str, urls: Sequence[str], history: History, rng: random.Random) -> None:
        self.name = name
        self.tenant = tenant
        self.rng = rng
        self.history = history
        self._clients = [CoreplaneClient(url, tenant=tenant, timeout_s=4.0, attempts=1, actor=name) for url in urls]

    async def surely(self, key: str, send: Callable[[CoreplaneClient, str], Awaitable[Json]], value: Any) -> Told:
        request_id = str(uuid.UUID(int=self.rng.getrandbits(128)))
        while True:
            try:
                done = await send(self.rng.choice(self._clients), request_id)
                told = Told(self.tenant, request_id, key, accepted=True, revision=done["revision"], value=value)
                break
            except DaemonUnreachable:
                self.history.repeats += 1
            except ApiError as exc:
                if exc.status not in LATER:
                    assert exc.status in {404, 409, 412}, exc
                    told = Told(self.tenant, request_id, key, accepted=False, revision=0)
                    break
                self.history.repeats += 1
            await asyncio.sleep(self.rng.uniform(0.02, 0.2))
        self.history.told.append(told)
        return told

    async def read(self, setting_type: str, name: str) -> Json:
        while True:
            try:
                return await self.rng.choice(self._clients).get_setting(setting_type, name)
            except (DaemonUnreachable, ApiError):
                await asyncio.sleep(self.rng.uniform(0.02, 0.2))

    async def put(self, reference: str, value: Json, if_match: int | None = None) -> Told:
        setting_type, name = reference.split("/")
        return await self.surely(
            f"{self.tenant}/{reference}",
            lambda client, id_: client.put_setting(
                setting_type, name, {"value": value}, idempotency_key=id_, if_match=if_match
            ),
            value,
        )

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


def counter(name: str, number: int) -> Json:
    return {"prefix": f"{name}:", "layers": [{"target": "main", "ttl_s": TTL_S + number}]}


async def count(client: Client, stop: asyncio.Event) -> None:
    """Raise shared counters by compare-and-set."""
    while not stop.is_set():
        name = client.rng.choice(COUNTERS)
        found = await client.read("cache.namespace", name)
        number = found["value"]["layers"][0]["ttl_s"] - TTL_S + 1
        await client.put(f"cache.namespace/{name}", counter(name, number), if_match=found["revision"])
        await asyncio.sleep(client.rng.uniform(0.0, 0.1))


async def change_users(client: Client, stop: asyncio.Event) -> None:
    """Declare and retire users that nobody else writes."""
    while not stop.is_set():
        name = f"{client.name}-user{client.rng.randrange(USERS)}"
        if client.rng.random() < 0.75:
            passwords = client.rng.sample(PASSWORDS, client.rng.randint(0, len(PASSWORDS)))
            value = {
                "target": "main",
                "passwords": [{"from_file": f"secrets/{password}"} for password in passwords],
                "commands": client.rng.sample(COMMANDS, client.rng.randint(1, 3)),
                "keys": [f"{name}:{client.rng.randrange(9)}:*"],
            }
            await client.put(f"cache.redis_user/{name}", value)
        else:
            await client.surely(
                f"{client.tenant}/cache.redis_user/{name}",
                lambda one, id_, name=name: one.delete_setting("cache.redis_user", name, idempotency_key=id_),
                None,
            )
        await asyncio.sleep(client.rng.uniform(0.0, 0.2))


async def follow(url: Callable[[], str], tenant: str, history: History) -> None:
    """Follow the stream of one replica, and of another one from the same place whenever it breaks."""
    place: str | None = None
    while True:
        connection = Streamed(tenant)
        history.streamed.append(connection)
        async with CoreplaneClient(url(), tenant=tenant, timeout_s=4.0) as client:
            broken = asyncio.Event()

            def watch(standing: bool, broken: asyncio.Event = broken) -> None:
                if not standing:
                    broken.set()

            events = client.stream(last_event_id=place, from_=None if place else "earliest", watcher=watch)
            try:
                async for event in events:
                    place = event.id
                    connection.ids.append(event.data["id"])
                    if broken.is_set():  # it goes on by itself; here every connection is looked at alone
                        broken.clear()
                        connection = Streamed(tenant, [connection.ids.pop()])
                        history.streamed.append(connection)
            except (ApiError, DaemonUnreachable):
                await asyncio.sleep(0.2)
            finally:
                await events.aclose()
