"""One daemon with Redis, Kafka, MinIO and Elasticsearch connected, and what these say was ever done to them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from controlplane.client.http import CoreplaneClient
from controlplane.devstack.elasticsearch import credentials
from reconcilers.queue import kafka_groups, kafka_users
from reconcilers.queue.kafka_topics import Topics
from reconcilers.search.shadow import SHADOW
from reconcilers.storage.s3 import Refused, bucket_path
from tests.integration import queue_world, search_world, storage_world
from tests.servers import DaemonProcess

TARGETS = ("cache.target/redis", "queue.target/kafka", "storage.target/minio", "search.target/elasticsearch")
_CHANGED = re.compile(r'^minio_s3_requests_total\{api="(?:put|delete|post|copy|complete)\w*".*\} (\d+)', re.MULTILINE)
_MARKED = re.compile(r'^minio_s3_requests_total\{api="getbucketpolicystatus".*\} (\d+)', re.MULTILINE)
TOLD_S = 30.0
SECRET = {"from_file": "secrets/app"}
PASSWORD = "sesame-sesame-1"


@dataclass
class FourServices:
    """The daemon, and each server as somebody beside it sees it."""

    client: CoreplaneClient
    redis: Redis
    kafka: Any
    """`await kafka(lambda admin: …)`"""
    minio: storage_world.World
    search: search_world.SearchWorld
    declarations: list[dict[str, Any]]
    """Of the targets."""

    async def traces(self) -> dict[str, Any]:
        """Everything that would be different if something had been written: the servers' own counters of writes where
        they have any, and what they hold."""
        return {
            "redis": await self._of_redis(),
            "kafka": await self.kafka(_of_kafka),
            "minio": await self._of_minio(),
            "search": await self._of_search(),
        }

    async def _of_redis(self) -> dict[str, Any]:
        persistence = await self.redis.info("persistence")
        return {
            "writes": persistence["rdb_changes_since_last_save"],
            "users": await self.redis.execute_command("ACL", "LIST"),
            "config": await self.redis.config_get("*"),
        }

    async def _of_minio(self) -> dict[str, Any]:
        told = await self._told_by_minio()
        exported = {kind: await self.minio.backend._iam.all_of(kind) for kind in LOGINS}
        return {"writes": sum(map(int, _CHANGED.findall(told))), "logins": exported}

    async def _told_by_minio(self) -> str:
        """Its counters with everything that was sent so far: it tells them up to ten seconds late, so until it knows of
        a call that nobody else makes."""
        mark, client = queue_world.unique("mark"), self.minio.client
        before = _marks(await client.prometheus())
        with pytest.raises(Refused):
            await client.get(bucket_path(mark), {"policyStatus": ""})
        async with asyncio.timeout(TOLD_S):
            while _marks(told := await client.prometheus()) <= before:
                await asyncio.sleep(0.1)
        return told

    async def _of_search(self) -> dict[str, Any]:
        """But for shadows, by which the server is asked what a change would be: they hold nothing and are nowhere."""
        ask = self.search.wire.ask
        stats = await ask("GET", "/_stats/indexing", params={"filter_path": "indices.*.primaries.indexing.*_total"})
        state = await ask("GET", "/_cluster/state/metadata/_all", params={"filter_path": _HELD})
        indices = {name: one for name, one in state["metadata"]["indices"].items() if not name.startswith(SHADOW)}
        return {
            "writes": {name: one for name, one in stats["indices"].items() if not name.startswith(SHADOW)},
            "held": {**state["metadata"], "indices": indices},
            "users": await ask("GET", "/_security/user"),
            "roles": await ask("GET", "/_security/role"),
        }


def _marks(told: str) -> int:
    return sum(map(int, _MARKED.findall(told)))


LOGINS = ("storage.policy", "storage.user", "storage.group", "storage.access_key")
_HELD = (
    "metadata.indices.*.settings,metadata.indices.*.mapping_version,metadata.indices.*.settings_version,"
    "metadata.indices.*.aliases_version,metadata.index_template,metadata.component_template,metadata.ingest,"
    "metadata.stored_scripts,metadata.repositories,metadata.settings"
)


def _of_kafka(admin: Any) -> dict[str, Any]:
    """A broker has no counters that a client can read; but no topic changes without its epoch, id or end."""
    topics = [name for name in admin.list_topics() if not name.startswith("__")]
    places = [place for name in topics for place in kafka_groups.places_of(admin, name)]
    return {
        "topics": Topics().discover(admin, "*"),
        "ends": kafka_groups.ends(admin, places),
        "permissions": kafka_users.bindings_of(admin, None),
        "credentials": kafka_users.credentials_of(admin, None),
        "quotas": kafka_users.all_quotas(admin),
    }


@asynccontextmanager
async def connected(
    daemon: DaemonProcess, redis: Any, kafka: Any, minio_server: Any, elasticsearch: Any
) -> AsyncIterator[FourServices]:
    """All of it. The targets are to be declared."""
    declarations = _targets(daemon.data_dir / "secrets", redis, kafka, minio_server, elasticsearch)
    async with AsyncExitStack() as stack:
        yield FourServices(
            await stack.enter_async_context(daemon.client()),
            await stack.enter_async_context(Redis.from_url(redis.url, decode_responses=True)),
            await stack.enter_async_context(queue_world.by_hand(kafka)),
            await stack.enter_async_context(storage_world.world(minio_server)),
            await stack.enter_async_context(search_world.opened(elasticsearch)),
            declarations,
        )


def _targets(folder: Path, redis: Any, kafka: Any, minio_server: Any, elasticsearch: Any) -> list[dict[str, Any]]:
    """The declarations of the targets, and the secrets they refer to."""
    folder.mkdir(exist_ok=True)
    name, password = credentials(elasticsearch.place)
    storage = storage_world.login(minio_server).known
    known = {
        "app": PASSWORD,
        "kafka": queue_world.admin_password(kafka),
        "minio-name": storage["KEY"],
        "minio": storage["SECRET"],
        "elasticsearch": password,
    }
    for what, text in known.items():
        (folder / what).write_text(text)
    reference = {what: {"from_file": f"secrets/{what}"} for what in known}
    values = (
        {"kind": "redis", "url": redis.url},
        queue_world.target_value(kafka, reference["kafka"]),
        {
            "endpoint": minio_server.url,
            "access_key": reference["minio-name"],
            "secret_key": reference["minio"],
        },
        {"url": elasticsearch.url, "username": name, "password": reference["elasticsearch"]},
    )
    parts = (target.split("/") for target in TARGETS)
    return [{"type": t, "name": n, "value": value} for (t, n), value in zip(parts, values, strict=True)]
