"""What a call of the client can end with, as exceptions. Everything derives from `ClientError`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Fault(NamedTuple):
    """One thing the daemon found wrong: JSON pointer into the body (may be empty) and what to do about it."""

    path: str
    message: str


class ClientError(Exception):
    """A call didn't end as asked."""


class DaemonUnreachable(ClientError):
    """No answer from the daemon, also after the retries. A write may or may not have happened."""

    def __init__(self, url: str, cause: str) -> None:
        super().__init__(f"no answer from {url}: {cause}")
        self.url = url
        self.cause = cause


class StreamBroken(ClientError):
    """What arrived on an event stream isn't one."""


class ApiError(ClientError):
    """The daemon refused: its problem document (RFC 9457), or what could be made of another body."""

    def __init__(self, status: int, problem: Mapping[str, Any], *, retry_after_s: float | None = None) -> None:
        self.status = status
        self.problem = dict(problem)
        self.title: str = str(problem.get("title") or f"HTTP {status}")
        self.detail: str = str(problem.get("detail") or "")
        self.reason: str = str(problem.get("reason") or "")
        self.errors = faults_in(problem.get("errors"))
        self.retry_after_s = retry_after_s
        super().__init__(f"{self.status} {self.title}: {self.detail}" if self.detail else f"{self.status} {self.title}")


class Gone(ApiError):
    """The stream can't resume there any more: what followed the cursor has been dropped by retention."""

    @property
    def oldest(self) -> str | None:
        """The oldest cursor that can be resumed from, as the daemon told."""
        oldest = self.problem.get("oldest", self.problem.get("oldest_cursor"))
        return None if oldest is None else str(oldest)


def faults_in(errors: object) -> tuple[Fault, ...]:
    """`errors` of a problem document; entries of another shape are left out."""
    if not isinstance(errors, list):
        return ()
    return tuple(
        Fault(str(error.get("path", "")), str(error.get("message", ""))) for error in errors if isinstance(error, dict)
    )


def problem_error(status: int, problem: Mapping[str, Any], retry_after_s: float | None = None) -> ApiError:
    """The exception for a problem document."""
    kind = Gone if status == 410 else ApiError
    return kind(status, problem, retry_after_s=retry_after_s)
