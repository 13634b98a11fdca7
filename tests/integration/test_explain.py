"""Explanations over the real daemon and a real Redis: every path can be followed from the request to the observation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from controlplane.client.errors import ApiError
from controlplane.client.http import CoreplaneClient
from tests.conftest import RealServer
from tests.integration.test_plan_foresees import connected
from tests.servers import DaemonProcess

pytestmark = pytest.mark.integration

CONFIG, SHOP = "cache.redis_config", ("cache.redis_config", "shop")
DEADLINE_S = 60.0


@pytest.fixture
async def redis(redis_server: RealServer) -> AsyncIterator[Redis]:
    client: Redis = Redis.from_url(redis_server.url, decode_responses=True)
    yield client
    await client.aclose()


@pytest.fixture
async def client(daemon: DaemonProcess, redis_server: RealServer) -> AsyncIterator[CoreplaneClient]:
    async with daemon.client() as client:
        await connected(client, redis_server.url)
        yield client


async def declared(client: CoreplaneClient, reason: str, drift: str = "enforce", **parameters: str) -> dict[str, Any]:
    names = {name.replace("_", "-"): text for name, text in parameters.items()}
    body = {"value": {"target": "main", "parameters": names}, "policy": {"drift": drift}, "reason": reason}
    return await client.put_setting(*SHOP, body, wait="Ready", wait_s=DEADLINE_S, idempotency_key=f"default/{reason}")


async def until(client: CoreplaneClient, holds: Any, **query: str) -> dict[str, Any]:
    """The first explanation of which the condition holds: the projection follows the journal."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds(told := await client.explain(*SHOP, **query)):
            await asyncio.sleep(0.05)
    return told


def stages(told: dict[str, Any]) -> list[str]:
    return [one["stage"] for one in told["chain"]]


def rows(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in told["paths"]}


async def test_every_path_is_followed_from_its_request_to_what_was_observed(client):
    await declared(client, "opening", maxmemory="100mb", maxmemory_policy="allkeys-lru")
    await declared(client, "black-friday", maxmemory="200mb", maxmemory_policy="allkeys-lru")
    whole = ["request", "change", "intent", "effect", "observation"]
    told = await until(client, lambda told: stages(told) == whole, path="/parameters/maxmemory")
    (row,) = told["paths"]
    assert (row["desired"], row["observed"], row["known"], row["drift"]) == ("200mb", "200mb", True, [])
    assert (row["set_by"]["reason"], row["set_by"]["request_id"]) == ("black-friday", "default/black-friday")
    assert row["last_action"]["summary"] == f"SetParameters maxmemory={200 * 1024 * 1024}"
    assert row["last_action"]["status"] == "succeeded"
    request, change, intent, effect, observation = told["chain"]
    assert (request["id"], request["reason"]) == ("default/black-friday", "black-friday")
    assert change["changed"] == ["/value/parameters/maxmemory"]
    assert effect["causation_id"] == intent["id"]
    assert (effect["event_type"], observation["event_type"]) == ("ActionSucceeded", "Converged")
    told = await until(client, lambda told: stages(told) == whole, path="/parameters/maxmemory-policy")
    assert told["paths"][0]["set_by"]["reason"] == "opening"
    assert told["chain"][0]["id"] == "default/opening"


async def test_what_somebody_changed_by_hand_is_seen_now_with_its_episode(client, redis):
    await declared(client, "opening", drift="report", maxmemory="100mb", maxmemory_samples="7")
    await redis.config_set("maxmemory", "1gb")
    told = await client.explain(*SHOP)
    assert rows(told)["/parameters/maxmemory"]["observed"] == str(1024**3)
    assert rows(told)["/parameters/maxmemory"]["drift"][0]["desired"] == str(100 * 1024 * 1024)
    assert rows(told)["/parameters/maxmemory-samples"]["drift"] == []
    told = await until(client, lambda told: told["drift"] is not None)
    assert (told["drift"]["until"], told["phase"]) == (None, "Drifted")
    await redis.config_set("maxmemory", "100mb")
    told = await until(client, lambda told: told["drift"]["until"] is not None)
    assert told["drift"]["chain"][0]["event_type"] == "DriftDetected"


async def test_without_an_answer_nothing_is_claimed(client, redis_server):
    await declared(client, "opening", maxmemory="100mb")
    await redis_server.kill()
    told = await client.explain(*SHOP)
    assert told["unknown"] is not None
    assert [(row["known"], row["observed"]) for row in told["paths"]] == [(False, None)]
    assert told["paths"][0]["set_by"]["reason"] == "opening"


async def test_what_isnt_there_isnt_explained(client):
    await declared(client, "opening", maxmemory="100mb")
    for call in (client.explain(CONFIG, "other"), client.explain(*SHOP, path="/parameters/hz")):
        with pytest.raises(ApiError) as raised:
            await call
        assert raised.value.status == 404
    with pytest.raises(ApiError) as raised:
        await client.explain(*SHOP, path="parameters")
    assert raised.value.status == 400
