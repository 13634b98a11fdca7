"""A day with Coreplane: sentences about the whole daemon on real Redis and Memcached."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis_client

from controlplane import devstack
from controlplane.cli.documents import load
from controlplane.devstack.shop import make_secrets
from tests.e2e.conditions import all_ready, until

pytestmark = pytest.mark.e2e

EXAMPLE = Path(devstack.__file__).parent / "example" / "shop.yaml"


@pytest.fixture
async def shop(daemon: Any, redis_server: Any, memcached_server: Any) -> AsyncIterator[Any]:
    """The example application, converged."""
    make_secrets(daemon.data_dir)
    targets = [
        {"type": "cache.target", "name": "redis", "value": {"kind": "redis", "url": redis_server.url}},
        {"type": "cache.target", "name": "memcached", "value": {"kind": "memcached", "url": memcached_server.url}},
    ]
    async with daemon.client() as client:
        await client.apply([*targets, *(item.declaration for item in load([str(EXAMPLE)]))])
        await all_ready(client)
        yield client


async def test_the_example_converges_and_applying_it_again_does_nothing_at_all(shop: Any) -> None:
    settings = [setting async for setting in shop.list_settings()]
    assert len(settings) >= 12
    before = (await shop.status())["replica"]["position"]
    answer = await shop.apply([item.declaration for item in load([str(EXAMPLE)])])
    assert {result["outcome"] for result in answer["results"]} == {"unchanged"}
    assert (await shop.status())["replica"]["position"] == before


async def test_a_user_deleted_by_hand_is_repaired_and_the_event_names_path_desired_and_observed(
    shop: Any, redis_server: Any
) -> None:
    admin = redis_client.from_url(redis_server.url, decode_responses=True)
    try:
        assert await admin.acl_deluser("storefront") == 1

        async def back() -> bool:
            return await admin.acl_getuser("storefront") is not None

        await until(back, 10, "the user is back")

        async def drift() -> Any:
            page = await shop.events(event_type="DriftDetected", setting="default/cache.redis_user/storefront")
            return page["items"]

        event = (await until(drift, 10, "the drift event"))[0]
        found = event["details"]["drift"][0]
        assert set(found) == {"path", "desired", "observed"}
        assert found["observed"] is None
        await all_ready(shop)
    finally:
        await admin.aclose()
