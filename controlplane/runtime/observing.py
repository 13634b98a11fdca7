"""A backend is looked at, with a deadline; a fault in its code is counted and said, and ends neither a pass nor a plan."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import structlog

from controlplane.telemetry.metrics import Metrics
from reconcilers.contract import Backend, BackendError, ExternalId, Service, TerminalError, Unreachable

_log = structlog.get_logger()

OBJECTS_PER_S: Final = 500
"""A backend that is asked for more objects has more time to answer."""


async def observe(
    backend: Backend, wanted: Mapping[ExternalId, Any], service: Service, metrics: Metrics
) -> Mapping[ExternalId, Any]:
    """What is there. Raises `BackendError`: `Unreachable` at the deadline, which grows with the number of objects,
    and `TerminalError` for a fault in the backend's code."""
    timeout_s = service.observe_timeout_s + len(wanted) / OBJECTS_PER_S
    try:
        async with asyncio.timeout(timeout_s):
            return await backend.observe(wanted)
    except TimeoutError as exc:
        msg = f"no answer within {timeout_s:g} s"
        raise Unreachable(msg, reason="Timeout") from exc
    except BackendError:
        raise
    except Exception as exc:
        metrics.bug("observe")
        _log.exception("observe failed", service=service.name)
        msg = f"observe: {exc!r}"
        raise TerminalError(msg, reason="InternalError") from exc
