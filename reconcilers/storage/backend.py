"""A MinIO, or another S3 server, as one target. All I/O of the service ends here and in the modules it is made of.

Theory of operation. Kinds are observed together, by one export of all buckets and one of all that concerns logins. Steps of
different objects go at the same time, up to a limit; those of one bucket never do. Whether we may use MinIO's admin API is
found out when the target is opened: without it the target is a plain S3 server, and what that can't hold is `Unsupported`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from reconcilers.contract import (
    Backend,
    BackendError,
    Connection,
    Discovered,
    ExternalId,
    Fence,
    Hint,
    Measurement,
    NotSent,
    Outcome,
    Result,
    Step,
    failed,
    unknown,
)
from reconcilers.storage import trace
from reconcilers.storage.buckets import Buckets
from reconcilers.storage.model import BUCKET
from reconcilers.storage.s3 import Refused, S3Client, Unanswered

Wanted = Mapping[ExternalId, Any]


async def connect(connection: Connection) -> Backend:
    """Open a target. Raises `Unreachable` when it doesn't answer, `TerminalError` (wrong login), `SecretNotFound`."""
    client = S3Client(connection)
    backend = StorageBackend(client)
    try:
        await backend.greet()
    except Refused as exc:
        await backend.close()
        raise exc.translated() from exc
    except BaseException:
        await backend.close()
        raise
    return backend


class StorageBackend:
    """One server."""

    def __init__(self, client: S3Client) -> None:
        self.client = client
        self._buckets = Buckets(client)
        self._deployment: str | None = None

    async def greet(self) -> None:
        """Log in, and see what we may do."""
        await self.client.get("/")
        await self._buckets.detect()
        self._deployment = await self._deployment_id()

    async def _deployment_id(self) -> str:
        try:
            return str(json.loads(await self.client.admin("GET", "info")).get("deploymentID"))
        except (Refused, ValueError):
            return "s3"

    @property
    def incarnation(self) -> str | None:
        """The deployment: what is set survives a restart of the server."""
        return self._deployment

    def unsupported(self, setting_type: str) -> str | None:
        """See the contract."""
        return None if setting_type == BUCKET else f"{setting_type} needs a MinIO whose admin API we may use"

    async def observe(self, wanted: Wanted) -> Mapping[ExternalId, Any]:
        """See the contract."""
        try:
            names = {external.name: desired for external, desired in wanted.items()}
            found = await self._buckets.observe(names)
        except Refused as exc:
            raise exc.translated() from exc
        return {ExternalId(BUCKET, name): seen for name, seen in found.items()}

    async def apply(self, steps: Sequence[Step], fence: Fence) -> Sequence[Outcome]:
        """See the contract."""
        return await asyncio.gather(*(self._apply(step, fence) for step in steps))

    async def _apply(self, step: Step, fence: Fence) -> Outcome:
        try:
            return await self._buckets.apply(step, fence)
        except NotSent:
            return Outcome(Result.NOT_SENT)
        except Refused as exc:
            return failed(exc.translated())
        except Unanswered as exc:
            return unknown(exc)
        except BackendError as exc:
            return failed(exc)

    async def discover(self, setting_type: str, match: str) -> Sequence[Discovered]:
        """Nothing yet."""
        del setting_type, match
        return []

    async def sample(self) -> Sequence[Measurement]:
        """See the contract."""
        return []

    def hints(self) -> AsyncIterator[Hint]:
        """See the contract: by the trace of the admin API, where we may use it."""
        return trace.hints(self.client, traced=self._buckets.export)

    async def close(self) -> None:
        """See the contract."""
        await self.client.close()
