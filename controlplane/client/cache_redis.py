"""L2: the authority of a namespace on Redis. Scripts and key names are those of `schemas.cache_layout`.

Every call is bounded by the connection's timeouts and raises `LayerError` for whatever went wrong; the cache counts it
and goes on to the next layer. Redis 7.0: EVALSHA, falling back to EVAL once after a restart (redis-py's `Script`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from controlplane.client.cache_codec import Entry, pack, unpack
from schemas import cache_layout as layout

FAULTS: Final = (RedisError, OSError, TimeoutError)


class LayerError(Exception):
    """A layer didn't answer as it should; the next one is asked."""


@dataclass(frozen=True, slots=True)
class Start:
    """What the beginning of a fill brings. `token` is None when no authority gave one."""

    token: int | None
    floor: int
    won: bool
    found: Entry | None = None


class RedisLayer:
    """One namespace on one server."""

    def __init__(self, client: Redis, prefix: str) -> None:
        self._redis = client
        self._prefix = prefix
        self._registration = layout.registration_key(prefix)
        self._begin = client.register_script(layout.BEGIN)
        self._fill = client.register_script(layout.FILL)
        self._release = client.register_script(layout.RELEASE)
        self._store = client.register_script(layout.STORE)
        self._drop = client.register_script(layout.DROP)

    async def get(self, key: str) -> Entry | None:
        """What lies there, fresh or stale."""
        try:
            raw = await self._redis.get(self._prefix + key)
        except FAULTS as exc:
            raise _fault("get", exc) from exc
        return _unpacked(raw)

    async def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        """One MGET, in the order of the keys."""
        try:
            raws = await self._redis.mget([self._prefix + key for key in keys])
        except FAULTS as exc:
            raise _fault("mget", exc) from exc
        return [_unpacked(raw) for raw in raws]

    async def begin(self, key: str, owner: str, lease_s: float) -> Start:
        """Take a token and try for the lease; what another process has stored meanwhile comes back as `found`."""
        keys = [self._prefix + key, layout.lease_key(self._prefix, key), self._registration]
        raw, won, token, floor = await self._run(self._begin, keys, [owner, int(lease_s * 1000)])
        return Start(int(token), int(floor), bool(won), _unpacked(raw))

    async def fill(self, key: str, entry: Entry, start: Start, owner: str, lives_s: tuple[float, float]) -> bool:
        """Store what was loaded since `start`; False when it was invalidated meanwhile. `lives_s`: of value, of tags."""
        tags, prefix = entry.tags, self._prefix
        keys = [prefix + key, layout.lease_key(prefix, key), self._registration, layout.tombstone_key(prefix, key)]
        keys += [layout.tag_key(prefix, tag) for tag in tags] + [layout.tag_tombstone_key(prefix, tag) for tag in tags]
        life_s, tag_life_s = lives_s
        arguments = [start.token, pack(entry), _ms(life_s), owner, _ms(tag_life_s), key]
        return bool(await self._run(self._fill, keys, arguments))

    async def release(self, key: str, owner: str) -> None:
        """Give the lease back without a value."""
        await self._run(self._release, [layout.lease_key(self._prefix, key)], [owner])

    async def store(self, key: str, entry: Entry, lives_s: tuple[float, float]) -> int:
        """Put the newest value, whatever fills are under way; returns the floor."""
        keys = [self._prefix + key, self._registration, layout.tombstone_key(self._prefix, key)]
        keys += [layout.tag_key(self._prefix, tag) for tag in entry.tags]
        return int(await self._run(self._store, keys, [pack(entry), _ms(lives_s[0]), _ms(lives_s[1]), key]))

    async def drop(self, key: str) -> bool:
        """Drop one key and refuse the fills of it that are under way; True when it was there."""
        keys = [self._registration, self._prefix + key, layout.tombstone_key(self._prefix, key)]
        return bool(await self._run(self._drop, keys, []))

    async def floor(self) -> int | None:
        """Stamp of the last flush; None before the first fill."""
        return await self._field("floor")

    async def completed(self) -> int:
        """Revision of the last invalidation that ended; 0 when there was none."""
        return await self._field("completed") or 0

    async def close(self) -> None:
        """Close the connections."""
        try:
            await self._redis.aclose()
        except FAULTS as exc:
            raise _fault("close", exc) from exc

    async def _field(self, name: str) -> int | None:
        try:
            raw = await self._redis.hget(self._registration, name)
        except FAULTS as exc:
            raise _fault("hget", exc) from exc
        return None if raw is None else int(raw)

    async def _run(self, script: Any, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        try:
            return await script(keys=keys, args=arguments)
        except FAULTS as exc:
            raise _fault("script", exc) from exc


def connect_redis(url: str, timeout_s: float, *, max_connections: int = 32) -> Redis:
    """A client whose every call ends within its timeouts; connects on first use."""
    pool = BlockingConnectionPool.from_url(
        url,
        protocol=3,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        max_connections=max_connections,
        timeout=timeout_s,
        # Once more, because a connection that lay idle over a restart of the server fails only when it is used.
        retry=Retry(NoBackoff(), 1),
    )
    return Redis.from_pool(pool)


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _fault(what: str, exc: BaseException) -> LayerError:
    return LayerError(f"redis {what}: {str(exc) or type(exc).__name__}")


def _unpacked(raw: Any) -> Entry | None:
    return unpack(raw) if isinstance(raw, bytes) else None
