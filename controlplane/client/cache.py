"""LayeredCache: one namespace over this process's memory, Redis and Memcached, for asyncio applications.

    async with CoreplaneClient(url) as coreplane, LayeredCache(coreplane, "products") as cache:
        product = await cache.get("42", load_product_42, tags=("catalogue",))
        await cache.invalidate(tags=["catalogue"])

Theory of operation. A read asks memory, then Redis, then Memcached, then the loader; what was found is put into the
layers above it. Of many that miss one key, in this process and in all others, one loads (a task per key here, a lease
in the authority) and the others wait for it; when it dies, the next one loads. A stale value is served at once while
one process loads a new one. A layer that fails is passed over: a read fails only when its loader does.

Nothing that was read before an invalidation is kept after it. The shared layers refuse such a fill by its token
(`schemas.cache_layout`). Here, a load that was under way when the invalidation arrived is detached: who asked for it
still gets the value, the memory doesn't, and who asks afterwards loads anew.

Invalidations go through the daemon: they empty the shared layers and arrive here over the event stream, once and in
order, after a broken connection as well (`cache_feed`). `set` and `delete` act on the shared layers and on this process;
other processes serve what they have in memory for up to `memory_ttl_s`. Reads are at most `max_disconnected_s` behind
an invalidation, or as far as a reader asks with `min_revision`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from controlplane.client.cache_batch import Batch, ManyLoader, NotLoaded
from controlplane.client.cache_codec import Codec, Entry, MsgpackCodec
from controlplane.client.cache_config import CacheOptions, CacheStats
from controlplane.client.cache_feed import CacheTransport, Feed, Invalidation, Listener, invalidation
from controlplane.client.cache_follow import Follower
from controlplane.client.cache_layers import SharedLayers
from controlplane.client.cache_loads import Loader, Loads, Wish
from controlplane.client.cache_memory import MemoryLayer
from controlplane.client.cache_tasks import Tasks
from controlplane.client.errors import ApiError, ClientError
from schemas.cache_layout import MARK


class RevisionNotReached(TimeoutError):
    """The revision that a reader demanded wasn't seen in time."""


