"""Files of Strimzi, S3 and Elasticsearch as declarations; every one is a value that can be declared."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import pytest

from controlplane.domain.validation import value_faults
from reconcilers.queue.strimzi import STRIMZI
from reconcilers.registry import SERVICES
from reconcilers.search.file_format import ELASTICSEARCH
from reconcilers.storage.documents import FORMATS
from schemas.kinds import KINDS

LIFECYCLE, POLICY = FORMATS
ALL = [one for service in SERVICES.values() for one in service.formats]


def found(chosen: Any, text: Any, name: str = "file") -> dict[tuple[str, str], Any]:
    """(type, name) → what was read. The text is recognised, by this format alone, and what is read can be declared."""
    text = textwrap.dedent(text) if isinstance(text, str) else json.dumps(text)
    assert [one.name for one in ALL if one.recognises(text)] == [chosen.name]
    rows = {(setting_type, one.name): one for setting_type, one in chosen.read(text, name)}
    for (setting_type, _), one in rows.items():
        if one.undeclarable is None and setting_type in KINDS:
            assert value_faults({"target": "main", **one.value}, KINDS[setting_type]) == []
    return rows


def value(chosen: Any, text: Any, name: str = "file") -> dict[str, Any]:
    (one,) = found(chosen, text, name).values()
    assert one.undeclarable is None
    return dict(one.value)


# --- strimzi -----------------------------------------------------------------------------------------------------------

TOPIC = """
    apiVersion: kafka.strimzi.io/v1beta2
    kind: KafkaTopic
    metadata:
      name: {name}
      labels: {{strimzi.io/cluster: my-cluster}}
    spec: {spec}
"""


@pytest.mark.parametrize(
    ("name", "spec", "expected"),
    [
        ("orders", "{partitions: 12, replicas: 3}", {"partitions": 12, "replication_factor": 3}),
        (
            "orders",
            "{config: {retention.ms: 7200000, cleanup.policy: [compact, delete], min.insync.replicas: 2}}",
            {"config": {"retention.ms": 7200000, "cleanup.policy": ["compact", "delete"], "min.insync.replicas": 2}},
        ),
        ("orders-v1", "{topicName: Orders_V1, partitions: 1}", {"topic": "Orders_V1", "partitions": 1}),
        ("orders", "{}", {}),
    ],
)
def test_a_kafka_topic_becomes_a_topic(name, spec, expected):
    assert value(STRIMZI, TOPIC.format(name=name, spec=spec)) == expected


USER = """
    apiVersion: kafka.strimzi.io/v1
    kind: KafkaUser
    metadata: {name: order-service}
    spec:
      authentication: {type: %s}
      authorization:
        type: simple
        acls:
          - resource: {type: topic, name: orders, patternType: literal}
            operations: [Describe, Read]
            host: "*"
          - resource: {type: group, name: order-, patternType: prefix}
            operation: Read
          - resource: {type: transactionalId, name: order-tx}
            operations: [Write, Describe]
          - {type: deny, resource: {type: cluster}, operations: [IdempotentWrite, AlterConfigs], host: 10.0.0.1}
      quotas: {producerByteRate: 1048576, consumerByteRate: 2097152, requestPercentage: 55, controllerMutationRate: 10}
