"""Whether an index has the shards and the copies that it needs. Pure: from sampled metrics, and from what the server says now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

SMALL_SHARD_BYTES: Final = 1024**3
"""Shards below this size cost more than they are worth, when an index has several."""
LARGE_SHARD_BYTES: Final = 50 * 1024**3

Advice = dict[str, Any]


def one(index: str | None, about: str, advice: str, **evidence: Any) -> Advice:
    """One piece of advice. `index` None: it is about the whole target."""
    return {**({} if index is None else {"index": index}), "about": about, "advice": advice, "evidence": evidence}


def replicated(index: str, replicas: int, nodes: int, *, expands: bool = False) -> Iterator[Advice]:
    """Copies that nobody can hold."""
    if nodes and replicas >= nodes and not expands:
        advice = f"set number_of_replicas to {nodes - 1} or auto_expand_replicas to 0-1, or add nodes"
        yield one(index, "replicas can't be allocated", advice, number_of_replicas=replicas, data_nodes=nodes)


def sharded(index: str, shards: int, size_bytes: int) -> Iterator[Advice]:
    """Shards that are too many, or too large."""
    if shards > 1 and size_bytes / shards < SMALL_SHARD_BYTES:
        wanted = max(1, -(-size_bytes // SMALL_SHARD_BYTES))
        advice = f"declare number_of_shards {wanted}: it is migrated without downtime"
        yield one(index, "more shards than its size needs", advice, number_of_shards=shards, size_bytes=size_bytes)
    if size_bytes / shards > LARGE_SHARD_BYTES:
        advice = f"declare number_of_shards {-(-size_bytes // (LARGE_SHARD_BYTES // 2))}"
        about = "shards are too large to move or recover quickly"
        yield one(index, about, advice, number_of_shards=shards, size_bytes=size_bytes)
