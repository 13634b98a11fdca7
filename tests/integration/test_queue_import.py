"""What Strimzi's operator made on a real broker, declared from its files: it is as declared without a single write."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ACLResourcePatternType, ResourcePattern, ResourceType

from reconcilers.queue.admin import messages, send
from tests.integration.queue_world import by_hand, unique
from tests.integration.test_queue_daemon import put, queue_daemon  # noqa: F401 - a fixture
from tests.integration.test_queue_topics import overrides

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

FILE = """
apiVersion: kafka.strimzi.io/v1beta2
kind: KafkaTopic
metadata: {{name: {name}, labels: {{strimzi.io/cluster: my-cluster}}}}
spec:
  partitions: 3
  replicas: 1
  config: {{retention.ms: 7200000, cleanup.policy: "compact, delete", min.cleanable.dirty.ratio: "0.50", preallocate: true}}
---
apiVersion: kafka.strimzi.io/v1
kind: KafkaTopic
metadata: {{name: {name}-v2}}
spec: {{topicName: {name}_V2, partitions: 1}}
---
apiVersion: kafka.strimzi.io/v1
kind: KafkaUser
metadata: {{name: {name}}}
spec:
  authentication: {{type: tls}}
  authorization:
    type: simple
    acls:
      - resource: {{type: topic, name: {name}, patternType: literal}}
        operations: [Describe, Read]
      - resource: {{type: group, name: {name}-, patternType: prefix}}
        operations: [Read]
  quotas: {{producerByteRate: 1048576, requestPercentage: 55}}
"""


def rows(name: str) -> dict[str, Any]:
    config = {"retention.ms": "7200000", "cleanup.policy": "compact,delete", "min.cleanable.dirty.ratio": "0.5"}
    first = {"num_partitions": 3, "replication_factor": 1, "configs": {**config, "preallocate": "true"}}
    return {name: first, f"{name}_V2": {"num_partitions": 1, "replication_factor": 1}}


def bindings(name: str) -> list[ACL]:
    topic = ResourcePattern(ResourceType.TOPIC, name)
    groups = ResourcePattern(ResourceType.GROUP, f"{name}-", ACLResourcePatternType.PREFIXED)
    given = [(topic, ACLOperation.DESCRIBE), (topic, ACLOperation.READ), (groups, ACLOperation.READ)]
    return [ACL(f"User:CN={name}", "*", operation, ACLPermissionType.ALLOW, on) for on, operation in given]


def limited(name: str) -> Any:
    entry = messages().AlterClientQuotasRequest.EntryData
    rates = {"producer_byte_rate": 1048576.0, "request_percentage": 55.0}
    one = entry(
        entity=[entry.EntityData(entity_type="user", entity_name=f"CN={name}")],
        ops=[entry.OpData(key=key, value=value, remove=False) for key, value in rates.items()],
    )
    return messages().AlterClientQuotasRequest(entries=[one], validate_only=False)


async def test_what_strimzi_made_converges_without_a_write(queue_daemon, kafka_broker):  # noqa: F811
    name = unique("orders")
    async with by_hand(kafka_broker) as hand:
        await hand(lambda admin: admin.create_topics(rows(name), wait_for_metadata=True))
        await hand(lambda admin: admin.create_acls(bindings(name)))
        await hand(lambda admin: send(admin, limited(name)))
        found = await queue_daemon.convert(FILE.format(name=name), "main")
        declared = {(one["type"], one["name"]): one["value"] for one in found["settings"]}
        assert {kind for kind, _ in declared} == {"queue.topic", "queue.acl", "queue.quota"}
        assert (await queue_daemon.plan(found["settings"]))["steps"] == []
        for (kind, setting), value in declared.items():
            await put(queue_daemon, kind, setting, value)
            events = await queue_daemon.events(setting=f"default/{kind}/{setting}")
            assert "ActionStarted" not in [event["event_type"] for event in events["items"]]
        changed = {**declared["queue.topic", name], "config": {"retention.ms": 1}}
        await put(queue_daemon, "queue.topic", name, changed)
        assert await overrides(hand, name) == {"retention.ms": "1"}