"""
ACLS = [
    {"resource": "topic", "name": "orders", "operations": ["describe", "read"]},
    {"resource": "group", "name": "order-", "pattern": "prefixed", "operations": ["read"]},
    {"resource": "transactional_id", "name": "order-tx", "operations": ["write", "describe"]},
    {
        "resource": "cluster",
        "operations": ["idempotent_write", "alter_configs"],
        "permission": "deny",
        "host": "10.0.0.1",
    },
]
QUOTAS = {
    "producer_byte_rate": 1048576,
    "consumer_byte_rate": 2097152,
    "request_percentage": 55,
    "controller_mutation_rate": 10,
}


def test_a_scram_user_becomes_a_user_whose_password_is_to_be_named():
    rows = found(STRIMZI, USER % "scram-sha-512")
    (one,) = rows.values()
    assert one.value == {
        "mechanism": "SCRAM-SHA-512",
        "password": {"from_env": "KAFKA_ORDER_SERVICE_PASSWORD"},
        "acls": ACLS,
        "quotas": QUOTAS,
    }
    assert "Secret order-service" in one.fill_in["/password"]


@pytest.mark.parametrize("kind", ["tls", "tls-external"])
def test_a_user_with_a_certificate_becomes_permissions_and_quotas_of_its_principal(kind):
    rows = found(STRIMZI, USER % kind)
    assert rows["queue.acl", "order-service"].value == {"principal": "User:CN=order-service", "acls": ACLS}
    assert rows["queue.quota", "order-service"].value == {"user": "CN=order-service", "quotas": QUOTAS}


def test_without_authorization_the_permissions_of_a_user_are_somebody_elses_affair():
    text = "apiVersion: kafka.strimzi.io/v1\nkind: KafkaUser\nmetadata: {name: a}\nspec: {authentication: {type: scram-sha-512}}"
    assert "acls" not in value(STRIMZI, text)


def test_what_kubectl_prints_of_many_is_read_and_other_kinds_are_passed_over():
    items = [
        {"apiVersion": "kafka.strimzi.io/v1", "kind": "KafkaTopic", "metadata": {"name": n}, "spec": {}} for n in "ab"
    ]
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    assert [name for _, name in found(STRIMZI, {"kind": "List", "items": [*items, other]})] == ["a", "b"]


@pytest.mark.parametrize("text", ["a: &a [1]\nb: *a", "a: [", "a: b\n- c"])
def test_yaml_that_is_broken_or_blows_up_is_refused_with_the_line(text):
    with pytest.raises(ValueError, match="line"):
        STRIMZI.read(text, "file")


def test_deep_nesting_is_refused():
    with pytest.raises(ValueError, match="nested"):
        STRIMZI.read("[" * 5000, "file")


# --- s3 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            {"ID": "tmp", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 7}},
            {"id": "tmp", "prefix": "tmp/", "expire_days": 7},
        ),
        (
            {"Status": "Disabled", "Prefix": "old/", "Expiration": {"Days": 1}},
            {"id": "rule-1", "enabled": False, "prefix": "old/", "expire_days": 1},
        ),
        (
            {
                "ID": "a",
                "Status": "Enabled",
                "Filter": {
                    "And": {
                        "Prefix": "log/",
                        "Tags": [{"Key": "k", "Value": "v"}],
                        "ObjectSizeGreaterThan": 1024,
                    }
                },
                "Transitions": [{"Days": 30, "StorageClass": "GLACIER"}],
            },
            {
                "id": "a",
                "prefix": "log/",
                "tags": {"k": "v"},
                "larger_than_bytes": 1024,
                "transition": {"days": 30, "tier": "GLACIER"},
            },
        ),
        (
            {
                "ID": "v",
                "Status": "Enabled",
                "Filter": {},
                "NoncurrentVersionExpiration": {"NoncurrentDays": 30, "NewerNoncurrentVersions": 3},
            },
            {"id": "v", "noncurrent_days": 30, "noncurrent_keep": 3},
        ),
        (
            {
                "ID": "m",
                "Status": "Enabled",
                "Filter": {"Prefix": ""},
                "Expiration": {"ExpiredObjectDeleteMarker": True},
            },
            {"id": "m", "expired_delete_marker": True},
        ),
        (
            {"ID": "t", "Status": "Enabled", "Filter": {"Tag": {"Key": "k", "Value": "v"}}, "Expiration": {"Days": 2}},
            {"id": "t", "tags": {"k": "v"}, "expire_days": 2},
        ),
    ],
)
def test_a_lifecycle_rule_becomes_one_of_the_bucket_the_file_is_called_after(rule, expected):
    rows = found(LIFECYCLE, {"Rules": [rule]}, "invoices")
    assert rows["storage.bucket", "invoices"].value == {"lifecycle": [expected]}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"Expiration": {"Date": "2026-01-01T00:00:00Z"}}, "date"),
        ({"Transitions": [{"Days": 1, "StorageClass": "A"}, {"Days": 2, "StorageClass": "B"}]}, "transitions"),
        ({"NoncurrentVersionTransitions": [{"NoncurrentDays": 1, "StorageClass": "A"}]}, "transitions"),
    ],
)
def test_a_rule_there_is_no_word_for_says_so(more, words):
    (one,) = found(LIFECYCLE, {"Rules": [{"ID": "x", "Status": "Enabled", **more}]}, "b").values()
    assert words in one.undeclarable


def test_what_minio_would_drop_isnt_declared_in_silence():
    rule = {"ID": "x", "Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}
    ((setting_type, one),) = LIFECYCLE.read(json.dumps({"Rules": [rule]}), "bucket")
    (fault,) = value_faults({"target": "main", **one.value}, KINDS[setting_type])
    assert "abort_multipart_days" in fault.message


STATEMENT = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::pictures/*"]}


def test_a_policy_with_principals_is_one_of_the_bucket_it_names():
    document = {"Version": "2012-10-17", "Statement": [{**STATEMENT, "Principal": "*"}]}
    rows = found(POLICY, document, "whatever")
    assert rows["storage.bucket", "pictures"].value == {"access": {"policy": document}}


def test_a_policy_without_principals_is_one_for_users_and_called_as_its_file():
    document = {"Version": "2012-10-17", "Statement": STATEMENT}
    assert found(POLICY, document, "read-pictures")["storage.policy", "read-pictures"].value == {"document": document}
    assert (
        found(POLICY, document, "read:pictures")["storage.policy", "read-pictures"].value["policy"] == "read:pictures"
    )
    assert "policy" not in found(POLICY, document, "read pictures")["storage.policy", "read-pictures"].value


def test_a_policy_of_two_buckets_is_refused():
    other = {**STATEMENT, "Principal": "*", "Resource": "arn:aws:s3:::other"}
    with pytest.raises(ValueError, match="other, pictures"):
        POLICY.read(json.dumps({"Statement": [{**STATEMENT, "Principal": "*"}, other]}), "x")


# --- elasticsearch -----------------------------------------------------------------------------------------------------

MAPPINGS = {"properties": {"title": {"type": "text"}}}


def test_the_answer_of_get_index_is_read_without_what_the_server_set():
    settings = {
        "index": {
            "number_of_shards": "1",
            "uuid": "x",
            "creation_date": "1",
            "provided_name": "products",
            "version": {"created": "8000099"},
            "routing": {"allocation": {"include": {"_tier_preference": "data_content"}}},
            "analysis": {"analyzer": {"a": {"type": "simple"}}},
        }
    }
    document = {"products": {"aliases": {"shop": {}}, "mappings": MAPPINGS, "settings": settings}}
    assert found(ELASTICSEARCH, document)["search.index", "products"].value == {
        "settings": {"number_of_shards": "1", "analysis": {"analyzer": {"a": {"type": "simple"}}}},
        "mappings": MAPPINGS,
        "aliases": {"shop": {}},
    }


@pytest.mark.parametrize("settings", [{"index.refresh_interval": "5s", "index.uuid": "x"}, {"refresh_interval": "5s"}])
def test_a_body_of_put_index_is_called_as_its_file(settings):
    rows = found(ELASTICSEARCH, {"settings": settings, "mappings": MAPPINGS}, "products")
    kept = {name: text for name, text in settings.items() if "uuid" not in name}
    assert rows["search.index", "products"].value == {"settings": kept, "mappings": MAPPINGS}


def test_index_templates_are_read_from_both_forms():
    template = {
        "index_patterns": ["logs-*"],
        "template": {"mappings": MAPPINGS},
        "composed_of": ["base"],
        "priority": 10,
        "_meta": {"by": "us"},
    }
    expected = {name: part for name, part in template.items() if name != "_meta"} | {"meta": {"by": "us"}}
    answer = {"index_templates": [{"name": "logs", "index_template": template}]}
    assert found(ELASTICSEARCH, answer)["search.index_template", "logs"].value == expected
    assert found(ELASTICSEARCH, template, "logs")["search.index_template", "logs"].value == expected


def test_something_else_is_refused():
    for chosen in (LIFECYCLE, POLICY, ELASTICSEARCH):
        with pytest.raises(ValueError, match=r"(configuration|policy|index) is "):
            chosen.read("{}", "x")
