"""Which layers there are, and when the memory may be trusted: the setting and the stream, followed.

Theory of operation. One task takes over, one after the other, what the feed reports: a changed setting (fetched anew;
when layers or lifetimes differ, they are opened anew and the memory is emptied) and a connection that stands again. Of
that it asks the authority which invalidation was completed last: when it has arrived here already, or arrives within
CATCH_UP_S, nothing was missed. When it doesn't arrive, or the authority doesn't say or knows less than we do (it lost its
memory), the memory is emptied: then nothing in it can be too old.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from controlplane.client.cache_config import CacheOptions, CacheStats, NamespaceConfig, namespace_config
from controlplane.client.cache_feed import CacheTransport, Feed
from controlplane.client.cache_layers import Place, SharedLayers, open_layers, place_at, place_of
from controlplane.client.cache_memory import MemoryLayer
from controlplane.client.errors import ApiError, ClientError

_log = structlog.get_logger()

NAMESPACE_TYPE: Final = "cache.namespace"
TARGET_TYPE: Final = "cache.target"
CATCH_UP_S: Final = 5.0
"""How long a replay may take before the memory is emptied instead."""


class Follower:
    """One namespace's setting. `replaced` is told the new layers (None: there is no namespace any more)."""

    def __init__(
        self,
        transport: CacheTransport,
        namespace: str,
        targets: Mapping[str, str],
        *,
        options: CacheOptions,
        stats: CacheStats,
        replaced: Callable[[SharedLayers | None], None],
        lost: Callable[[], None],
    ) -> None:
        self.config: NamespaceConfig | None = None
        self.shared: SharedLayers | None = None
        self._transport = transport
        self._namespace = namespace
        self._targets = dict(targets)
        self._options = options
        self._stats = stats
        self._replaced = replaced
        self._lost = lost
        self._places: dict[str, Place] = {}
        self._wake = asyncio.Event()
        self._stale_setting = self._stale_place = False

    def changed(self) -> None:
        """The setting may have changed."""
        self._stale_setting = True
        self._wake.set()

    def connected(self) -> None:
        """The stream stands again."""
        self._stale_place = True
        self._wake.set()

    async def run(self, feed: Feed, memory: MemoryLayer) -> None:
        """Follow until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._stale_setting:
                self._stale_setting = False
                await self._reconfigure()
            if self._stale_place:
                self._stale_place = False
                await self._catch_up(feed, memory)

    async def configure(self) -> None:
        """Fetch the setting and where its targets are. ApiError 404 when there is none, ValueError when it can't be used."""
        setting = await self._transport.get_setting(NAMESPACE_TYPE, self._namespace)
        await self.open(setting["value"])

    async def open(self, value: Mapping[str, Any]) -> None:
        """Open the layers of a namespace's value, unless they are open."""
        config = namespace_config(value)
        places = {layer.target: await self._place(layer.target) for layer in config.layers}
        if (config, places) != (self.config, self._places):
            shared = open_layers(config, places, self._options, self._stats)
            await self._replace(shared, config, places)

    async def close(self) -> None:
        """Close the layers."""
        await self._replace(None, None, {})

    async def _catch_up(self, feed: Feed, memory: MemoryLayer) -> None:
        completed = await self.shared.completed() if self.shared is not None else None
        arrived = completed is not None and feed.newest <= completed and await _reached(feed, completed, memory)
        if not arrived:
            if len(memory):
                self._lost()
            feed.base = max(feed.base, completed or 0)
        feed.caught_up()

    async def _reconfigure(self) -> None:
        try:
            await self.configure()
        except ApiError as exc:
            if exc.status != 404:
                await self._later(exc)
                return
            _log.warning("cache namespace is gone: nothing is cached", namespace=self._namespace)
            await self._replace(None, None, {})
        except (ClientError, ValueError) as exc:
            await self._later(exc)

    async def _later(self, exc: Exception) -> None:
        _log.warning("cache keeps its old setting", namespace=self._namespace, error=str(exc))
        await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311 - spreading requests
        self.changed()

    async def _replace(
        self, shared: SharedLayers | None, config: NamespaceConfig | None, places: dict[str, Place]
    ) -> None:
        former, self.shared, self.config, self._places = self.shared, shared, config, places
        self._replaced(shared)
        if former is not None:
            await former.close()

    async def _place(self, target: str) -> Place:
        if target in self._targets:
            return place_at(self._targets[target])
        return place_of((await self._transport.get_setting(TARGET_TYPE, target))["value"])


async def _reached(feed: Feed, revision: int, memory: MemoryLayer) -> bool:
    """Wait for the replay, as long as there is something it could concern."""
    deadline = asyncio.get_running_loop().time() + CATCH_UP_S
    while len(memory) and not feed.reached(revision) and asyncio.get_running_loop().time() < deadline:
        await feed.moved(0.1)
    return feed.reached(revision)
