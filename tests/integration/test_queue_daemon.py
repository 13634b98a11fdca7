"""Kafka through the whole daemon: declared over HTTP, made so, changed by hand, found and repaired."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from controlplane.client.errors import ApiError
from reconcilers.queue import kafka_groups
from tests.integration.queue_world import ADMIN_PASSWORD, admin_password, by_hand, plain, target_value, unique
from tests.integration.test_queue_topics import alter, orders, overrides
from tests.integration.test_queue_users import producing
from tests.servers import DaemonProcess

pytestmark = pytest.mark.integration


@pytest.fixture
async def queue_daemon(tmp_path, kafka_broker):
    """A daemon that has the broker as queue.target/main and looks at everything each second."""
    runtime = {"backoff_cap_s": 2.0, "sweep_s": 1.0}
    process = DaemonProcess(tmp_path / "coreplane", {"runtime": runtime})
    await process.start(**{ADMIN_PASSWORD: admin_password(kafka_broker)})
    async with process.client() as client:
        client.process = process
        await put(client, "queue.target", "main", target_value(kafka_broker))
        yield client
    await process.clean_up()


async def put(client, setting_type, name, value, **more):
    """Declare, and wait until it is so."""
    found = await client.put_setting(setting_type, name, {"value": value, **more}, wait="Ready", wait_s=60)
    assert found["status"]["phase"] == "Ready", found["status"]
    return found


async def phase(client, setting_type, name, wanted, reason=None):
    """Wait for the phase, and the reason of Ready when one is given; the setting."""
    async with asyncio.timeout(90):
        while True:
            found = await client.get_setting(setting_type, name)
            ready = next((c for c in found["status"]["conditions"] if c["type"] == "Ready"), {})
            if found["status"]["phase"] == wanted and reason in (None, ready.get("reason")):
                return found
            await asyncio.sleep(0.1)


def last_offset(admin, topic):
    """Messages that the partitions of the topic have had together."""
    places = kafka_groups.places_of(admin, topic)
    return sum(kafka_groups.ends(admin, places).values())


async def test_a_topic_is_declared_made_changed_by_hand_and_repaired(queue_daemon, kafka_broker):
    client, name = queue_daemon, unique("orders")
    value = {"target": "main", **orders(name)}
    await put(client, "queue.topic", name, value)
    async with by_hand(kafka_broker) as hand:
        assert await overrides(hand, name) == {"retention.ms": "3600000"}
        await alter(hand, name, **{"retention.ms": "1"})
        async with asyncio.timeout(60):
            while await overrides(hand, name) != {"retention.ms": "3600000"}:
                await asyncio.sleep(0.1)
    await phase(client, "queue.topic", name, "Ready")
    for event_type in ("DriftDetected", "DriftResolved"):
        async with asyncio.timeout(60):  # the projection follows the log a moment later
            while not (await client.events(setting=f"default/queue.topic/{name}", event_type=event_type))["items"]:
                await asyncio.sleep(0.1)


async def test_what_can_not_be_reached_says_why_and_what_to_do(queue_daemon):
    client, name = queue_daemon, unique("orders")
    value = {"target": "main", **orders(name)}
    await put(client, "queue.topic", name, value)
    await client.put_setting("queue.topic", name, {"value": {**value, "partitions": 1}})
    found = await phase(client, "queue.topic", name, "Stalled", "PartitionsCannotShrink")
    message = next(c["message"] for c in found["status"]["conditions"] if c["type"] == "Stalled")
    assert "declare partitions: 2" in message
    with pytest.raises(ApiError) as refused:
        await client.put_setting("queue.topic", "x", {"value": {**value, "topic": "no/slash"}})
    assert refused.value.status == 422
    assert [fault.path for fault in refused.value.errors] == ["/value/topic"]
    assert "1 to 249 letters" in refused.value.errors[0].message


async def test_a_topic_that_was_there_before_is_taken_over_as_its_policy_says(queue_daemon, kafka_broker):
    client, name = queue_daemon, unique("orders")
    value = {"target": "main", **orders(name)}
    async with by_hand(kafka_broker) as hand:
        await hand(lambda admin: admin.create_topics({name: {"num_partitions": 2}}, wait_for_metadata=True))
        await client.put_setting("queue.topic", name, {"value": value})
        await phase(client, "queue.topic", name, "Stalled")
        assert await overrides(hand, name) == {}
        await client.put_setting("queue.topic", name, {"value": value, "policy": {"adopt": "always"}})
        await phase(client, "queue.topic", name, "Ready")
        assert await overrides(hand, name) == {"retention.ms": "3600000"}
    await client.put_setting("queue.topic", "second", {"value": {**value, "partitions": 9}})
    await phase(client, "queue.topic", "second", "Stalled", "Conflict")


async def test_a_topic_goes_only_when_its_data_may_go(queue_daemon, kafka_broker):
    client, kept, dropped = queue_daemon, unique("kept"), unique("dropped")
    for name in (kept, dropped):
        await put(client, "queue.topic", name, {"target": "main", **orders(name)})
    await client.delete_setting("queue.topic", kept, wait="Gone", wait_s=60)
    await client.delete_setting("queue.topic", dropped, deletion="delete", wait="Gone", wait_s=60)
    async with by_hand(kafka_broker) as hand, asyncio.timeout(60):
        while dropped in await hand(lambda admin: admin.list_topics()):
            await asyncio.sleep(0.1)
        assert kept in await hand(lambda admin: admin.list_topics())


async def test_a_login_that_the_cluster_refuses_is_said_as_such(queue_daemon, kafka_broker, tmp_path):
    (tmp_path / "wrong").write_text("wrong")
    value = target_value(kafka_broker, {"from_file": str(tmp_path / "wrong")})
    await queue_daemon.put_setting("queue.target", "locked-out", {"value": value})
    await phase(queue_daemon, "queue.target", "locked-out", "Stalled", "AuthenticationFailed")


async def test_a_plan_warns_of_what_can_lose_messages(queue_daemon):
    client, name = queue_daemon, unique("orders")
    value = {"target": "main", "partitions": 1, "replication_factor": 1, "durability": "standard"}
    value["config"] = {"unclean.leader.election.enable": True}
    found = await client.plan([{"type": "queue.topic", "name": name, "value": value}])
    told = [one["message"] for one in found["warnings"]]
    assert any(message.startswith("replication_factor 1") for message in told)
    assert any(message.startswith("unclean.leader.election.enable") for message in told)
    await put(client, "queue.topic", name, value)
    found = await client.get_setting("queue.topic", name)
    ready = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
    assert "replication_factor 1" in ready["message"]
    three = {**value, "replication_factor": 3}
    await client.put_setting("queue.topic", name, {"value": three})
    await phase(client, "queue.topic", name, "Stalled", "NotEnoughBrokers")


async def test_a_group_is_found_watched_and_said_to_lag(queue_daemon, kafka_broker):
    client, topic, group = queue_daemon, unique("orders"), unique("readers")
    await put(client, "queue.topic", topic, {"target": "main", **orders(topic)})
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=plain(kafka_broker), group_id=group, enable_auto_commit=False)
    await consumer.start()
    await consumer.commit({TopicPartition(topic, 0): 0})
    await consumer.stop()
    found = await client.discover("queue.group", "main", f"{group}*")
    (declared,) = found["settings"]
    assert (declared["name"], declared["value"]) == (group, {"target": "main"})
    assert (await client.plan([declared]))["steps"] == []
    await put(client, "queue.group", group, declared["value"])
    producer = AIOKafkaProducer(bootstrap_servers=plain(kafka_broker))
    await producer.start()
    for _ in range(5):
        await producer.send(topic, b"wait", partition=0)
    await producer.stop()
    await client.put_setting("queue.group", group, {"value": {**declared["value"], "max_lag": 4}})
    await phase(client, "queue.group", group, "Stalled", "LagTooHigh")
    async with asyncio.timeout(60):  # the projection follows the log a moment later
        while not (await client.events(setting=f"default/queue.group/{group}", event_type="Stalled"))["items"]:
            await asyncio.sleep(0.1)
    await client.put_setting("queue.group", group, {"value": {**declared["value"], "max_lag": 5}})
    await phase(client, "queue.group", group, "Ready")


async def test_permissions_have_one_owner_whichever_kind_declares_them(queue_daemon, tmp_path):
    client, name = queue_daemon, unique("alice")
    (tmp_path / "pw").write_text("open sesame")
    acls = [{"resource": "topic", "name": "news", "operations": ["read"]}]
    user = {"target": "main", "username": name, "password": {"from_file": str(tmp_path / "pw")}}
    await put(client, "queue.acl", "theirs", {"target": "main", "principal": f"User:{name}", "acls": acls})
    await put(client, "queue.quota", "theirs", {"target": "main", "user": name, "quotas": {"request_percentage": 50}})
    for part in ({"acls": []}, {"quotas": {}}):
        await client.put_setting("queue.user", "mine", {"value": {**user, **part}})
        found = await phase(client, "queue.user", "mine", "Stalled", "Conflict")
        told = next(c["message"] for c in found["status"]["conditions"] if c["type"] == "Stalled")
        assert "a part of" in told
        assert f"default/queue.{next(iter(part)).rstrip('s')}" in told
    await put(client, "queue.user", "mine", user)
    await client.delete_setting("queue.acl", "theirs", wait="Gone", wait_s=60)
    await put(client, "queue.user", "mine", {**user, "acls": acls})
    await client.put_setting(
        "queue.acl", "theirs", {"value": {"target": "main", "principal": f"User:{name}", "acls": []}}
    )
    await phase(client, "queue.acl", "theirs", "Stalled", "Conflict")
    found = await phase(client, "queue.user", "mine", "Ready")
    assert found["status"]["drift"] == []


async def test_two_targets_that_lead_to_one_cluster_by_other_servers_are_one(queue_daemon, kafka_broker):
    """The cluster itself says so: the older setting has the object, also after a restart and for what is only foreseen."""
    client, name = queue_daemon, unique("orders")
    await put(client, "queue.target", "open", {"bootstrap_servers": plain(kafka_broker)})
    older, younger = ({"target": target, **orders(name)} for target in ("main", "open"))
    await put(client, "queue.topic", "older", older)
    differing = {**younger, "config": {"retention.ms": 1}}
    await client.put_setting("queue.topic", "younger", {"value": differing})
    found = await phase(client, "queue.topic", "younger", "Stalled", "Conflict")
    assert "default/queue.topic/older" in str(found["status"]["conditions"])
    await client.process.stop()
    await client.process.start(**{ADMIN_PASSWORD: admin_password(kafka_broker)})
    await client.reconcile("queue.topic", "older")
    await phase(client, "queue.topic", "older", "Ready")
    await phase(client, "queue.topic", "younger", "Stalled", "Conflict")
    foreseen = await client.plan([{"type": "queue.topic", "name": "third", "value": differing}])
    assert "queue.topic/older" in str(foreseen)
    assert foreseen["steps"] == []
    async with by_hand(kafka_broker) as hand:
        assert await overrides(hand, name) == {"retention.ms": "3600000"}
    await client.delete_setting("queue.topic", "older", wait="Gone", wait_s=60)
    await put(client, "queue.topic", "younger", younger)


async def test_permissions_come_before_their_user_and_go_after_it(queue_daemon, tmp_path):
    """And one alone, or both changed, as if the other weren't there."""
    client, name, topic = queue_daemon, unique("alice"), unique("news")
    (tmp_path / "pw").write_text("open sesame")
    user = {"target": "main", "username": name, "password": {"from_file": str(tmp_path / "pw")}}
    acls = [{"resource": "topic", "name": topic, "operations": ["read"]}]
    declared = [
        {"type": "queue.user", "name": "reads", "value": user},
        {
            "type": "queue.acl",
            "name": "of-reads",
            "value": {"target": "main", "principal": f"User:{name}", "acls": acls},
        },
        {"type": "queue.topic", "name": topic, "value": {"target": "main", **orders(topic)}},
    ]
    marked = [{**one, "labels": {"own": name}} for one in declared]
    await client.apply(marked)
    for one in marked:
        await phase(client, one["type"], one["name"], "Ready")
    assert await begun(client, 3) == ["CreateTopic", "ChangeAcls", "SetCredential"]
    await client.delete_setting("queue.acl", "of-reads", wait="Gone", wait_s=60)
    await client.apply(marked)
    await phase(client, "queue.acl", "of-reads", "Ready")
    await client.apply([], prune={"own": name}, allow_prune=True)
    async with asyncio.timeout(90):
        while [one async for one in client.list_settings(labels={"own": name})]:
            await asyncio.sleep(0.1)
    # The permissions went and came back in between.
    assert (await begun(client, 7))[3:] == ["ChangeAcls", "ChangeAcls", "DropCredential", "ChangeAcls"]


