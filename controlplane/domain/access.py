"""Who may do what: roles, for some services of some tenants. Pure.

A caller holds grants. What is asked of a caller is a role in a tenant, for one service or for any. Settings of `access`, and
everything in the tenant `system`, are for admins whatever is asked elsewhere; nobody hands on more than they hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from schemas.access import ALL
from schemas.access import Grant as GrantValue
from schemas.names import ACCESS, SERVICES, SYSTEM

EVERY_SERVICE: Final = frozenset((*SERVICES, ACCESS))


class Role(IntEnum):
    """What is asked of a caller; each includes those before it."""

    PUBLIC = 0
    VIEWER = 1
    EDITOR = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Grant:
    """A role in some tenants, for some services; `*` in either means all."""

    role: Role
    tenants: tuple[str, ...] = (ALL,)
    services: tuple[str, ...] = (ALL,)

    def covers(self, tenant: str, service: str | None) -> bool:
        """True when it says something about the service (None: any) of the tenant."""
        return _in(tenant, self.tenants) and (service is None or _in(service, self.services))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. `actor` stands in the log beside everything they do."""

    actor: str
    grants: tuple[Grant, ...]
    expires_at: float | None = None
    """Unix seconds."""
    requests_per_s: float | None = None

    def role_in(self, tenant: str, service: str | None = None) -> Role:
        """The greatest role in the tenant, for the service or (None) for any of them."""
        return max((grant.role for grant in self.grants if grant.covers(tenant, service)), default=Role.PUBLIC)

    def sees(self, tenant: str) -> bool:
        """True when the tenant is within the caller's reach."""
        return bool(self.services_in(tenant, Role.VIEWER))

    def services_in(self, tenant: str, role: Role) -> frozenset[str]:
        """The services of the tenant for which the caller may do what needs the role."""
        return frozenset(service for service in EVERY_SERVICE if self.may(role, tenant, service))

    def may(self, role: Role, tenant: str, service: str) -> bool:
        """True when the caller may do what needs the role, to the service's settings of the tenant."""
        return self.role_in(tenant, service) >= needed(role, tenant, service)


def needed(role: Role, tenant: str, service: str | None) -> Role:
    """The role that is needed where `role` is asked elsewhere."""
    return Role.ADMIN if role and (tenant == SYSTEM or service == ACCESS) else role


def granted(values: Iterable[GrantValue], tenant: str) -> tuple[Grant, ...]:
    """The grants of a token that is declared in a tenant: only the system's reach beyond."""
    return tuple(
        Grant(
            Role[value.role.upper()],
            value.tenants if tenant == SYSTEM and value.tenants else (tenant,),
            value.services,
        )
        for value in values
    )


def beyond(caller: Caller, grants: Iterable[Grant]) -> Grant | None:
    """The first of the grants that gives more than the caller holds; None when there is none."""
    return next((grant for grant in grants if not any(_within(grant, own) for own in caller.grants)), None)


def _within(grant: Grant, own: Grant) -> bool:
    return grant.role <= own.role and _all_in(grant.tenants, own.tenants) and _all_in(grant.services, own.services)


def _all_in(names: Iterable[str], own: tuple[str, ...]) -> bool:
    return ALL in own or all(name in own for name in names)


def _in(name: str, names: tuple[str, ...]) -> bool:
    return ALL in names or name in names