class LayeredCache:
    """See the module. `targets`: name of a target → URL(s with commas) as this application reaches it, with its own
    credentials; targets not named are reached as declared. `default`: the namespace's value to begin with when the
    daemon doesn't answer at the start. One per namespace and process; use it as a context manager or start and close.
    """

    def __init__(
        self,
        transport: CacheTransport,
        namespace: str,
        *,
        targets: Mapping[str, str] | None = None,
        options: CacheOptions | None = None,
        codec: Codec | None = None,
        default: Mapping[str, Any] | None = None,
    ) -> None:
        self.namespace = namespace
        self.options = options or CacheOptions()
        self.stats = CacheStats()
        self.memory = MemoryLayer(self.options.memory_keys, self.options.memory_bytes)
        self._transport = transport
        self._codec = codec or MsgpackCodec()
        self._default = default
        self._tasks = Tasks(namespace, self.stats.errors)
        self._loads = Loads(namespace, self.options, self.stats, self._codec, tasks=self._tasks, keep=self._keep)
        self.follower = Follower(
            transport,
            namespace,
            targets or {},
            options=self.options,
            stats=self.stats,
            replaced=self._replaced,
            lost=self._lost,
        )
        listener = Listener(self._invalidated, self.follower.changed, self._lost, self.follower.connected)
        self.feed = Feed(transport, namespace, listener, self.options.max_disconnected_s)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Fetch the namespace and begin to follow the events. ClientError when there is no such namespace."""
        try:
            await self.follower.configure()
        except ClientError as exc:
            if self._default is None or isinstance(exc, ApiError):
                raise
            await self.follower.open(self._default)
            self.follower.changed()
        self._tasks.forever("feed", self.feed.run)
        self._tasks.forever("follow", lambda: self.follower.run(self.feed, self.memory))

    async def close(self) -> None:
        """Stop following, give up the loads under way, close the connections."""
        await self._tasks.close()
        await self.follower.close()

    # Reading

    async def get(
        self,
        key: str,
        loader: Loader,
        *,
        tags: Sequence[str] = (),
        ttl_s: float | None = None,
        min_revision: int | None = None,
    ) -> Any:
        """The value of the key, loaded when no layer has it. `ttl_s` shortens the layers' lifetimes.

        Raises what the loader raises, TimeoutError when it takes longer than `load_timeout_s`, RevisionNotReached.
        """
        wish = Wish(_checked(key), loader, tuple(tags), ttl_s)
        unshared = min_revision is not None and not await self._caught_up(min_revision)
        if unshared:
            return self._codec.decode((await self._loads.fetch(wish)).payload)
        now = time.time()
        held = self._in_memory(key, now)
        if held is None:
            return self._codec.decode((await self._loads.loaded(wish)).payload)
        self.stats.hits["memory"] += 1
        if not held.fresh(now):
            self.stats.stale += 1
            self._loads.refresh(wish)
        return self._codec.decode(held.payload)

    async def get_many(
        self, keys: Sequence[str], loader: ManyLoader, *, tags: Sequence[str] = (), ttl_s: float | None = None
    ) -> dict[str, Any]:
        """Values by key. Keys that are found missing at about the same time go into one call of the loader; those it
        doesn't answer are left out, and not remembered as absent.
        """
        wanted, now = list(dict.fromkeys(map(_checked, keys))), time.time()
        entries = {key: held for key in wanted if (held := self._in_memory(key, now)) is not None and held.fresh(now)}
        self.stats.hits["memory"] += len(entries)
        shared = self.follower.shared
        if shared is not None:
            found = await shared.get_many([key for key in wanted if key not in entries])
            fresh = {key: held for key, held in found.items() if held.fresh(now)}
            self.stats.hits["redis"] += len(fresh)
            entries |= fresh
        batch = Batch(loader)
        missing = [key for key in wanted if key not in entries]
        loads = [self._loads.loaded(Wish(key, batch.one(key), tuple(tags), ttl_s)) for key in missing]
        for key, loaded in zip(missing, await asyncio.gather(*loads, return_exceptions=True), strict=True):
            if isinstance(loaded, Entry):
                entries[key] = loaded
            elif not isinstance(loaded, NotLoaded):
                raise loaded
        return {key: self._codec.decode(entries[key].payload) for key in wanted if key in entries}

    # Writing

    async def set(self, key: str, value: Any, *, tags: Sequence[str] = (), ttl_s: float | None = None) -> None:
        """Put a value that is known to be the newest. LayerError when the authority didn't take it."""
        now = time.time()
        shared = self.follower.shared
        self._forget((_checked(key),))
        if shared is None:
            return
        await shared.store(key, self._loads.made(Wish(key, _nothing, tuple(tags), ttl_s), value, shared, now), now)
        self._forget((key,))

    async def delete(self, key: str) -> None:
        """Drop a key; loads of it that are under way aren't kept. LayerError when a layer didn't answer."""
        self._forget((_checked(key),))
        if self.follower.shared is not None:
            await self.follower.shared.drop(key)
        self._forget((key,))

    async def invalidate(
        self,
        *,
        keys: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        prefix: str | None = None,
        everything: bool = False,
    ) -> int:
        """Have the daemon drop keys, tags, a prefix or everything, in all layers and processes; give exactly one.

        Returns the revision that readers may demand. Done for this process on return. Safe to repeat.
        """
        what = {"keys": keys and list(keys), "tags": tags and list(tags), "prefix": prefix, "all": everything or None}
        given = {name: value for name, value in what.items() if value is not None}
        if len(given) != 1:
            msg = f"give exactly one of keys, tags, prefix or everything, not {sorted(given)}"
            raise ValueError(msg)
        answer = await self._transport.operate("cache.invalidate", {"namespace": self.namespace, **given})
        revision = int(answer["result"]["revision"])
        self._apply(invalidation(revision, given))
        return revision

    # Memory

    def _in_memory(self, key: str, now: float) -> Entry | None:
        if not self.feed.trusted():
            self.stats.bypassed += 1
            return None
        return self.memory.get(key, now)

    def _keep(self, key: str, held: Entry) -> None:
        if self.feed.trusted():
            until = time.time() + self.options.memory_ttl_s
            kept = replace(held, fresh_until=min(held.fresh_until, until), dead_at=min(held.dead_at, until))
            self.memory.put(key, kept)

    def _forget(self, keys: Sequence[str]) -> None:
        self.memory.drop(keys)
        self._loads.detach(keys)

    # Following

    def _invalidated(self, what: Invalidation) -> None:
        self.stats.invalidations += 1
        self._apply(what)

    def _apply(self, what: Invalidation) -> None:
        if what.keys:
            self._forget(what.keys)
            return
        self._loads.detach(None)
        if what.tags:
            self.memory.drop_tags(what.tags)
            return
        if self.follower.shared is not None:
            self.follower.shared.flushed()
        if what.prefix is not None:
            self.memory.drop_prefix(what.prefix)
        else:
            self.memory.clear()

    def _lost(self) -> None:
        self.stats.flushes += 1
        self._apply(Invalidation(0, everything=True))

    async def _caught_up(self, revision: int) -> bool:
        """True when the memory has come as far; False when only the shared layers have. RevisionNotReached otherwise."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.options.revision_timeout_s
        while not self.feed.reached(revision):
            completed = await self.follower.shared.completed() if self.follower.shared is not None else None
            if completed is not None and completed >= revision:
                return False
            if loop.time() >= deadline:
                msg = f"revision {revision} of {self.namespace} wasn't reached in {self.options.revision_timeout_s} s"
                raise RevisionNotReached(msg)
            await self.feed.moved(0.05)
        return True

    def _replaced(self, shared: SharedLayers | None) -> None:
        self._loads.shared = shared
        self._apply(Invalidation(0, everything=True))


def _checked(key: str) -> str:
    if not key or key.startswith(MARK):
        msg = f"{key!r} can't be a key: it is empty or begins with {MARK!r}"
        raise ValueError(msg)
    return key


async def _nothing() -> None:
    """Loader of a value that was given."""
