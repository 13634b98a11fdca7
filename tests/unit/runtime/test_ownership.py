"""What a replica does with what the group tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

from controlplane.runtime.ownership import Ownership


class Group:
    """Hands its callbacks to the test."""

    async def follow(self, revoked: Callable[[], Awaitable[None]], assigned: Callable[[frozenset[int]], None]) -> None:
        self.revoked, self.assigned = revoked, assigned
        await asyncio.Event().wait()

    async def owns(self, shard: int) -> bool:
        return True


class Owner:
    """Writes down what it is told; `own` waits while `gate` is closed."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def own(self, indices: Collection[int]) -> None:
        await self.gate.wait()
        self.told.append(sorted(indices))

    async def quiesce(self, timeout_s: float) -> None:
        self.told.append("quiesce")

    def resume(self) -> None:
        self.told.append("resume")


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_assignment_is_taken_and_only_then_work_goes_on():
    group, owner = Group(), Owner()
    running = asyncio.create_task(Ownership(group, owner, asyncio.Event()).run())
    await settled()
    group.assigned(frozenset({0, 1}))
    await settled()
    await group.revoked()
    group.assigned(frozenset({1}))
    await settled()
    assert owner.told == [[0, 1], "resume", "quiesce", [1], "resume"]
    running.cancel()
    await asyncio.wait({running})


async def test_whoever_is_asked_to_let_go_again_meanwhile_stays_quiet():
    group, owner = Group(), Owner()
    running = asyncio.create_task(Ownership(group, owner, asyncio.Event()).run())
    await settled()
    owner.gate.clear()
    group.assigned(frozenset({0, 1}))
    await settled()
    await group.revoked()
    owner.gate.set()
    await settled()
    assert owner.told == ["quiesce", [0, 1]]
    group.assigned(frozenset({0}))
    await settled()
    assert owner.told == ["quiesce", [0, 1], [0], "resume"]
    running.cancel()
    await asyncio.wait({running})


async def test_of_several_assignments_that_came_while_one_was_taken_the_last_counts():
    group, owner = Group(), Owner()
    running = asyncio.create_task(Ownership(group, owner, asyncio.Event()).run())
    await settled()
    owner.gate.clear()
    group.assigned(frozenset({0}))
    await settled()
    group.assigned(frozenset({1}))
    group.assigned(frozenset({2}))
    owner.gate.set()
    await settled()
    assert owner.told[-2:] == [[2], "resume"]
    assert [1] not in owner.told
    running.cancel()
    await asyncio.wait({running})
