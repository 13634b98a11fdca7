"""A backend of the search service without the daemon: declare, converge, look again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from controlplane.devstack.elasticsearch import credentials
from reconcilers.contract import Connection, Outcome, Plan, TransientError
from reconcilers.search.backend import connect
from reconcilers.search.suggesters import request_of, suggestions_of
from reconcilers.search.wire import Wire, basic
from schemas.search import Suggest, Suggester, Target
from tests.integration.backend_world import BackendWorld, DictSecrets

INDEX = "search.index"
DEADLINE_S = 100.0
RECOVERED_S = 60.0


class SearchWorld(BackendWorld):
    """One open target."""

    def __init__(self, backend: Any, secrets: DictSecrets) -> None:
        super().__init__(backend, secrets)
        self.wire: Wire = backend.wire
        self.said: dict[str, dict[str, Any]] = {}
        """Step → everything that its outcomes told."""

    async def suggest(self, name: str, value: Mapping[str, Any], text: str) -> list[dict[str, Any]]:
        """What a suggester says."""
        declared = Suggester.model_validate({"target": "main", **value})
        asked = Suggest(suggester=name, text=text)
        answer = await self.wire.ask("POST", f"/{declared.index}/_search", request_of(declared, asked))
        return suggestions_of(declared, answer, asked.size)

    async def take(self, plan: Plan) -> list[Outcome]:
        """Its steps; the first that fails ends it."""
        outcomes = await super().take(plan)
        for step, outcome in zip(plan.steps, outcomes, strict=False):
            self.said[step.name] = {**self.said.get(step.name, {}), **outcome.details}
        return outcomes

    async def converge(self, setting_type: str, value: Mapping[str, Any], name: str, *, until: str = "") -> Plan:
        """Look and act until nothing is left to do, or it is blocked, or the next step is the one named."""
        plan = None
        until_s = time.monotonic() + DEADLINE_S
        async with asyncio.timeout(2 * DEADLINE_S):
            while True:
                assert time.monotonic() < until_s, (plan, self.taken[-20:])
                try:
                    plan = await self.look(setting_type, value, name)
                except TransientError:
                    await asyncio.sleep(0.05)
                    continue
                if until and any(step.name == until for step in plan.steps):
                    return plan
                if not plan.steps and plan.wait_reason is None:
                    return plan
                errors = [outcome.error for outcome in await self.take(plan) if outcome.error is not None]
                if any(not isinstance(error, TransientError) for error in errors):
                    raise errors[0]
                if errors or not plan.steps:
                    await asyncio.sleep(0.05)


class Login(NamedTuple):
    """How the run's server is reached."""

    auth: tuple[str, str]
    snapshots: Path
    """Where repositories may be."""


def login(server: Any) -> Login:
    """As its administrator."""
    return Login(credentials(server.place), server.place.home / "snapshots")


@asynccontextmanager
async def opened(server: Any, known: Mapping[str, str] | None = None, **target: Any) -> AsyncIterator[SearchWorld]:
    """The run's server, as its administrator. `known`: further secrets."""
    name, password = credentials(server.place)
    who = {"username": name, "password": {"from_env": "ES"}}
    secrets = DictSecrets(ES=password, **(known or {}))
    await _recovered(server.url, name, password)
    async with search_world(server.url, secrets=secrets, **who, **target) as world:
        yield world


async def _recovered(url: str, name: str, password: str) -> None:
    """A node that was just started answers before it knows what it holds, a target can't be opened until then."""
    headers = {"authorization": basic(name, password)}
    async with asyncio.timeout(RECOVERED_S), aiohttp.ClientSession(headers=headers) as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(f"{url}/_cluster/health", params={"wait_for_status": "yellow"}) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)


@asynccontextmanager
async def search_world(url: str, *, secrets: DictSecrets | None = None, **target: Any) -> AsyncIterator[SearchWorld]:
    """Open the server at the URL."""
    value = Target.model_validate({"urls": [url], **target})
    secrets = secrets or DictSecrets()
    backend = await connect(Connection("default", "main", value, secrets))
    try:
        yield SearchWorld(backend, secrets)
    finally:
        await backend.close()
