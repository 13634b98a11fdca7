"""Which shard a setting belongs to."""

from __future__ import annotations

from zlib import crc32


def shard_of(tenant: str, service: str, target: str, shards: int) -> int:
    """All settings of one backend share a shard, so that one owner observes it once for all of them.

    Stored in every journal: another function, or another number of shards, needs a new journal.
    """
    return crc32(f"{tenant}/{service}/{target}".encode()) % shards
