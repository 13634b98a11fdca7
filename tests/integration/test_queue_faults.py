"""A broker that goes away, a login that may not, a client that is stuck: unknown isn't absent, and nothing blocks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter

import pytest

from reconcilers.contract import BackendError, Result, TerminalError, Unreachable
from reconcilers.queue.admin import QUEUED, STUCK, AdminThread
from tests.integration.backend_world import DictSecrets
from tests.integration.queue_world import by_hand, sasl, unique, world
from tests.integration.test_queue_daemon import phase, put, queue_daemon  # noqa: F401 - a fixture
from tests.integration.test_queue_topics import orders
from tests.servers import frozen

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


async def test_while_the_broker_is_away_nothing_is_known_and_afterwards_everything_is_as_declared(
    queue_daemon,  # noqa: F811
    kafka_broker,
):
    client, before, during = queue_daemon, unique("before"), unique("during")
    await put(client, "queue.topic", before, {"target": "main", **orders(before)})
    await kafka_broker.kill()
    try:
        await phase(client, "queue.topic", before, "Unknown")
        await client.put_setting("queue.topic", during, {"value": {"target": "main", **orders(during)}})
        found = await phase(client, "queue.topic", during, "Unknown")
        assert found["status"]["drift"] == []
    finally:
        await kafka_broker.start()
    await phase(client, "queue.topic", before, "Ready")
    await phase(client, "queue.topic", during, "Ready")
    events = await client.events(setting=f"default/queue.topic/{before}")
    assert [e["details"]["step"] for e in events["items"] if e["event_type"] == "ActionStarted"] == ["CreateTopic"]


async def test_a_login_that_may_not_is_told_so_and_nothing_is_tried_in_its_place(kafka_broker):
    name, topic = unique("nobody"), unique("orders")
    known = DictSecrets(PW="open sesame")
    async with world(kafka_broker, known) as one:
        await one.converge("queue.user", {"username": name, "password": {"from_env": "PW"}})
    security = {"protocol": "SASL_PLAINTEXT", "username": name, "password": {"from_env": "PW"}}
    async with world(kafka_broker, known, bootstrap_servers=sasl(kafka_broker), security=security) as one:
        with pytest.raises(TerminalError) as seen:
            await one.look("queue.topic", orders(topic))
        assert seen.value.reason == "TopicAuthorizationFailed"
    async with world(kafka_broker, known) as one:
        plan = await one.look("queue.topic", orders(topic))
    async with world(kafka_broker, known, bootstrap_servers=sasl(kafka_broker), security=security) as one:
        (outcome,) = await one.take(plan)
        assert outcome.result is Result.FAILED
        assert isinstance(outcome.error, TerminalError)
        assert outcome.error.reason.endswith("AuthorizationFailed")
    async with by_hand(kafka_broker) as hand:
        assert topic not in await hand(lambda admin: admin.list_topics())


class Client:
    """What the thread opens and closes."""

    def close(self):
        """Nothing is open."""


async def test_a_client_that_is_stuck_is_replaced_and_too_many_of_them_are_refused(monkeypatch):
    release = threading.Event()
    admin = AdminThread({}, "nowhere:9092")
    monkeypatch.setattr(admin, "_client", Client)
    begun = []
    for number in range(STUCK):
        with pytest.raises(Unreachable) as late:
            await admin.call(lambda _client, number=number: (begun.append(number), release.wait()), 0.05)
        assert late.value.reason == "Timeout"
    assert begun == list(range(STUCK))
    with pytest.raises(Unreachable) as refused:
        await admin.call(lambda _client: None, 5.0)
    assert refused.value.reason == "Stuck"
    release.set()
    async with asyncio.timeout(30):
        while admin.stuck:
            await asyncio.sleep(0.01)
    assert await admin.call(type, 5.0) is Client
    admin.close()
    await admin.closed(5.0)


async def test_what_waits_behind_a_call_that_is_stuck_is_carried_out_by_the_next_client(monkeypatch):
    release, begun = threading.Event(), threading.Event()
    admin = AdminThread({}, "nowhere:9092")
    monkeypatch.setattr(admin, "_client", Client)
    stuck = asyncio.create_task(admin.call(lambda _client: (begun.set(), release.wait()), 0.1))
    await asyncio.to_thread(begun.wait)
    waiting = [asyncio.create_task(admin.call(lambda _client, number=n: number, 30.0)) for n in range(3)]
    with pytest.raises(Unreachable):
        await stuck
    async with asyncio.timeout(10):
        assert await asyncio.gather(*waiting) == [0, 1, 2]
    assert admin.stuck == 1
    release.set()
    admin.close()
    await admin.closed(5.0)


async def test_what_waits_when_it_is_closed_is_told_so_at_once(monkeypatch):
    release, begun = threading.Event(), threading.Event()
    admin = AdminThread({}, "nowhere:9092")
    monkeypatch.setattr(admin, "_client", Client)
    first = asyncio.create_task(admin.call(lambda _client: (begun.set(), release.wait()), 30.0))
    await asyncio.to_thread(begun.wait)
    second = asyncio.create_task(admin.call(lambda _client: "never", 30.0))
    await asyncio.sleep(0)
    admin.close()
    async with asyncio.timeout(10):
        with pytest.raises(Unreachable) as told:
            await second
    assert told.value.reason == "Closed"
    release.set()
    assert await first
    await admin.closed(5.0)


async def test_what_had_not_begun_at_its_deadline_is_not_begun_any_more(monkeypatch):
    release, done = threading.Event(), []
    admin = AdminThread({}, "nowhere:9092")
    monkeypatch.setattr(admin, "_client", Client)
    first = asyncio.create_task(admin.call(lambda _client: release.wait(), 30.0))
    await asyncio.sleep(0)
    with pytest.raises(Unreachable):
        await admin.call(lambda _client: done.append("late"), 0.05)
    release.set()
    assert await first
    await admin.call(lambda _client: done.append("in time"), 30.0)
    assert done == ["in time"]
    admin.close()
    await admin.closed(5.0)


async def test_a_broker_that_hangs_holds_up_nothing_and_is_asked_anew_when_it_goes_on(kafka_broker):
    """All that is asked meanwhile ends by its deadline, most of it without having been begun; the loop is never blocked."""
    topic = unique("orders")
    async with world(kafka_broker) as one, frozen(kafka_broker):
        admin, longest = one.backend.admin, [0.0]

        async def watch():
            loop = asyncio.get_running_loop()
            while True:
                before = loop.time()
                await asyncio.sleep(0.01)
                longest[0] = max(longest[0], loop.time() - before)

        watching = asyncio.create_task(watch())
        asked = [admin.call(lambda client: client.list_topics(), 1.0) for _ in range(QUEUED + 50)]
        begun = time.monotonic()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        took_s = time.monotonic() - begun
        watching.cancel()
        reasons = Counter(one.reason for one in answers if isinstance(one, BackendError))
        assert {"Timeout", "Busy"} <= reasons.keys() <= {"Timeout", "Busy", "Stuck"}, reasons
        assert reasons.total() == len(asked)
        assert reasons["Timeout"] <= QUEUED + 1, "no more wait than there is room for"
        assert 1 <= admin.stuck <= STUCK
        assert took_s < 5.0
        assert longest[0] < 1.0
        with pytest.raises(Unreachable):
            async with asyncio.timeout(30):
                await one.look("queue.topic", orders(topic))
    async with world(kafka_broker) as one, by_hand(kafka_broker) as hand:
        async with frozen(kafka_broker):
            with pytest.raises(Unreachable):
                await one.backend.admin.call(lambda client: client.list_topics(), 0.5)
        assert await one.converge("queue.topic", orders(topic)) == ["CreateTopic"]
        async with asyncio.timeout(30):
            while one.backend.admin.stuck:
                await asyncio.sleep(0.05)
        assert topic in await hand(lambda admin: admin.list_topics())
