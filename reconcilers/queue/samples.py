"""Monitoring values of a Kafka cluster. Runs in the administration thread; what is made of them is pure.

Lag is sampled of every group that has offsets (MOST_GROUPS at most), in messages; sizes on disk and partitions in trouble of
the whole cluster and of the MOST_TOPICS biggest topics. Counters end in `_total` and come from the routers' progress.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from reconcilers.contract import Measurement
from reconcilers.queue.admin import messages, send
from reconcilers.queue.kafka_groups import committed, described, ends
from reconcilers.queue.routing import Count

MOST_GROUPS: Final = 50
MOST_TOPICS: Final = 50


def sampled(client: Any) -> list[Measurement]:
    """Of cluster, topics and groups."""
    rows = send(client, messages().MetadataRequest(topics=None, allow_auto_topic_creation=False))
    topics = {row.name: row.partitions for row in rows.topics if row.error_code == 0 and not row.is_internal}
    found = [Measurement("brokers", len(rows.brokers)), Measurement("topics", len(topics)), *_partitions(topics)]
    found += _sizes(client)
    for group, state in sorted(_groups(client).items())[:MOST_GROUPS]:
        found += _lag(client, group, state.members)
    return found


def routed(counts: Iterable[tuple[str, Count]]) -> list[Measurement]:
    """What routes did."""
    return [
        measured
        for route, count in counts
        for measured in (
            Measurement("routed_total", count.routed, {"route": route}),
            Measurement("dead_lettered_total", count.dead, {"route": route}),
            Measurement("repeated_total", count.repeated, {"route": route}),
        )
    ]


def _partitions(topics: Mapping[str, Any]) -> Iterator[Measurement]:
    parts = [part for some in topics.values() for part in some]
    yield Measurement("partitions", len(parts))
    yield Measurement("under_replicated_partitions", sum(len(p.isr_nodes) < len(p.replica_nodes) for p in parts))
    yield Measurement("offline_partitions", sum(p.leader_id < 0 for p in parts))


def _sizes(client: Any) -> list[Measurement]:
    """Bytes on disk, of all replicas."""
    sizes: defaultdict[str, int] = defaultdict(int)
    for broker in client.describe_log_dirs():
        for folder in broker["log_dirs"]:
            for topic in folder["topics"]:
                sizes[topic.get("name") or topic["topic"]] += sum(p["partition_size"] for p in topic["partitions"])
    biggest = sorted(sizes.items(), key=lambda pair: -pair[1])[:MOST_TOPICS]
    return [
        Measurement("stored_bytes", sum(sizes.values())),
        *(Measurement("topic_bytes", size, {"topic": topic}) for topic, size in biggest),
    ]


def _groups(client: Any) -> Mapping[str, Any]:
    names = [row["group_id"] for row in client.list_groups()]
    return described(client, names[:MOST_GROUPS]) if names else {}


def _lag(client: Any, group: str, members: int) -> Iterator[Measurement]:
    held = {place: at for place, (at, _) in committed(client, group).items()}
    last = ends(client, held)
    lags: defaultdict[str, int] = defaultdict(int)
    for place, at in held.items():
        lags[place.topic] += max(0, last.get(place, at) - at)
    yield Measurement("group_members", members, {"group": group})
    for topic, lag in lags.items():
        yield Measurement("lag_messages", lag, {"group": group, "topic": topic})
