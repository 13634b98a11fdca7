"""Store: where documents are kept together with the positions they reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from controlplane.log.ports import Place
from controlplane.projection.documents import Batch
from controlplane.projection.queries import Queries


class StoreUnavailable(Exception):
    """The store can't answer or write now; the same call may work later."""


class StoreDamaged(StoreUnavailable):
    """What is stored can't be read any more: only `reset` helps, then the journal is projected again."""


class DocumentRefused(Exception):
    """The store will never take one of the documents of the batch. Nothing of the batch was written."""


class Trimmed(NamedTuple):
    """How many documents went."""

    events: int
    metrics: int


class Store(Queries, Protocol):
    """Documents, dead letters and positions.

    Idempotent: an event or metric is one document by its id, a dead letter by its place, however often it is written; what
    a shard says of a setting is one document, of the highest version that was written, whatever came in which order. A
    store whose writes aren't transactions makes the documents durable before the positions: after a crash documents may
    be written again, none is ever missing below a position.
    """

    async def write(self, batch: Batch, positions: Mapping[Place, int]) -> None:
        """Add the documents and move the positions named. Raises `StoreUnavailable`, `StoreDamaged`, `DocumentRefused`."""

    async def positions(self) -> Mapping[Place, int]:
        """What the documents reach, by place; empty for a new store. Raises `StoreUnavailable`, `StoreDamaged`."""

    async def trim(self, events_before: float, metrics_before: float) -> Trimmed:
        """Drop events and metrics that are older than these times (Unix seconds). All else stays."""

    async def reset(self) -> None:
        """Throw everything away, positions included; also the way out of `StoreDamaged`."""

    async def close(self) -> None:
        """Finish what was begun; safe to call twice."""
