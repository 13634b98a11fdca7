"""A broker that goes away, a login that may not, a client that is stuck: unknown isn't absent, and nothing blocks."""

from __future__ import annotations

import asyncio
import threading

import pytest

from reconcilers.contract import Result, TerminalError, Unreachable
from reconcilers.queue.admin import STUCK, AdminThread
from tests.integration.backend_world import DictSecrets
from tests.integration.queue_world import by_hand, sasl, unique, world
from tests.integration.test_queue_daemon import phase, put, queue_daemon  # noqa: F401 - a fixture
from tests.integration.test_queue_topics import orders

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
