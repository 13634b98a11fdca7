"""Several nodes, several kinds: who is asked, who carries out which step, and what it amounts to. I/O through what it is given.

Nodes are asked at the same time; one that gives no answer is silent, and only when all are is the target unreachable. Steps
go to their appliers by tables; a fault of one node or one kind is an outcome, so that it doesn't hide what others did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from reconcilers.cache.steps import NodeChanges
from reconcilers.contract import (
    BackendError,
    ExternalId,
    Fence,
    NotSent,
    Outcome,
    Result,
    Step,
    TerminalError,
    TransientError,
    Unreachable,
    failed,
)
from reconcilers.planning import Nodes


class Node(Protocol):
    """One of a target's servers."""

    @property
    def name(self) -> str:
        """`host:port`."""


NodeT = TypeVar("NodeT", bound=Node)
T = TypeVar("T")
Wanted = Mapping[ExternalId, Any]
Found = dict[ExternalId, Any]
Observer = Callable[[Wanted], Awaitable[Mapping[ExternalId, Any]]]
Applier = Callable[[Sequence[Any], Fence], Awaitable[Sequence[Outcome]]]


async def each(nodes: Sequence[NodeT], ask: Callable[[NodeT], Awaitable[T]]) -> Nodes[T]:
    """Ask all nodes at once. Raises `Unreachable` when all are silent, and any other error of any node."""
    answers = await asyncio.gather(*(ask(node) for node in nodes), return_exceptions=True)
    held: dict[str, T] = {}
    silent: dict[str, str] = {}
    for node, answer in zip(nodes, answers, strict=True):
        if isinstance(answer, Unreachable):
            silent[node.name] = answer.message
        elif isinstance(answer, BaseException):
            raise answer
        else:
            held[node.name] = answer
    if not held:
        raise Unreachable("; ".join(silent.values()))
    return Nodes(held, silent)


def merged(outcomes: Mapping[str, Outcome]) -> Outcome:
    """One step's outcomes on several nodes as one: the worst, with every node's details."""
    if len(outcomes) == 1:
        return next(iter(outcomes.values()))
    details = {node: {"result": str(outcome.result), **outcome.details} for node, outcome in outcomes.items()}
    for result in (Result.UNKNOWN, Result.FAILED):
        worst = next((outcome for outcome in outcomes.values() if outcome.result is result), None)
        if worst is not None:
            return Outcome(result, {**worst.details, "nodes": details}, worst.error)
    late = [node for node, outcome in outcomes.items() if outcome.result is Result.NOT_SENT]
    if len(late) == len(outcomes):
        return Outcome(Result.NOT_SENT, {"nodes": details})
    if late:
        return failed(TransientError(f"not sent to {', '.join(late)}: the start deadline had passed", reason="NotSent"))
    return Outcome(Result.SUCCEEDED, {"nodes": details})


async def settled(effect: Awaitable[Sequence[Outcome]], count: int) -> Sequence[Outcome]:
    """The outcomes of `count` steps whatever happens, so that one node's fault doesn't hide what another did."""
    try:
        return await effect
    except NotSent:
        return [Outcome(Result.NOT_SENT)] * count
    except BackendError as exc:
        return [failed(exc)] * count


async def one(outcome: Awaitable[Outcome]) -> Sequence[Outcome]:
    """The outcome of a single step as a list."""
    return [await outcome]


async def on_each_node(
    nodes: Sequence[NodeT], changes: NodeChanges, change: Callable[[NodeT, Mapping[str, str]], Awaitable[Outcome]]
) -> Outcome:
    """Carry the changes of one step to their nodes, all at once."""
    by_name = {node.name: node for node in nodes}
    rows = [(by_name[name], dict(row)) for name, row in changes if name in by_name]
    results = await asyncio.gather(*(settled(one(change(node, row)), 1) for node, row in rows))
    return merged({node.name: outcomes[0] for (node, _), outcomes in zip(rows, results, strict=True)})


def of_type(wanted: Wanted, setting_type: str) -> Wanted:
    """The objects of one kind."""
    return {external: value for external, value in wanted.items() if external.setting_type == setting_type}


async def observed_by(table: Mapping[str, Observer], wanted: Wanted) -> Found:
    """Every kind by its observer."""
    found: Found = {}
    for setting_type, observe in table.items():
        part = of_type(wanted, setting_type)
        if not part:
            continue
        try:
            found |= await observe(part)
        except (TerminalError, TransientError) as exc:
            # One kind may be forbidden to us while the others are well.
            found |= dict.fromkeys(part, exc)
    return found


async def applied_by(table: Mapping[type[Step], Applier], steps: Sequence[Step], fence: Fence) -> Sequence[Outcome]:
    """Steps by their applier, together where it batches; outcomes in the order of the steps."""
    outcomes: dict[int, Outcome] = {}
    for apply in dict.fromkeys(table.values()):
        mine = [index for index, step in enumerate(steps) if table.get(type(step)) == apply]
        if mine:
            part = [steps[index] for index in mine]
            outcomes |= zip(mine, await settled(apply(part, fence), len(part)), strict=True)
    refused = failed(TerminalError("this target can't carry out the step", reason="Unsupported"))
    return [outcomes.get(index, refused) for index in range(len(steps))]


def each_by_itself(apply: Applier) -> Applier:
    """One step at a time, so that what was done before the fence closed is told."""

    async def apply_all(steps: Sequence[Any], fence: Fence) -> Sequence[Outcome]:
        return [outcome for step in steps for outcome in await settled(apply([step], fence), 1)]

    return apply_all
