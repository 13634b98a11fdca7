"""A backend of the queue service without the daemon: declare, converge, look again."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from kafka.admin import KafkaAdminClient

from controlplane.devstack import kafka, secrets
from reconcilers.contract import Connection, Result
from reconcilers.queue.backend import connect
from schemas.queue import Target
from tests.integration.backend_world import BackendWorld, DictSecrets
from tests.servers import SharedServer

DEADLINE_S = 60.0
ADMIN_PASSWORD = "ADMIN_PASSWORD"


def plain(broker: SharedServer) -> str:
    """host:port of the listener that lets everybody in."""
    return broker.url.removeprefix("kafka://")


def sasl(broker: SharedServer) -> str:
    """host:port of the listener that asks who one is."""
    return f"127.0.0.1:{kafka.sasl_port(broker.place)}"


def admin_password(broker: SharedServer) -> str:
    return secrets.ensure(broker.place.data_dir, kafka.ADMIN_SECRET)


def target_value(broker: SharedServer, password: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The cluster, by the listener that obeys permissions."""
    security = {
        "protocol": "SASL_PLAINTEXT",
        "username": kafka.ADMIN,
        "password": password or {"from_env": ADMIN_PASSWORD},
    }
    return {"bootstrap_servers": sasl(broker), "security": security}


def unique(what: str) -> str:
    """A name that nobody else in the run has."""
    return f"{what}-{uuid.uuid4().hex[:8]}"


class World(BackendWorld):
    """One open target."""

    async def converge(self, setting_type: str, value: Mapping[str, Any], name: str = "n", **more: Any) -> list[str]:
        """Until nothing is left to do or to wait for; the names of the steps that it took."""
        taken: list[str] = []
        async with asyncio.timeout(DEADLINE_S):
            while not (plan := await self.look(setting_type, value, name, **more)).converged:
                assert plan.blocked is None, plan.blocked
                for step, outcome in zip(plan.steps, await self.take(plan), strict=True):
                    assert outcome.result is Result.SUCCEEDED, (step, outcome)
                    taken.append(step.name)
                await asyncio.sleep(0.1)
        return taken


@asynccontextmanager
async def world(
    broker: SharedServer, known: DictSecrets | None = None, reserved: frozenset[str] = frozenset(), **target: Any
) -> AsyncIterator[World]:
    """Open the cluster as a target."""
    known = known or DictSecrets()
    known.known.setdefault(ADMIN_PASSWORD, admin_password(broker))
    value = Target.model_validate(target_value(broker) | target)
    backend = await connect(Connection("default", "main", value, known, reserved))
    try:
        yield World(backend, known)
    finally:
        await backend.close()


@asynccontextmanager
async def by_hand(broker: SharedServer) -> AsyncIterator[Any]:
    """The bare client, as somebody else uses it: `await hand(lambda admin: …)`."""
    client = await asyncio.to_thread(KafkaAdminClient, bootstrap_servers=plain(broker))

    async def call(work: Any) -> Any:
        return await asyncio.to_thread(work, client)

    try:
        yield call
    finally:
        await asyncio.to_thread(client.close)
