"""How clients come in to a cluster, and why one didn't.

Note [First the certificate]. A certificate that isn't trusted, or a listener without TLS, looks like silence as well, and
kafka-python leaves a socket open with each of its tries (3.0.12). So before its client is opened a handshake is made.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, Final

from reconcilers import certificates
from reconcilers.contract import BackendError, Secrets, TerminalError, Unreachable
from reconcilers.queue import handshakes
from reconcilers.queue.handshakes import Rejection
from reconcilers.queue.own import ANONYMOUS, CLIENT_ID
from schemas.queue import Target

CA_FILE: Final = "security.ca_file"
REQUEST_MS: Final = 10_000


def username(target: Target) -> str:
    """Who the daemon is in the cluster."""
    return target.security.username or ANONYMOUS


def addresses(target: Target) -> frozenset[str]:
    """From where the daemon comes, as this machine knows it; nothing is sent, but names are looked up."""
    found = set()
    for server in target.bootstrap_servers:
        with suppress(OSError):
            family, kind, _, _, address = socket.getaddrinfo(*handshakes.address(server), type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind) as one:
                one.connect(address)
                found.add(str(one.getsockname()[0]))
    return frozenset(found)


def admin_options(target: Target, secrets: Secrets) -> dict[str, Any]:
    """For kafka-python. Raises `SecretNotFound`, and `TerminalError` for a CA file that can't be read."""
    options: dict[str, Any] = {"bootstrap_servers": list(target.bootstrap_servers), "client_id": CLIENT_ID}
    return options | _security(target, secrets)


def client_options(target: Target, secrets: Secrets) -> dict[str, Any]:
    """For aiokafka's consumers and producers. Raises as `admin_options` does."""
    options: dict[str, Any] = {
        "bootstrap_servers": ",".join(target.bootstrap_servers),
        "client_id": CLIENT_ID,
        "request_timeout_ms": REQUEST_MS,
    }
    return options | _security(target, secrets)


def _security(target: Target, secrets: Secrets) -> dict[str, Any]:
    """The names are the same in both libraries."""
    security = target.security
    options: dict[str, Any] = {"security_protocol": security.protocol}
    if security.protocol.endswith("SSL"):
        options["ssl_context"] = certificates.trusting(security.ca_file, CA_FILE)
    if security.username is not None and security.password is not None:
        options |= {
            "sasl_mechanism": security.mechanism,
            "sasl_plain_username": security.username,
            "sasl_plain_password": secrets.reveal(security.password),
        }
    return options


async def shake_hands(target: Target) -> None:
    """See Note [First the certificate]. Raises what is wrong with the servers, if that is so with all of them."""
    if target.security.protocol.endswith("SSL"):
        rejection = await handshakes.of_tls(
            target.bootstrap_servers, certificates.trusting(target.security.ca_file, CA_FILE)
        )
        if rejection is not None:
            raise _error(rejection, target)


async def explained(target: Target, secrets: Secrets, silence: Unreachable) -> BackendError:
    """What it is that looks like silence."""
    rejection = await handshakes.of_login(target.bootstrap_servers, _security(target, secrets))
    return silence if rejection is None else _error(rejection, target)


def _error(rejection: Rejection, target: Target) -> BackendError:
    """With what to do about it."""
    reason, fact = rejection
    if reason == handshakes.SILENT:
        return Unreachable(fact)
    if reason == handshakes.NO_TLS:
        return Unreachable(fact, reason=reason)
    return TerminalError(f"{fact}{_advice(reason, target.security.protocol)}", reason=reason)


def _advice(reason: str, protocol: str) -> str:
    if reason == certificates.UNTRUSTED:
        return f": {certificates.advice(CA_FILE)}"
    if reason == handshakes.TLS_EXPECTED:
        return f": security.protocol must be {'SASL_SSL' if protocol.startswith('SASL') else 'SSL'}"
    if reason == handshakes.LOGIN_UNEXPECTED:
        return f": name another, or leave out username and password with protocol {protocol.removeprefix('SASL_')}"
    if reason == handshakes.OTHER_MECHANISM:
        return ": security.mechanism must be one that it has enabled"
    return ""
