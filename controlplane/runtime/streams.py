"""Contents of backends, streamed: which backend serves a request, how many at once, and what its refusals mean.

Nothing of this stands in the journal: it is the traffic of programs, not a change of what is declared. It is counted, and
bounded, so that slow readers can't hold everything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from controlplane.domain.errors import Elsewhere, Reason, Refused
from controlplane.runtime.catalogue import Catalogue, TargetId, place
from controlplane.runtime.controller import Controller
from reconcilers.contract import (
    BackendError,
    StreamAnswer,
    Streamed,
    StreamRequest,
    TransientError,
    Unreachable,
)

MOST_AT_ONCE: Final = 64
REASONS: Final[Mapping[str, Reason]] = {
    "NotFound": Reason.NOT_FOUND,
    "PreconditionFailed": Reason.PRECONDITION_FAILED,
    "RangeNotSatisfiable": Reason.RANGE_NOT_SATISFIABLE,
    "Forbidden": Reason.FORBIDDEN,
    "Invalid": Reason.INVALID,
}


class Streams:
    """What can be streamed from and to the targets whose shards are ours."""

    def __init__(self, catalogue: Catalogue, controller: Controller) -> None:
        self._catalogue = catalogue
        self._services = {one.streams: one.name for one in catalogue.services.values() if one.streams}
        self._controller = controller
        self._open = 0

    @asynccontextmanager
    async def open(self, tenant: str, what: str, target: str, request: StreamRequest) -> AsyncIterator[StreamAnswer]:
        """The answer to one request. Raises `Refused`, and `Elsewhere` before anything of the body is read."""
        backend = self._backend(self._where(tenant, what, target, request.path))
        if self._open >= MOST_AT_ONCE:
            raise Refused(Reason.TOO_MANY_REQUESTS, f"{MOST_AT_ONCE} streams are open", retry_after_s=1.0)
        self._open += 1
        try:
            async with backend.stream(request) as answer:
                yield answer
        except BackendError as exc:
            raise _refusal(exc) from exc
        finally:
            self._open -= 1

    def _where(self, tenant: str, what: str, target: str, path: str) -> TargetId:
        service = self._services.get(what)
        if service is None:
            raise Refused(Reason.NOT_FOUND, f"no service here streams {what}")
        found = place(tenant, service, target)
        prefix = self._catalogue.prefix(tenant, found)
        if prefix is None:
            raise Refused(Reason.FORBIDDEN, f"{target} is not shared with tenant {tenant}")
        if found.tenant != tenant and not self._catalogue.services[service].streams_confined:
            detail = (
                f"{what} can't be confined to a prefix: they need a target that {tenant} has for itself, not {target}"
            )
            raise Refused(Reason.FORBIDDEN, detail)
        if not path.startswith(prefix):
            raise Refused(Reason.FORBIDDEN, f"what is yours on {target} begins with {prefix}")
        return found

    def _backend(self, target: TargetId) -> Streamed:
        name = f"{target.service}.target/{target.target}"
        if (shard := self._controller.elsewhere(target)) is not None:
            raise Elsewhere(shard, name)
        loop = self._controller.loop(target)
        if loop is None:
            raise Refused(Reason.NOT_FOUND, f"there is no {name} here")
        if loop.backend is None:
            why = "" if loop.down is None else f": {loop.down.message}"
            detail = f"{name} is not connected{why}"
            raise Refused(Reason.BACKEND_UNREACHABLE, detail, retry_after_s=1.0)
        backend: Streamed = loop.backend  # type: ignore[assignment]  # its service says that it streams
        return backend


def _refusal(exc: BackendError) -> Refused:
    if isinstance(exc, Unreachable):
        return Refused(Reason.BACKEND_UNREACHABLE, exc.message, retry_after_s=1.0)
    if isinstance(exc, TransientError):
        return Refused(Reason.BACKEND_UNREACHABLE, exc.message, retry_after_s=exc.retry_after_s or 1.0)
    return Refused(REASONS.get(exc.reason, Reason.OPERATION_FAILED), exc.message)
