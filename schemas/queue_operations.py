"""Requests of the queue service's operations."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from schemas.names import Name
from schemas.queue import GroupId, TopicName, Value

Offset = Annotated[int, Field(ge=0)]
MOST_MESSAGES = 1_000


class Outgoing(Value):
    """One message to be published. `value`: text, or anything else as JSON; left out: a tombstone."""

    key: str | None = None
    value: Any = None
    headers: dict[str, str] = Field(default_factory=dict)
    partition: Annotated[int, Field(ge=0)] | None = None


class Publish(Value):
    """Request of `queue.publish`. All messages are acknowledged by all replicas that are in sync."""

    target: Name
    topic: TopicName
    messages: Annotated[tuple[Outgoing, ...], Field(min_length=1, max_length=MOST_MESSAGES)]


class Position(Value):
    """A place in a topic: exactly one of these."""

    at: Literal["earliest", "latest"] | None = None
    offset: Offset | None = None
    time_ms: Annotated[int, Field(ge=0)] | None = None
    """Unix milliseconds: the first message at or after it."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(given is not None for given in (self.at, self.offset, self.time_ms)) != 1:
            msg = "give exactly one of at, offset or time_ms"
            raise ValueError(msg)
        return self


class Peek(Value):
    """Request of `queue.peek`: look at messages; nobody's offset moves."""

    target: Name
    topic: Annotated[str, Field(min_length=1, max_length=249)]
    partition: Annotated[int, Field(ge=0)] | None = None
    start: Position = Position(at="earliest")
    key: str | None = None
    """Only messages with this key."""
    limit: Annotated[int, Field(ge=1, le=500)] = 20
    max_bytes: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Of a value; what is longer is cut off."""


class Destination(Value):
    """Where a group is to go on: exactly one of these."""

    at: Literal["earliest", "latest"] | None = None
    offset: Offset | None = None
    time_ms: Annotated[int, Field(ge=0)] | None = None
    shift: int | None = None
    """So many messages further, or back."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(given is not None for given in (self.at, self.offset, self.time_ms, self.shift)) != 1:
            msg = "give exactly one of at, offset, time_ms or shift"
            raise ValueError(msg)
        return self


class PlanReset(Value):
    """Request of `queue.plan_reset_offsets`: from where to where each partition would go; nothing is done."""

    target: Name
    group: GroupId
    topics: Annotated[tuple[TopicName, ...], Field(min_length=1, max_length=100)] | None = None
    """None: every topic that the group has offsets of."""
    to: Destination


class ResetOffsets(PlanReset):
    """Request of `queue.reset_offsets`: do exactly what was planned, or nothing when the world has moved since."""

    plan: Annotated[str, Field(min_length=1, max_length=64)]
    """`plan` of the answer to `queue.plan_reset_offsets`."""


class Purge(Value):
    """Request of `queue.purge`: delete the messages of a topic before a place, for good."""

    target: Name
    topic: TopicName
    partition: Annotated[int, Field(ge=0)] | None = None
    before: Position
    """`{at: latest}`: all there are."""


class Redrive(Value):
    """Request of `queue.redrive`: dead letters go back to where they came from."""

    target: Name
    dead_letter: TopicName
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1_000
    """Most letters that are looked at."""
    route: Name | None = None
    topic: TopicName | None = None
    """Only those that came from this topic."""
    cause: str | None = None
    """Only those whose cause holds this text."""


class DeleteGroup(Value):
    """Request of `queue.delete_group`: the group and its offsets."""

    target: Name
    group: GroupId
