"""Servers that are busy, refuse, or go away: what is said of it, and that nothing is done twice or half."""

from __future__ import annotations

import asyncio
import io
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from controlplane.devstack import minio
from reconcilers.contract import Result, TerminalError, TransientError, Unreachable
from reconcilers.storage import objects, s3
from reconcilers.storage.s3 import Unanswered, bucket_path
from tests.e2e.conditions import condition_of, phase, until
from tests.integration.backend_world import ClosedFence, DictSecrets
from tests.integration.storage_world import (
    BUCKET,
    FIRST,
    POLICY,
    USER,
    World,
    as_user,
    driven,
    fresh,
    target,
    with_passwords,
    world,
)
from tests.servers import DaemonProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SLOW_DOWN = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate</Message></Error>"


class Between:
    """Passes on what is asked, but for the requests that it answers itself or cuts off. The signature holds: it covers the
    host as the client named it."""

    def __init__(self, behind: str) -> None:
        self.behind = behind
        self.place: Any = None
        self.url = ""
        self.busy = 0
        """So many changes are answered by 503 SlowDown."""
        self.cut = 0
        """So many changes are passed on, and their answers lost."""
        self.reset = 0
        """So many reads find their connection reset."""
        self.asked: list[float] = []
        """When each request came, by the monotonic clock."""
        self.emptying: Callable[[int], Awaitable[None]] | None = None
        """Called before the first, second … request that removes many objects is passed on."""
        self._emptied = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(time.monotonic())
        changes = request.method in ("PUT", "POST", "DELETE")
        if changes and self.busy:
            self.busy -= 1
            return web.Response(status=503, text=SLOW_DOWN)
        if not changes and self.reset:
            self.reset -= 1
            assert request.transport is not None
            linger = struct.pack("ii", 1, 0)
            request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            request.transport.abort()
            return web.Response()
        body = await request.read()
        if self.emptying is not None and request.method == "POST" and "delete" in request.query:
            self._emptied += 1
            await self.emptying(self._emptied)
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, f"{self.behind}{request.raw_path}", data=io.BytesIO(body), headers=request.headers
            ) as answer,
        ):
            content = await answer.read()
            if changes and self.cut:
                self.cut -= 1
                assert request.transport is not None
                request.transport.abort()
            kept = {name: value for name, value in answer.headers.items() if name.lower() != "transfer-encoding"}
            return web.Response(status=answer.status, body=content, headers=kept)


@asynccontextmanager
async def between(server: Any) -> AsyncIterator[Between]:
    """Something between us and the server."""
    found = Between(server.url)
    found.place = server.place
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", found.handle)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield found
    finally:
        await runner.cleanup()


async def test_a_busy_server_is_asked_again_later_and_nothing_is_lost(minio_server: Any):
    bucket = fresh("busy")
    value = {"bucket": bucket, "versioning": "enabled"}
    async with between(minio_server) as proxy, world(proxy) as w:
        proxy.busy = 1
        plan = await w.look(BUCKET, value)
        (busy,) = await w.backend.apply(plan.steps[:1], w.fence)
        assert isinstance(busy.error, TransientError)
        assert (busy.error.reason, busy.result) == ("SlowDown", Result.FAILED)
        assert busy.error.retry_after_s
        await w.settled(BUCKET, value)


@pytest.mark.parametrize("size", [5, objects.SINGLE_BYTES + 1], ids=["one request", "in parts"])
async def test_a_busy_server_is_told_to_whoever_writes_and_nothing_is_stored(
    daemon: DaemonProcess, minio_server: Any, size: int
):
    bucket = fresh("busy")
    async with between(minio_server) as proxy, driven(daemon, proxy) as client:
        await client.put_setting("storage.bucket", bucket, {"value": {"target": "main"}}, wait="Ready", wait_s=30)
        url = f"{daemon.url}/v1/tenants/default/objects/main/{bucket}/o"
        async with aiohttp.ClientSession() as session:
            proxy.busy = 1
            async with session.put(url, data=io.BytesIO(bytes(size))) as busy:
                assert busy.status == 503
                assert "reduce your request rate" in (await busy.json())["detail"]
                assert int(busy.headers["Retry-After"]) >= 1
            async with session.get(url) as none:
                assert none.status == 404
            async with session.put(url, data=io.BytesIO(bytes(size))) as again:
                assert again.status == 200, await again.text()


