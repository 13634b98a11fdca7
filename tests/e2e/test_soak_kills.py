"""The daemon and Redis are killed at random moments while clients keep writing; afterwards the world is as declared.

COREPLANE_SOAK_ROUNDS says how often (12 unless told), COREPLANE_SOAK_SEED which moments; the seed of a run is printed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis.asyncio as redis_client

from controlplane.client.errors import ApiError, DaemonUnreachable
from controlplane.client.http import CoreplaneClient
from schemas.cache_layout import INDEX_KEY, registration_key
from tests.e2e import audit
from tests.e2e.conditions import all_ready
from tests.servers import DaemonProcess

ROUNDS = int(os.environ.get("COREPLANE_SOAK_ROUNDS", "12"))
SEED = int(os.environ.get("COREPLANE_SOAK_SEED", random.SystemRandom().randrange(10**6)))
pytestmark = [pytest.mark.e2e, pytest.mark.soak, pytest.mark.timeout(180 + 10 * ROUNDS)]

WRITERS = 4
USERS = 5
NAMESPACES = 3
PASSWORDS = ("first", "second", "third")
COMMANDS = ("+@read", "+@write", "+@hash", "+get", "-@dangerous", "+@string")
LATER = frozenset({429, 503, 504})

Json = dict[str, Any]


@dataclass
class Acknowledged:
    """What the daemon said to one write."""

    request_id: str
    accepted: bool
    revisions: Mapping[str, int]
    """By key, of what was accepted."""


@dataclass
class Writer:
    """A client that doesn't give up: it repeats each write with the same Idempotency-Key until it has a definite answer."""

    number: int
    client: CoreplaneClient
    rng: random.Random
    declared: dict[str, Json] = field(default_factory=dict)
    """`type/name` → value; only what the daemon acknowledged."""
    answers: list[Acknowledged] = field(default_factory=list)
    repeats: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.write()
            await asyncio.sleep(self.rng.uniform(0, 0.08))

    async def write(self) -> None:
        choice = self.rng.random()
        if choice < 0.6:
            reference, value = self._something()
            await self._put(reference, value)
        elif choice < 0.8:
            await self._apply(dict(self._something() for _ in range(self.rng.randint(2, 4))))
        else:
            await self._delete(self._something()[0])

    def _something(self) -> tuple[str, Json]:
        if self.rng.random() < 0.7:
            name = f"w{self.number}-user{self.rng.randrange(USERS)}"
            return f"cache.redis_user/{name}", {
                "target": "main",
                "passwords": [
                    {"from_file": f"secrets/{p}"} for p in self.rng.sample(PASSWORDS, self.rng.randint(0, 2))
                ],
                "commands": self.rng.sample(COMMANDS, self.rng.randint(1, 3)),
                "keys": [f"{name}:{self.rng.randrange(9)}:*"],
            }
        name = f"w{self.number}-space{self.rng.randrange(NAMESPACES)}"
        layers = [{"target": "main", "ttl_s": self.rng.randint(10, 90)}]
        return f"cache.namespace/{name}", {"prefix": f"{name}:", "layers": layers}

    async def _put(self, reference: str, value: Json) -> None:
        answer = await self._surely(
            lambda key: self.client.put_setting(*reference.split("/"), {"value": value}, idempotency_key=key),
            lambda done: {f"default/{reference}": done["revision"]},
        )
        if answer.accepted:
            self.declared[reference] = value

    async def _apply(self, values: Mapping[str, Json]) -> None:
        settings = [
            {"type": reference.partition("/")[0], "name": reference.partition("/")[2], "value": value}
            for reference, value in values.items()
        ]
        answer = await self._surely(
            lambda key: self.client.apply(settings, idempotency_key=key),
            lambda done: {row["setting"]: done["revision"] for row in done["results"] if row["outcome"] != "unchanged"},
        )
        if answer.accepted:
            self.declared |= values

    async def _delete(self, reference: str) -> None:
        answer = await self._surely(
            lambda key: self.client.delete_setting(*reference.split("/"), idempotency_key=key),
            lambda done: {f"default/{reference}": done["revision"]},
        )
        if answer.accepted:
            self.declared.pop(reference, None)

    async def _surely(self, send: Any, revisions: Any) -> Acknowledged:
        request_id = str(uuid.UUID(int=self.rng.getrandbits(128)))
        while True:
            try:
                done = await send(request_id)
            except DaemonUnreachable:
                self.repeats += 1
            except ApiError as exc:
                if exc.status not in LATER:
                    assert exc.status in {404, 409}, exc
                    answer = Acknowledged(request_id, accepted=False, revisions={})
                    break
                self.repeats += 1
            else:
                answer = Acknowledged(request_id, accepted=True, revisions=revisions(done))
                break
            await asyncio.sleep(0.05)
        self.answers.append(answer)
        return answer


async def kill_and_revive(victim: Any, rng: random.Random) -> None:
    await victim.kill()
    await asyncio.sleep(rng.choice((0.0, rng.uniform(0, 0.6))))
    await (victim.start if isinstance(victim, DaemonProcess) else victim.restart)()


