"""A backend without the daemon: declare, look, take the steps, look again. What each service adds is in its own `…_world`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

from reconcilers.contract import Backend, ExternalId, Kind, NotSent, Outcome, Plan, Result, SecretNotFound
from reconcilers.registry import SERVICES
from schemas.secret import SecretRef

KINDS: Mapping[str, Kind[Any, Any, Any]] = {
    kind.setting_type: kind for service in SERVICES.values() for kind in service.kinds
}


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


class BackendWorld:
    """One open target. What plans and outcomes remember is kept as the controller keeps it."""

    def __init__(self, backend: Backend, secrets: DictSecrets) -> None:
        self.backend: Any = backend
        self.secrets = secrets
        self.fence: Any = OpenFence()
        self.taken: list[str] = []
        """Names of all steps."""
        self.remembered: dict[ExternalId, dict[str, str]] = {}

    async def look(
        self,
        setting_type: str,
        value: Mapping[str, Any],
        name: str = "n",
        *,
        retiring: bool = False,
        now: float | None = None,
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
        memory = self.remembered.setdefault(external, {})
        plan = kind.plan(external, desired, kind.recall(observed, memory), time.time() if now is None else now)
        if plan.converged:
            memory |= plan.remember
        return plan

    async def take(self, plan: Plan) -> list[Outcome]:
        """Its steps, one after the other; the first that fails ends it."""
        outcomes = []
        for step in plan.steps:
            (outcome,) = await self.backend.apply([step], self.fence)
            self.taken.append(step.name)
            self.remembered.setdefault(step.external, {}).update(outcome.remember)
            outcomes.append(outcome)
            if outcome.result is not Result.SUCCEEDED:
                break
        return outcomes

    async def declare(self, setting_type: str, value: Mapping[str, Any], name: str = "n") -> list[Outcome]:
        """Take the steps of one plan."""
        return await self.take(await self.look(setting_type, value, name))
