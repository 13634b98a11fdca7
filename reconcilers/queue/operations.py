"""Operations of the queue service: publish, peek, reset_offsets, purge, redrive, delete_group. The order of things.

Offsets are reset in two requests: the plan says from where to where each partition would go, and the reset does exactly
that, or nothing when the group has moved since. A group that somebody reads in is refused: its members would overwrite it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from reconcilers.contract import Operation, OperationContext, TerminalError
from reconcilers.queue import data, kafka_groups, own
from reconcilers.queue.admin import partition, refusal
from reconcilers.queue.backend import CALL_S, QueueBackend
from schemas.queue_operations import (
    DeleteGroup,
    Destination,
    Peek,
    PlanReset,
    Position,
    Publish,
    Purge,
    Redrive,
    ResetOffsets,
)

EARLIEST: Final = -2
LATEST: Final = -1


async def publish(ctx: OperationContext, request: Publish) -> dict[str, Any]:
    """→ `{messages: [{partition, offset}]}`."""
    backend = await _backend(ctx, request.target)
    backend.refuse_own(request.topic)
    return {"messages": await data.publish(backend.client_options, request.topic, request.messages)}


async def peek(ctx: OperationContext, request: Peek) -> dict[str, Any]:
    """→ `{messages: […]}`, by partition and offset."""
    backend = await _backend(ctx, request.target)
    places = await _call(backend, partial(_places, topic=request.topic, number=request.partition))
    begin = await _call(backend, partial(_found, places=places, position=request.start))
    end = await _call(backend, partial(kafka_groups.ends, places=places))
    ranges = {place.partition: begin[place] for place in places if begin[place] < end[place]}
    ends = {place.partition: end[place] for place in places}
    return {"messages": await data.peek(backend.client_options, request, ranges, ends)}


def _places(client: Any, topic: str, number: int | None) -> list[Any]:
    places = kafka_groups.places_of(client, topic)
    if number is None:
        return places
    if number >= len(places):
        msg = f"topic {topic} has {len(places)} partitions"
        raise TerminalError(msg, reason="PartitionNotFound")
    return [places[number]]


def _found(client: Any, places: list[Any], position: Position | Destination) -> dict[Any, int]:
    """Partition → offset, within what is there."""
    first, last = kafka_groups.ends(client, places, EARLIEST), kafka_groups.ends(client, places, LATEST)
    if position.offset is not None:
        wanted = dict.fromkeys(places, position.offset)
    elif position.time_ms is not None:
        at = kafka_groups.ends(client, places, position.time_ms)
        wanted = {place: last[place] if at[place] < 0 else at[place] for place in places}
    else:
        wanted = last if position.at == "latest" else first
    return {place: min(max(wanted[place], first[place]), last[place]) for place in places}


# --- offsets -------------------------------------------------------------------------------------------------------------


def _moves(client: Any, request: PlanReset) -> list[dict[str, Any]]:
    """[{topic, partition, from, to}] of what would move."""
    kafka_groups.refuse_active(request.group, kafka_groups.described(client, [request.group])[request.group])
    held = {place: at for place, (at, _) in kafka_groups.committed(client, request.group).items()}
    topics = request.topics or sorted({place.topic for place in held})
    if not topics:
        msg = f"group {request.group} has no offsets: name the topics"
        raise TerminalError(msg, reason="GroupIdNotFound")
    places = [place for topic in topics for place in kafka_groups.places_of(client, topic)]
    if request.to.shift is not None:
        first, last = kafka_groups.ends(client, places, EARLIEST), kafka_groups.ends(client, places, LATEST)
        shift = request.to.shift
        wanted = {p: min(max(held.get(p, first[p]) + shift, first[p]), last[p]) for p in places}
    else:
        wanted = _found(client, places, request.to)
    return [
        {"topic": place.topic, "partition": place.partition, "from": held.get(place), "to": wanted[place]}
        for place in places
        if held.get(place) != wanted[place]
    ]


def _identity(request: PlanReset, moves: list[dict[str, Any]]) -> str:
    text = json.dumps([request.group, request.model_dump(mode="json", exclude={"plan"}), moves], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


async def plan_reset(ctx: OperationContext, request: PlanReset) -> dict[str, Any]:
    """→ `{plan, moves: [{topic, partition, from, to}]}`."""
    backend = await _backend(ctx, request.target)
    moves = await _call(backend, partial(_moves, request=request))
    return {"plan": _identity(request, moves), "moves": moves}


async def reset(ctx: OperationContext, request: ResetOffsets) -> dict[str, Any]:
    """→ `{moves}`, as planned."""
    backend = await _backend(ctx, request.target)
    _refuse_own_group(request.group)

    def work(client: Any) -> list[dict[str, Any]]:
        moves = _moves(client, request)
        if _identity(request, moves) != request.plan:
            msg = f"group {request.group} or its topics have moved since: plan again"
            raise TerminalError(msg, reason="PlanStale")
        specs = {partition(move["topic"], move["partition"]): move["to"] for move in moves}
        for place, row in (client.reset_group_offsets(request.group, specs) if specs else {}).items():
            error = refusal(row["error"].errno, None, f"{place.topic}-{place.partition}")
            if error is not None:
                raise error
        return moves

    return {"moves": await _call(backend, work)}


async def delete_group(ctx: OperationContext, request: DeleteGroup) -> dict[str, Any]:
    """→ `{}`. An active group is refused."""
    backend = await _backend(ctx, request.target)
    _refuse_own_group(request.group)

    def work(client: Any) -> None:
        kafka_groups.refuse_active(request.group, kafka_groups.described(client, [request.group])[request.group])
        answer = client.delete_groups([request.group])[request.group]
        if answer != "OK":
            msg = f"group {request.group}: {answer}"
            raise TerminalError(msg, reason=str(answer).removesuffix("Error"))

    await _call(backend, work)
    return {}


def _refuse_own_group(group: str) -> None:
    why = own.group(group)
    if why is not None:
        raise why


# --- messages ------------------------------------------------------------------------------------------------------------


async def purge(ctx: OperationContext, request: Purge) -> dict[str, Any]:
    """→ `{partitions: {partition: first offset that is left}}`."""
    backend = await _backend(ctx, request.target)
    backend.refuse_own(request.topic)

    def work(client: Any) -> dict[str, int]:
        places = _places(client, request.topic, request.partition)
        found = _found(client, places, request.before)
        reply = client.delete_records(found)
        return {str(place.partition): row["low_watermark"] for place, row in reply.items()}

    return {"partitions": await _call(backend, work)}


async def redrive(ctx: OperationContext, request: Redrive) -> dict[str, Any]:
    """→ `{redriven, kept}`."""
    backend = await _backend(ctx, request.target)
    backend.refuse_own(request.dead_letter)
    places = await _call(backend, partial(_places, topic=request.dead_letter, number=None))
    end = await _call(backend, partial(kafka_groups.ends, places=places))
    ends = {place.partition: at for place, at in end.items()}
    group = f"coreplane.redrive.{request.dead_letter}"
    return dict(await data.redrive(backend.client_options, group, request, ends, own=backend.is_own))


# --- the table -----------------------------------------------------------------------------------------------------------


async def _backend(ctx: OperationContext, target: str) -> QueueBackend:
    backend: QueueBackend = await ctx.backend(target)
    return backend


async def _call(backend: QueueBackend, work: Callable[[Any], Any]) -> Any:
    return await backend.admin.call(work, CALL_S)


def _target(_ctx: OperationContext, request: Any) -> str:
    return str(request.target)


def _published(request: Publish) -> dict[str, Any]:
    """Not the messages: they are nobody's affair but the reader's."""
    return {"target": request.target, "topic": request.topic, "messages": len(request.messages)}


OPERATIONS: tuple[Operation, ...] = (
    Operation("publish", Publish, _target, publish, announce=_published),
    Operation("peek", Peek, _target, peek, effect=False),
    Operation("plan_reset_offsets", PlanReset, _target, plan_reset, effect=False),
    Operation("reset_offsets", ResetOffsets, _target, reset),
    Operation("purge", Purge, _target, purge),
    Operation("redrive", Redrive, _target, redrive),
    Operation("delete_group", DeleteGroup, _target, delete_group),
)
