"""What services run beside their reconcilers, in every replica: one companion for each target that has settings for it.

Theory of operation. The desired state is looked at every LOOK_S. A companion is started where a target is declared and has
settings of the companion's kinds, started anew when the target is declared otherwise, and stopped when it has none any
more. One that ends or reports its backend's error is started again after a growing pause; any other error is a bug and the
supervisor's affair. Companions of several replicas share their work by themselves, as the members of a consumer group do.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

import structlog

from controlplane.runtime.backoff import Backoff
from controlplane.runtime.catalogue import Catalogue, TargetId
from controlplane.runtime.clock import Clock
from controlplane.runtime.desired import DesiredState
from controlplane.runtime.secrets import TenantSecrets, check_permitted
from controlplane.runtime.supervisor import Supervisor
from controlplane.telemetry.metrics import Metrics
from reconcilers.contract import BackendError, Connection, SecretNotFound
from schemas.names import parse_key

_log = structlog.get_logger()

LOOK_S: Final = 0.5
STEADY_S: Final = 60.0
"""One that ran so long before it ended begins its pauses anew."""


class Companions:
    """The companions of this replica. `run` until cancelled; `close` ends them all."""

    def __init__(
        self, desired: DesiredState, catalogue: Catalogue, secrets: TenantSecrets, clock: Clock, metrics: Metrics
    ) -> None:
        self._desired = desired
        self._catalogue = catalogue
        self._secrets = secrets
        self._clock = clock
        self._supervisor = Supervisor(metrics)
        self._running: dict[TargetId, Any] = {}
        """Target → the value it was started with."""
        self._backoff = Backoff(0.2, 10.0)

    async def run(self) -> None:
        """Keep running what should run."""
        while True:
            wanted = self._wanted()
            for target in [t for t, value in self._running.items() if wanted.get(t) != value]:
                del self._running[target]
                await self._supervisor.stop_one(str(target))
            for target, value in wanted.items():
                if target not in self._running:
                    self._running[target] = value
                    self._supervisor.start(str(target), lambda t=target, v=value: self._keep(t, v))  # type: ignore[misc]
            await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        """End them all."""
        self._running.clear()
        await self._supervisor.stop()

    def _wanted(self) -> dict[TargetId, Any]:
        found = {}
        for target in self._desired.targets():
            service = self._catalogue.services.get(target.service)
            if service is None or service.companion is None:
                continue
            kinds = service.companion.kinds
            if not any(parse_key(key).setting_type in kinds for key in self._desired.keys_of(target)):
                continue
            setting = self._desired.target_setting(target)
            if setting is not None:
                found[target] = setting.value
        return found

    async def _keep(self, target: TargetId, value: Any) -> None:
        companion = self._catalogue.services[target.service].companion
        if companion is None:
            return
        failures = 0
        while True:
            began = self._clock.monotonic()
            try:
                check_permitted(self._secrets, target.tenant, value)
                await companion.run(Connection(target.tenant, target.target, value, self._secrets))
                _log.warning("companion ended", target=str(target))
            except (BackendError, SecretNotFound) as exc:
                _log.warning("companion failed", target=str(target), error=str(exc))
            failures = 1 if self._clock.monotonic() - began > STEADY_S else failures + 1
            await asyncio.sleep(self._backoff.pause_s(failures, random.random()))  # noqa: S311
