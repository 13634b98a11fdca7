"""msgpack maps ↔ bytes. Pure. Unknown fields of newer writers survive a round trip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack


class Undecodable(ValueError):
    """Bytes that aren't one msgpack map."""


def encode(record: Mapping[str, Any]) -> bytes:
    """One map of JSON values as msgpack."""
    data: bytes = msgpack.packb(record, use_bin_type=True)
    return data


def decode(data: bytes) -> dict[str, Any]:
    """The map; raises `Undecodable`."""
    try:
        record = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as exc:
        msg = f"not msgpack: {exc}"
        raise Undecodable(msg) from exc
    if not isinstance(record, dict):
        msg = f"not a map but {type(record).__name__}"
        raise Undecodable(msg)
    return record
