"""Every call of the administration client, cut off before the cluster has it and after it has answered: it ends as declared."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.backend_world import DictSecrets
from tests.integration.queue_world import ADMIN_PASSWORD, target_value, unique, world
from tests.integration.test_queue_cluster import by_hand, settled
from tests.integration.test_queue_topics import orders
from tests.kafka_cluster import FailingNetwork

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
TOPIC, USER, ACLS, QUOTA = "queue.topic", "queue.user", "queue.acl", "queue.quota"
READ = {"resource": "topic", "name": "news", "operations": ["read"]}


def topic(name, **more):
    return {**orders(name), **more}


def user(name, **more):
    return {"username": name, "password": {"from_env": "PW"}, **more}


def acl(name, *acls):
    return {"principal": f"User:{name}", "acls": list(acls)}


def quota(name, **rates):
    return {"user": name, "quotas": rates}


CHANGED = {"config": {"retention.ms": 5}}
EFFECTS = {
    "CreateTopics": (19, TOPIC, lambda n: (None, topic(n))),
    "IncrementalAlterConfigs": (44, TOPIC, lambda n: (topic(n), topic(n, **CHANGED))),
    "CreatePartitions": (37, TOPIC, lambda n: (topic(n), topic(n, partitions=3))),
    "AlterPartitionReassignments": (45, TOPIC, lambda n: (topic(n), topic(n, replication_factor=2))),
    "DeleteTopics": (20, TOPIC, lambda n: (topic(n), None)),
    "AlterUserScramCredentials": (51, USER, lambda n: (None, user(n))),
    "AlterUserScramCredentials, away": (51, USER, lambda n: (user(n), None)),
    "CreateAcls": (30, ACLS, lambda n: (None, acl(n, READ))),
    "DeleteAcls": (31, ACLS, lambda n: (acl(n, READ), acl(n))),
    "AlterClientQuotas": (49, QUOTA, lambda n: (None, quota(n, request_percentage=50))),
    "AlterClientQuotas, away": (49, QUOTA, lambda n: (quota(n, request_percentage=50), None)),
}
READS = {
    "Metadata": (3, TOPIC, lambda n: (topic(n), topic(n, **CHANGED))),
    "DescribeConfigs": (32, TOPIC, lambda n: (topic(n), topic(n, **CHANGED))),
    "ListPartitionReassignments": (46, TOPIC, lambda n: (topic(n), topic(n, replication_factor=2))),
    "DescribeUserScramCredentials": (50, USER, lambda n: (user(n), user(n, iterations=4096))),
    "DescribeAcls": (29, ACLS, lambda n: (acl(n), acl(n, READ))),
    "DescribeClientQuotas": (48, QUOTA, lambda n: (None, quota(n, request_percentage=50))),
}
CALLS = EFFECTS | READS


async def topic_id(hand, name):
    """Of the topic; None while there is none."""
    found = await hand(lambda admin: admin.describe_topics([name]))
    return found[0]["topic_id"] if found and found[0]["error_code"] == 0 else None


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", CALLS)
async def test_whichever_call_is_cut_off_it_ends_as_declared_and_nothing_is_made_twice(kafka_cluster, call, when):
    key, setting_type, values = CALLS[call]
    name = unique("cut")
    first, then = values(name)
    known = DictSecrets(PW="open sesame")
    servers = [f"127.0.0.1:{port}" for port in kafka_cluster.proxy_ports.values()]
    target = target_value(kafka_cluster, {"from_env": ADMIN_PASSWORD}) | {"bootstrap_servers": servers}
    async with (
        FailingNetwork(kafka_cluster) as network,
        world(kafka_cluster, known, **target) as one,
        by_hand(kafka_cluster) as hand,
    ):
        if first is not None:
            await one.converge(setting_type, first)
        network.fail(key, when)
        del network.passed[:]
        more = {"retiring": True} if then is None else {}
        settling = asyncio.create_task(settled(one, setting_type, then or first, **more))
        async with asyncio.timeout(60):
            await network.failed.wait()
            await network.refused.wait()
        made = await topic_id(hand, name) if setting_type == TOPIC else None
        network.open.set()
        taken = await settling
        assert len(taken) == 1, taken
        assert (await one.look(setting_type, then or first, **more)).converged
        if call in EFFECTS and when == "before":
            assert network.passed.count(key) == 1
        if setting_type == TOPIC:
            left = await topic_id(hand, name)
            assert (left is None) == (then is None)
            assert made is None or left in (made, None)
