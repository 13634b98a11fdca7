"""What one line of the route table says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from controlplane.api import bodies
from controlplane.api.call import Handler
from controlplane.api.parameters import Parameters
from controlplane.domain.access import Role

TENANT: Final = "/v1/tenants/{tenant}"
SETTING: Final = TENANT + "/settings/{type}/{name}"


@dataclass(frozen=True, slots=True)
class Body:
    """What a call takes: `schema` is a name under components/schemas."""

    schema: str
    types: tuple[str, ...] = bodies.JSON
    required: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call gives: `schema` is a name under components/schemas, None when the type says enough."""

    schema: str | None
    description: str = ""
    media_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Route:
    """One call."""

    method: str
    path: str
    handler: Handler
    summary: str
    role: Role
    answers: Mapping[int, Answer]
    query: type[Parameters] = Parameters
    body: Body | None = None
    headers: tuple[str, ...] = field(default=())
    """Request headers that mean something here."""
    service: str | None = None
    """Whose it is, where the path doesn't say."""

    @property
    def name(self) -> str:
        """Unique: the noun's module and the verb."""
        return f"{self.handler.__module__.rpartition('.')[2]}.{self.handler.__name__}"

    def service_of(self, in_path: Mapping[str, str]) -> str | None:
        """The service that a path names; None when it names none, and what is answered must be sorted out."""
        named = in_path.get("type") or in_path.get("operation") or in_path.get("service")
        return self.service if named is None else named.partition(".")[0]

    @property
    def pattern(self) -> str:
        """The path as the router takes it: `{path}` at its end is the rest, slashes included."""
        return self.path.removesuffix("{path}") + "{path:.+}" if self.path.endswith("{path}") else self.path

    @property
    def in_tenant(self) -> bool:
        """True when the path names a tenant."""
        return self.path.startswith(TENANT)
