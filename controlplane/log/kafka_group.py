"""`Membership` by a consumer group on the events topic: who is assigned partition *i* is to own shard *i*.

Theory of operation. Nothing is consumed: the partitions are paused, and the group serves as failure detector and balance. The
assignment says who *should* own a shard; what makes it safe is the fence of the shard's writer.

The protocol is a barrier: nobody is given a partition before every live member has come back from `revoked`, so what is
drained there is drained before anybody else begins. Blocking there is harmless up to the rebalance timeout; blocking in
`assigned` is not, because the heartbeat only starts after it.

Note [Asking without side effects]. A failed `consumer.commit()` makes aiokafka join anew, under a new name and without leaving
under the old one, and the whole group waits for the ghost. So "is the shard still mine?" is asked of the coordinator by an
admin client, under the client id that this process alone has.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError

from controlplane.log.kafka_clients import ASK_MS, READ_COMMITTED, Clients, stop_admin, stop_consumer
from controlplane.log.ports import LogUnavailable

_log = structlog.get_logger()

SESSION_MS: Final = 6000
"""The brokers' smallest: so long a dead replica's shards are nobody's."""
HEARTBEAT_MS: Final = 1000
REBALANCE_MS: Final = 15_000
POLL_MS: Final = 500
RETRY_S: Final = 0.5
AT: Final = "@"
"""In a client id, between a name and the address of its replica."""


class KafkaMembership:
    """See the port."""

    def __init__(self, clients: Clients, topic: str) -> None:
        self._clients = clients
        self._topic = topic
        self._group = clients.address.topic("shards")
        self._name = f"{clients.address.prefix}-{uuid.uuid4().hex}"
        self._admin: AIOKafkaAdminClient | None = None
        self._lock = asyncio.Lock()

    async def follow(self, revoked: Callable[[], Awaitable[None]], assigned: Callable[[frozenset[int]], None]) -> None:
        """See the port."""
        while True:
            try:
                await self._session(revoked, assigned)
            except (LogUnavailable, KafkaError) as exc:
                _log.warning("membership lost", error=repr(exc))
            await asyncio.sleep(RETRY_S)

    async def owns(self, shard: int) -> bool:
        """See the port. Note [Asking without side effects]."""
        return await self._owner(shard) == self._name

    def announce(self, address: str) -> None:
        """See the port. The address is part of our client id, so it is there exactly as long as we are a member."""
        self._name = f"{self._name.partition(AT)[0]}{AT}{address}"

    async def address_of(self, shard: int) -> str | None:
        """See the port."""
        owner = await self._owner(shard)
        return None if owner is None else owner.partition(AT)[2] or None

    async def _owner(self, shard: int) -> str | None:
        """The client id of whoever is assigned the shard."""
        async with self._lock:
            if self._admin is None:
                self._admin = await self._clients.admin()
            admin = self._admin
        try:
            async with asyncio.timeout(ASK_MS / 1000):
                answers = await admin.describe_consumer_groups([self._group])
        except (KafkaError, TimeoutError, OSError) as exc:
            msg = f"Kafka doesn't tell who owns shard {shard}: {exc!r}"
            raise LogUnavailable(msg) from exc
        groups = [group for answer in answers for group in answer.groups]
        return next((owner for group in groups if (owner := self._holder(group, shard))), None)

    async def close(self) -> None:
        """End the clients."""
        async with self._lock:
            if self._admin is not None:
                await stop_admin(self._admin)
                self._admin = None

    async def _session(
        self, revoked: Callable[[], Awaitable[None]], assigned: Callable[[frozenset[int]], None]
    ) -> None:
        """One consumer, until it fails or we are cancelled; then it leaves the group."""
        consumer = await self._clients.consumer(
            READ_COMMITTED,
            client_id=self._name,
            group_id=self._group,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            rebalance_timeout_ms=REBALANCE_MS,
            partition_assignment_strategy=(StickyPartitionAssignor,),
        )
        try:
            consumer.subscribe([self._topic], listener=_Listener(consumer, revoked, assigned))
            while True:
                await consumer.getmany(timeout_ms=POLL_MS)  # counts as alive, though nothing is fetched
        finally:
            await stop_consumer(consumer)

    def _holder(self, group: Any, shard: int) -> str | None:
        _, _, state, _, _, members = group[:6]
        wanted = TopicPartition(self._topic, shard)
        holders = [
            str(member[1])
            for member in members
            if state == "Stable" and wanted in ConsumerProtocolMemberAssignment.decode(member[4]).partitions()
        ]
        return holders[0] if holders else None


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Hands on what the group decides."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        revoked: Callable[[], Awaitable[None]],
        assigned: Callable[[frozenset[int]], None],
    ) -> None:
        self._consumer = consumer
        self._revoked = revoked
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        if revoked:
            await self._revoked()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._consumer.pause(*assigned)
        self._assigned(frozenset(partition.partition for partition in assigned))
