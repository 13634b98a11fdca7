"""A backend of the cache service without the daemon: declare, converge, look again."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from reconcilers.cache.backend import connect
from reconcilers.contract import Backend, Connection, ExternalId, Hint, Kind, NotSent, Outcome, Plan, SecretNotFound
from reconcilers.registry import SERVICES
from schemas.cache import Target
from schemas.secret import SecretRef

KINDS: Mapping[str, Kind[Any, Any, Any]] = {kind.setting_type: kind for kind in SERVICES["cache"].kinds}
DEADLINE_S = 15.0


class DictSecrets:
    """Secrets of a test."""

    def __init__(self, **secrets: str) -> None:
        self.known = secrets

    def reveal(self, reference: SecretRef) -> str:
        if reference.from_env not in self.known:
            raise SecretNotFound(reference)
        return self.known[reference.from_env]

    def fingerprint(self, text: str) -> str:
        return hashlib.sha256(b"key" + text.encode()).hexdigest()[:16]


class OpenFence:
    token = (1, 1)

    def check(self) -> None:
        """Always in time."""

    def still_ours(self) -> None:
        """Always."""


class ClosedFence:
    token = (1, 1)

    def check(self) -> None:
        raise NotSent


class World:
    """One open target."""

    def __init__(self, backend: Backend, secrets: DictSecrets) -> None:
        self.backend: Any = backend
        self.secrets = secrets
        self.fence: Any = OpenFence()

    async def look(
        self, setting_type: str, value: Mapping[str, Any], name: str = "n", *, retiring: bool = False
    ) -> Plan:
        """The plan for one declaration. Errors of the object are raised."""
        kind = KINDS[setting_type]
        own_target = {"target": "main"} if "target" in kind.value.model_fields else {}
        model = kind.value.model_validate({**own_target, **value})
        external = ExternalId(setting_type, kind.identify(name, model))
        desired = None if retiring else kind.desired(name, model)
        observed = (await self.backend.observe({external: desired})).get(external)
        if isinstance(observed, Exception):
            raise observed
        return kind.plan(external, desired, observed, 0.0)

    async def declare(self, setting_type: str, value: Mapping[str, Any], name: str = "n") -> list[Outcome]:
        """Take the steps of one plan."""
        return await self.take(await self.look(setting_type, value, name))

    async def take(self, plan: Plan) -> list[Outcome]:
        return [outcome for step in plan.steps for outcome in await self.backend.apply([step], self.fence)]


@asynccontextmanager
async def world(*urls: str, secrets: DictSecrets | None = None, **target: Any) -> AsyncIterator[World]:
    """Open the servers at the URLs as one target."""
    kind = urls[0].partition(":")[0]
    where = {"url": urls[0]} if len(urls) == 1 else {"nodes": urls}
    secrets = secrets or DictSecrets()
    value = Target.model_validate({"kind": kind, **where, **target})
    backend = await connect(Connection("default", "main", value, secrets))
    try:
        yield World(backend, secrets)
    finally:
        await backend.close()


@asynccontextmanager
async def hinted(backend: Any) -> AsyncIterator[Callable[[], Any]]:
    """Collect hints; the function waits for the next one."""
    hints: asyncio.Queue[Hint] = asyncio.Queue()

    async def collect() -> None:
        async for hint in backend.hints():
            hints.put_nowait(hint)

    async def following() -> Hint:
        async with asyncio.timeout(DEADLINE_S):
            return await hints.get()

    task = asyncio.create_task(collect())
    try:
        yield following
    finally:
        task.cancel()
        await asyncio.wait([task])
