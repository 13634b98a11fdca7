"""The topics of a log: looked at, and made where they are missing.

Note [A cluster without brokers]. A broker answers before it belongs to its cluster, and one that didn't run for a while (a
stopped machine) is put out of it until its next heartbeat. Meanwhile the metadata names no broker at all, and each question
fails in its own way. That passes within seconds: it is asked again, by a new client, up to a deadline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    InvalidReplicationFactorError,
    KafkaConnectionError,
    KafkaError,
    LeaderNotAvailableError,
    MetadataEmptyBrokerList,
    NodeNotReadyError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from controlplane.log import kafka_topics
from controlplane.log.kafka_address import Address
from controlplane.log.kafka_clients import ASK_MS, Clients, explained, failed, stop_admin
from controlplane.log.kafka_topics import Fault, Found, Retention, Topic
from controlplane.log.ports import LogUnavailable

_log = structlog.get_logger()

_Answer = TypeVar("_Answer")

APPEAR_S: Final = 45.0
"""A broker that was just killed still leads, until its session has ended and, if it was the controller, another one is."""
LOOK_S: Final = 0.02
SETTLED_S: Final = 30.0
SETTLING_S: Final = 0.2
HALF_S: Final = 3.0
_SETTLING: Final = (
    InvalidReplicationFactorError,
    KafkaConnectionError,
    LeaderNotAvailableError,
    MetadataEmptyBrokerList,
    NodeNotReadyError,
)


async def ensure(clients: Clients, shards: int, retention: Retention) -> None:
    """Make what is missing and examine what is there. Raises `LogUnavailable` with what to do."""
    wanted = kafka_topics.topics(clients.address, shards, retention)
    faults = await _asked(clients, lambda admin: _ensured(admin, clients.address, wanted))
    for fault in faults:
        _log.warning("topic at fault", topic=fault.topic, reason=fault.message, advice=fault.mend)
    refused = [fault for fault in faults if fault.refused]
    if refused:
        raise LogUnavailable(kafka_topics.explain(refused))


async def examine(clients: Clients, shards: int, retention: Retention) -> list[Fault]:
    """What is wrong, missing topics included; nothing is changed. Raises `LogUnavailable`."""
    wanted = kafka_topics.topics(clients.address, shards, retention)
    brokers, found = await _asked(clients, lambda admin: _looked(admin, wanted))
    wrong = _faults(wanted, found, brokers, clients.address)
    gone = [topic for topic in wanted if topic.name not in found]
    return wrong + [
        Fault(topic.name, "isn't there yet", "the daemon makes it when it starts", refused=False) for topic in gone
    ]


async def _ensured(admin: AIOKafkaAdminClient, address: Address, wanted: Sequence[Topic]) -> list[Fault]:
    brokers, found, missing = await _looked_surely(admin, wanted)
    _refuse_half(wanted, missing)
    await _make(admin, missing, kafka_topics.replicas_on(brokers))
    return _faults(wanted, found, brokers, address)


async def _looked_surely(
    admin: AIOKafkaAdminClient, wanted: Sequence[Topic]
) -> tuple[int, dict[str, Found], list[Topic]]:
    """Also what is missing. When that is a part only, somebody may be making the rest: brokers tell of it one by one."""
    deadline = time.monotonic() + HALF_S
    while True:
        brokers, found = await _looked(admin, wanted)
        missing = [topic for topic in wanted if topic.name not in found]
        if not missing or len(missing) == len(wanted) or time.monotonic() > deadline:
            return brokers, found, missing
        await asyncio.sleep(SETTLING_S)


async def _looked(admin: AIOKafkaAdminClient, wanted: Sequence[Topic]) -> tuple[int, dict[str, Found]]:
    return await _brokers(admin), await _found(admin, wanted)


def _faults(wanted: Sequence[Topic], found: Mapping[str, Found], brokers: int, address: Address) -> list[Fault]:
    servers = ",".join(address.servers)
    there = [topic for topic in wanted if topic.name in found]
    return [fault for topic in there for fault in kafka_topics.faults(topic, found[topic.name], brokers, servers)]


async def _asked(clients: Clients, question: Callable[[AIOKafkaAdminClient], Awaitable[_Answer]]) -> _Answer:
    """Ask again while the brokers are still coming up. Raises `LogUnavailable`, at once when nobody listens at all."""
    deadline = time.monotonic() + SETTLED_S
    while True:
        admin = await _let_in(clients)
        try:
            return await question(admin)
        except (KafkaError, TimeoutError, OSError) as exc:
            if not _passes(exc) or time.monotonic() > deadline:
                raise failed(clients.address, "doesn't let its topics be managed", exc) from exc
            _log.info("kafka isn't settled yet", error=repr(exc))
        finally:
            await stop_admin(admin)
        await asyncio.sleep(SETTLING_S)


async def _let_in(clients: Clients) -> AIOKafkaAdminClient:
    try:
        return await clients.admin()
    except LogUnavailable as exc:
        raise await explained(clients.address, exc) from exc


def _passes(exc: Exception) -> bool:
    """Note [A cluster without brokers]. Who asks a broker that has just been killed is told nothing in time."""
    return isinstance(exc, (*_SETTLING, TimeoutError)) or (isinstance(exc, KafkaError) and exc.retriable)


async def delete_records(clients: Clients, before: dict[Any, int]) -> None:
    """Let partitions begin at these offsets. `before`: TopicPartition → offset. Raises `LogUnavailable`."""
    await _asked(clients, lambda admin: admin.delete_records(before, timeout_ms=ASK_MS))


def _refuse_half(wanted: Sequence[Topic], missing: Sequence[Topic]) -> None:
    """A log without its settings topic isn't new: an empty one would forget every setting."""
    names = {topic.stream for topic in missing}
    if kafka_topics.SETTINGS in names and len(missing) < len(wanted):
        there = ", ".join(topic.name for topic in wanted if topic not in missing)
        settings = next(topic.name for topic in missing if topic.stream == kafka_topics.SETTINGS)
        msg = f"{settings} is gone, while {there} is there: restore it, or delete those to begin a new log, or use another prefix"
        raise LogUnavailable(msg)


