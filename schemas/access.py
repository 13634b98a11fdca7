"""Values of the administration: tokens, tenants with their quotas, and targets shared between tenants."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from schemas.names import ACCESS, NAME_PATTERN, SERVICES, Name

ALL: Final = "*"

ServiceName = Annotated[str, StringConstraints(pattern=rf"^({'|'.join((*SERVICES, ACCESS))})$")]
PerSecond = Annotated[float, Field(gt=0, le=1_000_000)]

TARGET_KEY_PATTERN: Final = rf"{NAME_PATTERN[:-1]}/({'|'.join(SERVICES)})\.target/{NAME_PATTERN[1:]}"
PREFIX_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,62}[._:/-]$"
"""Nothing in it is special in a glob or a regular expression but the dot, and it ends where a name begins: `acme.` and
`acme2.` can't be mistaken for each other."""


class Value(BaseModel):
    """Frozen, and closed to fields it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Grant(Value):
    """A role, for some services of some tenants."""

    role: Literal["viewer", "editor", "admin"]
    services: Annotated[tuple[ServiceName | Literal["*"], ...], Field(min_length=1, max_length=16)] = (ALL,)
    tenants: Annotated[tuple[Name | Literal["*"], ...], Field(max_length=1000)] = ()
    """Only tokens of the tenant `system` name any; every other token is good for its own tenant."""


class Token(Value):
    """A bearer token. Only its SHA-256 is ever stored; who makes the token sees it once."""

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    grants: Annotated[tuple[Grant, ...], Field(min_length=1, max_length=64)]
    expires_at: AwareDatetime | None = None
    """From then on it is refused; None: never."""
    requests_per_s: PerSecond | None = None
    """Rate limit; None: the daemon's `auth.requests_per_s`."""


class Quotas(Value):
    """What a tenant may use; None: as much as there is. Rates are counted by each replica for itself."""

    settings: Annotated[int, Field(ge=0)] | None = None
    """Settings at once."""
    writes_per_s: PerSecond | None = None
    operations_per_s: PerSecond | None = None


class Tenant(Value):
    """A tenant that may be used. Retiring it needs it to be empty."""

    quotas: Quotas = Quotas()


class Share(Value):
    """A target of one tenant that another may use too, for objects whose names begin with the prefix.

    The other tenant names the target as `{owner}/{name}`, in the place where it names its own.
    """

    target: Annotated[str, StringConstraints(pattern=TARGET_KEY_PATTERN)]
    """Key of the owner's target: `default/cache.target/redis`."""
    tenant: Name
    prefix: Annotated[str, StringConstraints(pattern=PREFIX_PATTERN)]

    @model_validator(mode="after")
    def _to_another(self) -> Self:
        if self.target.partition("/")[0] == self.tenant:
            msg = "the target is the tenant's own: share it with another"
            raise ValueError(msg)
        return self


ACCESS_KINDS: Final[Mapping[str, type[BaseModel]]] = MappingProxyType(
    {"access.token": Token, "access.tenant": Tenant, "access.share": Share}
)
"""Setting type → value model. Not among those of `kinds`: these have no backend, the daemon carries them out itself."""
