"""Desired and observed topics, users, permissions and quotas of Kafka. Pure.

Canonical forms of configurations live beside it, in `configs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final, NamedTuple

from reconcilers.queue import durability
from schemas import queue

TOPIC: Final = "queue.topic"

SETTLING_S: Final = 60.0
"""Longest time a broker's image of the metadata is believed to lag behind what the controller did."""
TOPIC_ID: Final = "topic_id"
OWNED_CONFIG: Final = "config"
"""Names of what the status of a topic remembers: its id, and the configurations that were set."""


class Held(NamedTuple):
    """A configuration as the broker shows it. `kind`: Kafka's type of it, as in LONG."""

    value: str | None
    kind: str
    is_set: bool
    """On the topic itself; else it is a default."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A declared topic. None: not declared, the cluster decides."""

    name: str
    partitions: int | None
    replication_factor: int | None
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ObservedTopic:
    """A topic that is there, or that we made and no broker shows yet."""

    topic_id: str
    replicas: tuple[tuple[int, ...], ...] = ()
    """Partition → brokers that hold it."""
    config: Mapping[str, Held] = field(default_factory=dict)
    """What is declared, as far as the broker knows it."""
    brokers: tuple[int, ...] = ()
    moving: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Partitions that are being reassigned → brokers that are to hold them. Until it is done `replicas` has both, those that
    are to go and those that are still copying."""
    behind: bool = False
    """A replica isn't in sync: it may be copying."""
    settling: str | None = None
    """What we did and no broker shows yet."""
    known_id: str | None = None
    """The id it had when it was last as declared; from the status."""
    known_config: frozenset[str] = frozenset()
    """The configurations that we set; from the status."""


def topic_name(setting: str, value: queue.Topic) -> str:
    """The topic's own name."""
    return value.topic or setting


def topic(setting: str, value: queue.Topic) -> Topic:
    """The declaration, with what its durability means."""
    replicas, preset = durability.preset(value.durability, value.replication_factor)
    return Topic(topic_name(setting, value), value.partitions, replicas, {**preset, **value.config})


def recalled_topic(observed: ObservedTopic | None, remembered: Mapping[str, str]) -> ObservedTopic | None:
    """The observation, with the id and the configurations that the status remembers."""
    if observed is None:
        return None
    names = _names(remembered.get(OWNED_CONFIG, ""))
    return replace(observed, known_id=remembered.get(TOPIC_ID), known_config=names)


@lru_cache(maxsize=1024)
def _names(text: str) -> frozenset[str]:
    """The same few for most topics."""
    return frozenset(filter(None, text.split(",")))


def memory_of(topic_id: str, topic: Topic) -> dict[str, str]:
    """What a status is to remember of a topic that is as declared."""
    return {TOPIC_ID: topic_id, OWNED_CONFIG: ",".join(sorted(topic.config))}