async def _brokers(admin: AIOKafkaAdminClient) -> int:
    """How many there are, at least one."""
    brokers = len((await admin.describe_cluster())["brokers"])
    if not brokers:
        msg = "no broker has joined its cluster"
        raise NodeNotReadyError(msg)
    return brokers


async def _found(admin: AIOKafkaAdminClient, wanted: Sequence[Topic]) -> dict[str, Found]:
    described = await admin.describe_topics([topic.name for topic in wanted])
    there = {one["topic"]: one["partitions"] for one in described if _exists(one)}
    if not there:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, dict.fromkeys(kafka_topics.EXAMINED)) for name in there]
    configs: dict[str, dict[str, str]] = {}
    for answer in await admin.describe_configs(resources):
        for code, message, _, name, entries in answer.resources:
            if code:
                raise for_code(code)(message)
            configs[name] = {entry[0]: entry[1] for entry in entries}
    return {
        name: Found(len(partitions), min(len(one["replicas"]) for one in partitions), configs[name])
        for name, partitions in there.items()
    }


def _exists(described: dict[str, Any]) -> bool:
    code = described["error_code"]
    if code == UnknownTopicOrPartitionError.errno:
        return False
    if code:
        raise for_code(code)(described["topic"])
    return True


async def _make(admin: AIOKafkaAdminClient, missing: Sequence[Topic], replicas: int) -> None:
    """Another replica may make them at the same time: that is well, too."""
    if not missing:
        return
    made = [NewTopic(topic.name, topic.partitions, replicas, topic_configs=topic.config(replicas)) for topic in missing]
    answer = await admin.create_topics(made, timeout_ms=ASK_MS)
    for name, code, message in answer.topic_errors:
        if code and code != TopicAlreadyExistsError.errno:
            raise for_code(code)(f"{name}: {message}")
        _log.info("topic made", topic=name, replicas=replicas)
    try:
        async with asyncio.timeout(APPEAR_S):
            while not await _led(admin, missing):  # noqa: ASYNC110 - the brokers tell nobody
                await asyncio.sleep(LOOK_S)
    except TimeoutError as exc:
        names = ", ".join(topic.name for topic in missing)
        msg = f"{names} were made and have no leader after {APPEAR_S:g} s: are enough brokers up?"
        raise LogUnavailable(msg) from exc


async def _led(admin: AIOKafkaAdminClient, topics: Sequence[Topic]) -> bool:
    """Every partition has a leader: clients that ask earlier are told to come again, and wait."""
    described = {one["topic"]: one["partitions"] for one in await admin.describe_topics([t.name for t in topics])}
    return all(
        len(described.get(topic.name, ())) == topic.partitions
        and all(one["leader"] >= 0 and not one["error_code"] for one in described[topic.name])
        for topic in topics
    )
