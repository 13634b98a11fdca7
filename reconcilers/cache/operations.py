"""Operations of the cache: `invalidate` and `inspect`. The order of things; the I/O is the keyspaces'.

An invalidation begins with a stamp at the authority (generation, tombstones of tags, a new floor for a flush), then
empties the lower layers, then the authority, and ends by noting its revision as completed. The order matters: see
`schemas.cache_layout`. A flush and a prefix are a new floor on Memcached, which costs one request and drops more than a
prefix asks for; on Redis they are a scan. A layer that fails ends the operation with an error that names it; what was
done stays done, and the same request may be sent again.

Backends offer `keyspace`: a RedisKeyspace or a MemcachedKeyspace.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from reconcilers.cache.census import report
from reconcilers.cache.keyspace import RedisKeyspace, sliced
from reconcilers.cache.keyspace_memcached import MemcachedKeyspace
from reconcilers.cache.namespace import authority
from reconcilers.contract import BackendError, Operation, OperationContext, TerminalError, TransientError, Unreachable
from schemas.cache import Inspect, Invalidate, Namespace

NAMESPACE_TYPE: Final = "cache.namespace"

Keyspace = RedisKeyspace | MemcachedKeyspace


@dataclass(slots=True)
class Layer:
    """One layer while it is emptied. `dropped` None: by a new floor, which counts nothing."""

    target: str
    keyspace: Keyspace
    dropped: int | None = None
    took_s: float = 0.0

    async def work(self, call: Callable[[], Awaitable[int]]) -> None:
        """Count and time one step of it; an error names the layer."""
        started = time.perf_counter()
        try:
            dropped = await call()
        except BackendError as exc:
            raise _named(exc, self.target) from exc
        finally:
            self.took_s += time.perf_counter() - started
        self.dropped = (self.dropped or 0) + dropped

    def report(self) -> dict[str, Any]:
        """For the result."""
        how = "floor" if self.dropped is None else "keys"
        return {"target": self.target, "dropped": self.dropped, "by": how, "took_s": round(self.took_s, 4)}


@dataclass(slots=True)
class Invalidation:
    """One invalidation under way. `above`: the authority; `below`: the other layers."""

    prefix: str
    revision: int
    above: Layer
    below: list[Layer] = field(default_factory=list)

    async def run(self, request: Invalidate) -> None:
        """Drop what is asked for, everywhere."""
        if request.keys is not None:
            await self._keys(request.keys)
        elif request.tags is not None:
            await self._tags(request.tags)
        else:
            await self._prefix(request.prefix or "")
        await self.above.keyspace.complete(self.prefix, self.revision)

    async def _keys(self, keys: Sequence[str]) -> None:
        _, floor = await self.above.keyspace.stamp(self.prefix, self.revision)
        for part in sliced(keys):
            await self._drop_below(part, floor)
            await self.above.work(partial(self._drop_above, part, floor))

    async def _tags(self, tags: Sequence[str]) -> None:
        redis = self.above.keyspace
        if not isinstance(redis, RedisKeyspace):
            raise TerminalError("tags need a Redis layer: Memcached keeps no sets", reason="TagsNotSupported")
        first, floor = await redis.stamp(self.prefix, self.revision, tags=tags)
        for tag in tags:
            async for keys in redis.tagged(self.prefix, tag, 0, first):
                await self._drop_below(keys, floor)
                await self.above.work(partial(redis.drop_tagged, self.prefix, tag, keys, first, first))
        if self.below:
            await self._drop_carried(redis, tags, first)

    async def _drop_carried(self, redis: RedisKeyspace, tags: Sequence[str], first: int) -> None:
        """A reader may have carried an old value up from below before it was dropped there. It did so between the two
        stamps, or is refused by the second; its key stays a member, for a new value below may bear the tag as well.
        """
        second, _ = await redis.stamp(self.prefix, self.revision, tags=tags)
        for tag in tags:
            async for keys in redis.tagged(self.prefix, tag, first, second):
                await self.above.work(partial(redis.drop_tagged, self.prefix, tag, keys, second, first))

    async def _prefix(self, begins: str) -> None:
        await self.above.keyspace.stamp(self.prefix, self.revision, flush=True)
        redis = self.above.keyspace
        if isinstance(redis, RedisKeyspace):
            await self.above.work(partial(redis.drop_prefix, self.prefix, begins))

    async def _drop_above(self, keys: Sequence[str], floor: int) -> int:
        above = self.above.keyspace
        if isinstance(above, RedisKeyspace):
            return await above.drop_keys(self.prefix, keys)
        return await above.drop_keys(self.prefix, floor, keys)

    async def _drop_below(self, keys: Sequence[str], floor: int) -> None:
        for layer in self.below:
            keyspace = layer.keyspace
            if isinstance(keyspace, MemcachedKeyspace):
                await layer.work(partial(keyspace.drop_keys, self.prefix, floor, keys))


async def invalidate(ctx: OperationContext, request: Invalidate) -> dict[str, Any]:
    """→ `{revision, layers: [{target, dropped, by, took_s}]}`, nearest layer first."""
    namespace: Namespace = ctx.setting(NAMESPACE_TYPE, request.namespace)
    if request.tags is not None and not namespace.tags:
        msg = f"namespace {request.namespace} keeps no tags: declare it with tags: true"
        raise TerminalError(msg, reason="TagsNotDeclared")
    layers = [Layer(layer.target, await _keyspace(ctx, layer.target)) for layer in namespace.layers]
    above, *below = layers
    if any(isinstance(layer.keyspace, RedisKeyspace) for layer in below):
        msg = f"namespace {request.namespace}: a Redis layer stands first, before Memcached layers only"
        raise TerminalError(msg, reason="LayersNotSupported")
    try:
        await Invalidation(namespace.prefix, ctx.revision, above, below).run(request)
    except BackendError as exc:
        raise (exc if exc.message.startswith("layer ") else _named(exc, above.target)) from exc
    return {"revision": ctx.revision, "layers": [layer.report() for layer in layers]}


async def inspect(ctx: OperationContext, request: Inspect) -> dict[str, Any]:
    """What lies there: of a target, or of each layer of a namespace. Estimates from a sample unless `complete`."""
    if request.target is not None:
        census = await (await _keyspace(ctx, request.target)).census(request.sample)
        return {"target": request.target, **report(census, request.top)}
    namespace: Namespace = ctx.setting(NAMESPACE_TYPE, str(request.namespace))
    layers = []
    for layer in namespace.layers:
        census = await (await _keyspace(ctx, layer.target)).census(request.sample, namespace.prefix)
        layers.append({"target": layer.target, **report(census, request.top)})
    return {"namespace": request.namespace, "prefix": namespace.prefix, "layers": layers}


async def _keyspace(ctx: OperationContext, target: str) -> Keyspace:
    try:
        keyspace: Keyspace = (await ctx.backend(target)).keyspace
    except BackendError as exc:
        raise _named(exc, target) from exc
    return keyspace


def _named(exc: BackendError, target: str) -> BackendError:
    """The same error, naming the layer."""
    message = f"layer {target}: {exc.message}"
    match exc:
        case Unreachable():
            return Unreachable(message, reason=exc.reason)
        case TransientError():
            return TransientError(message, reason=exc.reason, retry_after_s=exc.retry_after_s)
        case _:
            return TerminalError(message, reason=exc.reason)


def _invalidate_target(ctx: OperationContext, request: Invalidate) -> str:
    return authority(ctx.setting(NAMESPACE_TYPE, request.namespace))


def _inspect_target(ctx: OperationContext, request: Inspect) -> str:
    if request.target is not None:
        return request.target
    return authority(ctx.setting(NAMESPACE_TYPE, str(request.namespace)))


OPERATIONS: tuple[Operation, ...] = (
    Operation("invalidate", Invalidate, _invalidate_target, invalidate, confined=True),
    Operation("inspect", Inspect, _inspect_target, inspect, effect=False, confined=True),
)
