"""Groups and offsets over the administration client. Runs in the client's thread."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reconcilers.contract import TerminalError, TransientError
from reconcilers.discovery import matches
from reconcilers.queue.admin import messages, partition
from reconcilers.queue.groups import ObservedGroup
from reconcilers.queue.kafka_topics import partitions_of

DEAD: Final = "Dead"
MOVES: Final = ("[Error 14]", "[Error 15]", "[Error 16]")
"""How the client says that a group's coordinator is loading, isn't there, or is another."""
OURS: Final = "coreplane."
"""How the names of the daemon's own groups begin."""


@dataclass(frozen=True, slots=True)
class FoundGroup:
    """A consumer group as the broker knows it."""

    state: str
    members: int
    ids: frozenset[str] = frozenset()
    """Of its members."""


def committed(client: Any, group: str) -> dict[Any, tuple[int, str]]:
    """Partition → (next offset, metadata). Nothing: no such group, or it has none."""
    rows = client.list_group_offsets({group: None})[group]
    return {place: (row.offset, row.metadata or "") for place, row in rows.items() if row.offset >= 0}


def members_of(client: Any, group: str) -> int:
    """How many consumers are in the group."""
    return described(client, [group])[group].members


def described(client: Any, groups: Sequence[str]) -> dict[str, FoundGroup]:
    """State and members, without offsets. A group that isn't there is Dead; `TransientError` for one that moves."""
    found = dict.fromkeys(groups, FoundGroup(DEAD, 0))
    rows = client.describe_groups(list(groups))
    for name, row in rows.items():
        if (row["error"] or "").startswith(MOVES):
            msg = f"group {name}: {row['error']}"
            raise TransientError(msg, reason="CoordinatorMoves", retry_after_s=1.0)
        ids = frozenset(member["member_id"] for member in row["members"])
        found[name] = FoundGroup(row["group_state"] or DEAD, len(row["members"]), ids)
    return found


def ends(client: Any, places: Iterable[Any], spec: int = -1) -> dict[Any, int]:
    """Partition → offset: -1 the end, -2 the beginning, else of the first message at or after these ms (-1: none)."""
    asked = dict.fromkeys(places, spec)
    if not asked:
        return {}
    specs = {place: messages().OffsetTimestamp(spec) if spec >= 0 else messages().OffsetSpec(spec) for place in asked}
    return {place: row.offset for place, row in client.list_partition_offsets(specs).items()}


def places_of(client: Any, topic: str) -> list[Any]:
    """The partitions of a topic; `TransientError` while it isn't there."""
    count = partitions_of(client, [topic]).get(topic)
    if count is None:
        msg = f"topic {topic} isn't there"
        raise TransientError(msg, reason="TopicNotFound", retry_after_s=1.0)
    return [partition(topic, number) for number in range(count)]


def offsets_at(client: Any, topic: str, *, earliest: bool) -> dict[int, int]:
    """Where each partition begins or ends."""
    found = ends(client, places_of(client, topic), -2 if earliest else -1)
    return {place.partition: offset for place, offset in found.items()}


def refuse_active(group: str, found: FoundGroup) -> None:
    """Raise when somebody reads in the group: what it does would be overwritten, or overwrite this."""
    if found.members:
        msg = f"group {group} is {found.state} with {found.members} members: stop them first"
        raise TerminalError(msg, reason="GroupActive")


def observe(client: Any, wanted: Mapping[str, Any]) -> dict[str, ObservedGroup]:
    """Group → how far it lags. Missing: it has neither members nor offsets."""
    states = described(client, list(wanted))
    found = {}
    for name, desired in wanted.items():
        held = {place: at for place, (at, _) in committed(client, name).items()}
        if not held and not states[name].members:
            continue
        last = ends(client, held)
        lags = {place: max(0, last.get(place, at) - at) for place, at in held.items()}
        found[name] = ObservedGroup(
            states[name].state, states[name].members, max(lags.values(), default=0), _late(client, desired, held, lags)
        )
    return found


def discover(client: Any, match: str) -> list[str]:
    """The groups that are meant and have members or offsets, in order. Those of the routers and of redrives are ours."""
    listed = sorted(row["group_id"] for row in client.list_groups())
    names = [name for name in listed if name and matches(name, match, reserved=name.startswith(OURS))]
    states = described(client, names) if names else {}
    return [name for name in names if states[name].members or committed(client, name)]


def _late(client: Any, desired: Any, held: Mapping[Any, int], lags: Mapping[Any, int]) -> tuple[str, ...]:
    """Partitions whose next message is older than the bound: the first that isn't comes after it."""
    if desired is None or desired.max_lag_s is None:
        return ()
    lagging = [place for place, lag in lags.items() if lag]
    young = ends(client, lagging, int((time.time() - desired.max_lag_s) * 1000))
    late = [place for place in lagging if young[place] < 0 or young[place] > held[place]]
    return tuple(sorted(f"{place.topic}-{place.partition}" for place in late))