async def begun(client, count):
    """All steps so far, in order, when at least so many are projected."""
    async with asyncio.timeout(30):
        while len(found := (await client.events(event_type="ActionStarted", limit=500))["items"]) < count:
            await asyncio.sleep(0.1)
    return [event["details"]["step"] for event in sorted(found, key=lambda event: event["timestamp"])]


async def test_a_tenant_lives_on_another_s_cluster_within_its_prefix(queue_daemon, kafka_broker, tmp_path):
    """Its objects of every kind work there; what would reach beyond is refused, by the API and by Kafka."""
    prefix, own = unique("acme") + ".", unique("orders")
    (tmp_path / "pw").write_text("open sesame")
    process = queue_daemon.process
    async with process.client(tenant="system") as system:
        await system.put_setting("access.tenant", "acme", {"value": {}})
        share = {"target": "default/queue.target/main", "tenant": "acme", "prefix": prefix}
        await system.put_setting("access.share", "acme-kafka", {"value": share})
    await put(queue_daemon, "queue.topic", own, {"target": "main", **orders(own)})
    async with process.client(tenant="acme") as acme:
        foreign = {"target": "default/main"}
        for topic in ("in", "out"):
            await put(acme, "queue.topic", topic, {**foreign, **orders(prefix + topic)})
        acls = [
            {"resource": "topic", "name": prefix, "pattern": "prefixed", "operations": ["write", "read", "describe"]}
        ]
        user = {**foreign, "username": f"{prefix}app", "password": {"from_file": str(tmp_path / "pw")}, "acls": acls}
        await put(acme, "queue.user", "app", user)
        await put(acme, "queue.route", f"{prefix}copy", {**foreign, "source": f"{prefix}in", "to": [f"{prefix}out"]})
        async with producing(kafka_broker, f"{prefix}app", "open sesame") as producer:
            await producer.send_and_wait(f"{prefix}in", b"hello")
            with pytest.raises(TopicAuthorizationFailedError):
                await producer.send_and_wait(own, b"hello")
        async with by_hand(kafka_broker) as hand, asyncio.timeout(60):
            while not await hand(lambda admin: last_offset(admin, f"{prefix}out")):
                await asyncio.sleep(0.1)
        for setting_type, value in (
            ("queue.topic", {**foreign, **orders(own)}),
            ("queue.user", {**user, "acls": [{**acls[0], "name": own}]}),
            ("queue.route", {**foreign, "source": own, "to": [f"{prefix}out"]}),
        ):
            with pytest.raises(ApiError) as refused:
                await acme.put_setting(setting_type, f"{prefix}x", {"value": value})
            assert refused.value.status == 422
    with pytest.raises(ApiError) as refused:
        await queue_daemon.put_setting("queue.topic", "x", {"value": {"target": "main", **orders(f"{prefix}in")}})
    assert refused.value.status == 422


