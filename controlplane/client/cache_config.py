"""What a LayeredCache is told: the namespace's declaration, the process's own bounds, and its counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """One shared layer: where it is and how long values stay fresh there."""

    target: str
    ttl_s: float


@dataclass(frozen=True, slots=True)
class NamespaceConfig:
    """The value of a `cache.namespace` setting, as far as a reader needs it."""

    prefix: str
    layers: tuple[LayerConfig, ...]
    stale_s: float = 0.0
    tags: bool = False

    @property
    def tag_life_s(self) -> float:
        """Longest time a value may lie anywhere, and so must be found by its tags."""
        return max((layer.ttl_s for layer in self.layers), default=0.0) + self.stale_s


def namespace_config(value: Mapping[str, Any]) -> NamespaceConfig:
    """From the declared value; fields of newer daemons are passed over. ValueError when it isn't a namespace."""
    try:
        layers = tuple(LayerConfig(str(layer["target"]), float(layer["ttl_s"])) for layer in value["layers"])
        return NamespaceConfig(
            str(value["prefix"]), layers, float(value.get("stale_s") or 0.0), bool(value.get("tags"))
        )
    except (KeyError, TypeError) as exc:
        msg = f"not the value of a cache.namespace: {exc!r}"
        raise ValueError(msg) from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """Bounds of one process."""

    memory_keys: int = 10_000
    memory_bytes: int = 64 * 1024 * 1024
    memory_ttl_s: float = 60.0
    """Longest time a value is served from this process without looking at a shared layer."""
    max_disconnected_s: float = 5.0
    """How long this process trusts its own memory after the event stream broke. What is read from it is at most this
    much (and the time to notice the break) behind; after that the shared layers answer."""
    layer_timeout_s: float = 0.25
    """One call to a shared layer; after three failures in a row the layer is left alone for `layer_pause_s`."""
    layer_pause_s: float = 1.0
    load_timeout_s: float = 30.0
    """One call of a loader, and the longest time to wait for another process that loads the same key."""
    lease_s: float = 10.0
    """How long another process waits for a loader that has died before it loads itself."""
    revision_timeout_s: float = 5.0
    """How long a reader waits for the revision it demands."""


@dataclass(slots=True)
class CacheStats:
    """Counters since the start. `hits` and `errors` by layer: memory, redis, memcached."""

    hits: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    misses: int = 0
    """Reads that no layer could answer, also not with a stale value."""
    loads: int = 0
    load_errors: int = 0
    stale: int = 0
    """Stale values served."""
    refused: int = 0
    """Loaded values that weren't stored because they had been invalidated meanwhile."""
    waits: int = 0
    """Loads that another process was doing already."""
    invalidations: int = 0
    """Received over the event stream."""
    flushes: int = 0
    """Times the memory was emptied because events may have been missed."""
    bypassed: int = 0
    """Reads that left the memory aside because the stream was away for too long."""
