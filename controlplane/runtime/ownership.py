"""Which shards this replica drives, as the membership of the log says.

Theory of operation. When the group of replicas changes, every member is asked to let go before anybody is given a shard: we
begin nothing new and let effects under way end, but keep writers, states and loops, so that shards that stay go on without
a takeover. When the assignment is told, a manager gives up what went elsewhere, takes what is new, and only then lets the
loops go on.

What is asked here decides about liveness alone; that no two act is the work of the fence (see `shards`).

Note [A halted fold owns nothing]. A replica that meets a record it can't fold no longer knows what is desired. It leaves the
group, so that a newer version, which can, drives its shards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Final, Protocol

import structlog

from controlplane.log.ports import Membership

_log = structlog.get_logger()

QUIESCE_S: Final = 5.0
"""Longest wait for effects under way, well below the group's rebalance timeout; what takes longer is fenced instead."""


class Owner(Protocol):
    """What drives shards: the controller."""

    async def own(self, indices: Collection[int]) -> None:
        """Hold exactly these."""

    async def quiesce(self, timeout_s: float) -> None:
        """Begin nothing new, and let what is under way end."""

    def resume(self) -> None:
        """Go on."""


class Ownership:
    """Keeps an owner's shards those of the assignment."""

    def __init__(self, membership: Membership, owner: Owner, halted: asyncio.Event) -> None:
        """`halted`: Note [A halted fold owns nothing]."""
        self._membership = membership
        self._halted = halted
        self._owner = owner
        self._wanted: frozenset[int] = frozenset()
        self._changed = asyncio.Event()
        self._revocations = 0

    async def run(self) -> None:
        """For a supervisor; leaves the group when it is cancelled, and for good when the fold halts."""
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(self._membership.follow(self._let_go, self._take))
            managing = tasks.create_task(self._manage())
            await self._halted.wait()
            _log.error("shards given up, the fold has halted")
            managing.cancel()
            await self._owner.own(())
            following.cancel()

    async def _let_go(self) -> None:
        self._revocations += 1
        await self._owner.quiesce(QUIESCE_S)

    def _take(self, shards: frozenset[int]) -> None:
        _log.info("shards assigned", shards=sorted(shards))
        self._wanted = shards
        self._changed.set()

    async def _manage(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            before = self._revocations
            await self._owner.own(self._wanted)
            if before == self._revocations:  # else everybody waits for us again
                self._owner.resume()


def always(_shard: int) -> Awaitable[bool]:
    """The answer to "is it mine?" of who is alone."""
    return _yes()


async def _yes() -> bool:
    return True


MayTake = Callable[[int], Awaitable[bool]]
