"""Mending what is wrong with topics, as far as their configuration is at fault.

aiokafka's admin client sets all of a topic's configuration at once, so what it isn't told goes back to the default;
kafka-python's sets one value and leaves the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from controlplane.log import kafka_clients
from controlplane.log.kafka_address import Address
from controlplane.log.kafka_topics import Fault
from controlplane.log.ports import LogUnavailable

REQUEST_MS: Final = 10_000
MEND_S: Final = 60.0


async def mend(address: Address, faults: Sequence[Fault]) -> list[Fault]:
    """Set what the faults say is to be set; those it was done for. Raises `LogUnavailable`."""
    mendable = [fault for fault in faults if fault.config]
    if not mendable:
        return []
    try:
        async with asyncio.timeout(MEND_S):
            await asyncio.to_thread(_alter, address, _wanted(mendable))
    except TimeoutError as exc:
        msg = f"Kafka at {','.join(address.servers)} doesn't answer within {MEND_S:g} s"
        raise LogUnavailable(msg) from exc
    return mendable


def _wanted(faults: Sequence[Fault]) -> dict[str, dict[str, str]]:
    """Topic → configuration."""
    wanted: dict[str, dict[str, str]] = {}
    for fault in faults:
        wanted.setdefault(fault.topic, {}).update(fault.config)
    return wanted


def _alter(address: Address, wanted: Mapping[str, Mapping[str, str]]) -> None:
    from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient  # noqa: PLC0415 - nobody else needs it
    from kafka.errors import KafkaError  # noqa: PLC0415 - as above

    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what it has to say is raised
    options: dict[str, Any] = {"request_timeout_ms": REQUEST_MS, "bootstrap_timeout_ms": REQUEST_MS}
    try:
        admin = KafkaAdminClient(**kafka_clients.options(address), **options)
        try:
            admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, topic, dict(config)) for topic, config in wanted.items()]
            )
        finally:
            admin.close()
    except (KafkaError, OSError) as exc:
        msg = f"Kafka at {','.join(address.servers)} didn't take the configuration of {', '.join(wanted)}: {exc!r}"
        raise LogUnavailable(msg) from exc
