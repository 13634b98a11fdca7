"""What keeps messages: presets, and what a declaration risks. Pure.

An acknowledged message (acks=all) is kept when `min.insync.replicas` brokers have it and only one of those becomes leader.
Kafka acknowledges what is in memory: against a power cut everywhere at once only `flush.messages` helps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

REPLICAS: Final = 3
MIN_INSYNC: Final = "min.insync.replicas"
UNCLEAN: Final = "unclean.leader.election.enable"
FLUSH: Final = "flush.messages"


def preset(durability: str | None, replication_factor: int | None) -> tuple[int | None, dict[str, str]]:
    """(replication factor, configuration) of a preset; what is declared beside it goes before it."""
    if durability is None:
        return replication_factor, {}
    replicas = replication_factor or REPLICAS
    if durability == "standard":
        return replicas, {MIN_INSYNC: str(max(1, min(2, replicas - 1))), UNCLEAN: "false"}
    return replicas, {MIN_INSYNC: str(replicas // 2 + 1), UNCLEAN: "false", FLUSH: "1"}


def risks(replicas: int | None, config: Mapping[str, str]) -> Iterator[str]:
    """How acknowledged messages of a topic declared like this can be lost, or why none can be written."""
    insync = config.get(MIN_INSYNC, "")
    if replicas == 1:
        yield "replication_factor 1: when the broker's disk is lost, so are the messages"
    if config.get(UNCLEAN) == "true":
        yield f"{UNCLEAN}: a replica that lags may become leader, and what it lacks is lost"
    if not insync.isdecimal() or replicas is None:
        return
    if int(insync) > replicas:
        yield f"{MIN_INSYNC} {insync} of {replicas} replicas: no message with acks=all can be written"
    elif int(insync) == 1 < replicas:
        yield f"{MIN_INSYNC} 1: a message that only the leader has is acknowledged, and lost with it"
