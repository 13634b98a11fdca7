"""Two daemons whose log is in the very cluster that they drive: routers share the work, and nobody saws off the branch."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from controlplane.client.errors import ApiError
from reconcilers.queue import routing
from tests.integration.queue_world import ADMIN_PASSWORD, admin_password, by_hand, plain, target_value, unique
from tests.integration.test_queue_daemon import phase, put
from tests.integration.test_queue_routes import producing, topics, until_there
from tests.integration.test_queue_topics import orders
from tests.servers import DaemonProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture
async def replicas(tmp_path, kafka_broker):
    """Two, on one log; the cluster is their target, under a name of its own."""
    url = f"kafka://{plain(kafka_broker)}?prefix=t{uuid.uuid4().hex}"
    content = {"log": {"url": url, "shards": 2}, "runtime": {"backoff_cap_s": 1.0, "sweep_s": 1.0}}
    found = [DaemonProcess(tmp_path / name, content) for name in ("a", "b")]
    password = {ADMIN_PASSWORD: admin_password(kafka_broker)}
    await asyncio.gather(*(process.start(**password) for process in found))
    found[0].target, found[0].prefix = unique("main"), url.rpartition("=")[2]
    async with found[0].client() as client:
        await put(client, "queue.target", found[0].target, target_value(kafka_broker))
    yield found
    await asyncio.gather(*(process.clean_up() for process in found))


async def members(hand, group):
    found = await hand(lambda admin: admin.describe_groups([group]))
    return len(found[group]["members"])


async def test_routers_of_two_daemons_share_a_source_and_the_other_goes_on_when_one_is_killed(replicas, kafka_broker):
    one, other = replicas
    source, copy = await topics(kafka_broker, source=4, copy=1)
    group = routing.router_group("default", one.target)
    async with one.client() as client, producing(kafka_broker) as producer, by_hand(kafka_broker) as hand:
        value = {"target": one.target, "source": source, "to": [copy], "delivery": "exactly_once"}
        await put(client, "queue.route", "copy", value)
        async with asyncio.timeout(90):
            while await members(hand, group) < 2:
                await asyncio.sleep(0.1)
        await numbers(producer, source, 0, 2000)
        assert sorted(await until_there(kafka_broker, copy, 2000)) == list(range(2000))
        await other.kill()
        await numbers(producer, source, 2000, 3000)
        assert sorted(await until_there(kafka_broker, copy, 3000)) == list(range(3000))


async def numbers(producer, topic, begin, end):
    for number in range(begin, end):
        await producer.send(topic, str(number).encode(), str(number).encode())
    await producer.flush()


async def test_what_would_cut_the_control_plane_off_is_refused_and_everything_else_goes_on(replicas, kafka_broker):
    process = replicas[0]
    async with by_hand(kafka_broker) as hand, process.client() as client:
        own = sorted(name for name in await hand(lambda admin: admin.list_topics()) if name.startswith(process.prefix))
        assert len(own) >= 3
        before = await hand(lambda admin: admin.describe_topics(own))
        source = unique("source")
        await put(client, "queue.topic", source, {"target": process.target, **orders(source)})
        value = {"target": process.target, "source": source, "to": [own[0]]}
        await client.put_setting("queue.route", "into-the-log", {"value": value})
        await phase(client, "queue.route", "into-the-log", "Stalled", "OwnTopic")
        for number, name in enumerate(own):
            value = {"target": process.target, **orders(name, config={"retention.ms": 1000})}
            await client.put_setting("queue.topic", f"own-{number}", {"value": value, "policy": {"adopt": "always"}})
            await phase(client, "queue.topic", f"own-{number}", "Stalled", "OwnTopic")
        for name, more in (("purge", {"before": {"at": "latest"}}), ("publish", {"messages": [{"value": "x"}]})):
            with pytest.raises(ApiError):
                await client.operate(f"queue.{name}", {"target": process.target, "topic": own[0], **more})
        for number, _ in enumerate(own):
            await client.delete_setting("queue.topic", f"own-{number}", deletion="delete")
        await put(client, "queue.topic", "after", {"target": process.target, **orders(unique("after"))})
        after = await hand(lambda admin: admin.describe_topics(own))
        assert [one["topic_id"] for one in after] == [one["topic_id"] for one in before]
