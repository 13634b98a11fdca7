"""How much steps would touch, as the real servers tell it: what a plan says of a deletion before it is done."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from reconcilers.contract import Affected
from reconcilers.queue import data
from schemas.queue_operations import Outgoing
from tests.conftest import RealServer
from tests.integration import cache_world, queue_world, search_world, storage_world

pytestmark = pytest.mark.integration


async def weighed(w: Any, plan: Any) -> dict[str, Affected]:
    return dict(zip((step.name for step in plan.steps), await w.backend.weigh(plan.steps), strict=True))


async def test_a_redis_user_has_its_connections(redis_server: RealServer):
    value = {"commands": ["+@all"], "keys": ["*"], "nopass": True}
    async with cache_world.world(redis_server.url) as w:
        assert await weighed(w, await w.look("cache.redis_user", value, "web")) == {"SetUser": Affected()}
        await w.declare("cache.redis_user", value, "web")
        one = Redis.from_url(redis_server.url, username="web", password="any")
        two = Redis.from_url(redis_server.url, username="web", password="any")
        async with one, two:
            await one.ping()
            await two.ping()
            less = await w.look("cache.redis_user", {**value, "commands": ["+get"]}, "web")
            assert await weighed(w, less) == {"SetUser": Affected({"clients": 2})}
            gone = await w.look("cache.redis_user", value, "web", retiring=True)
            assert await weighed(w, gone) == {"DropUser": Affected({"clients": 2})}


async def test_a_topic_has_messages_and_partitions(kafka_broker: Any):
    name = queue_world.unique("weighed")
    async with queue_world.world(kafka_broker) as w:
        new = await w.look("queue.topic", {"partitions": 3}, name)
        assert await weighed(w, new) == {"CreateTopic": Affected()}
        await w.converge("queue.topic", {"partitions": 3}, name)
        await data.publish(w.backend.client_options, name, [Outgoing(value=str(number)) for number in range(5)])
        held = Affected({"messages": 5, "partitions": 3})
        assert await weighed(w, await w.look("queue.topic", {"partitions": 4}, name)) == {"RaisePartitions": held}
        assert await weighed(w, await w.look("queue.topic", {}, name, retiring=True)) == {"DeleteTopic": held}


async def test_a_bucket_has_objects_and_bytes(minio_server: Any):
    name = storage_world.fresh("weighed")
    async with storage_world.world(minio_server) as w:
        await w.settled("storage.bucket", {"versioning": "enabled"}, name)
        await w.put_object(name, "a", b"12345")
        await w.put_object(name, "a", b"123")
        await w.put_object(name, "b", b"1")
        gone = await weighed(w, await w.look("storage.bucket", {}, name, retiring=True))
        assert gone["EmptyBucket"] == Affected({"objects": 2, "versions": 3, "size_bytes": 9})
        assert gone["FreezeBucket"] == Affected()


async def test_an_index_has_documents(elasticsearch_server: Any):
    mapping = {"mappings": {"properties": {"stock": {"type": "long"}}}}
    async with search_world.opened(elasticsearch_server) as w:
        await w.converge(search_world.INDEX, mapping, "weighed")
        for number in range(3):
            await w.wire.ask("POST", "/weighed/_doc", {"stock": number}, params={"refresh": "true"})
        other = {"mappings": {"properties": {"stock": {"type": "integer"}}}}
        for plan in (
            await w.look(search_world.INDEX, other, "weighed"),
            await w.look(search_world.INDEX, mapping, "weighed", retiring=True),
        ):
            ((_, found),) = (await weighed(w, plan)).items()
            assert found.counts["documents"] == 3
            assert found.counts["size_bytes"] > 0
        await w.take(await w.look(search_world.INDEX, mapping, "weighed", retiring=True))
