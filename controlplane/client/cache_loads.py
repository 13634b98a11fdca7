"""Loads of one process: one per key at a time, in turn with the other processes, kept only when nothing intervened.

A load is a task that outlives its readers: one of them may give up, the others still get the value. A load that an
invalidation overtakes is *detached*: it is neither joined by later readers nor kept in memory.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from controlplane.client.cache_batch import NotLoaded
from controlplane.client.cache_codec import Codec, Entry, entry
from controlplane.client.cache_config import CacheOptions, CacheStats
from controlplane.client.cache_layers import MEMCACHED, Beginning, SharedLayers
from controlplane.client.cache_tasks import Tasks

Loader = Callable[[], Awaitable[Any]]
Keep = Callable[[str, Entry], None]

POLL_S: Final = (0.01, 0.1)
"""First and longest pause between looks at a key that another process is loading."""


@dataclass(slots=True, eq=False)
class _Load:
    """One key's load under way. `detached`: invalidated since it began."""

    task: asyncio.Task[Entry] | None = None
    detached: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """What a reader asks for. `ttl_s` None: as long as the layers keep it."""

    key: str
    loader: Loader
    tags: tuple[str, ...] = ()
    ttl_s: float | None = None


class Loads:
    """Everything under way. `shared` is set by the cache, None while there is no namespace; `keep` takes a value into
    the memory.
    """

    def __init__(
        self, namespace: str, options: CacheOptions, stats: CacheStats, codec: Codec, *, tasks: Tasks, keep: Keep
    ) -> None:
        self.shared: SharedLayers | None = None
        self._namespace = namespace
        self._options = options
        self._stats = stats
        self._codec = codec
        self._tasks = tasks
        self._take = keep
        self._loads: dict[str, _Load] = {}
        self._refreshes: dict[str, _Load] = {}
        self._owner = uuid.uuid4().hex
        self._numbers = itertools.count()

    @property
    def idle(self) -> bool:
        """True when nothing is under way."""
        return not self._loads and not self._refreshes

    def detach(self, keys: Sequence[str] | None) -> None:
        """What is being loaded isn't kept, and isn't joined any more. None: all of it, whatever its tags will be."""
        for loads in (self._loads, self._refreshes):
            for key in list(loads) if keys is None else keys:
                load = loads.pop(key, None)
                if load is not None:
                    load.detached = True

    # One load

    async def loaded(self, wish: Wish) -> Entry:
        """The load of the key that is under way here, or a new one."""
        load = self._loads.get(wish.key)
        if load is None:
            load = _Load()
            load.task = self._tasks.spawn(self.fetch(wish, load))
            self._loads[wish.key] = load
            load.task.add_done_callback(lambda _task: self._loads_end(wish.key, load))
        assert load.task is not None  # noqa: S101 - set above
        return await asyncio.shield(load.task)

    def _loads_end(self, key: str, load: _Load) -> None:
        if self._loads.get(key) is load:
            del self._loads[key]

    async def fetch(self, wish: Wish, load: _Load | None = None) -> Entry:
        """From the shared layers or the loader; without a `load` of its own it isn't kept in memory."""
        shared = self.shared
        if shared is None:
            return _bare(self._codec, wish, await self._call(wish))
        got = await shared.get(wish.key)
        if got is not None:
            held, layer = got
            now = time.time()
            if held.usable(now):
                self._stats.hits[layer] += 1
            if held.fresh(now):
                self._keep(wish.key, held, load)
                return held
            if held.usable(now):
                self._stats.stale += 1
                self.refresh(wish)
                return held
        return await self._fill(wish, load, shared)

    async def _fill(self, wish: Wish, load: _Load | None, shared: SharedLayers) -> Entry:
        """Wait for our turn, then carry a value up or load it."""
        begun = await self._turn(wish.key, shared)
        now, found = time.time(), begun.found
        if found is not None and (found.fresh(now) or (found.usable(now) and not begun.won)):
            return await self._found(wish.key, begun, load, shared)
        self._stats.misses += 1
        return await self._load(wish, load, begun, shared)

    async def _found(self, key: str, begun: Beginning, load: _Load | None, shared: SharedLayers) -> Entry:
        """A value that turned up when the fill began."""
        found, now = begun.found, time.time()
        assert found is not None  # noqa: S101 - the caller looked
        self._stats.hits[begun.source] += 1
        if not found.fresh(now):
            self._stats.stale += 1
        elif begun.source == MEMCACHED and not await shared.carry(key, begun, now):
            return found
        else:
            self._keep(key, found, load)
        if begun.won:
            await shared.release(key, begun)
        return found

    async def _load(self, wish: Wish, load: _Load | None, begun: Beginning, shared: SharedLayers) -> Entry:
        try:
            value = await self._call(wish)
            now = time.time()
            made = self.made(wish, value, shared, now)
        except BaseException:
            # Also when cancelled: others needn't wait for a load that has ended.
            await asyncio.shield(shared.release(wish.key, begun))
            raise
        if await shared.fill(wish.key, made, begun, now):
            self._keep(wish.key, made, load)
        return made

    async def _call(self, wish: Wish) -> Any:
        self._stats.loads += 1
        try:
            async with asyncio.timeout(self._options.load_timeout_s):
                return await wish.loader()
        except NotLoaded:
            raise
        except Exception:
            self._stats.load_errors += 1
            raise

    async def _turn(self, key: str, shared: SharedLayers) -> Beginning:
        """Begin a fill; while another process has the lease, look again until there is a value or the lease is ours."""
        owner = f"{self._owner}:{next(self._numbers)}"
        deadline = asyncio.get_running_loop().time() + self._options.load_timeout_s
        pause_s, longest_s = POLL_S
        waited = False
        while True:
            begun = await shared.begin(key, owner)
            usable = begun.found is not None and begun.found.usable(time.time())
            if begun.won or usable or asyncio.get_running_loop().time() >= deadline:
                return begun
            self._stats.waits += not waited
            waited = True
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - spreading looks
            pause_s = min(longest_s, pause_s * 2)

    def refresh(self, wish: Wish) -> None:
        """Load anew in the background, unless this or another process is doing so."""
        if wish.key not in self._refreshes:
            load = _Load()
            self._refreshes[wish.key] = load
            load.task = self._tasks.spawn(self._refreshed(wish, load))

    async def _refreshed(self, wish: Wish, load: _Load) -> Entry:
        try:
            return await self._renew(wish, load)
        finally:
            if self._refreshes.get(wish.key) is load:
                del self._refreshes[wish.key]

    async def _renew(self, wish: Wish, load: _Load) -> Entry:
        shared = self.shared
        if shared is None:
            raise NotLoaded(wish.key)
        got = await shared.get(wish.key)
        if got is not None and got[0].fresh(time.time()):
            self._keep(wish.key, got[0], load)
            return got[0]
        begun = await shared.begin(wish.key, f"{self._owner}:{next(self._numbers)}")
        if begun.found is not None and begun.found.fresh(time.time()):
            return await self._found(wish.key, begun, load, shared)
        if not begun.won:
            raise NotLoaded(wish.key)
        return await self._load(wish, load, begun, shared)

    def made(self, wish: Wish, value: Any, shared: SharedLayers, now: float) -> Entry:
        """The entry of a new value. Raises what the codec raises, ValueError for tags that nobody keeps."""
        longest_s = shared.longest_ttl_s
        if wish.tags and not shared.config.tags:
            msg = f"namespace {self._namespace} has no tags: declare it with tags: true"
            raise ValueError(msg)
        ttl_s = longest_s if wish.ttl_s is None else min(wish.ttl_s, longest_s)
        return entry(self._codec.encode(value), now, ttl_s=ttl_s, stale_s=shared.config.stale_s, tags=wish.tags)

    def _keep(self, key: str, held: Entry, load: _Load | None) -> None:
        if load is not None and not load.detached:
            self._take(key, held)


def _bare(codec: Codec, wish: Wish, value: Any) -> Entry:
    """Without a namespace nothing is kept."""
    return entry(codec.encode(value), time.time(), ttl_s=0.0, stale_s=0.0, tags=wish.tags)
