"""Settings log and journal on Kafka: for replicas on several machines, and for consumers of other people's making.

    kafka_address    the URL
    kafka_topics     what the topics must be like (pure)      kafka_admin     looking at them, making them
    kafka_mending    setting their configuration right
    kafka_clients    aiokafka's clients, and their ends       kafka_reading   offsets, reads, tails, and their health
    kafka_settings   the port of the settings log
    kafka_journal    the port of the journal                  kafka_shard     its writer: transactions under a fence
    kafka_group      the replicas, and who is to own what
    kafka_groups     readers in groups of their own: positions, dead letters

Acknowledged means taken by all replicas that are in sync (`acks=all`, `min.insync.replicas`). A broker doesn't fsync before
it acknowledges: with one broker a power cut can lose what was acknowledged, with three only if it hits them all.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

from controlplane.log import kafka_admin, kafka_clients, kafka_mending
from controlplane.log.kafka_address import Address, parse
from controlplane.log.kafka_clients import Clients
from controlplane.log.kafka_group import KafkaMembership
from controlplane.log.kafka_groups import KafkaGroups
from controlplane.log.kafka_journal import KafkaJournal
from controlplane.log.kafka_reading import Health
from controlplane.log.kafka_settings import SEND_S, KafkaSettingsLog
from controlplane.log.kafka_shard import COMMIT_S
from controlplane.log.kafka_topics import EVENTS, KEPT, SETTINGS, Fault, Retention
from controlplane.log.ports import KeepAside


class KafkaLog:
    """Both ports of one log."""

    def __init__(
        self, address: Address, shards: int, *, send_timeout_s: float = SEND_S, commit_timeout_s: float = COMMIT_S
    ) -> None:
        self.address = address
        self._clients = Clients(address)
        self._health = Health()
        self.settings = KafkaSettingsLog(self._clients, address.topic(SETTINGS), self._health, send_timeout_s)
        self.journal = KafkaJournal(self._clients, shards, self._health, commit_timeout_s)
        self.membership = KafkaMembership(self._clients, address.topic(EVENTS))
        self.groups = KafkaGroups(self._clients, shards)
        self._closing: asyncio.Task[None] | None = None
        self._afterwards: list[Callable[[], None]] = []

    @property
    def put_aside(self) -> KeepAside:
        """See the port: the topic of dead letters."""
        return self.groups.put_aside

    @property
    def trouble(self) -> str | None:
        """See the port."""
        return self._health.trouble

    async def open(self, retention: Retention) -> None:
        """Topics, then clients. Raises `LogUnavailable` or `LogCorrupt`."""
        await kafka_admin.ensure(self._clients, self.journal.shards, retention)
        await self.settings.open()

    async def close(self) -> None:
        """See the port. Every client's end has a deadline, so this ends without a broker, too."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    def when_closed(self, call: Callable[[], None]) -> None:
        """Call it when everything has ended."""
        self._afterwards.append(call)

    async def _close(self) -> None:
        try:
            await asyncio.gather(
                self.settings.close(), self.journal.close(), self.membership.close(), self.groups.close()
            )
            await self._clients.ended()
        finally:
            for call in self._afterwards:
                call()


async def open_kafka(
    url: str,
    *,
    shards: int,
    retention: Retention = KEPT,
    environment: Mapping[str, str] = os.environ,
    send_timeout_s: float = SEND_S,
    commit_timeout_s: float = COMMIT_S,
) -> KafkaLog:
    """Open the log, or make its topics; see `kafka_address` for the URL.

    A send without an answer is given up after `send_timeout_s` (Indeterminate), a commit after `commit_timeout_s`. Raises
    `LogUnavailable` (no broker, another number of shards, topics that would lose data: each with what to do) or `LogCorrupt`.
    """
    kafka_clients.check()
    log = KafkaLog(parse(url, environment), shards, send_timeout_s=send_timeout_s, commit_timeout_s=commit_timeout_s)
    try:
        await log.open(retention)
    except BaseException:
        await log.close()
        raise
    return log


async def examine(
    url: str, *, shards: int, retention: Retention = KEPT, environment: Mapping[str, str] = os.environ
) -> list[Fault]:
    """What is wrong with the topics; nothing is changed. Raises `LogUnavailable`."""
    return await kafka_admin.examine(Clients(parse(url, environment)), shards, retention)


async def mend(
    url: str, *, shards: int, retention: Retention = KEPT, environment: Mapping[str, str] = os.environ
) -> list[Fault]:
    """Set right what the configuration of the topics is at fault for; what was wrong and isn't any more. The rest is left
    for people: what it takes isn't known, or loses something. Raises `LogUnavailable`."""
    address = parse(url, environment)
    return await kafka_mending.mend(address, await kafka_admin.examine(Clients(address), shards, retention))
