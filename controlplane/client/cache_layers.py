"""The shared layers of a namespace as one: Redis before Memcached, whichever of them answers.

A layer that fails is counted and passed over; after three failures in a row it is left alone for a moment, so that a
dead server doesn't cost every read its timeout. Without the authority (Redis, or Memcached when there is no Redis) no
token is to be had: what is loaded then isn't written to Redis, and to Memcached only when it has no tags, for nobody
could find it by them.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from controlplane.client.cache_codec import Entry
from controlplane.client.cache_config import CacheOptions, CacheStats, LayerConfig, NamespaceConfig
from controlplane.client.cache_memcached import MemcachedLayer, Slot
from controlplane.client.cache_redis import LayerError, RedisLayer, Start, connect_redis
from controlplane.client.memcached import MemcachedClient, address

REDIS: Final = "redis"
MEMCACHED: Final = "memcached"
FAILURES: Final = 3

T = TypeVar("T")


class UnsupportedLayers(ValueError):
    """The layers of the namespace can't be used by this client."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a target's servers are: `redis` or `memcached`, and URLs (with credentials where they are needed)."""

    kind: str
    urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Beginning:
    """A fill that has begun: what was found after all, whether it is ours to load, and what its end needs."""

    owner: str
    found: Entry | None = None
    source: str = REDIS
    won: bool = True
    start: Start | None = None
    slot: Slot | None = None
    floor: int | None = None


class SharedLayers:
    """One namespace's layers outside this process."""

    def __init__(
        self,
        config: NamespaceConfig,
        options: CacheOptions,
        stats: CacheStats,
        *,
        redis: tuple[RedisLayer, LayerConfig] | None,
        memcached: tuple[MemcachedLayer, LayerConfig] | None,
    ) -> None:
        self.config = config
        self._options = options
        self._stats = stats
        self._redis = redis[0] if redis else None
        self._redis_ttl_s = redis[1].ttl_s if redis else 0.0
        self._memcached = memcached[0] if memcached else None
        self._memcached_ttl_s = memcached[1].ttl_s if memcached else 0.0
        self._last_floor: int | None = None
        self._failures: dict[str, int] = {}
        self._paused_until: dict[str, float] = {}

    @property
    def longest_ttl_s(self) -> float:
        """Freshness in the layer that keeps values longest."""
        return max(self._redis_ttl_s, self._memcached_ttl_s)

    async def get(self, key: str) -> tuple[Entry, str] | None:
        """What the authority holds, fresh or stale, and who held it."""
        redis, memcached = self._redis, self._memcached
        if redis is not None:
            entry = await self._ask(REDIS, lambda: redis.get(key))
            return (entry, REDIS) if entry is not None else None
        if memcached is not None:
            entry = await self._ask(MEMCACHED, lambda: _get(memcached, key))
            return (entry, MEMCACHED) if entry is not None else None
        return None

    async def get_many(self, keys: Sequence[str]) -> dict[str, Entry]:
        """What Redis holds of the keys, in one request; nothing when there is no Redis."""
        redis = self._redis
        if redis is None or not keys:
            return {}
        entries = await self._ask(REDIS, lambda: redis.get_many(keys))
        return {key: entry for key, entry in zip(keys, entries or (), strict=False) if entry is not None}

    async def begin(self, key: str, owner: str) -> Beginning:
        """Begin a fill; looks into Memcached on the way."""
        redis, lease_s = self._redis, self._options.lease_s
        start = None if redis is None else await self._ask(REDIS, lambda: redis.begin(key, owner, lease_s))
        if start is not None:
            self._last_floor = start.floor
            if start.found is not None and start.found.fresh(time.time()):
                return Beginning(owner, start.found, REDIS, start.won, start)
        floor = start.floor if start is not None else await self._floor()
        slot = await self._reserve(floor, key)
        won = start.won if start is not None else slot is None or slot.won
        found = slot.entry if slot is not None else None
        return Beginning(owner, found, MEMCACHED, won, start, slot, floor)

    async def fill(self, key: str, entry: Entry, begun: Beginning, now: float) -> bool:
        """End a fill with a value; False when it was invalidated meanwhile and must not be kept anywhere."""
        redis, start = self._redis, begun.start
        if redis is not None and start is not None:
            mine = shortened(entry, now + self._redis_ttl_s, self.config.stale_s)
            lives_s = (mine.dead_at - now, self.config.tag_life_s)
            accepted = await self._ask(REDIS, lambda: redis.fill(key, mine, start, begun.owner, lives_s))
            if not accepted:
                await self._give_back(key, begun)
                self._stats.refused += accepted is False
                # None: the authority went away meanwhile. Then nobody invalidates through it either.
                return accepted is None
        elif redis is not None and entry.tags:
            await self._give_back(key, begun)
            return True
        return await self._fill_memcached(key, entry, begun, now)

    async def carry(self, key: str, begun: Beginning, now: float) -> bool:
        """Put what was found in Memcached into Redis as well; False when it was invalidated meanwhile."""
        redis, start, found = self._redis, begun.start, begun.found
        if redis is None or start is None or found is None:
            return True
        mine = shortened(found, now + self._redis_ttl_s, self.config.stale_s)
        lives_s = (max(0.001, mine.dead_at - now), self.config.tag_life_s)
        accepted = await self._ask(REDIS, lambda: redis.fill(key, mine, start, begun.owner, lives_s))
        self._stats.refused += accepted is False
        return accepted is not False

    async def release(self, key: str, begun: Beginning) -> None:
        """End a fill without a value, so that others needn't wait for it."""
        redis = self._redis
        if redis is not None and begun.start is not None and begun.won:
            await self._ask(REDIS, lambda: redis.release(key, begun.owner))
        await self._give_back(key, begun)

    async def store(self, key: str, entry: Entry, now: float) -> None:
        """Put the newest value into every layer that answers; raises LayerError when the authority doesn't."""
        redis, memcached = self._redis, self._memcached
        # Memcached's old value goes first, so that nobody carries it upwards; its new one comes last, over a
        # placeholder, so that an invalidation in between refuses it.
        slot, floor = None, await self._floor(now=True)
        if memcached is not None and redis is not None and floor is not None:
            known = floor
            await self._ask(MEMCACHED, lambda: memcached.drop(known, key))
            slot = await self._reserve(floor, key)
        if redis is not None:
            mine = shortened(entry, now + self._redis_ttl_s, self.config.stale_s)
            stored_floor = await redis.store(key, mine, (mine.dead_at - now, self.config.tag_life_s))
            begun = Beginning("", slot=slot, floor=floor)
            if stored_floor == floor:
                await self._fill_memcached(key, entry, begun, now)
        elif memcached is not None:
            kept = shortened(entry, now + self._memcached_ttl_s, self.config.stale_s)
            await memcached.store(await memcached.floor(), key, kept, kept.dead_at - now)

    async def drop(self, key: str) -> None:
        """Drop a key everywhere, the lowest layer first; raises LayerError when a layer that holds it doesn't answer."""
        floor = await self._floor(now=True)
        if self._memcached is not None and floor is not None:
            await self._memcached.drop(floor, key)
        if self._redis is not None:
            await self._redis.drop(key)

    async def completed(self) -> int | None:
        """Revision of the last invalidation that the authority knows to have ended; None when it doesn't answer."""
        redis, memcached = self._redis, self._memcached
        if redis is not None:
            return await self._ask(REDIS, redis.completed)
        return await self._ask(MEMCACHED, memcached.completed) if memcached is not None else 0

    def flushed(self) -> None:
        """The whole was invalidated: the floor that is known here is out of date."""
        self._last_floor = None
        if self._memcached is not None:
            self._memcached.forget_floor()

    async def close(self) -> None:
        """Close every connection."""
        if self._redis is not None:
            await self._ask(REDIS, self._redis.close)
        if self._memcached is not None:
            await self._memcached.close()

    async def _floor(self, *, now: bool = False) -> int | None:
        """The floor for Memcached's keys: the last one that the authority told, or what it tells `now`."""
        redis, memcached = self._redis, self._memcached
        if memcached is None:
            return None
        if redis is None:
            return await self._ask(MEMCACHED, memcached.floor)
        if now:
            self._last_floor = await redis.floor()
        elif self._last_floor is None:
            self._last_floor = await self._ask(REDIS, redis.floor)
        return self._last_floor

    async def _reserve(self, floor: int | None, key: str) -> Slot | None:
        memcached, lease_s, stale_s = self._memcached, self._options.lease_s, self.config.stale_s
        if memcached is None or floor is None:
            return None
        return await self._ask(MEMCACHED, lambda: memcached.reserve(floor, key, lease_s, stale_s))

    async def _fill_memcached(self, key: str, entry: Entry, begun: Beginning, now: float) -> bool:
        memcached, slot, floor = self._memcached, begun.slot, begun.floor
        if memcached is None or slot is None or slot.cas is None or floor is None:
            return True
        cas = slot.cas
        kept = shortened(entry, now + self._memcached_ttl_s, self.config.stale_s)
        stored = await self._ask(MEMCACHED, lambda: memcached.fill(floor, key, kept, cas, kept.dead_at - now))
        self._stats.refused += stored is False
        return stored is not False

    async def _give_back(self, key: str, begun: Beginning) -> None:
        memcached, slot, floor = self._memcached, begun.slot, begun.floor
        if memcached is None or slot is None or slot.cas is None or floor is None or slot.entry is not None:
            return
        cas = slot.cas
        if begun.won:
            await self._ask(MEMCACHED, lambda: memcached.release(floor, key, cas))

    async def _ask(self, layer: str, call: Callable[[], Awaitable[T]]) -> T | None:
        """The layer's answer; None when it has none to give."""
        if time.monotonic() < self._paused_until.get(layer, 0.0):
            return None
        try:
            answer = await call()
        except LayerError:
            self._stats.errors[layer] += 1
            self._failures[layer] = self._failures.get(layer, 0) + 1
            if self._failures[layer] >= FAILURES:
                self._paused_until[layer] = time.monotonic() + self._options.layer_pause_s
            return None
        self._failures[layer] = 0
        return answer