async def test_whoever_is_killed_whenever_the_world_ends_as_declared_and_the_log_tells_all_of_it(
    daemon: DaemonProcess, redis_server: Any
) -> None:
    print(f"seed {SEED}, {ROUNDS} rounds")
    rng = random.Random(SEED)
    for name in PASSWORDS:
        path = daemon.data_dir / "secrets" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{name}-password\n")
    stop = asyncio.Event()
    async with daemon.client(attempts=1) as client:
        await client.put_setting("cache.target", "main", {"value": {"kind": "redis", "url": redis_server.url}})
        writers = [Writer(number, client, random.Random(rng.random())) for number in range(WRITERS)]
        async with asyncio.TaskGroup() as tasks:
            for writer in writers:
                tasks.create_task(writer.run(stop))
            for _ in range(ROUNDS):
                await asyncio.sleep(rng.uniform(0.05, 1.5))
                victims = rng.choice(([daemon], [redis_server], [daemon, redis_server]))
                await asyncio.gather(*(kill_and_revive(victim, rng) for victim in victims))
            stop.set()
        began = time.monotonic()
        await all_ready(client, 60)
        print(f"all Ready after {time.monotonic() - began:.1f} s")
        declared = {reference: value for writer in writers for reference, value in writer.declared.items()}
        settings = {f"{s['setting_type']}/{s['name']}": s["value"] async for s in client.list_settings()}
    settings.pop("cache.target/main")
    assert settings.keys() == declared.keys()
    await daemon.stop()
    await the_users_are_as_declared(redis_server, declared)
    await the_namespaces_are_as_declared(redis_server, declared)
    found = await audit.books(daemon.data_dir)
    audit.check(found)
    assert "task crashed" not in (daemon.data_dir / "daemon.log").read_text()
    answers = [answer for writer in writers for answer in writer.answers]
    every_answer_is_in_the_log(found, answers)
    starts = sum(event["event_type"] == "ActionStarted" for event in found.events)
    repeats = sum(writer.repeats for writer in writers)
    print(f"{len(answers)} answers after {repeats} repetitions, {len(found.events)} events, {starts} effects")


def every_answer_is_in_the_log(found: audit.Books, answers: list[Acknowledged]) -> None:
    verdicts = {verdict.request_id.partition("/")[2]: verdict for verdict in found.verdicts}
    history = found.state.history
    for answer in answers:
        verdict = verdicts.get(answer.request_id)
        if not answer.accepted:
            assert verdict is None or verdict.refusals, (answer, verdict)
            continue
        for key, revision in answer.revisions.items():
            assert revision in history[key], (answer, verdict)
        if verdict is not None:
            assert verdict.accepted, (answer, verdict)
            made = {o.key: o.revision for o in verdict.outcomes if o.outcome != "unchanged"}
            assert made.items() <= dict(answer.revisions).items(), (answer, verdict)


async def the_users_are_as_declared(real: Any, declared: Mapping[str, Json]) -> None:
    """Twins that the same server is given by hand must be equal to ours, rule by rule.

    The same server, because the order in which Redis writes a user's commands out depends on the process.
    """
    redis = redis_client.from_url(real.url, decode_responses=True)
    try:
        ours = canonical(await redis.acl_list())
        await redis.acl_deluser(*ours)
        for reference, value in declared.items():
            setting_type, _, name = reference.partition("/")
            if setting_type == "cache.redis_user":
                passwords = [real_password(p["from_file"]) for p in value["passwords"]]
                keys = [f"~{pattern}" for pattern in value["keys"]]
                rules = ["reset", "resetchannels", *value["commands"], *keys, *passwords, "on"]
                await redis.execute_command("ACL", "SETUSER", name, *rules)
        assert ours == canonical(await redis.acl_list())
    finally:
        await redis.aclose()


def real_password(reference: str) -> str:
    text = f"{reference.partition('/')[2]}-password"
    return f"#{hashlib.sha256(text.encode()).hexdigest()}"


def canonical(users: list[str]) -> dict[str, list[str]]:
    """Rules by name, those of the devstack left out. The order of passwords means nothing; that of commands does."""
    rows = {}
    for user in users:
        _, name, *rules = user.split()
        if name not in ("default", "coreplane"):
            hashes = sorted(rule for rule in rules if rule.startswith("#"))
            rows[name] = [*(rule for rule in rules if not rule.startswith("#")), *hashes]
    return rows


async def the_namespaces_are_as_declared(real: Any, declared: Mapping[str, Json]) -> None:
    redis = redis_client.from_url(real.url, decode_responses=True)
    wanted = {
        reference.partition("/")[2]: value
        for reference, value in declared.items()
        if reference.startswith("cache.namespace/")
    }
    try:

        async def keys() -> set[str]:
            return {key async for key in redis.scan_iter("*")}

        prefixes = {value["prefix"] for value in wanted.values()}
        expected = {registration_key(prefix) for prefix in prefixes} | ({INDEX_KEY} if prefixes else set())
        assert await keys() == expected
        assert await redis.smembers(INDEX_KEY) == prefixes
        for name, value in wanted.items():
            definition = json.loads(await redis.hget(registration_key(value["prefix"]), "definition"))
            assert definition["name"] == name
            layers = [tuple(layer) for layer in definition["layers"]]
            assert layers == [(layer["target"], layer["ttl_s"]) for layer in value["layers"]]
    finally:
        await redis.aclose()
