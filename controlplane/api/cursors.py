"""Places in the event stream, and its frames. Pure.

A cursor holds the next wanted offset of every shard, in the order of the shards, hexadecimal. To its users it is opaque.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.api.problems import Resume
from controlplane.domain.errors import Fault, Reason, Refused

Positions = Mapping[int, int]


def encoded(positions: Positions) -> str:
    """The cursor of the positions."""
    return ".".join(f"{positions[shard]:x}" for shard in sorted(positions))


def decoded(cursor: str, shards: int) -> dict[int, int]:
    """The positions of a cursor. Raises `Refused` (Malformed)."""
    try:
        offsets = [int(part, 16) for part in cursor.split(".")]
    except ValueError:
        offsets = []
    if len(offsets) != shards or not all(0 <= offset < 2**63 for offset in offsets):
        message = "isn't a cursor of this stream: send the id of the last event as it is, `earliest` or `latest`"
        raise Refused(Reason.MALFORMED, f"from {message}", [Fault("?from", message)])
    return dict(enumerate(offsets))


def resumed(wanted: Positions, oldest: Positions, end: Positions) -> dict[int, int]:
    """The positions to read from. Raises `Resume` (Gone) when what comes next there is not kept, or never was."""
    for shard, offset in wanted.items():
        if offset < oldest.get(shard, 0):
            detail = "events after this cursor are no longer kept; go on from `oldest`, or from=latest"
            raise Resume(detail, encoded(complete(oldest, len(wanted))))
        if offset > end.get(shard, 0):
            detail = "this cursor is ahead of the journal, so it belongs to another one; go on from `oldest`"
            raise Resume(detail, encoded(complete(oldest, len(wanted))))
    return dict(wanted)


def complete(offsets: Positions, shards: int) -> dict[int, int]:
    """An offset for every shard; those that hold nothing start at 0."""
    return {shard: offsets.get(shard, 0) for shard in range(shards)}


def frame(event: str, cursor: str, data: Any) -> bytes:
    """One server-sent event."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"id: {cursor}\nevent: {event}\ndata: {text}\n\n".encode("utf-8", "replace")


def heartbeat(cursor: str) -> bytes:
    """A sign of life that moves the reader's resume point past what its filters left out."""
    return f": alive\nid: {cursor}\n\n".encode()


def matches(event: Mapping[str, Any], tenant: str, wanted: Sequence[tuple[str, str]]) -> bool:
    """True for events of the tenant whose fields are as wanted."""
    return event.get("tenant") == tenant and all(event.get(name) == value for name, value in wanted)
