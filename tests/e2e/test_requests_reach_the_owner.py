"""Any replica takes any request: what only the owner of a shard can answer is handed on to it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio as redis_client

from controlplane.client.errors import ApiError
from controlplane.client.http import CoreplaneClient
from controlplane.domain.sharding import shard_of
from tests.e2e.conditions import all_ready, until
from tests.integration.storage_world import fresh, keep_login
from tests.servers import DaemonProcess, SharedServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SHARDS = 6
TOKENS = {"ed": "editor", "vi": "viewer"}
TARGETS = [f"t{number}" for number in range(8)]
"""So many that each of two replicas drives some."""


@pytest.fixture
async def replicas(tmp_path: Path, kafka_broker: SharedServer) -> AsyncIterator[list[DaemonProcess]]:
    """Two of them, which ask for tokens."""
    tokens = [
        {"name": name, "role": role, "sha256": hashlib.sha256(name.encode()).hexdigest()}
        for name, role in TOKENS.items()
    ]
    content = {
        "log": {"url": f"{kafka_broker.url}?prefix=t{uuid.uuid4().hex}", "shards": SHARDS},
        "auth": {"tokens": tokens},
    }
    found = [DaemonProcess(tmp_path / name, content) for name in ("a", "b")]
    await asyncio.gather(*(process.start() for process in found))
    yield found
    await asyncio.gather(*(process.clean_up() for process in found))


def client(process: DaemonProcess, token: str = "ed", **options: Any) -> CoreplaneClient:
    return process.client(token=token, **options)


def space(target: str, ttl_s: int = 60) -> dict[str, Any]:
    value = {"prefix": f"{target}:", "layers": [{"target": target, "ttl_s": ttl_s}]}
    return {"type": "cache.namespace", "name": f"s-{target}", "value": value}


async def shards(process: DaemonProcess) -> set[int]:
    async with client(process, "vi") as one:
        return set((await one.status())["shards"])


async def declared(replicas: list[DaemonProcess], redis_url: str) -> dict[str, int]:
    """A namespace on every target; target → number of the replica that drives it, both of which have some."""
    settings = [
        {"type": "cache.target", "name": target, "value": {"kind": "redis", "url": redis_url}} for target in TARGETS
    ]
    async with client(replicas[0]) as one:
        await one.apply([*settings, *map(space, TARGETS)])
    homes = {target: shard_of("default", "cache", target, SHARDS) for target in TARGETS}

    async def shared() -> dict[str, int] | None:
        owned = [await shards(process) for process in replicas]
        found = {t: n for t, shard in homes.items() for n, some in enumerate(owned) if shard in some}
        return found if len(found) == len(TARGETS) and sum(map(len, owned)) == SHARDS and all(owned) else None

    owners = await until(shared, 60, "both replicas drive targets")
    assert set(owners.values()) == {0, 1}
    for process in replicas:
        async with client(process) as one:
            await all_ready(one, 120)  # a broker that answers late costs shards, and they come back
    return owners


async def test_operations_imports_and_looks_reach_whoever_drives_the_target(
    replicas: list[DaemonProcess], redis_server: Any
):
    owners = await declared(replicas, redis_server.url)
    async with redis_client.from_url(redis_server.url) as redis:
        for target, owner in owners.items():
            asked = replicas[1 - owner]
            await redis.set(f"{target}:page", "old")
            async with client(asked) as one:
                done = await one.operate("cache.invalidate", {"namespace": f"s-{target}", "all": True})
            assert done["result"], target
            async with client(asked) as one:
                found = await one.discover("cache.redis_user", target, "default")
            assert [row["name"] for row in found["settings"]] == ["default"], target
            await redis.delete(f"coreplane:namespace:{target}:")  # by hand
            async with client(asked) as one:
                await one.reconcile("cache.namespace", f"s-{target}")

            async def mended(target: str = target) -> int:
                return int(await redis.exists(f"coreplane:namespace:{target}:"))

            await until(mended, 20, "looked at at once, not by the next sweep")


async def test_a_plan_asks_every_owner_and_is_the_same_at_any_replica(replicas: list[DaemonProcess], redis_server: Any):
    await declared(replicas, redis_server.url)
    document = [space(target, 90) for target in TARGETS]
    plans = []
    for process in replicas:
        async with client(process) as one:
            plans.append(await one.plan(document))
    for plan in plans:
        assert {step["setting"] for step in plan["steps"]} == {f"default/cache.namespace/s-{t}" for t in TARGETS}
        assert plan["unknown"] == []
    assert len({plan["plan_id"] for plan in plans}) == 1
    async with client(replicas[1]) as one:
        applied = await one.apply(document, plan=plans[0]["plan_id"])
        await all_ready(one, 120)  # a broker that answers late costs shards, and they come back
    backs = []
    for process in replicas:
        async with client(process) as one:
            backs.append(await one.rollback(applied["revision"] - 1, dry_run=True))
    for back in backs:
        assert {step["setting"] for step in back["steps"]} == {f"default/cache.namespace/s-{t}" for t in TARGETS}
    assert backs[0]["plan_id"] == backs[1]["plan_id"]


async def test_rights_are_those_of_who_asked_and_hops_are_counted(replicas: list[DaemonProcess], redis_server: Any):
    owners = await declared(replicas, redis_server.url)
    target, owner = next(iter(owners.items()))
    asked = replicas[1 - owner]
    async with client(asked, "vi", attempts=1) as one:
        with pytest.raises(ApiError) as refused:
            await one.operate("cache.invalidate", {"namespace": f"s-{target}", "all": True})
    assert refused.value.status == 403
    headers = {"Authorization": "Bearer ed", "X-Coreplane-Hops": "2"}
    path = f"/v1/tenants/default/settings/cache.namespace/s-{target}/reconcile"
    async with aiohttp.ClientSession(headers=headers) as session, session.post(asked.url + path) as answer:
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"
        assert "another replica" in (await answer.json())["detail"]


async def test_while_the_owner_is_gone_the_answer_is_to_try_again_and_then_the_next_owner_answers(
    replicas: list[DaemonProcess], redis_server: Any
):
    owners = await declared(replicas, redis_server.url)
    target = next(target for target, owner in owners.items() if owner == 0)
    await replicas[0].kill()
    problems: list[ApiError] = []

    async def answered() -> bool:
        async with client(replicas[1], attempts=1) as one:
            try:
                await one.operate("cache.invalidate", {"namespace": f"s-{target}", "all": True})
            except ApiError as exc:
                problems.append(exc)
                return False
        return True

    await until(answered, 60, "the next owner answers")
    assert {problem.status for problem in problems} == {503}


async def _put(http: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]) -> int:
    async with http.put(url, data=io.BytesIO(body), headers=headers) as put:
        return put.status


async def test_contents_are_streamed_to_and_from_the_owner(replicas: list[DaemonProcess], minio_server: Any):
    admin = {"access_key": {"from_file": "secrets/name"}, "secret_key": {"from_file": "secrets/secret"}}
    for process in replicas:
        keep_login(process, minio_server)
    settings = [
        {"type": "storage.target", "name": target, "value": {"endpoint": minio_server.url, **admin}}
        for target in TARGETS
    ]
    bucket = fresh("reached")
    settings.append({"type": "storage.bucket", "name": bucket, "value": {"target": TARGETS[0]}})
    async with client(replicas[0]) as one:
        await one.apply(settings)
        await all_ready(one, 60)
    body = bytes(range(256)) * 4096 * 20
    headers = {"Authorization": "Bearer ed"}
    for number, process in enumerate(replicas):
        async with aiohttp.ClientSession(f"{process.url}/v1/tenants/default/objects/", headers=headers) as http:
            for target in TARGETS:
                url = f"{target}/{bucket}/a folder/{number}"
                sent = {"Content-MD5": base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()}
                async with asyncio.timeout(60):  # 503 while a shard is on its way to the other replica
                    while (status := await _put(http, url, body, {**sent, "x-amz-meta-by": target})) != 200:
                        assert status == 503
                        await asyncio.sleep(0.1)
                async with http.get(url) as got:
                    assert await got.read() == body
                    assert got.headers["x-amz-meta-by"] == target
                async with http.get(url, headers={"Range": "bytes=1-3"}) as part:
                    assert (part.status, await part.read()) == (206, body[1:4])
                async with http.head(url) as head:
                    assert (head.status, head.headers["Content-Length"]) == (200, str(len(body)))
            async with http.get(f"{TARGETS[1]}/{bucket}/none") as none:
                assert (none.status, (await none.json())["reason"]) == (404, "NotFound")
            async with http.delete(f"{TARGETS[2]}/{bucket}/a folder/{number}") as gone:
                assert gone.status == 204
            async with http.get(f"nowhere/{bucket}/none") as none:
                assert none.status == 404
