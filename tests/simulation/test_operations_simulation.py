"""One-shot requests: whatever becomes of who asked, of the backend or of the process, each start has its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel

from controlplane.domain.errors import Reason, Refused
from controlplane.runtime.operations import TIMEOUT_S, Operations
from reconcilers.contract import Operation, TransientError
from tests.simulation.world import World, simulate


class Request(BaseModel):
    text: str = ""


Run = Callable[[Any, Any], Awaitable[dict[str, Any]]]


async def started(seed: int, run: Run) -> tuple[World, Operations]:
    world = World(seed)
    effects = {"do": True, "other": True, "read": False}
    world.operations = tuple(
        Operation(name, Request, lambda context, request: "main", run, effect) for name, effect in effects.items()
    )
    await world.start()
    await world.declare_target()
    await world.declare("a", 1)
    await world.until_settled(30)
    operations = Operations(world.catalogue, world.controller, world.replica.state, world.metrics)
    return world, operations


def ask(operations: Operations, request_id: str = "r") -> Awaitable[dict[str, Any]]:
    return operations.run("default", "mesh.do", {}, actor="user", request_id=request_id)


async def told(world: World) -> list[tuple[str, str]]:
    return [(e["event_type"], e["status"]) for e in await world.events() if e["event_type"].startswith("Operation")]


def test_a_caller_that_goes_away_does_not_cut_an_operation_in_two():
    async def scenario():
        done = []

        async def run(context: Any, request: Any) -> dict[str, Any]:
            await asyncio.sleep(1)
            done.append(context.revision)
            return {"done": True}

        world, operations = await started(70, run)
        asking = asyncio.ensure_future(ask(operations))
        await asyncio.sleep(0.5)
        asking.cancel()
        assert (await ask(operations))["result"] == {"done": True}
        assert len(done) == 1
        assert await told(world) == [("OperationStarted", "started"), ("OperationSucceeded", "succeeded")]
        await world.stop()

    simulate(scenario)


def test_the_answer_to_one_operation_is_not_given_to_another():
    """Who may ask the one need not be allowed to ask the other."""

    async def scenario():
        async def run(context: Any, request: Any) -> dict[str, Any]:
            return {"secret": True}

        world, operations = await started(76, run)
        await ask(operations)
        with pytest.raises(Refused) as refused:
            await operations.run("default", "mesh.other", {}, actor="else", request_id="r")
        assert refused.value.reason is Reason.CONFLICT
        await world.stop()

    simulate(scenario)


def test_what_only_reads_is_read_again_and_its_answers_are_not_held():
    async def scenario():
        ran = []

        async def run(context: Any, request: Any) -> dict[str, Any]:
            ran.append(1)
            return {"times": len(ran)}

        world, operations = await started(77, run)
        for times in (1, 2):
            answer = await operations.run("default", "mesh.read", {}, actor="user", request_id="r")
            assert answer["result"] == {"times": times}
        assert (await ask(operations, "s"))["result"] == (await ask(operations, "s"))["result"] == {"times": 3}
        await world.stop()

    simulate(scenario)


def test_a_target_that_is_not_declared_is_named():
    async def scenario():
        async def run(context: Any, request: Any) -> dict[str, Any]:
            await context.backend("nope")
            return {}

        world, operations = await started(78, run)
        with pytest.raises(Refused, match=r"there is no mesh\.target/nope: declare it first") as refused:
            await operations.run("default", "mesh.read", {}, actor="user", request_id="r")
        assert refused.value.reason is Reason.NOT_FOUND
        await world.stop()

    simulate(scenario)


def test_operations_under_way_end_before_the_daemon_does():
    async def scenario():
        async def run(context: Any, request: Any) -> dict[str, Any]:
            await asyncio.sleep(2)
            return {}

        world, operations = await started(71, run)
        asking = asyncio.ensure_future(ask(operations))
        await asyncio.sleep(0.5)
        await operations.close()
        assert asking.done() or (await asking)
        assert await told(world) == [("OperationStarted", "started"), ("OperationSucceeded", "succeeded")]
        await world.stop()

    simulate(scenario)


async def _refused(context: Any, request: Any) -> dict[str, Any]:
    msg = "busy"
    raise TransientError(msg)


async def _bug(context: Any, request: Any) -> dict[str, Any]:
    msg = "never thought of that"
    raise KeyError(msg)


async def _silent(context: Any, request: Any) -> dict[str, Any]:
    await asyncio.sleep(TIMEOUT_S + 5)
    return {}


@pytest.mark.parametrize(
    ("run", "reason", "status"),
    [
        (_refused, Reason.OPERATION_FAILED, "failed"),
        (_bug, Reason.INTERNAL, "unknown"),
        (_silent, Reason.OUTCOME_UNKNOWN, "unknown"),
    ],
)
def test_an_operation_that_fails_says_whether_it_may_have_happened_and_may_be_asked_again(run, reason, status):
    async def scenario():
        world, operations = await started(72, run)
        for _ in range(2):
            with pytest.raises(Refused) as refused:
                await ask(operations)
            assert refused.value.reason == reason
        ends = [("OperationStarted", "started"), ("OperationFailed", status)]
        assert await told(world) == ends * 2
        ids = [event["id"] for event in await world.events()]
        assert len(ids) == len(set(ids))
        assert all(not shard.operations for shard in world.controller._shards.values())
        await world.stop()

    simulate(scenario)


def test_an_operation_whose_process_dies_is_ended_by_the_next_owner():
    async def scenario():
        world, operations = await started(73, _silent)
        asking = asyncio.ensure_future(ask(operations))
        await asyncio.sleep(1)
        await world.kill()
        asking.cancel()
        await world.start()
        await world.until_settled(30)
        assert await told(world) == [("OperationStarted", "started"), ("OperationFailed", "unknown")]
        await world.stop()

    simulate(scenario)
