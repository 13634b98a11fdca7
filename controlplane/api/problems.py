"""What goes wrong, as application/problem+json (RFC 9457): status, reason, every fault with its path."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.log.ports import Indeterminate, LogCorrupt, LogUnavailable
from controlplane.projection.ports import StoreUnavailable

MEDIA_TYPE: Final = "application/problem+json"

STATUS: Final[Mapping[Reason, int]] = {
    Reason.MALFORMED: 400,
    Reason.UNAUTHENTICATED: 401,
    Reason.FORBIDDEN: 403,
    Reason.NOT_FOUND: 404,
    Reason.METHOD_NOT_ALLOWED: 405,
    Reason.CONFLICT: 409,
    Reason.PROTECTED: 409,
    Reason.PLAN_STALE: 409,
    Reason.PRUNE_REFUSED: 409,
    Reason.GONE: 410,
    Reason.PRECONDITION_FAILED: 412,
    Reason.TOO_LARGE: 413,
    Reason.UNSUPPORTED_MEDIA_TYPE: 415,
    Reason.RANGE_NOT_SATISFIABLE: 416,
    Reason.INVALID: 422,
    Reason.OPERATION_FAILED: 422,
    Reason.TOO_MANY_REQUESTS: 429,
    Reason.QUOTA_EXCEEDED: 429,
    Reason.INTERNAL: 500,
    Reason.LOG_UNAVAILABLE: 503,
    Reason.PROJECTION_UNAVAILABLE: 503,
    Reason.BACKEND_UNREACHABLE: 503,
    Reason.OUTCOME_UNKNOWN: 504,
    Reason.NOT_FOLDED_YET: 504,
}
"""A backend that refuses an operation refuses what was asked for, so that is 422 and not 502."""

_REASON_OF_STATUS: Final = {
    404: Reason.NOT_FOUND,
    405: Reason.METHOD_NOT_ALLOWED,
    413: Reason.TOO_LARGE,
    415: Reason.UNSUPPORTED_MEDIA_TYPE,
}

_ADVICE: Final = {
    Reason.NOT_FOUND: "there is nothing at this path; see /openapi.json",
    Reason.METHOD_NOT_ALLOWED: "this path doesn't answer to the method; see the Allow header",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One answer that says what is wrong. `extra`: members beside the standard ones."""

    reason: Reason
    detail: str
    errors: Sequence[Fault] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The HTTP status of the reason."""
        return STATUS[self.reason]

    def document(self) -> dict[str, Any]:
        """The body."""
        return {
            "type": f"urn:coreplane:problem:{self.reason}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "reason": str(self.reason),
            "errors": [fault._asdict() for fault in self.errors],
            **self.extra,
        }


class Resume(Refused):
    """A stream can't be resumed from where the reader was; `oldest` is the cursor to go on from."""

    def __init__(self, detail: str, oldest: str) -> None:
        super().__init__(Reason.GONE, detail)
        self.oldest = oldest


def problem_of(exc: Exception, request_id: str) -> Problem | None:
    """What an exception means to the caller; None for those that are bugs."""
    match exc:
        case Resume():
            return Problem(exc.reason, exc.detail, extra={"oldest": exc.oldest})
        case Refused():
            extra = {"request_id": request_id} if exc.reason is Reason.OUTCOME_UNKNOWN else {}
            return Problem(exc.reason, exc.detail, exc.faults, _headers(exc), extra)
        case LogUnavailable() | LogCorrupt():
            return Problem(Reason.LOG_UNAVAILABLE, f"nothing was stored: {exc}", headers={"Retry-After": "1"})
        case StoreUnavailable():
            detail = f"events and metrics can't be searched now; settings and the stream go on: {exc}"
            return Problem(Reason.PROJECTION_UNAVAILABLE, detail, headers={"Retry-After": "1"})
        case Indeterminate():
            detail = "the outcome is unknown; repeat the request with this request_id as Idempotency-Key to learn it"
            return Problem(Reason.OUTCOME_UNKNOWN, detail, extra={"request_id": request_id})
        case web.HTTPException():
            return _of_aiohttp(exc)
    return None


def internal(request_id: str) -> Problem:
    """A bug: the caller learns where to look in the daemon's log, nothing else."""
    detail = f"an unexpected error; the daemon's log has it under correlation_id {request_id}"
    return Problem(Reason.INTERNAL, detail, extra={"request_id": request_id})


def response(problem: Problem) -> web.Response:
    """The problem as an HTTP response."""
    body = json.dumps(problem.document(), ensure_ascii=False).encode("utf-8", "replace")
    return web.Response(status=problem.status, body=body, content_type=MEDIA_TYPE, headers=problem.headers)


def _headers(exc: Refused) -> dict[str, str]:
    if exc.reason is Reason.UNAUTHENTICATED:
        return {"WWW-Authenticate": 'Bearer realm="coreplane"'}
    if exc.retry_after_s is not None:
        return {"Retry-After": str(max(1, math.ceil(exc.retry_after_s)))}
    return {}


def _of_aiohttp(exc: web.HTTPException) -> Problem:
    reason = _REASON_OF_STATUS.get(exc.status, Reason.MALFORMED if exc.status < 500 else Reason.INTERNAL)
    allow = exc.headers.get("Allow")
    return Problem(reason, _ADVICE.get(reason, exc.reason), headers={"Allow": allow} if allow else {})
