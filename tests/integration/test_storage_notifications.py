"""Notifications on a real MinIO that has somebody to tell: declared ones arrive, those of others stay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from controlplane.devstack.guardian import Guardian
from controlplane.devstack.minio import MINIO
from tests.e2e.conditions import all_ready, until
from tests.integration.storage_world import BUCKET, CONFIG, driven, fresh, world
from tests.servers import DaemonProcess, started, with_environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ARN = "arn:minio:sqs::ears:webhook"


@pytest.fixture
async def told() -> AsyncIterator[tuple[str, asyncio.Queue[str]]]:
    """Where it is told, and the keys that were."""
    keys: asyncio.Queue[str] = asyncio.Queue()

    async def hear(request: web.Request) -> web.Response:
        if request.method == "POST" and request.can_read_body:
            found = await request.json()
            keys.put_nowait(str(found.get("Key")))
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/", hear)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/", keys
    await runner.cleanup()


async def test_what_is_declared_is_told_in_any_spelling_and_others_notifications_stay(
    told: tuple[str, asyncio.Queue[str]], tmp_path: Any, minio_program: Any, guardian: Guardian
):
    url, keys = told
    ears = {"MINIO_NOTIFY_WEBHOOK_ENABLE_ears": "on", "MINIO_NOTIFY_WEBHOOK_ENDPOINT_ears": url}
    server: Any = await started(with_environment(MINIO, **ears), tmp_path, minio_program, guardian)
    bucket = fresh("told")
    ours = {"id": "created", "arn": ARN, "events": ["s3:ObjectCreated:*"], "prefix": "in/", "suffix": ".csv"}
    single = {"id": "put", "arn": ARN, "events": ["s3:ObjectRemoved:Delete", "s3:ObjectAccessed:Get"]}
    theirs = (
        "<QueueConfiguration><Id>theirs</Id><Queue>" + ARN + "</Queue><Event>s3:ObjectRemoved:*</Event>"
        "<Filter><S3Key><FilterRule><Name>prefix</Name><Value>x/</Value></FilterRule></S3Key></Filter></QueueConfiguration>"
    )
    async with world(server) as w:
        plan = await w.look(
            CONFIG, {"subsystem": "notify_webhook:ears", "settings": {"endpoint": "http://127.0.0.1:1/"}}
        )
        assert plan.blocked is not None
        assert (plan.steps, plan.blocked.reason) == ((), "Overridden")
        await w.settled(BUCKET, {"bucket": bucket})
        await w.put_raw(bucket, "notification", f"<NotificationConfiguration>{theirs}</NotificationConfiguration>")
        await w.settled(BUCKET, {"bucket": bucket, "notifications": [ours, single]})
        await w.put_object(bucket, "in/orders.csv", b"1")
        async with asyncio.timeout(60):
            assert await keys.get() == f"{bucket}/in/orders.csv"
        await w.settled(BUCKET, {"bucket": bucket, "notifications": [ours]})
        held = (await w.raw(bucket, "notification")).decode()
        assert "<Id>theirs</Id>" in held
        assert "<Id>created</Id>" in held
        assert "<Id>put</Id>" not in held
    await server.kill()


async def test_a_receiver_is_declared_counts_from_the_next_start_on_and_is_told(
    told: tuple[str, asyncio.Queue[str]], own_minio: Any
):
    url, keys = told
    receiver = {"subsystem": "notify_webhook:ears", "settings": {"enable": "on", "endpoint": url, "queue_limit": "50"}}
    created = {"id": "created", "arn": ARN, "events": ["s3:ObjectCreated:Put"]}
    async with world(own_minio) as w:
        plan = await w.look(CONFIG, receiver)
        assert plan.warnings == ("it counts from the server's next start on",)
        (outcome,) = await w.take(plan)
        assert outcome.error is None
        waiting = await w.look(CONFIG, receiver)
        assert (waiting.steps, waiting.converged) == ((), False), "it isn't set again and again"
        assert waiting.wait_reason == "it is set, and counts from the server's next start on"
        other = {**receiver, "settings": {**receiver["settings"], "queue_limit": "60"}}
        (outcome,) = await w.declare(CONFIG, other)
        assert outcome.error is None
    await own_minio.restart()
    async with world(own_minio) as w:
        assert (await w.look(CONFIG, other)).converged
        await w.settled(BUCKET, {"bucket": "told", "notifications": [created]})
        await w.put_object("told", "orders.csv", b"1")
        async with asyncio.timeout(60):
            assert await keys.get() == "told/orders.csv"


async def test_the_daemon_sets_it_once_waits_for_the_start_and_then_has_the_bucket_told(
    daemon: DaemonProcess, told: tuple[str, asyncio.Queue[str]], own_minio: Any
):
    url, keys = told
    receiver = {"target": "own", "subsystem": "notify_webhook:ears", "settings": {"enable": "on", "endpoint": url}}
    notification = {"id": "created", "arn": ARN, "events": ["s3:ObjectCreated:Put"]}
    async with driven(daemon, own_minio, "own") as client:
        await client.put_setting("storage.server_config", "ears", {"value": receiver})
        value = {"target": "own", "notifications": [notification]}
        await client.put_setting("storage.bucket", "told", {"value": value})

        async def waits() -> bool:
            found = await client.get_setting("storage.server_config", "ears")
            return "next start" in str(found["status"])

        await until(waits, 30, "it is set and waited for")
        await client.reconcile("storage.server_config", "ears")
        await own_minio.restart()
        await all_ready(client, 120)
        events = (await client.events(event_type="ActionStarted", limit=100))["items"]
        assert [event["details"]["step"] for event in events].count("SetConfig") == 1
    async with world(own_minio) as w, asyncio.timeout(60):
        await w.put_object("told", "orders.csv", b"1")
        assert await keys.get() == "told/orders.csv"
