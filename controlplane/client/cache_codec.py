"""Values as the layers hold them: an envelope of a few bytes around what the codec made. Pure.

Envelope, big-endian: version (1 byte), fresh until (unix ms, 8), dead at (unix ms, 8), length of the tags (2), tags
joined by NUL, payload. Between the two times the value is stale: it may be served while a new one is loaded.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgpack

VERSION = 1
_HEAD = struct.Struct(">BQQH")


class Codec(Protocol):
    """Turns values of the application into bytes and back."""

    def encode(self, value: Any) -> bytes:
        """Raises TypeError or ValueError when the value can't be stored."""

    def decode(self, payload: bytes) -> Any:
        """Raises ValueError when the payload isn't one of `encode`."""


class MsgpackCodec:
    """JSON-like values and bytes. Tuples come back as lists; nothing is shared with what was put in."""

    def encode(self, value: Any) -> bytes:
        """The value as msgpack."""
        packed: bytes = msgpack.packb(value)
        return packed

    def decode(self, payload: bytes) -> Any:
        """The value of a msgpack document."""
        return msgpack.unpackb(payload, strict_map_key=False)


class BytesCodec:
    """Values that are bytes already."""

    def encode(self, value: Any) -> bytes:
        """The bytes themselves."""
        if not isinstance(value, bytes):
            msg = f"BytesCodec stores bytes, not {type(value).__name__}"
            raise TypeError(msg)
        return value

    def decode(self, payload: bytes) -> bytes:
        """The bytes themselves."""
        return payload


@dataclass(frozen=True, slots=True)
class Entry:
    """One cached value. Times are unix seconds of the process that filled it: clocks should agree to a second."""

    payload: bytes
    fresh_until: float
    dead_at: float
    tags: tuple[str, ...] = ()

    def fresh(self, now: float) -> bool:
        """May be served without further ado."""
        return now < self.fresh_until

    def usable(self, now: float) -> bool:
        """May be served while a new one is loaded."""
        return now < self.dead_at

    @property
    def size_bytes(self) -> int:
        """What it costs in memory, about."""
        return len(self.payload) + sum(map(len, self.tags)) + 120


def entry(payload: bytes, now: float, *, ttl_s: float, stale_s: float, tags: Sequence[str]) -> Entry:
    """A value that was loaded just now."""
    return Entry(payload, now + ttl_s, now + ttl_s + stale_s, tuple(tags))


def pack(value: Entry) -> bytes:
    """The envelope; ValueError when the tags take more than 64 KiB."""
    tags = "\0".join(value.tags).encode()
    if len(tags) > 0xFFFF:
        msg = f"the tags of one value take {len(tags)} bytes: more than 65535"
        raise ValueError(msg)
    return (
        _HEAD.pack(VERSION, round(value.fresh_until * 1000), round(value.dead_at * 1000), len(tags))
        + tags
        + value.payload
    )


def unpack(raw: bytes) -> Entry | None:
    """The entry of an envelope; None when something else lies there (another version, a foreign value)."""
    if len(raw) < _HEAD.size or raw[0] != VERSION:
        return None
    _, fresh_ms, dead_ms, tags_bytes = _HEAD.unpack_from(raw)
    start = _HEAD.size + tags_bytes
    if len(raw) < start:
        return None
    tags = raw[_HEAD.size : start].decode("utf-8", "replace")
    return Entry(raw[start:], fresh_ms / 1000, dead_ms / 1000, tuple(tags.split("\0")) if tags else ())
