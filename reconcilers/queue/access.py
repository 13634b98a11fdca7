"""Desired and observed users, permissions and quotas. Pure.

A binding is one permission as Kafka keeps it: seven words, compared exactly. Kafka never expands `all` and never merges.
A quota belongs to an entity, written here as `user=alice,client-id=app`; the default of a kind is `<default>`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from reconcilers.contract import ExternalId
from schemas import queue
from schemas.secret import SecretRef

USER: Final = "queue.user"
ACL: Final = "queue.acl"
QUOTA: Final = "queue.quota"
DEFAULT: Final = "<default>"
PASSWORD: Final = "password"  # noqa: S105 - the name of a field
OWNED: Final = "owned"
"""Names of what the status of a user remembers: the fingerprint of its password, and what else of it is ours."""


class Binding(NamedTuple):
    """One permission, in small letters but for names: `("User:alice", "*", "read", "allow", "topic", "orders", "literal")`."""

    principal: str
    host: str
    operation: str
    permission: str
    resource: str
    name: str
    pattern: str

    def __str__(self) -> str:
        return f"{self.permission} {self.operation} {self.resource} {self.name} ({self.pattern}, {self.host})"


Bindings = frozenset[Binding]
Rates = Mapping[str, float]
"""Kafka's key of a quota → value."""


@dataclass(frozen=True, slots=True)
class User:
    """A declared user. None: not owned."""

    name: str
    mechanism: str
    iterations: int
    password: SecretRef
    acls: Bindings | None
    quotas: Rates | None

    @property
    def owned(self) -> str:
        """What of it is ours beside its credential, as its status remembers it."""
        return ",".join(["acls"] * (self.acls is not None) + ["quotas"] * (self.quotas is not None))


@dataclass(frozen=True, slots=True)
class Own:
    """Set when the daemon itself logs in as this user."""

    mechanism: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class ObservedUser:
    """A user that has a credential, or permissions or quotas that are ours."""

    credentials: Mapping[str, int] = field(default_factory=dict)
    """Mechanism → iterations. More can't be read."""
    acls: Bindings = frozenset()
    quotas: Rates = field(default_factory=dict)
    wanted: str | None = None
    """Fingerprint of the declared password."""
    own: Own | None = None
    settling: str | None = None
    written: str | None = None
    """Fingerprint of the password that was written last; from the status."""
    owned: frozenset[str] = frozenset()
    """What of it is ours; from the status."""


@dataclass(frozen=True, slots=True)
class ObservedAcl:
    """The permissions of a principal that has some."""

    acls: Bindings
    settling: str | None = None
    own: bool = False
    """The daemon itself is this principal."""


@dataclass(frozen=True, slots=True)
class ObservedQuota:
    """The quotas of an entity that has some."""

    quotas: Rates
    settling: str | None = None


def username(setting: str, value: queue.User) -> str:
    """The user's own name."""
    return value.username or setting


def principal_of(user: str) -> str:
    """How Kafka calls somebody who logged in as this user."""
    return f"User:{user}"


def user(setting: str, value: queue.User) -> User:
    """The declaration as Kafka would show it."""
    name = username(setting, value)
    acls = None if value.acls is None else bindings(principal_of(name), value.acls)
    quotas = None if value.quotas is None else rates(value.quotas)
    return User(name, value.mechanism, value.iterations, value.password, acls, quotas)


def bindings(principal: str, permissions: Iterable[queue.Permission]) -> Bindings:
    """One binding per operation."""
    return frozenset(
        Binding(principal, one.host, operation, one.permission, one.resource, one.resource_name, one.pattern)
        for one in permissions
        for operation in one.operations
    )


def rates(value: queue.Rates) -> dict[str, float]:
    """What is limited."""
    return {name: float(rate) for name, rate in value.model_dump(exclude_none=True).items()}


def principal(_setting: str, value: queue.Acl) -> str:
    """All settings for a principal mean the same object."""
    return value.principal


def acl(_setting: str, value: queue.Acl) -> Bindings:
    """Everything that the principal is to have."""
    return bindings(value.principal, value.acls)


def entity(_setting: str, value: queue.Quota) -> str:
    """`user=alice,client-id=app`; the order is fixed."""
    parts = (("user", value.user), ("client-id", value.client_id), ("ip", value.ip))
    return ",".join(f"{kind}={name}" for kind, name in parts if name is not None)


def entity_parts(text: str) -> dict[str, str]:
    """`user=alice,client-id=app` → kind → name. Names may hold commas and equals signs; kinds are known."""
    found: dict[str, str] = {}
    rest = text
    if rest.startswith("user="):
        user_part, separator, client = rest.removeprefix("user=").partition(",client-id=")
        return {"user": user_part, **({"client-id": client} if separator else {})}
    kind, _, name = rest.partition("=")
    found[kind] = name
    return found


def quota(_setting: str, value: queue.Quota) -> dict[str, float]:
    """What is limited."""
    limits = {} if value.quotas is None else rates(value.quotas)
    if value.connection_creation_rate is not None:
        limits["connection_creation_rate"] = float(value.connection_creation_rate)
    return limits


def parts_of_user(setting: str, value: queue.User) -> list[ExternalId]:
    """What a declared user has besides its credential: a `queue.acl` or `queue.quota` for it would be a second owner."""
    name = username(setting, value)
    found = [] if value.acls is None else [ExternalId(ACL, principal_of(name))]
    return found if value.quotas is None else [*found, ExternalId(QUOTA, f"user={name}")]


def recalled_user(observed: ObservedUser | None, remembered: Mapping[str, str]) -> ObservedUser | None:
    """The observation, with the password and the parts that the status remembers."""
    if observed is None:
        return None
    owned = frozenset(filter(None, remembered.get(OWNED, "").split(",")))
    return replace(observed, written=remembered.get(PASSWORD), owned=owned)
