"""Which log a configuration means.

log.url              log
nothing, sqlite:PATH the embedded one
kafka://HOST:PORT    Kafka
memory:              nowhere, for trials

Only the one that was chosen is loaded: aiokafka takes 5 MB of a daemon that doesn't need it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from controlplane.config import Config
from controlplane.log import kafka_address, kafka_topics
from controlplane.log.kafka_topics import Fault, Retention
from controlplane.log.memory import MemoryLog
from controlplane.log.ports import Log, LogUnavailable
from controlplane.log.sqlite import open_sqlite
from controlplane.log.sqlite_guards import FileLock

LOG_FILE = "coreplane.db"
"""Of the embedded log, under the data directory; beside it lies the lock of the daemon, whatever its log."""


async def open_log(config: Config) -> Log:
    """The log the configuration names. Raises `LogUnavailable` or `LogCorrupt`."""
    url = config.log.url
    if url == "memory:":
        return MemoryLog(shards=config.log.shards)
    if is_kafka(config):
        return await _open_alone(config)
    if url and not url.startswith("sqlite:"):
        msg = f"log.url {url!r}: this version knows sqlite:PATH, kafka://HOST:PORT and memory:"
        raise LogUnavailable(msg)
    return await open_sqlite(path_of(config), shards=config.log.shards, synchronous=config.log.synchronous)


def is_kafka(config: Config) -> bool:
    """Whether the log is one that several daemons share."""
    return config.log.url.startswith("kafka:")


def path_of(config: Config) -> Path:
    """The file of the embedded log. Raises `LogUnavailable` when the log is of another kind."""
    url = config.log.url
    if url and not url.startswith("sqlite:"):
        msg = f"log.url {url!r} names no file"
        raise LogUnavailable(msg)
    return Path(url.removeprefix("sqlite:")) if url else config.data_dir / LOG_FILE


async def _open_alone(config: Config) -> Log:
    """The Kafka log, for the only process with this data directory: projection and keys in it are of one daemon."""
    from controlplane.log.kafka import open_kafka  # noqa: PLC0415 - see above

    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = FileLock(config.data_dir / LOG_FILE)
    try:
        log = await open_kafka(config.log.url, shards=config.log.shards, retention=topic_retention(config))
    except BaseException:
        lock.release()
        raise
    log.when_closed(lock.release)
    return log


def reserved(config: Config) -> frozenset[str]:
    """What is ours in the cluster that holds the log: its topics, and the principal that we are there."""
    if not is_kafka(config):
        return frozenset()
    address = kafka_address.parse(config.log.url, os.environ)
    names = {topic.name for topic in kafka_topics.topics(address, config.log.shards, topic_retention(config))}
    return frozenset(names | ({f"User:{address.user}"} if address.user else set()))


async def examine(config: Config) -> Sequence[Fault]:
    """What is wrong with the topics of a Kafka log; nothing for another kind. Raises `LogUnavailable`."""
    if not is_kafka(config):
        return ()
    from controlplane.log import kafka  # noqa: PLC0415 - see above

    return await kafka.examine(config.log.url, shards=config.log.shards, retention=topic_retention(config))


async def mend(config: Config) -> Sequence[Fault]:
    """Set right what can be; the faults that were. Raises `LogUnavailable`."""
    if not is_kafka(config):
        return ()
    from controlplane.log import kafka  # noqa: PLC0415 - see above

    return await kafka.mend(config.log.url, shards=config.log.shards, retention=topic_retention(config))


def topic_retention(config: Config) -> Retention:
    """How long the topics of a Kafka log keep what they hold."""
    return Retention(config.log.events_retention_days, config.log.metrics_retention_days)