def shortened(entry: Entry, fresh_until: float, stale_s: float) -> Entry:
    """The entry as a layer may keep it: fresh no longer than the layer's own lifetime."""
    fresh = min(entry.fresh_until, fresh_until)
    return replace(entry, fresh_until=fresh, dead_at=min(entry.dead_at, fresh + stale_s))


async def _get(memcached: MemcachedLayer, key: str) -> Entry | None:
    return await memcached.get(await memcached.floor(), key)


def place_of(value: Mapping[str, Any]) -> Place:
    """From the value of a `cache.target` setting; its secrets are the daemon's, so credentials aren't in it."""
    urls = tuple(value.get("nodes") or ()) or (value["url"],)
    return Place(str(value.get("kind", REDIS)), tuple(map(str, urls)))


def place_at(url: str) -> Place:
    """From URLs given by the application, separated by commas."""
    urls = tuple(part.strip() for part in url.split(","))
    return Place(REDIS if urls[0].startswith(("redis://", "rediss://", "unix://")) else MEMCACHED, urls)


def open_layers(
    config: NamespaceConfig, places: Mapping[str, Place], options: CacheOptions, stats: CacheStats
) -> SharedLayers:
    """Connects on first use. At most one Redis layer, then at most one of Memcached."""
    kinds = [places[layer.target].kind for layer in config.layers]
    if kinds not in ([], [REDIS], [MEMCACHED], [REDIS, MEMCACHED]):
        msg = f"layers {kinds}: expected a Redis target, then a Memcached target, or one of them"
        raise UnsupportedLayers(msg)
    redis = memcached = None
    for layer in config.layers:
        place = places[layer.target]
        if place.kind == REDIS:
            # The first node holds the data; the others are its replicas.
            redis = (RedisLayer(connect_redis(place.urls[0], options.layer_timeout_s), config.prefix), layer)
        else:
            nodes = [MemcachedClient(*address(url), options.layer_timeout_s) for url in place.urls]
            memcached = (MemcachedLayer(nodes, config.prefix), layer)
    return SharedLayers(config, options, stats, redis=redis, memcached=memcached)