async def test_a_change_whose_answer_is_lost_is_unknown_and_the_next_look_tells(minio_server: Any):
    bucket = fresh("cut")
    async with between(minio_server) as proxy, world(proxy) as w:
        proxy.cut = 1
        (lost,) = await w.declare(BUCKET, {"bucket": bucket})
        assert lost.result is Result.UNKNOWN
        assert (await w.look(BUCKET, {"bucket": bucket})).converged, "it had happened"


async def test_a_read_whose_connection_is_reset_is_sent_once_more(minio_server: Any):
    bucket = fresh("reset")
    async with between(minio_server) as proxy, world(proxy) as w:
        await w.settled(BUCKET, {"bucket": bucket})
        proxy.reset = 1
        await w.client.get(bucket_path(bucket), {"versioning": ""})
        assert proxy.reset == 0
        proxy.reset = 2
        with pytest.raises(Unanswered, match="reset"):
            await w.client.get(bucket_path(bucket), {"versioning": ""})


async def test_what_may_no_longer_begin_is_not_sent(minio_server: Any):
    bucket = fresh("late")
    async with world(minio_server) as w:
        w.fence = ClosedFence()
        (late,) = await w.declare(BUCKET, {"bucket": bucket})
        assert late.result is Result.NOT_SENT
        assert (await w.look(BUCKET, {"bucket": bucket})).steps[0].name == "CreateBucket"


@pytest.mark.parametrize(
    ("login", "reason"),
    [
        (DictSecrets(KEY=minio.ADMIN, SECRET="not-the-password"), "SignatureDoesNotMatch"),
        (DictSecrets(KEY="nobody-here", SECRET="not-the-password"), "InvalidAccessKeyId"),
    ],
)
async def test_a_login_that_is_refused_is_terminal_and_says_why(minio_server: Any, login: DictSecrets, reason: str):
    with pytest.raises(TerminalError) as caught:
        async with world(minio_server, login):
            pass
    assert caught.value.reason == reason
    assert "not-the-password" not in str(caught.value)


async def test_a_clock_that_goes_wrong_is_said(minio_server: Any, monkeypatch: pytest.MonkeyPatch):
    class Skewed(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(hours=1)

    monkeypatch.setattr(s3, "datetime", Skewed)
    with pytest.raises(TerminalError) as caught:
        async with world(minio_server):
            pass
    assert caught.value.reason == "RequestTimeTooSkewed"
    assert datetime.now(UTC) < Skewed.now(UTC)


async def test_a_server_that_is_not_there_is_unreachable():
    class Nowhere:
        url = "http://127.0.0.1:1"

    with pytest.raises(Unreachable, match="127"):
        async with world(Nowhere(), DictSecrets(KEY="a", SECRET="b")):
            pass


async def test_a_bucket_that_belongs_to_others_is_left_alone_and_said(minio_server: Any):
    name, policy, theirs = fresh("u"), fresh("p"), fresh("theirs")
    own = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::own-*"]},
            {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "arn:aws:s3:::*"},
        ],
    }
    async with world(minio_server, with_passwords(minio_server)) as w:
        await w.settled(BUCKET, {"bucket": theirs})
        await w.settled(POLICY, {"policy": policy, "document": own})
        await w.settled(USER, {"access_key": name, "secret_key": FIRST, "policies": [policy]})
        async with as_user(minio_server, name, "first-secret-1") as limited:
            with pytest.raises(TerminalError, match="somebody else") as caught:
                await limited.look(BUCKET, {"bucket": theirs, "versioning": "enabled"})
            assert caught.value.reason == "AccessDenied"


async def test_a_policy_that_the_server_refuses_says_its_words(minio_server: Any):
    statement = {"Effect": "Allow", "Action": "s3:NoSuchAction", "Resource": "arn:aws:s3:::b/*"}
    async with world(minio_server) as w:
        document = {"Version": "2012-10-17", "Statement": [statement]}
        (refused,) = await w.declare(POLICY, {"policy": fresh("p"), "document": document})
        assert isinstance(refused.error, TerminalError)
        assert "NoSuchAction" in refused.error.message


async def test_a_bucket_is_not_dropped_while_its_server_starts_and_would_make_it_again(own_minio: Any):
    value, early = {"bucket": "short-lived"}, 0
    for _ in range(5):  # a machine with too much to do may be slower than the start
        async with world(own_minio) as w:
            await w.settled(BUCKET, value)
        await own_minio.kill()
        await own_minio.start()
        async with world(own_minio) as w:
            early += await w.drop(await w.look(BUCKET, value, retiring=True))
            await asyncio.sleep(0.1)
            assert (await w.look(BUCKET, value, retiring=True)).converged
        if early:
            break
    assert early


