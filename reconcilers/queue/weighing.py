"""How much steps on topics would touch, for plans. Runs in the administration thread; reads only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from reconcilers.contract import NOTHING_TOLD, Affected, Step
from reconcilers.queue.admin import partition
from reconcilers.queue.kafka_groups import ends
from reconcilers.queue.kafka_topics import partitions_of
from reconcilers.queue.steps import DeleteTopic, RaisePartitions, ReassignReplicas

TOUCHING: Final = (DeleteTopic, RaisePartitions, ReassignReplicas)
MOST: Final = 200
"""Topics that are asked about."""


def weigh(client: Any, steps: Sequence[Step]) -> list[Affected]:
    """Partitions and messages of the topics. Messages are counted by their offsets: of a compacted topic there are fewer."""
    names = [step.external.name for step in steps if isinstance(step, TOUCHING)][:MOST]
    counted = _counted(client, names) if names else {}
    return [
        counted.get(step.external.name, NOTHING_TOLD) if isinstance(step, TOUCHING) else NOTHING_TOLD for step in steps
    ]


def _counted(client: Any, names: Sequence[str]) -> dict[str, Affected]:
    counts = partitions_of(client, names)
    places = {name: [partition(name, number) for number in range(count)] for name, count in counts.items()}
    every = [place for mine in places.values() for place in mine]
    first, last = ends(client, every, -2), ends(client, every)
    return {
        name: Affected(
            {"messages": sum(last[place] - first[place] for place in mine), "partitions": len(mine)},
        )
        for name, mine in places.items()
    }
