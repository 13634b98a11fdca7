"""The topics a log is made of: how they are made, and what is wrong with those that are there. Pure.

What would lose data is refused, with the command that mends it; what only is a pity is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from controlplane.log.kafka_address import Address

SETTINGS: Final = "settings"
EVENTS: Final = "events"
STATUS: Final = "status"
METRICS: Final = "metrics"
DEAD_LETTERS: Final = "deadletters"

FOR_EVER: Final = -1
MOST_REPLICAS: Final = 3
DAY_MS: Final = 86_400_000
RECORD_BYTES: Final = 17 << 20
"""Largest record a topic takes: a little more than the clients send."""
_COMPACTED: Final = {"delete.retention.ms": str(DAY_MS), "segment.ms": str(DAY_MS), "segment.bytes": str(64 << 20)}
"""The newest segment is never compacted: small ones keep the replay short. Tombstones are seen for a day."""


class Retention(NamedTuple):
    """Days that the journal is kept."""

    events_days: float = 90
    metrics_days: float = 7


KEPT: Final = Retention()
"""As the configuration has it by default."""


@dataclass(frozen=True, slots=True)
class Topic:
    """What one of our topics must be like."""

    name: str
    stream: str
    partitions: int
    policy: str
    retention_ms: int = FOR_EVER

    def config(self, replicas: int) -> dict[str, str]:
        """The configuration it is made with."""
        made = {
            "cleanup.policy": self.policy,
            "retention.ms": str(self.retention_ms),
            "retention.bytes": str(FOR_EVER),
            "max.message.bytes": str(RECORD_BYTES),
            "min.insync.replicas": str(_insync(replicas)),
            "unclean.leader.election.enable": "false",
        }
        return {**made, **_COMPACTED} if self.policy == "compact" else made


@dataclass(frozen=True, slots=True)
class Found:
    """What a topic is like. `replicas`: of the partition that has fewest. `config`: everything, defaults included."""

    partitions: int
    replicas: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a topic. `refused`: the log isn't opened like that. `mend`: the command, or what to do.
    `config`: what of the topic's configuration that is, if it is nothing else."""

    topic: str
    message: str
    mend: str
    refused: bool = True
    config: Mapping[str, str] = field(default_factory=dict)


CONFIGURED: Final = ("cleanup.policy", "retention.ms", "retention.bytes", "max.message.bytes", "min.insync.replicas")
EXAMINED: Final = (*CONFIGURED, "unclean.leader.election.enable")


def topics(address: Address, shards: int, retention: Retention) -> list[Topic]:
    """All topics of a log."""
    events_ms, metrics_ms = (int(days * DAY_MS) for days in retention)
    table = (
        (SETTINGS, 1, "delete", FOR_EVER),
        (EVENTS, shards, "delete", events_ms),
        (STATUS, shards, "compact", FOR_EVER),
        (METRICS, shards, "delete", metrics_ms),
        (DEAD_LETTERS, 1, "delete", events_ms),
    )
    return [Topic(address.topic(stream), stream, *rest) for stream, *rest in table]  # type: ignore[arg-type]


def replicas_on(brokers: int) -> int:
    """How many copies a new topic gets."""
    return max(1, min(MOST_REPLICAS, brokers))


def faults(topic: Topic, found: Found, brokers: int, servers: str) -> list[Fault]:
    """What is wrong with a topic that is there."""
    return [*_partitions(topic, found), *_policy(topic, found, servers), *_copies(topic, found, brokers, servers)]


def explain(found: Sequence[Fault]) -> str:
    """For the one who has to mend it."""
    return "; ".join(f"{fault.topic} {fault.message}: {fault.mend}" for fault in found)


def _insync(replicas: int) -> int:
    return 2 if replicas > 1 else 1


