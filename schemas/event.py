"""InfrastructureEvent: what happened, in the past tense."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = "event.v1"
"""Value of the `schema` header of every event record."""


class EventType(StrEnum):
    """Every type of event there is."""

    SETTING_ACCEPTED = "SettingAccepted"
    SETTING_REJECTED = "SettingRejected"
    SETTING_RETIRED = "SettingRetired"
    SETTING_FORGOTTEN = "SettingForgotten"
    ACTION_STARTED = "ActionStarted"
    ACTION_SUCCEEDED = "ActionSucceeded"
    ACTION_FAILED = "ActionFailed"
    ACTION_UNKNOWN = "ActionUnknown"
    DRIFT_DETECTED = "DriftDetected"
    DRIFT_RESOLVED = "DriftResolved"
    CONVERGED = "Converged"
    STALLED = "Stalled"
    ADOPTED = "Adopted"
    TARGET_UP = "TargetUp"
    TARGET_DOWN = "TargetDown"
    OPERATION_STARTED = "OperationStarted"
    OPERATION_SUCCEEDED = "OperationSucceeded"
    OPERATION_FAILED = "OperationFailed"
    SHARD_TAKEN = "ShardTaken"


class EventStatus(StrEnum):
    """Where an effect stands; `info` for everything that isn't one."""

    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    INFO = "info"


class InfrastructureEvent(BaseModel):
    """One entry of the journal, as consumers read it. Unknown fields of newer writers are kept."""

    model_config = ConfigDict(extra="allow")

    id: str
    event_type: EventType
    timestamp: str
    service_name: str
    details: dict[str, Any] = Field(default_factory=dict)
    status: EventStatus = EventStatus.INFO
    tenant: str
    setting: str | None = None
    """Key of the setting it is about; None for targets, operations and shards."""
    generation: int | None = None
    revision: int | None = None
    actor: str | None = None
    correlation_id: str | None = None
    """The same for everything that one request or one reconciliation caused."""
    causation_id: str | None = None
    """Id of the event or request that directly caused this one."""
    shard: int | None = None