async def test_a_bucket_that_goes_while_its_server_is_away_goes_when_it_is_back(daemon: DaemonProcess, own_minio: Any):
    policy = {"deletion": "delete", "allow": ["EmptyBucket"]}
    value = {"target": "own", "versioning": "enabled"}
    async with driven(daemon, own_minio, "own") as client:
        declared = {"value": value, "policy": policy}
        await client.put_setting("storage.bucket", "short-lived", declared, wait="Ready", wait_s=60)
        async with world(own_minio) as w:
            await put_some(w)
        await own_minio.kill()
        await client.delete_setting("storage.bucket", "short-lived")
        await daemon.kill()
        await daemon.start()
        await own_minio.start()
    async with world(own_minio) as w:

        async def gone() -> bool:
            try:
                await w.raw("short-lived", "versioning")
            except s3.Refused as exc:
                return exc.code == "NoSuchBucket"
            return False

        await until(gone, 120, "the bucket is gone")


async def put_some(w: World) -> None:
    for number in range(5):
        await w.put_object("short-lived", f"o{number}", b"1")
        await w.put_object("short-lived", f"o{number}", b"2")


async def filled(w: World, bucket: str, versions: int) -> None:
    """With so many objects in a bucket."""
    slots = asyncio.Semaphore(16)

    async def put(number: int) -> None:
        async with slots:
            await w.put_object(bucket, f"o{number:04d}")

    await asyncio.gather(*(put(number) for number in range(versions)))


@pytest.mark.parametrize("victim", ["daemon", "server"])
async def test_whoever_is_killed_while_a_bucket_is_emptied_it_goes_on_and_nothing_else_is_touched(
    daemon: DaemonProcess, own_minio: Any, victim: str
):
    killed = asyncio.Event()

    async def kill_at_the_second(number: int) -> None:
        if number == 2 and not killed.is_set():
            await (daemon.kill() if victim == "daemon" else own_minio.kill())
            killed.set()

    policy = {"deletion": "delete", "allow": ["EmptyBucket"]}
    async with between(own_minio) as proxy:
        async with driven(daemon, proxy, "own") as client, world(own_minio) as w:
            for name in ("to-go", "to-go-not"):
                declared = {"value": {"target": "own"}, "policy": policy}
                await client.put_setting("storage.bucket", name, declared, wait="Ready", wait_s=60)
            await w.client.put("/of-others", (), b"", None)
            for name in ("to-go-not", "of-others"):
                await w.put_object(name, "o0001", b"kept")
            await filled(w, "to-go", 1_100)
            proxy.emptying = kill_at_the_second
            await client.delete_setting("storage.bucket", "to-go")
            async with asyncio.timeout(90):
                await killed.wait()
        await (daemon if victim == "daemon" else own_minio).start()
        async with world(own_minio) as w:

            async def gone() -> bool:
                return b"<Name>to-go</Name>" not in await w.client.get("/")

            await until(gone, 120, "the bucket is gone")
            for name in ("to-go-not", "of-others"):
                assert await w.client.get(f"/{name}/o0001") == b"kept"


async def test_a_wrong_password_is_said_and_not_tried_again_and_again(daemon: DaemonProcess, minio_server: Any):
    async with between(minio_server) as proxy, daemon.client() as client:
        folder = daemon.data_dir / "secrets"
        folder.mkdir()
        (folder / "name").write_text(minio.ADMIN)
        (folder / "wrong").write_text("not-the-password")
        await client.put_setting("storage.target", "closed", {"value": target(proxy.url, "wrong")})
        for number in range(5):
            await client.put_setting("storage.bucket", f"b-{number}", {"value": {"target": "closed"}})
        found = await phase(client, "storage.target", "closed", "Stalled")
        assert condition_of(found, "Stalled")["reason"] == "SignatureDoesNotMatch"

        async def tried() -> bool:
            return len(proxy.asked) >= 5

        await until(tried, 60, "it is tried again, now and then")
        first, *_, fifth = proxy.asked[:5]
        assert fifth - first > 3.0, "each try is one request, and the pauses grow: no machine is too slow for that"
