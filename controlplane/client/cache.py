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
import itertools
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import structlog

from controlplane.client.cache_batch import Batch, ManyLoader, NotLoaded
from controlplane.client.cache_codec import Codec, Entry, MsgpackCodec, entry
from controlplane.client.cache_config import CacheOptions, CacheStats, NamespaceConfig, namespace_config
from controlplane.client.cache_feed import CacheTransport, Feed, Invalidation, Listener, invalidation
from controlplane.client.cache_layers import (
    MEMCACHED,
    Beginning,
    Place,
    SharedLayers,
    open_layers,
    place_at,
    place_of,
)
from controlplane.client.cache_memory import MemoryLayer
from controlplane.client.errors import ApiError, ClientError
from schemas.cache_layout import MARK

_log = structlog.get_logger()

Loader = Callable[[], Awaitable[Any]]

NAMESPACE_TYPE: Final = "cache.namespace"
TARGET_TYPE: Final = "cache.target"
POLL_S: Final = (0.01, 0.1)
"""First and longest pause between looks at a key that another process is loading."""
CATCH_UP_S: Final = 5.0
"""How long a replay may take before the memory is emptied instead."""


class RevisionNotReached(TimeoutError):
    """The revision that a reader demanded wasn't seen in time."""


Opened = tuple[NamespaceConfig, dict[str, Place]]
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Load:
    """One key's load under way in this process. `detached`: invalidated since it began."""

    task: asyncio.Task[Entry] | None = None
    detached: bool = False


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a reader asks for."""

    key: str
    loader: Loader
    tags: tuple[str, ...]
    ttl_s: float | None


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
        self._transport = transport
        self._targets = dict(targets or {})
        self._codec = codec or MsgpackCodec()
        self._default = default
        self._memory = MemoryLayer(self.options.memory_keys, self.options.memory_bytes)
        self._shared: SharedLayers | None = None
        self._opened: Opened | None = None
        self._loads: dict[str, _Load] = {}
        self._refreshes: dict[str, _Load] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._wake = asyncio.Event()
        self._stale_setting = self._stale_place = False
        self._numbers = itertools.count()
        listener = Listener(self._invalidated, self._setting_changed, self._lost, self._connected)
        self.feed = Feed(transport, namespace, listener, self.options.max_disconnected_s)
        self._owner = uuid.uuid4().hex

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
            await self._configure()
        except ClientError as exc:
            if self._default is None or isinstance(exc, ApiError):
                raise
            await self._open(namespace_config(self._default))
            self._setting_changed()
        self._spawn(self._forever("feed", self.feed.run))
        self._spawn(self._forever("follow", self._follow))

    async def close(self) -> None:
        """Stop following, give up the loads under way, close the connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        shared, self._shared = self._shared, None
        if shared is not None:
            await shared.close()

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
        wish = _Wish(_checked(key), loader, tuple(tags), ttl_s)
        unshared = min_revision is not None and not await self._caught_up(min_revision)
        if unshared:
            return self._codec.decode((await self._fetch(wish, None)).payload)
        now = time.time()
        held = self._in_memory(key, now)
        if held is None:
            return self._codec.decode((await self._loaded(wish)).payload)
        self.stats.hits["memory"] += 1
        if not held.fresh(now):
            self.stats.stale += 1
            self._refresh(wish)
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
        shared = self._shared
        if shared is not None:
            found = await shared.get_many([key for key in wanted if key not in entries])
            fresh = {key: held for key, held in found.items() if held.fresh(now)}
            self.stats.hits["redis"] += len(fresh)
            entries |= fresh
        batch = Batch(loader)
        missing = [key for key in wanted if key not in entries]
        loads = [self._loaded(_Wish(key, batch.one(key), tuple(tags), ttl_s)) for key in missing]
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
        shared = self._shared
        self._forget((_checked(key),))
        if shared is None:
            return
        await shared.store(key, self._entry(_Wish(key, _nothing, tuple(tags), ttl_s), value, shared, now), now)
        self._forget((key,))

    async def delete(self, key: str) -> None:
        """Drop a key; loads of it that are under way aren't kept. LayerError when a layer didn't answer."""
        self._forget((_checked(key),))
        if self._shared is not None:
            await self._shared.drop(key)
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

    # One load

    async def _loaded(self, wish: _Wish) -> Entry:
        """The load of the key that is under way here, or a new one."""
        load = self._loads.get(wish.key)
        if load is None:
            load = _Load()
            load.task = self._spawn(self._fetch(wish, load))
            self._loads[wish.key] = load
            load.task.add_done_callback(lambda _task: self._loads_end(wish.key, load))
        assert load.task is not None  # noqa: S101 - set above
        return await asyncio.shield(load.task)

    def _loads_end(self, key: str, load: _Load) -> None:
        if self._loads.get(key) is load:
            del self._loads[key]

    async def _fetch(self, wish: _Wish, load: _Load | None) -> Entry:
        shared = self._shared
        if shared is None:
            return self._bare(wish, await self._call(wish))
        got = await shared.get(wish.key)
        if got is not None:
            held, layer = got
            now = time.time()
            if held.usable(now):
                self.stats.hits[layer] += 1
            if held.fresh(now):
                self._keep(wish.key, held, load)
                return held
            if held.usable(now):
                self.stats.stale += 1
                self._refresh(wish)
                return held
        return await self._fill(wish, load, shared)

    async def _fill(self, wish: _Wish, load: _Load | None, shared: SharedLayers) -> Entry:
        """Wait for our turn, then carry a value up or load it."""
        begun = await self._turn(wish.key, shared)
        now, found = time.time(), begun.found
        if found is not None and (found.fresh(now) or (found.usable(now) and not begun.won)):
            return await self._found(wish.key, begun, load, shared)
        self.stats.misses += 1
        return await self._load(wish, load, begun, shared)

    async def _found(self, key: str, begun: Beginning, load: _Load | None, shared: SharedLayers) -> Entry:
        """A value that turned up when the fill began."""
        found, now = begun.found, time.time()
        assert found is not None  # noqa: S101 - the caller looked
        self.stats.hits[begun.source] += 1
        if not found.fresh(now):
            self.stats.stale += 1
        elif begun.source == MEMCACHED and not await shared.carry(key, begun, now):
            return found
        else:
            self._keep(key, found, load)
        if begun.won:
            await shared.release(key, begun)
        return found

    async def _load(self, wish: _Wish, load: _Load | None, begun: Beginning, shared: SharedLayers) -> Entry:
        try:
            value = await self._call(wish)
            now = time.time()
            made = self._entry(wish, value, shared, now)
        except BaseException:
            # Also when cancelled: others needn't wait for a load that has ended.
            await asyncio.shield(shared.release(wish.key, begun))
            raise
        if await shared.fill(wish.key, made, begun, now):
            self._keep(wish.key, made, load)
        return made

    async def _call(self, wish: _Wish) -> Any:
        self.stats.loads += 1
        try:
            async with asyncio.timeout(self.options.load_timeout_s):
                return await wish.loader()
        except NotLoaded:
            raise
        except Exception:
            self.stats.load_errors += 1
            raise

    async def _turn(self, key: str, shared: SharedLayers) -> Beginning:
        """Begin a fill; while another process has the lease, look again until there is a value or the lease is ours."""
        owner = f"{self._owner}:{next(self._numbers)}"
        deadline = asyncio.get_running_loop().time() + self.options.load_timeout_s
        pause_s, longest_s = POLL_S
        waited = False
        while True:
            begun = await shared.begin(key, owner)
            usable = begun.found is not None and begun.found.usable(time.time())
            if begun.won or usable or asyncio.get_running_loop().time() >= deadline:
                return begun
            self.stats.waits += not waited
            waited = True
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - spreading looks
            pause_s = min(longest_s, pause_s * 2)

    def _refresh(self, wish: _Wish) -> None:
        """Load anew in the background, unless this or another process is doing so."""
        if wish.key not in self._refreshes:
            load = _Load()
            self._refreshes[wish.key] = load
            load.task = self._spawn(self._refreshed(wish, load))

    async def _refreshed(self, wish: _Wish, load: _Load) -> Entry:
        try:
            return await self._renew(wish, load)
        finally:
            if self._refreshes.get(wish.key) is load:
                del self._refreshes[wish.key]

    async def _renew(self, wish: _Wish, load: _Load) -> Entry:
        shared = self._shared
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

    def _entry(self, wish: _Wish, value: Any, shared: SharedLayers, now: float) -> Entry:
        longest_s = shared.longest_ttl_s
        if wish.tags and not shared.config.tags:
            msg = f"namespace {self.namespace} has no tags: declare it with tags: true"
            raise ValueError(msg)
        ttl_s = longest_s if wish.ttl_s is None else min(wish.ttl_s, longest_s)
        return entry(self._codec.encode(value), now, ttl_s=ttl_s, stale_s=shared.config.stale_s, tags=wish.tags)

    def _bare(self, wish: _Wish, value: Any) -> Entry:
        """Without a namespace nothing is kept."""
        return entry(self._codec.encode(value), time.time(), ttl_s=0.0, stale_s=0.0, tags=wish.tags)

    # Memory

    def _in_memory(self, key: str, now: float) -> Entry | None:
        if not self.feed.trusted():
            self.stats.bypassed += 1
            return None
        return self._memory.get(key, now)

    def _keep(self, key: str, held: Entry, load: _Load | None) -> None:
        if load is None or load.detached or not self.feed.trusted():
            return
        until = time.time() + self.options.memory_ttl_s
        kept = replace(held, fresh_until=min(held.fresh_until, until), dead_at=min(held.dead_at, until))
        self._memory.put(key, kept)

    def _forget(self, keys: Sequence[str]) -> None:
        self._memory.drop(keys)
        self._detach(keys)

    def _detach(self, keys: Sequence[str] | None) -> None:
        """What is being loaded isn't kept, and isn't joined any more. None: all of it, whatever its tags will be."""
        for loads in (self._loads, self._refreshes):
            for key in list(loads) if keys is None else keys:
                load = loads.pop(key, None)
                if load is not None:
                    load.detached = True

    # Following

    def _invalidated(self, what: Invalidation) -> None:
        self.stats.invalidations += 1
        self._apply(what)

    def _apply(self, what: Invalidation) -> None:
        if what.keys:
            self._forget(what.keys)
            return
        self._detach(None)
        if what.tags:
            self._memory.drop_tags(what.tags)
            return
        if self._shared is not None:
            self._shared.flushed()
        if what.prefix is not None:
            self._memory.drop_prefix(what.prefix)
        else:
            self._memory.clear()

    def _lost(self) -> None:
        self.stats.flushes += 1
        self._apply(Invalidation(0, everything=True))

    async def _caught_up(self, revision: int) -> bool:
        """True when the memory has come as far; False when only the shared layers have. RevisionNotReached otherwise."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.options.revision_timeout_s
        while not self.feed.reached(revision):
            completed = await self._shared.completed() if self._shared is not None else None
            if completed is not None and completed >= revision:
                return False
            if loop.time() >= deadline:
                msg = f"revision {revision} of {self.namespace} wasn't reached in {self.options.revision_timeout_s} s"
                raise RevisionNotReached(msg)
            await self.feed.moved(0.05)
        return True

    async def _follow(self) -> None:
        """Take over changes of the setting, and trust a new connection once its replay is through."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._stale_setting:
                self._stale_setting = False
                await self._reconfigure()
            if self._stale_place:
                self._stale_place = False
                await self._catch_up()

    async def _catch_up(self) -> None:
        completed = await self._shared.completed() if self._shared is not None else None
        if completed is not None and completed >= self.feed.newest:
            deadline = asyncio.get_running_loop().time() + CATCH_UP_S
            while len(self._memory) and not self.feed.reached(completed):
                if asyncio.get_running_loop().time() >= deadline:
                    break
                await self.feed.moved(CATCH_UP_S)
        if completed is None or not self.feed.reached(completed) or completed < self.feed.newest:
            # The authority doesn't say, has lost its memory, or tells of what never arrived here.
            if len(self._memory):
                self._lost()
            self.feed.base = max(self.feed.base, completed or 0)
        self.feed.caught_up()

    async def _reconfigure(self) -> None:
        try:
            await self._configure()
        except ApiError as exc:
            if exc.status != 404:
                await self._later(exc)
                return
            _log.warning("cache namespace is gone: nothing is cached", namespace=self.namespace)
            await self._replace(None, None)
        except (ClientError, ValueError) as exc:
            await self._later(exc)

    async def _later(self, exc: Exception) -> None:
        _log.warning("cache keeps its old setting", namespace=self.namespace, error=str(exc))
        await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311 - spreading requests
        self._setting_changed()

    async def _configure(self) -> None:
        """Fetch the setting and where its targets are; open the layers anew when either has changed."""
        setting = await self._transport.get_setting(NAMESPACE_TYPE, self.namespace)
        await self._open(namespace_config(setting["value"]))

    async def _open(self, config: NamespaceConfig) -> None:
        places = {layer.target: await self._place(layer.target) for layer in config.layers}
        if self._opened != (config, places):
            await self._replace(open_layers(config, places, self.options, self.stats), (config, places))

    async def _replace(self, shared: SharedLayers | None, opened: Opened | None) -> None:
        former, self._shared, self._opened = self._shared, shared, opened
        self._apply(Invalidation(0, everything=True))
        if former is not None:
            await former.close()

    async def _place(self, target: str) -> Place:
        if target in self._targets:
            return place_at(self._targets[target])
        return place_of((await self._transport.get_setting(TARGET_TYPE, target))["value"])

    def _setting_changed(self) -> None:
        self._stale_setting = True
        self._wake.set()

    def _connected(self) -> None:
        self._stale_place = True
        self._wake.set()

    # Tasks

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        fault = task.exception()
        if fault is not None and not isinstance(fault, NotLoaded):
            # Who waits for a load gets its fault as well; of a refresh nobody else would hear.
            _log.info("cache load failed", namespace=self.namespace, error=repr(fault))

    async def _forever(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await run()
            except Exception as exc:  # noqa: BLE001 - a supervisor: logged, counted, started again
                self.stats.errors[name] += 1
                _log.exception("cache task crashed", task=name, namespace=self.namespace, error=repr(exc))
                await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311 - spreading restarts


def _checked(key: str) -> str:
    if not key or key.startswith(MARK):
        msg = f"{key!r} can't be a key: it is empty or begins with {MARK!r}"
        raise ValueError(msg)
    return key


async def _nothing() -> None:
    """Loader of a value that was given."""
