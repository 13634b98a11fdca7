"""Monitoring values of a Kafka cluster. Runs in the administration thread; what is made of them is pure.

Lag is sampled of every group that has offsets (MOST_GROUPS at most), in messages and in seconds (see `lagging`), by topic and
by partition; sizes on disk and produced messages of the MOST_TOPICS biggest topics, partitions in trouble of the whole
cluster. What counts up ends in `_total`: `produced_total` and `consumed_total` are offsets, `routed_total` and its like come
from the routers' progress, and `isr_changes_total` and `rebalances_total` are changes between two looks since this process
began to look.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from reconcilers.contract import Measurement
from reconcilers.queue.admin import messages, partition, send
from reconcilers.queue.kafka_groups import FoundGroup, committed, described, ends
from reconcilers.queue.kafka_topics import configs_of
from reconcilers.queue.lagging import Ends
from reconcilers.queue.routing import Count

MOST_GROUPS: Final = 50
MOST_TOPICS: Final = 50
MOST_LAGGING: Final = 200
"""Partitions of groups whose lag is told by itself."""
MOST_PARTITIONS: Final = 5_000
"""Whose ends are asked."""
RETENTION: Final = "retention.bytes"


class Disks(NamedTuple):
    """What the brokers' disks hold."""

    sizes: Mapping[str, Mapping[int, int]]
    """Topic → partition → bytes, of all replicas."""
    usable: Mapping[int, int]
    """Broker → bytes that are free, where it tells."""


class Sampler:
    """What is sampled of one cluster, and what is remembered for it. Of one thread at a time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ends: dict[Any, Ends] = {}
        self._in_sync: dict[tuple[str, int], frozenset[int]] = {}
        self._members: dict[str, frozenset[str]] = {}
        self._rebalances: Counter[str] = Counter()
        self._isr_changes = 0

    def sampled(self, client: Any) -> list[Measurement]:
        """Of cluster, topics and groups."""
        rows = send(client, messages().MetadataRequest(topics=None, allow_auto_topic_creation=False))
        topics = {row.name: row.partitions for row in rows.topics if row.error_code == 0 and not row.is_internal}
        disks = _disks(client)
        biggest = sorted(topics, key=lambda name: -sum(disks.sizes.get(name, {}).values()))[:MOST_TOPICS]
        groups = _groups(client)
        stands = {name: {p: at for p, (at, _) in committed(client, name).items()} for name in groups}
        at_end = ends(client, _asked(topics, biggest, stands))
        self._follow(at_end, stands)
        return [
            Measurement("brokers", len(rows.brokers)),
            Measurement("topics", len(topics)),
            *_partitions(topics),
            Measurement("isr_changes_total", self._counted_changes(topics)),
            *_stored(disks, biggest, _limits(client, biggest, topics)),
            *_produced(at_end, biggest),
            *(one for name, group in groups.items() for one in self._group(name, group, stands[name], at_end)),
            *self._lagging(stands, at_end),
        ]

    def _lagging(self, stands: Mapping[str, Mapping[Any, int]], at_end: Mapping[Any, int]) -> Iterator[Measurement]:
        """Partition by partition, of those MOST_LAGGING with the most to read."""
        now = self._clock()
        lags = [
            (max(0, at_end[place] - at), group, place)
            for group, held in stands.items()
            for place, at in held.items()
            if place in at_end
        ]
        for lag, group, place in heapq.nlargest(MOST_LAGGING, lags):
            tags = {"group": group, "topic": place.topic, "partition": str(place.partition)}
            yield Measurement("partition_lag_messages", lag, tags)
            yield Measurement("partition_lag_s", self._ends[place].waited_s(now, stands[group][place]), tags)

    def _follow(self, at_end: Mapping[Any, int], stands: Mapping[str, Mapping[Any, int]]) -> None:
        now = self._clock()
        unread: defaultdict[Any, list[int]] = defaultdict(list)
        for held in stands.values():
            for place, at in held.items():
                unread[place].append(at)
        self._ends = {place: self._ends.get(place, Ends()) for place in unread if place in at_end}
        for place, one in self._ends.items():
            one.look(now, at_end[place], unread[place])

    def _counted_changes(self, topics: Mapping[str, Any]) -> int:
        now = {
            (name, part.partition_index): frozenset(part.isr_nodes) for name, some in topics.items() for part in some
        }
        self._isr_changes += sum(1 for place, nodes in now.items() if self._in_sync.get(place, nodes) != nodes)
        self._in_sync = now
        return self._isr_changes

    def _group(
        self, name: str, group: FoundGroup, held: Mapping[Any, int], at_end: Mapping[Any, int]
    ) -> Iterator[Measurement]:
        self._rebalances[name] += self._members.get(name, group.ids) != group.ids
        self._members[name] = group.ids
        yield Measurement("group_members", group.members, {"group": name})
        yield Measurement("group_settled", float(group.state in ("Stable", "Empty")), {"group": name})
        yield Measurement("rebalances_total", self._rebalances[name], {"group": name})
        now, places = self._clock(), sorted(held.keys() & at_end.keys())
        for topic in dict.fromkeys(place.topic for place in places):
            mine = [place for place in places if place.topic == topic]
            tags = {"group": name, "topic": topic}
            yield Measurement("lag_messages", sum(max(0, at_end[p] - held[p]) for p in mine), tags)
            yield Measurement("lag_s", max(self._ends[p].waited_s(now, held[p]) for p in mine), tags)
            yield Measurement("consumed_total", sum(held[p] for p in mine), tags)


def routed(counts: Iterable[tuple[str, Count]]) -> list[Measurement]:
    """What routes did."""
    return [
        measured
        for route, count in counts
        for measured in (
            Measurement("routed_total", count.routed, {"route": route}),
            Measurement("dead_lettered_total", count.dead, {"route": route}),
            Measurement("repeated_total", count.repeated, {"route": route}),
            Measurement("failed_total", count.failed, {"route": route}),
        )
    ]


def _partitions(topics: Mapping[str, Any]) -> Iterator[Measurement]:
    parts = [part for some in topics.values() for part in some]
    yield Measurement("partitions", len(parts))
    yield Measurement("under_replicated_partitions", sum(len(p.isr_nodes) < len(p.replica_nodes) for p in parts))
    yield Measurement("offline_partitions", sum(p.leader_id < 0 for p in parts))


def _asked(topics: Mapping[str, Any], biggest: Iterable[str], stands: Mapping[str, Mapping[Any, int]]) -> list[Any]:
    """Partitions whose end is of interest, those that groups read before the others; one without a leader can't answer."""
    led = {(name, part.partition_index) for name, some in topics.items() for part in some if part.leader_id >= 0}
    read = (place for held in stands.values() for place in held)
    every = (partition(name, number) for name, number in sorted(led & _of(biggest, led)))
    wanted = dict.fromkeys(place for place in (*read, *every) if (place.topic, place.partition) in led)
    return list(wanted)[:MOST_PARTITIONS]


