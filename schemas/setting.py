"""Declarations as people write them, settings as the API answers them, and the status beside them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from schemas.names import Name, Reference, SettingType, parse_timestamp

LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]
LabelValue = Annotated[str, StringConstraints(max_length=256)]
Path = Annotated[str, StringConstraints(pattern=r"^/", max_length=1024)]
"""A JSON pointer (RFC 6901) into the value."""


def _time(text: str) -> str:
    try:
        parse_timestamp(text)
    except ValueError as exc:
        msg = "must be an RFC 3339 time such as 2026-01-31T12:00:00Z"
        raise ValueError(msg) from exc
    return text


class Ignored(BaseModel):
    """A path that isn't owned, why, and until when."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    reason: Annotated[str, Field(min_length=1, max_length=1000)]
    until: Annotated[str, Field(max_length=64), AfterValidator(_time)] | None = None
    """RFC 3339 time from which on the path is owned again."""


class Policy(BaseModel):
    """How a setting is treated. Every field that is left out means the default of the kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    deletion: Literal["retain", "delete"] | None = None
    """What becomes of the backend object on retire; data-bearing kinds default to `retain`, others to `delete`."""
    drift: Literal["enforce", "report"] = "enforce"
    adopt: Literal["if_matches", "always", "never"] = "if_matches"
    """What to do with a backend object that existed before the setting."""
    protect: bool = False
    paused: bool = False
    ignore: tuple[Path | Ignored, ...] = ()
    """Paths of the value that are declared but no longer owned. What differs there is counted, and left as it is."""
    allow: tuple[str, ...] = ()
    """Names of irreversible steps that may be taken."""
    interval_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """Own sweep interval, seconds."""


class Declaration(BaseModel):
    """One setting as written in a file: several per document, YAML or JSON."""

    model_config = ConfigDict(extra="forbid")

    type: SettingType
    name: Name
    value: dict[str, Any]
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    depends_on: list[Reference] = Field(default_factory=list)
    policy: Policy = Field(default_factory=Policy)


class Phase(StrEnum):
    """One word for people, derived from the conditions."""

    PENDING = "Pending"
    RECONCILING = "Reconciling"
    READY = "Ready"
    DRIFTED = "Drifted"
    STALLED = "Stalled"
    PAUSED = "Paused"
    RETIRING = "Retiring"
    UNKNOWN = "Unknown"


class Condition(BaseModel):
    """One aspect of the status, in the manner of Kubernetes conditions."""

    type: Literal["Ready", "Reconciling", "Stalled", "Drifted"]
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    since: str


class Difference(BaseModel):
    """One owned path on which the backend disagrees with the declaration."""

    path: str
    desired: Any = None
    observed: Any = None


class LastAction(BaseModel):
    """The last step that was started for the setting."""

    step: str
    status: Literal["started", "succeeded", "failed", "unknown"]
    at: str
    attempt: int


class Status(BaseModel):
    """What is known of the world for one setting."""

    phase: Phase = Phase.PENDING
    observed_generation: int = 0
    conditions: list[Condition] = Field(default_factory=list)
    external: str | None = None
    """Name of the object in the backend, once it is ours."""
    drift: list[Difference] = Field(default_factory=list)
    muted: list[Difference] = Field(default_factory=list)
    """What differs on paths that `policy.ignore` names: seen, and left as it is."""
    last_action: LastAction | None = None
    next_at: str | None = None
    """When it will be looked at again."""


class SettingStatus(Status):
    """A status by itself, with the setting it is of. `revision`: the newest that it takes into account."""

    setting: str
    tenant: str
    setting_type: str
    name: str
    service_name: str
    revision: int


class InfrastructureSetting(BaseModel):
    """A setting as the API answers it: the declaration, its place in the log and its status."""

    id: str
    tenant: str
    setting_type: str
    name: str
    value: dict[str, Any]
    labels: dict[str, str] = Field(default_factory=dict)
    depends_on: list[str] = Field(default_factory=list)
    policy: dict[str, Any] = Field(default_factory=dict)
    created_at: str
    updated_at: str
    generation: int
    revision: int
    retiring: bool = False
    status: Status = Field(default_factory=Status)
