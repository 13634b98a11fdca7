"""What a sample of the objects in a cache says about all of them. Pure.

A sample is drawn from the server's own random or hash order, so shares carry over: with N keys in all and n sampled, each
sampled key stands for N/n. Everything derived from that is an estimate and called so; with `complete` it is exact.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reconcilers.contract import Measurement

TTL_BOUNDS_S: Final = (60, 600, 3_600, 21_600, 86_400, 604_800)
IDLE_BOUNDS_S: Final = (10, 60, 300, 900, 3_600, 14_400, 86_400)
SEPARATORS: Final = ":/|."
EXAMPLES: Final = 10


@dataclass(frozen=True, slots=True)
class Sampled:
    """One object. `ttl_s` None: lives for ever. `idle_s` and `frequency` None: the server doesn't keep it."""

    key: str
    size_bytes: int
    ttl_s: float | None = None
    idle_s: float | None = None
    frequency: int | None = None
    """Logarithmic access counter of Redis under an LFU policy; on Memcached 1 when it was fetched, else 0."""


@dataclass(frozen=True, slots=True)
class Census:
    """A sample and the number of keys that it stands for."""

    objects: tuple[Sampled, ...]
    keys: int
    complete: bool

    @property
    def weight(self) -> float:
        """How many keys each sampled one stands for."""
        return self.keys / len(self.objects) if self.objects else 0.0

    @property
    def size_bytes(self) -> int:
        """Bytes of all keys, estimated."""
        return round(self.weight * sum(one.size_bytes for one in self.objects))


def report(census: Census, top: int) -> dict[str, Any]:
    """The answer of `cache.inspect`: estimates for all keys, examples from the sample."""
    objects = census.objects
    eternal = [one for one in objects if one.ttl_s is None]
    return {
        "keys": census.keys,
        "size_bytes": census.size_bytes,
        "sampled": len(objects),
        "complete": census.complete,
        "ttl_keys": {bucket: round(count * census.weight) for bucket, count in _ttl_buckets(objects).items()},
        "without_ttl": {
            "keys": round(len(eternal) * census.weight),
            "size_bytes": round(sum(one.size_bytes for one in eternal) * census.weight),
            "examples": sorted(one.key for one in eternal)[:EXAMPLES],
        },
        "biggest": [
            {"key": one.key, "size_bytes": one.size_bytes}
            for one in sorted(objects, key=lambda one: (-one.size_bytes, one.key))[:top]
        ],
        "hottest": hottest(objects, top),
        "prefixes": prefixes(census, top),
    }


def hottest(objects: Iterable[Sampled], top: int) -> list[dict[str, Any]]:
    """Most used first: by frequency where the server counts it, else by the shortest idle time."""
    known = [one for one in objects if one.frequency is not None or one.idle_s is not None]
    known.sort(key=lambda one: (-(one.frequency or 0), one.idle_s if one.idle_s is not None else 0.0, one.key))
    shown = [{"key": one.key, "frequency": one.frequency, "idle_s": one.idle_s} for one in known[:top]]
    return [{name: value for name, value in row.items() if value is not None} for row in shown]


def prefixes(census: Census, top: int) -> list[dict[str, Any]]:
    """Where the bytes are, by the first part of the key."""
    sizes, counts = Counter[str](), Counter[str]()
    for one in census.objects:
        prefix = prefix_of(one.key)
        counts[prefix] += 1
        sizes[prefix] += one.size_bytes
    rows = sorted(sizes, key=lambda prefix: (-sizes[prefix], prefix))[:top]
    return [
        {
            "prefix": prefix,
            "keys": round(counts[prefix] * census.weight),
            "size_bytes": round(sizes[prefix] * census.weight),
        }
        for prefix in rows
    ]


def prefix_of(key: str) -> str:
    """The key up to and with its first separator; the whole key when it has none."""
    ends = [at for separator in SEPARATORS if (at := key.find(separator)) > 0]
    return key[: min(ends) + 1] if ends else key


def _ttl_buckets(objects: Iterable[Sampled]) -> dict[str, int]:
    buckets = {f"below_{bound}_s": 0 for bound in TTL_BOUNDS_S} | {"longer": 0, "none": 0}
    for one in objects:
        buckets[_bucket(one.ttl_s)] += 1
    return buckets


def _bucket(ttl_s: float | None) -> str:
    if ttl_s is None:
        return "none"
    return next((f"below_{bound}_s" for bound in TTL_BOUNDS_S if ttl_s < bound), "longer")


def measurements(census: Census, namespaces: Sequence[tuple[str, str]]) -> list[Measurement]:
    """For monitoring. `namespaces`: (name, prefix) of those registered on the server.

    `namespace_keys`, `namespace_size_bytes`, `namespace_without_ttl_keys` {namespace}; `without_ttl_keys`,
    `objects_size_bytes`: of all keys; `prefix_size_bytes` {prefix}; `idle_size_bytes` {within}: bytes of the objects used
    within so many seconds.
    """
    found = [
        Measurement("without_ttl_keys", census.weight * sum(one.ttl_s is None for one in census.objects)),
        Measurement("objects_size_bytes", census.size_bytes),
    ]
    found += [
        Measurement("prefix_size_bytes", row["size_bytes"], {"prefix": row["prefix"]}) for row in prefixes(census, 5)
    ]
    found += _of_namespaces(census, namespaces)
    if any(one.idle_s is not None for one in census.objects):
        for bound in IDLE_BOUNDS_S:
            used = sum(one.size_bytes for one in census.objects if one.idle_s is not None and one.idle_s <= bound)
            found.append(Measurement("idle_size_bytes", census.weight * used, {"within": str(bound)}))
    return found


def _of_namespaces(census: Census, namespaces: Sequence[tuple[str, str]]) -> Iterable[Measurement]:
    members: dict[str, list[Sampled]] = defaultdict(list)
    for one in census.objects:
        for name, prefix in namespaces:
            if one.key.startswith(prefix):
                members[name].append(one)
    for name, _prefix in namespaces:
        objects, tags = members[name], {"namespace": name}
        eternal = sum(one.ttl_s is None for one in objects)
        yield Measurement("namespace_keys", census.weight * len(objects), tags)
        yield Measurement("namespace_size_bytes", census.weight * sum(one.size_bytes for one in objects), tags)
        yield Measurement("namespace_without_ttl_keys", census.weight * eternal, tags)
