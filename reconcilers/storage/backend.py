"""A MinIO, or another S3 server, as one target. All I/O of the service ends here and in the modules it is made of.

Theory of operation. Kinds are observed together, by one export of all buckets and one of all that concerns logins. Steps of
different objects go at the same time, up to a limit; those of one bucket never do. Whether we may use MinIO's admin API is
found out when the target is opened: without it the target is a plain S3 server, and what that can't hold is `Unsupported`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from reconcilers.contract import (
    Affected,
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
    SecretNotFound,
    Secrets,
    Step,
    StreamAnswer,
    StreamRequest,
    TerminalError,
    failed,
    unknown,
)
from reconcilers.discovery import matches, setting_name
from reconcilers.storage import discovered, iam, logins, objects, parameters, samples, trace, weighing
from reconcilers.storage.buckets import Buckets
from reconcilers.storage.iam import Iam
from reconcilers.storage.model import BUCKET
from reconcilers.storage.parameters import SERVER_CONFIG, HeldConfig, SetConfig
from reconcilers.storage.s3 import Refused, S3Client, Unanswered, bucket_path
from reconcilers.storage.survey import Survey

Wanted = Mapping[ExternalId, Any]
DISCOVERED: Final[Mapping[str, Callable[[str, Any], Discovered]]] = {
    logins.POLICY: discovered.policy,
    logins.USER: discovered.user,
    logins.GROUP: discovered.group,
    logins.ACCESS_KEY: discovered.access_key,
}

NO_TARGET: Final = "XMinioConfigError"
"""Of a subsystem that exists: it has no target of that name yet."""
MOST_REPLICATED: Final = 20
"""Buckets that are asked how their replication is, each time."""

Observer = Callable[[Wanted], Awaitable[Mapping[ExternalId, Any]]]


async def connect(connection: Connection) -> Backend:
    """Open a target. Raises `Unreachable` when it doesn't answer, `TerminalError` (wrong login), `SecretNotFound`."""
    client = S3Client(connection)
    backend = StorageBackend(client, connection.secrets)
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

    def __init__(self, client: S3Client, secrets: Secrets) -> None:
        self.client = client
        self._buckets = Buckets(client, secrets)
        self._iam = Iam(client, secrets)
        self.survey = Survey(client)
        self._deployment: str | None = None

    async def greet(self) -> None:
        """Log in, and see what we may do."""
        await self.client.get("/")
        await self._buckets.detect()
        await self._iam.detect()
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
        if setting_type == BUCKET or self._iam.allowed:
            return None
        return f"{setting_type} needs a MinIO whose admin API we may use"

    # --- observation ---------------------------------------------------------------------------------------------------

    async def observe(self, wanted: Wanted) -> Mapping[ExternalId, Any]:
        """See the contract."""
        parts = [(kinds, look) for kinds, look in self._observers() if any(e.setting_type in kinds for e in wanted)]
        mine = [{e: desired for e, desired in wanted.items() if e.setting_type in kinds} for kinds, _ in parts]
        found = await asyncio.gather(*(_seen(look, part) for (_, look), part in zip(parts, mine, strict=True)))
        return {external: seen for part in found for external, seen in part.items()}

    def _observers(self) -> tuple[tuple[Sequence[str], Observer], ...]:
        return (
            ((BUCKET,), self._observe_buckets),
            (iam.KINDS, self._iam.observe),
            ((SERVER_CONFIG,), self._observe_config),
        )

    async def _observe_buckets(self, wanted: Wanted) -> Mapping[ExternalId, Any]:
        found = await self._buckets.observe({external.name: desired for external, desired in wanted.items()})
        return {ExternalId(BUCKET, name): seen for name, seen in found.items()}

    async def _observe_config(self, wanted: Wanted) -> Mapping[ExternalId, Any]:
        found: dict[ExternalId, Any] = {}
        for external in wanted:
            try:
                found[external] = await self._config(external.name)
            except Refused as exc:
                found[external] = exc.translated(external.name)
        return found

    async def _config(self, name: str) -> HeldConfig:
        subsystem, _, target = name.partition(":")
        held = parameters.parsed(await self._config_text(subsystem), subsystem)
        if not target:
            return held
        try:
            text = await self._config_text(name)
        except Refused as exc:
            if exc.code != NO_TARGET:
                raise
            text = ""
        return parameters.target_of(held, parameters.parsed(text, name))

    async def _config_text(self, name: str) -> str:
        return (await self.client.unsealed(await self.client.admin("GET", "get-config-kv", {"key": name}))).decode()

    # --- steps ---------------------------------------------------------------------------------------------------------

    async def apply(self, steps: Sequence[Step], fence: Fence) -> Sequence[Outcome]:
        """See the contract."""
        return await asyncio.gather(*(self._apply(step, fence) for step in steps))

    async def _apply(self, step: Step, fence: Fence) -> Outcome:
        try:
            return await self._applied(step, fence)
        except NotSent:
            return Outcome(Result.NOT_SENT)
        except SecretNotFound as exc:
            return failed(TerminalError(str(exc), reason="SecretNotFound"))
        except Refused as exc:
            return failed(exc.translated())
        except Unanswered as exc:
            return unknown(exc)
        except BackendError as exc:
            return failed(exc)

    async def _applied(self, step: Step, fence: Fence) -> Outcome:
        if isinstance(step, SetConfig):
            line = parameters.line_of(step.external.name, dict(step.changes))
            await self.client.admin("PUT", "set-config-kv", (), await self.client.sealed(line), fence=fence)
            return Outcome(Result.SUCCEEDED, remember=parameters.remembered(step, time.time()))
        if step.external.setting_type == BUCKET:
            return await self._buckets.apply(step, fence)
        return await self._iam.apply(step, fence)

    async def weigh(self, steps: Sequence[Step]) -> Sequence[Affected]:
        """See `contract.Weighing`."""
        return [await weighing.weigh(self.client, step) for step in steps]

    # --- the rest ------------------------------------------------------------------------------------------------------

    async def discover(self, setting_type: str, match: str) -> Sequence[Discovered]:
        """See the contract. Of a subsystem's parameters nobody knows which somebody has set: they aren't discovered."""
        try:
            if setting_type == BUCKET:
                held = await self._buckets.all()
                return [_discovered(discovered.bucket, n, one) for n, one in sorted(held.items()) if matches(n, match)]
            if setting_type not in DISCOVERED:
                return []
            found = await self._iam.all_of(setting_type)
        except Refused as exc:
            raise exc.translated() from exc
        own = discovered.BUILT_IN if setting_type == logins.POLICY else frozenset[str]()
        names = [external.name for external in found if matches(external.name, match, reserved=external.name in own)]
        return [DISCOVERED[setting_type](name, found[ExternalId(setting_type, name)]) for name in names]

    def stream(self, request: StreamRequest) -> AbstractAsyncContextManager[StreamAnswer]:
        """See `contract.Streamed`: objects, by BUCKET/KEY."""
        return objects.stream(self.client, request)

    async def sample(self) -> Sequence[Measurement]:
        """What the server tells of itself, where we may ask, and of the buckets that were looked at."""
        measured = samples.of_buckets(self._buckets.seen())
        measured += await self.survey.look(self._buckets.seen())
        try:
            measured += samples.of_server(await self.client.prometheus())
            for name in [name for name, held in self._buckets.seen() if held.replication.rules][:MOST_REPLICATED]:
                told = await self.client.get(bucket_path(name), {"replication-metrics": "2"})
                measured += samples.of_replication(name, json.loads(told))
            measured += samples.of_usage(json.loads(await self.client.admin("GET", "datausageinfo")), time.time())
        except Refused:
            return measured  # no right to ask: a plain S3 server tells nothing
        return measured

    def hints(self) -> AsyncIterator[Hint]:
        """See the contract: by the trace of the admin API, where we may use it."""
        return trace.hints(self.client, traced=self._buckets.export)

    async def close(self) -> None:
        """See the contract."""
        await self.client.close()


def _discovered(describe: Callable[[str, Any], Discovered], name: str, seen: Any) -> Discovered:
    """One that couldn't be looked at can't be declared either."""
    if isinstance(seen, BackendError):
        return Discovered(setting_name(name), {}, undeclarable=seen.message)
    return describe(name, seen)


async def _seen(look: Observer, wanted: Wanted) -> Mapping[ExternalId, Any]:
    """One kind may be forbidden to us while the others are well."""
    try:
        return await look(wanted)
    except Refused as exc:
        return dict.fromkeys(wanted, exc.translated())