async def test_what_is_named_comes_first_and_goes_last(queue_daemon, kafka_broker, tmp_path):
    """In one request, in the wrong order and without depends_on."""
    client, name, copy = queue_daemon, unique("orders"), unique("copy")
    (tmp_path / "pw").write_text("open sesame")
    acls = [{"resource": "topic", "name": name, "operations": ["read"]}]
    declared = [
        {"type": "queue.route", "name": "copy", "value": {"target": "main", "source": name, "to": [copy]}},
        {
            "type": "queue.user",
            "name": "reader",
            "value": {"password": {"from_file": str(tmp_path / "pw")}, "acls": acls},
        },
        {"type": "queue.topic", "name": "the-orders", "value": orders(name)},
        {"type": "queue.topic", "name": "the-copy", "value": orders(copy)},
    ]
    declared = [{**one, "value": {"target": "main", **one["value"]}} for one in declared]
    await client.apply(declared)
    await phase(client, "queue.route", "copy", "Ready")
    await phase(client, "queue.user", "reader", "Ready")
    for one in declared[2:]:
        await client.delete_setting(one["type"], one["name"], deletion="delete")
    async with asyncio.timeout(60):
        while "queue.route/copy" not in str((await client.get_setting("queue.topic", "the-copy"))["status"]):
            await asyncio.sleep(0.1)
    for one in declared[:2]:
        await client.delete_setting(one["type"], one["name"])
    async with by_hand(kafka_broker) as hand, asyncio.timeout(90):
        while {name, copy} & set(await hand(lambda admin: admin.list_topics())):
            await asyncio.sleep(0.1)