def _of(names: Iterable[str], places: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
    some = set(names)
    return {place for place in places if place[0] in some}


def _produced(at_end: Mapping[Any, int], topics: Iterable[str]) -> Iterator[Measurement]:
    """Offsets only grow: their sum counts what was ever produced."""
    counted: Counter[str] = Counter()
    for place, end in at_end.items():
        counted[place.topic] += end
    for topic in topics:
        if topic in counted:
            yield Measurement("produced_total", counted[topic], {"topic": topic})


# --- disks ---------------------------------------------------------------------------------------------------------------


def _disks(client: Any) -> Disks:
    sizes: defaultdict[str, Counter[int]] = defaultdict(Counter)
    usable: Counter[int] = Counter()
    for broker in client.describe_log_dirs():
        for folder in broker["log_dirs"]:
            if folder.get("usable_bytes", -1) >= 0:
                usable[broker["broker"]] += folder["usable_bytes"]
            for topic in folder["topics"]:
                name = topic.get("name") or topic["topic"]
                sizes[name].update({p["partition_index"]: p["partition_size"] for p in topic["partitions"]})
    return Disks(sizes, usable)


def _stored(disks: Disks, topics: Iterable[str], limits: Mapping[str, int]) -> Iterator[Measurement]:
    yield Measurement("stored_bytes", sum(size for parts in disks.sizes.values() for size in parts.values()))
    for broker, usable in sorted(disks.usable.items()):
        yield Measurement("disk_usable_bytes", usable, {"broker": str(broker)})
    for topic in topics:
        parts = list(disks.sizes.get(topic, {}).values())
        yield Measurement("topic_bytes", sum(parts), {"topic": topic})
        if len(parts) > 1 and any(parts):
            yield Measurement("topic_skew_ratio", max(parts) * len(parts) / sum(parts), {"topic": topic})
        if topic in limits:
            yield Measurement("topic_limit_bytes", limits[topic], {"topic": topic})


def _limits(client: Any, names: Iterable[str], topics: Mapping[str, Any]) -> dict[str, int]:
    """Topic → bytes of all its replicas at which the oldest messages go, where there is such a bound."""
    found = {}
    for name, held in configs_of(client, dict.fromkeys(names, (RETENTION,))).items():
        bound = int(held[RETENTION].value or -1) if RETENTION in held else -1
        if bound >= 0:
            found[name] = bound * sum(len(part.replica_nodes) for part in topics[name])
    return found


def _groups(client: Any) -> Mapping[str, FoundGroup]:
    names = sorted(row["group_id"] for row in client.list_groups())[:MOST_GROUPS]
    return described(client, names) if names else {}
