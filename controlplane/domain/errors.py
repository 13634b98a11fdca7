"""The caller's mistakes: errors whose reader must change the request."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple


class Reason(StrEnum):
    """Why a request was refused; becomes problem type, metric label and `reason` verbatim."""

    MALFORMED = "Malformed"
    INVALID = "Invalid"
    UNAUTHENTICATED = "Unauthenticated"
    FORBIDDEN = "Forbidden"
    NOT_FOUND = "NotFound"
    METHOD_NOT_ALLOWED = "MethodNotAllowed"
    CONFLICT = "Conflict"
    PROTECTED = "Protected"
    PLAN_STALE = "PlanStale"
    PRUNE_REFUSED = "PruneRefused"
    GONE = "Gone"
    PRECONDITION_FAILED = "PreconditionFailed"
    TOO_LARGE = "TooLarge"
    RANGE_NOT_SATISFIABLE = "RangeNotSatisfiable"
    UNSUPPORTED_MEDIA_TYPE = "UnsupportedMediaType"
    TOO_MANY_REQUESTS = "TooManyRequests"
    QUOTA_EXCEEDED = "QuotaExceeded"
    LOG_UNAVAILABLE = "LogUnavailable"
    PROJECTION_UNAVAILABLE = "ProjectionUnavailable"
    OUTCOME_UNKNOWN = "OutcomeUnknown"
    NOT_FOLDED_YET = "NotFoldedYet"
    OPERATION_FAILED = "OperationFailed"
    BACKEND_UNREACHABLE = "BackendUnreachable"
    INTERNAL = "Internal"


class Fault(NamedTuple):
    """One thing wrong with a document: JSON pointer and what to do about it."""

    path: str
    message: str


class Refused(Exception):
    """A request that can't be carried out as it is."""

    def __init__(
        self, reason: Reason, detail: str, faults: Sequence[Fault] = (), *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.faults = tuple(faults)
        self.retry_after_s = retry_after_s