def _partitions(topic: Topic, found: Found) -> list[Fault]:
    if found.partitions == topic.partitions:
        return []
    if topic.stream in (SETTINGS, DEAD_LETTERS):
        mend = "its order over partitions is lost; use another prefix, or delete the topic if it holds nothing of value"
    else:
        mend = (
            f"set log.shards to {found.partitions}, or use another prefix; their number is fixed for the life of a log"
        )
    return [Fault(topic.name, f"has {found.partitions} partitions instead of {topic.partitions}", mend)]


def _policy(topic: Topic, found: Found, servers: str) -> list[Fault]:
    config, wrong = found.config, []
    if config["cleanup.policy"] != topic.policy:
        consequence = "so what is in it will be lost" if topic.policy == "compact" else "so its history will be lost"
        message = f"has cleanup.policy={config['cleanup.policy']}, {consequence}"
        wrong.append(_configured(topic, message, {"cleanup.policy": topic.policy} | _kept(topic), servers))
    if "delete" in config["cleanup.policy"]:
        wanted, actual = topic.retention_ms, int(config["retention.ms"])
        if actual != FOR_EVER and (wanted == FOR_EVER or actual < wanted):
            message = f"forgets after {actual} ms, not {'never' if wanted == FOR_EVER else f'{wanted} ms'}"
            wrong.append(_configured(topic, message, {"retention.ms": str(wanted)}, servers))
        if int(config["retention.bytes"]) != FOR_EVER:
            message = f"forgets beyond {config['retention.bytes']} bytes"
            wrong.append(_configured(topic, message, {"retention.bytes": str(FOR_EVER)}, servers))
    if int(config["max.message.bytes"]) < RECORD_BYTES:
        message = f"takes records up to {config['max.message.bytes']} bytes, larger ones are refused"
        wrong.append(_configured(topic, message, {"max.message.bytes": str(RECORD_BYTES)}, servers, refused=False))
    return wrong


def _kept(topic: Topic) -> dict[str, str]:
    """To be set together with the policy: one that begins to delete goes by what stood there unheeded."""
    if topic.policy == "compact":
        return {}
    return {"retention.ms": str(topic.retention_ms), "retention.bytes": str(FOR_EVER)}


def _copies(topic: Topic, found: Found, brokers: int, servers: str) -> list[Fault]:
    insync, wrong = int(found.config["min.insync.replicas"]), []
    if found.replicas < 2 <= brokers:
        message = f"has one copy, though there are {brokers} brokers: it is lost with one disk"
        mend = f"kafka-reassign-partitions.sh --bootstrap-server {servers} with {replicas_on(brokers)} replicas each"
        wrong.append(Fault(topic.name, message, mend))
    elif found.replicas < replicas_on(brokers):
        message = (
            f"has {found.replicas} copies, though there are {brokers} brokers: without one of them it takes no writes"
        )
        mend = f"kafka-reassign-partitions.sh --bootstrap-server {servers} with {replicas_on(brokers)} replicas each"
        wrong.append(Fault(topic.name, message, mend, refused=False))
    if insync > found.replicas:
        message = f"has min.insync.replicas={insync} with {found.replicas} replicas, so it takes no writes"
        wrong.append(_configured(topic, message, {"min.insync.replicas": str(_insync(found.replicas))}, servers))
    if insync < _insync(found.replicas):
        message = f"has min.insync.replicas={insync}, so what one broker took can be lost with it"
        wrong.append(_configured(topic, message, {"min.insync.replicas": str(_insync(found.replicas))}, servers))
    if found.replicas > 1 and found.config["unclean.leader.election.enable"] == "true":
        message = "lets a broker lead that has missed records"
        wrong.append(_configured(topic, message, {"unclean.leader.election.enable": "false"}, servers))
    return wrong


def _configured(topic: Topic, message: str, wanted: Mapping[str, str], servers: str, *, refused: bool = True) -> Fault:
    values = ",".join(f"{name}={value}" for name, value in wanted.items())
    mend = (
        f"kafka-configs.sh --bootstrap-server {servers} --alter --entity-type topics "
        f"--entity-name {topic.name} --add-config {values}"
    )
    return Fault(topic.name, message, mend, refused, wanted)
