"""Who calls, and what they may do: bearer tokens of the log and of the configuration, or everybody on loopback."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from controlplane.config import AuthConfig, Config, Token
from controlplane.domain.access import Caller, Grant, Role, granted, needed
from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.runtime.directory import Directory, KnownToken

ANONYMOUS: Final = "anonymous@loopback"
EVERYTHING: Final = (Grant(Role.ADMIN),)


def is_required(auth: AuthConfig) -> bool:
    """True when nobody may do anything that isn't public without a token."""
    return bool(auth.tokens) if auth.required is None else auth.required


def caller_of(auth: AuthConfig, directory: Directory, headers: Mapping[str, str], now: float) -> Caller:
    """The caller of a request. Raises `Refused` (Unauthenticated); who is unauthenticated may still do what is public.

    A token that is sent counts, also where none is needed: whoever names one wants to be held to it.
    """
    authorization = headers.get("Authorization")
    if authorization is None and not is_required(auth):
        return Caller(_named(headers.get("X-Actor")), EVERYTHING)
    scheme, _, secret = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Refused(Reason.UNAUTHENTICATED, "send Authorization: Bearer <token>")
    digest = digest_of(secret.strip())
    known = directory.token(digest)
    caller = _of_log(known) if known is not None else _of_configuration(auth, digest)
    if caller is None:
        raise Refused(Reason.UNAUTHENTICATED, "the token is not known")
    if caller.expires_at is not None and caller.expires_at <= now:
        raise Refused(Reason.UNAUTHENTICATED, f"the token {caller.actor} has expired")
    return caller


def authorise(caller: Caller, role: Role, tenant: str, service: str | None = None) -> None:
    """Raise `Refused` (Forbidden) unless the caller may do what needs `role` in the tenant: for the service, or (None) for
    any of them. What belongs to others must then be left out by whoever answers."""
    if not caller.sees(tenant):
        raise Refused(Reason.FORBIDDEN, f"{caller.actor} has no role in tenant {tenant}")
    wanted, held = needed(role, tenant, service), caller.role_in(tenant, service)
    if held < wanted:
        where = f"tenant {tenant}" if service is None else f"{service} of tenant {tenant}"
        has = f"is {held.name.lower()}" if held else "has no role"
        raise Refused(Reason.FORBIDDEN, f"{caller.actor} {has} in {where}; this needs {wanted.name.lower()}")


def authorise_anywhere(caller: Caller, role: Role) -> None:
    """Raise `Refused` (Forbidden) unless the caller holds `role` somewhere. What belongs to tenants must then be left out."""
    if not any(grant.role >= role for grant in caller.grants):
        raise Refused(Reason.FORBIDDEN, f"{caller.actor} has no role of {role.name.lower()} anywhere")


def digest_of(secret: str) -> str:
    """The SHA-256 by which a token is known. Tokens are random, so nothing slower is needed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def check_binding(config: Config) -> None:
    """Raise ValueError when the daemon would listen beyond this machine without authentication."""
    if not is_required(config.auth) and not is_loopback(config.http.host):
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
    if not is_required(auth) and name and not is_loopback(name.strip("[]")):
        raise Refused(Reason.FORBIDDEN, f"without auth.tokens the daemon answers to localhost only, not to {name}")


def check_origin(auth: AuthConfig, origin: str | None, host: str) -> None:
    """Raise `Refused` (Forbidden) for what another web page sends while there is no authentication.

    A browser lets any page send simple requests to 127.0.0.1, without reading the answers: it would act with the rights of
    whoever opened it. Programs send no Origin.
    """
    if origin is not None and not is_required(auth) and urlsplit(origin).netloc.lower() != host.lower():
        raise Refused(Reason.FORBIDDEN, "without auth.tokens the daemon does nothing for other web pages")


def is_loopback(host: str) -> bool:
    """True for localhost and loopback addresses."""
    if host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _of_log(known: KnownToken) -> Caller:
    token = known.token
    expires_at = None if token.expires_at is None else token.expires_at.timestamp()
    return Caller(known.actor, granted(token.grants, known.tenant), expires_at, token.requests_per_s)


def _of_configuration(auth: AuthConfig, digest: str) -> Caller | None:
    """Compares with every token, each in constant time, so that the time tells nothing."""
    found = [token for token in auth.tokens if hmac.compare_digest(digest, token.sha256)]
    return _configured(found[0]) if found else None


def _configured(token: Token) -> Caller:
    expires_at = None if token.expires_at is None else token.expires_at.timestamp()
    grant = Grant(Role[token.role.upper()], token.tenants, token.services)
    return Caller(token.name, (grant,), expires_at, token.requests_per_s)


def _named(actor: str | None) -> str:
    """What an unauthenticated caller calls itself."""
    if not actor:
        return ANONYMOUS
    if len(actor) > 128 or not actor.isprintable() or not actor.isascii():
        message = "X-Actor is at most 128 printable ASCII letters"
        raise Refused(Reason.MALFORMED, message, [Fault("X-Actor", message)])
    return actor
