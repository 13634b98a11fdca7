"""The change request: the only kind of record in the settings log.

The fold reads these as plain maps for speed; the models here are the contract, validate what the daemon appends, and
generate the checked-in JSON Schema.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA: Final = "record.v1"
VERSION: Final = 1
"""`v` of the records this version writes."""

READABLE: Final = frozenset({1})
"""`v` that this version folds. A new one is made readable a release before it is written, so that replicas of both versions
can run side by side; whoever meets one it can't read stops."""

ABSENT: Final = 0
"""`expected` of a change that wants the key to be absent; revisions start at 1."""


class Body(BaseModel):
    """What a declaration stores under its key."""

    model_config = ConfigDict(extra="allow")

    value: dict[str, Any]
    labels: dict[str, str] = Field(default_factory=dict)
    depends_on: list[str] = Field(default_factory=list)
    policy: dict[str, Any] = Field(default_factory=dict)
    target: str | None = None
    """Name of the target that carries it out: places the setting in its shard, whatever a version makes of the value."""


class Change(BaseModel):
    """One change of one key. `expected`: a revision, 0 for absent, None for any."""

    model_config = ConfigDict(extra="allow")

    op: Literal["declare", "retire", "forget"]
    key: str
    expected: Annotated[int, Field(ge=ABSENT)] | None = None
    body: Body | None = None
    """Given with `declare` only."""
    deletion: Literal["retain", "delete"] | None = None
    """Given with `retire` only: overrides the policy this once."""

    @model_validator(mode="after")
    def _body_goes_with_declare(self) -> Change:
        if (self.body is not None) != (self.op == "declare"):
            msg = "a declare has a body, and nothing else has one"
            raise ValueError(msg)
        return self


class ChangeRequest(BaseModel):
    """Atomic: all changes are accepted or none."""

    model_config = ConfigDict(extra="allow")

    v: Literal[1] = VERSION
    request_id: str
    actor: str
    at: str
    reason: str = ""
    changes: list[Change] = Field(min_length=1)
