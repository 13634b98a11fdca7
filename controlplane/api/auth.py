"""Who calls, and what they may do: bearer tokens with a role per tenant, or everybody on loopback."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from controlplane.config import AuthConfig, Config, Token
from controlplane.domain.errors import Fault, Reason, Refused

ANONYMOUS: Final = "anonymous@loopback"


class Role(IntEnum):
    """What is asked of a caller; each includes those before it."""

    PUBLIC = 0
    VIEWER = 1
    EDITOR = 2
    ADMIN = 3


_ROLES: Final[Mapping[str, Role]] = {"viewer": Role.VIEWER, "editor": Role.EDITOR, "admin": Role.ADMIN}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. `actor` stands in the log beside everything they do."""

    actor: str
    role: Role
    tenants: tuple[str, ...] = ("*",)

    def sees(self, tenant: str) -> bool:
        """True when the tenant is within the caller's reach."""
        return "*" in self.tenants or tenant in self.tenants


def caller_of(auth: AuthConfig, headers: Mapping[str, str]) -> Caller:
    """The caller of a request. Raises `Refused` (Unauthenticated); who is unauthenticated may still do what is public."""
    if not auth.tokens:
        return Caller(_named(headers.get("X-Actor")), Role.ADMIN)
    scheme, _, secret = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Refused(Reason.UNAUTHENTICATED, "send Authorization: Bearer <token>")
    token = _found(auth.tokens, secret.strip())
    if token is None:
        raise Refused(Reason.UNAUTHENTICATED, "the token is not known")
    return Caller(token.name, _ROLES[token.role], token.tenants)


def authorise(caller: Caller, role: Role, tenant: str | None) -> None:
    """Raise `Refused` (Forbidden) unless the caller may do what needs `role`, in the tenant."""
    if tenant is not None and not caller.sees(tenant):
        raise Refused(Reason.FORBIDDEN, f"{caller.actor} has no role in tenant {tenant}")
    if caller.role < role:
        detail = f"{caller.actor} is {caller.role.name.lower()}; this needs {role.name.lower()}"
        raise Refused(Reason.FORBIDDEN, detail)


def check_binding(config: Config) -> None:
    """Raise ValueError when the daemon would listen beyond this machine without authentication."""
    if not config.auth.tokens and not is_loopback(config.http.host):
        msg = (
            f"http.host {config.http.host} is reachable from other machines and no auth.tokens are configured: "
            "configure a token, or listen on 127.0.0.1"
        )
        raise ValueError(msg)


def check_host(auth: AuthConfig, host: str) -> None:
    """Raise `Refused` (Forbidden) for a foreign Host header while there is no authentication.

    A web page can point a name of its own at 127.0.0.1 (DNS rebinding) and would then speak to the daemon with the rights
    of whoever opened it; only the Host header tells.
    """
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if not auth.tokens and name and not is_loopback(name.strip("[]")):
        raise Refused(Reason.FORBIDDEN, f"without auth.tokens the daemon answers to localhost only, not to {name}")


def is_loopback(host: str) -> bool:
    """True for localhost and loopback addresses."""
    if host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _found(tokens: tuple[Token, ...], secret: str) -> Token | None:
    """Compares with every token, each in constant time, so that the time tells nothing."""
    digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
    found = [token for token in tokens if hmac.compare_digest(digest, token.sha256)]
    return found[0] if found else None


def _named(actor: str | None) -> str:
    """What an unauthenticated caller calls itself."""
    if not actor:
        return ANONYMOUS
    if len(actor) > 128 or not actor.isprintable() or not actor.isascii():
        message = "X-Actor is at most 128 printable ASCII letters"
        raise Refused(Reason.MALFORMED, message, [Fault("X-Actor", message)])
    return actor
