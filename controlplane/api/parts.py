"""What the application is made of: given by the composition root, the same for every request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel

from controlplane.api.forwarding import Forwarding
from controlplane.api.limits import Limits
from controlplane.api.refusals import Refusals
from controlplane.config import Config
from controlplane.log.ports import Journal
from controlplane.projection.projector import Lag
from controlplane.projection.queries import Queries
from controlplane.runtime.clock import Clock
from controlplane.runtime.directory import Directory
from controlplane.runtime.foreseen import Previewed
from controlplane.runtime.imported import Imported
from controlplane.runtime.importing import Text, Wish
from controlplane.runtime.past import Past
from controlplane.runtime.preview import Proposal
from controlplane.runtime.replica import Replica
from controlplane.runtime.statuses import StatusView
from controlplane.telemetry.metrics import Metrics
from reconcilers.contract import Service, StreamAnswer, StreamRequest, Trespass
from schemas.names import Key


class Control(Protocol):
    """The controller, as the API sees it."""

    def look(self, key: str) -> None:
        """Reconcile the key now."""

    def home(self, key: str) -> int | None:
        """The shard of a setting whose target another replica drives."""

    def report(self) -> dict[str, Any]:
        """The controller's part of /v1/status: `shards` owned, `targets` with tenant, service, target, up, …"""


class Runner(Protocol):
    """One-shot requests."""

    def requests(self) -> Mapping[str, type[BaseModel]]:
        """`cache.invalidate` and the like → model of its request."""

    async def run(
        self, tenant: str, name: str, body: Mapping[str, Any], *, actor: str, request_id: str
    ) -> dict[str, Any]:
        """`{operation_id, result}`; raises `Refused`."""


class Contents(Protocol):
    """What can be streamed from and to targets."""

    def open(
        self, tenant: str, what: str, target: str, request: StreamRequest
    ) -> AbstractAsyncContextManager[StreamAnswer]:
        """The answer to one request. Raises `Refused`."""


class Foresight(Protocol):
    """What an apply would do."""

    async def foresee(self, proposal: Proposal) -> Previewed:
        """The plan; nothing is done. Raises `Refused`."""


class Imports(Protocol):
    """What exists, as declarations."""

    async def from_backend(self, wish: Wish) -> Imported:
        """What exists in a backend. Raises `Refused`."""

    async def from_file(self, file: Text) -> Imported:
        """What a file says. Raises `Refused`."""


Trespasses = Callable[[Key, Mapping[str, Any]], Sequence[Trespass]]


def no_troubles() -> Sequence[Mapping[str, str]]:
    """Nothing keeps the daemon from being ready."""
    return ()


@dataclass(frozen=True, slots=True)
class Parts:
    """The running daemon."""

    config: Config
    replica: Replica
    statuses: StatusView
    journal: Journal
    queries: Queries
    control: Control
    operations: Runner
    streams: Contents
    kinds: Mapping[str, type[BaseModel]]
    """Setting type → value model: everything that can be declared here."""
    services: Mapping[str, Service]
    metrics: Metrics
    clock: Clock
    past: Past
    preview: Foresight
    trespasses: Trespasses
    """Why a declaration may not have its object where it says; nothing when it may."""
    directory: Directory
    """Tokens, tenants and shares."""
    importing: Imports
    troubles: Callable[[], Sequence[Mapping[str, str]]] = no_troubles
    """What else keeps the daemon from being ready: `{part, reason, message}` each."""
    forwarding: Forwarding = field(default_factory=Forwarding)
    """To other replicas."""
    projection_lag: Callable[[], Lag] = Lag
    """How far the projection is behind."""
    limits: Limits = field(default_factory=Limits)
    refusals: Refusals = field(default_factory=Refusals)
