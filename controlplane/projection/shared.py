"""A projection in Elasticsearch that processes beside the daemons fill and rebuild, from a log on Kafka."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from controlplane.config import Config
from controlplane.log.choice import topic_retention
from controlplane.log.kafka import KafkaLog, open_kafka
from controlplane.projection import choice
from controlplane.projection.rebuilding import rebuild_beside
from controlplane.telemetry.metrics import Metrics


async def project(config: Config, metrics: Metrics, reveal: choice.Reveal, *, ready: Callable[[], None]) -> None:
    """Fill it until cancelled. Raises `LogUnavailable`."""
    log = await _open_log(config)
    try:
        store = choice.store_of(config, reveal)
        try:
            ready()
            await choice.follower_of(config, log, store, metrics).run()
        finally:
            await store.close()
    finally:
        await log.close()


async def rebuild(config: Config, reveal: choice.Reveal, progress: Callable[[int], Awaitable[None]]) -> int:
    """Make it anew while daemons use it; its generation. See `rebuild_beside`."""
    log = await _open_log(config)
    try:
        return await rebuild_beside(
            log,
            partial(choice.elasticsearch_of, config, reveal),
            retention=choice.retention_of(config),
            progress=progress,
        )
    finally:
        await log.close()


async def _open_log(config: Config) -> KafkaLog:
    """The log, which daemons hold, too."""
    return await open_kafka(config.log.url, shards=config.log.shards, retention=topic_retention(config))
