"""What topics must be like: each fault, and the command that mends it."""

from __future__ import annotations

import pytest

from controlplane.log.kafka_address import parse
from controlplane.log.kafka_topics import Found, Retention, Topic, explain, faults, replicas_on, topics
from controlplane.log.ports import LogUnavailable

ADDRESS = parse("kafka://broker:9092?prefix=shop", {})
ALL = {topic.stream: topic for topic in topics(ADDRESS, 16, Retention(90, 7))}


def as_made(topic: Topic, replicas: int = 3, **changed: str) -> Found:
    config = {**topic.config(replicas), **{name.replace("_", "."): value for name, value in changed.items()}}
    return Found(topic.partitions, replicas, config)


@pytest.mark.parametrize("stream", ALL)
@pytest.mark.parametrize("brokers", [1, 2, 3, 5])
def test_a_topic_as_it_is_made_is_without_fault(stream: str, brokers: int):
    found = as_made(ALL[stream], replicas_on(brokers))
    assert faults(ALL[stream], found, brokers, "broker:9092") == []


def test_the_settings_are_one_partition_that_is_kept_for_ever():
    settings = ALL["settings"]
    assert settings.partitions == 1
    assert settings.config(3)["cleanup.policy"] == "delete"
    assert settings.config(3)["retention.ms"] == settings.config(3)["retention.bytes"] == "-1"


@pytest.mark.parametrize(
    ("stream", "changed", "mends"),
    [
        ("settings", {"cleanup_policy": "compact"}, "cleanup.policy=delete,retention.ms=-1,retention.bytes=-1"),
        ("settings", {"retention_ms": "604800000"}, "retention.ms=-1"),
        ("settings", {"retention_bytes": "1000000"}, "retention.bytes=-1"),
        ("status", {"cleanup_policy": "delete"}, "cleanup.policy=compact"),
        ("status", {"cleanup_policy": "compact,delete"}, "cleanup.policy=compact"),
        ("events", {"retention_ms": "1000"}, "retention.ms=7776000000"),
        ("events", {"min_insync_replicas": "1"}, "min.insync.replicas=2"),
        ("events", {"min_insync_replicas": "4"}, "min.insync.replicas=2"),
        ("settings", {"unclean_leader_election_enable": "true"}, "unclean.leader.election.enable=false"),
    ],
)
def test_a_configuration_that_would_lose_data_is_refused_with_the_command_that_mends_it(
    stream: str, changed: dict[str, str], mends: str
):
    found = [fault for fault in faults(ALL[stream], as_made(ALL[stream], **changed), 3, "broker:9092") if fault.refused]
    command = (
        f"kafka-configs.sh --bootstrap-server broker:9092 --alter --entity-type topics --entity-name shop.{stream}"
    )
    assert [fault.mend for fault in found if fault.mend.endswith(mends)] == [f"{command} --add-config {mends}"]
    assert f"shop.{stream}" in explain(found)


def test_longer_retention_than_asked_for_is_no_fault():
    assert faults(ALL["events"], as_made(ALL["events"], retention_ms="-1"), 3, "b:1") == []


def test_small_records_are_told_but_not_refused():
    (fault,) = faults(ALL["settings"], as_made(ALL["settings"], max_message_bytes="1048588"), 3, "b:1")
    assert not fault.refused


def test_another_number_of_partitions_is_refused_with_what_to_set():
    found = Found(8, 3, ALL["events"].config(3))
    (fault,) = faults(ALL["events"], found, 3, "b:1")
    assert fault.refused
    assert "log.shards to 8" in fault.mend
    (fault,) = faults(ALL["settings"], Found(2, 3, ALL["settings"].config(3)), 3, "b:1")
    assert fault.refused


def test_one_copy_is_refused_where_there_are_more_brokers_and_accepted_where_there_are_none():
    one = as_made(ALL["settings"], 1)
    assert any("reassign" in fault.mend for fault in faults(ALL["settings"], one, 3, "b:1"))
    assert faults(ALL["settings"], one, 1, "b:1") == []


def test_fewer_copies_than_the_cluster_could_hold_are_told_and_taken():
    (fault,) = faults(ALL["events"], as_made(ALL["events"], 2), 3, "b:1")
    assert not fault.refused
    assert "without one of them it takes no writes" in fault.message


# --- the URL -------------------------------------------------------------------------------------------------------------


def test_an_address_names_brokers_and_prefix():
    address = parse("kafka://one:9092,two:9093?prefix=shop", {})
    assert address.servers == ("one:9092", "two:9093")
    assert address.topic("events") == "shop.events"
    assert address.transactional_id(3) == "shop-shard-3"
    assert parse("kafka://one:9092", {}).prefix == "coreplane"


def test_the_password_comes_from_the_environment_and_is_never_shown():
    environment = {"COREPLANE_LOG_PASSWORD": "hush"}
    address = parse("kafka://app@one:9092?tls=true", environment)
    assert (address.user, address.password, address.tls) == ("app", "hush", True)
    assert "hush" not in f"{address!r} {address}"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("kafka://", "at least one"),
        ("kafka://one", "host:port"),
        ("kafka://one:9092/topic", "no path"),
        ("kafka://app:hush@one:9092", "no password"),
        ("kafka://app@one:9092", "COREPLANE_LOG_PASSWORD"),
        ("kafka://one:9092?topic=x", "topic"),
        ("kafka://one:9092?tls=yes", "tls=true"),
        ("kafka://one:9092?ca_file=ca.pem", "tls=true beside its ca_file"),
        ("kafka://one:9092?prefix=a%20b", "prefix"),
        ("kafka://one:9092?mechanism=GSSAPI", "mechanism"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused_and_tells_no_password(url: str, told: str):
    with pytest.raises(LogUnavailable, match=told) as caught:
        parse(url, {})
    assert "hush" not in str(caught.value)
