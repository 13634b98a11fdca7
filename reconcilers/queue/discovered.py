"""What exists in a Kafka cluster, as declarations. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconcilers.contract import Discovered
from reconcilers.discovery import setting_name
from reconcilers.queue.model import ObservedTopic


def topic(name: str, observed: ObservedTopic) -> Discovered:
    """A topic with what is set on it; what it has by default stays the cluster's affair."""
    replicas = sorted({len(on) for on in observed.replicas})
    value: dict[str, Any] = {
        **_called("topic", name),
        "partitions": len(observed.replicas),
        "config": {key: held.value for key, held in sorted(observed.config.items()) if held.is_set},
    }
    if len(replicas) == 1:
        return Discovered(setting_name(name), {**value, "replication_factor": replicas[0]})
    why = f"its partitions have {' or '.join(map(str, replicas))} replicas"
    return Discovered(setting_name(name), value, undeclarable=why)


def _called(field: str, name: str) -> Mapping[str, str]:
    return {} if setting_name(name) == name else {field: name}
