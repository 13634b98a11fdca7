"""How clients come in to a cluster, and why one didn't.

Note [A wrong password looks like silence]. kafka-python tries every server until its bootstrap times out and doesn't say
that one of them refused the login. So when nobody answers, one connection is made with aiokafka, which says so; before that a
handshake tells whether it is TLS that the server waits for.

Note [First the certificate]. A certificate that isn't trusted, or a listener without TLS, looks like silence as well, and
kafka-python leaves a socket open with each of its tries (3.0.12). So before its client is opened a handshake is made.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Any, Final

from reconcilers.contract import BackendError, Secrets, TerminalError, Unreachable
from reconcilers.queue.own import ANONYMOUS, CLIENT_ID
from schemas.queue import Target

ASK_S: Final = 3.0
REQUEST_MS: Final = 10_000


def username(target: Target) -> str:
    """Who the daemon is in the cluster."""
    return target.security.username or ANONYMOUS


def addresses(target: Target) -> frozenset[str]:
    """From where the daemon comes, as this machine knows it; nothing is sent, but names are looked up."""
    found = set()
    for server in target.bootstrap_servers:
        with suppress(OSError):
            family, kind, _, _, address = socket.getaddrinfo(*_address(server), type=socket.SOCK_DGRAM)[0]
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
        options["ssl_context"] = _context(security.ca_file)
    if security.username is not None and security.password is not None:
        options |= {
            "sasl_mechanism": security.mechanism,
            "sasl_plain_username": security.username,
            "sasl_plain_password": secrets.reveal(security.password),
        }
    return options


def _context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as exc:
        msg = f"ca_file {ca_file}: {exc}"
        raise TerminalError(msg, reason="InvalidCaFile") from exc


async def shake_hands(target: Target) -> None:
    """See Note [First the certificate]. Raises what is wrong with the servers, if that is so with all of them."""
    if not target.security.protocol.endswith("SSL"):
        return
    context = _context(target.security.ca_file)
    errors: list[BackendError] = []
    for server in target.bootstrap_servers:
        error = await _handshake(server, context)
        if error is None:
            return
        errors.append(error)
    raise next((error for error in errors if isinstance(error, TerminalError)), errors[0])


async def _handshake(server: str, context: ssl.SSLContext) -> BackendError | None:
    """Why there was none."""
    host, port = _address(server)
    try:
        async with asyncio.timeout(ASK_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLCertVerificationError as exc:
        hint = "security.ca_file must hold the authority, and the certificate the server's name"
        return TerminalError(f"{server}: {exc.verify_message}: {hint}", reason="CertificateNotTrusted")
    except (ssl.SSLError, ConnectionResetError) as exc:
        return Unreachable(f"{server} hangs up on TLS ({exc}): is it a listener without?", reason="NoTls")
    except (OSError, TimeoutError) as exc:
        return Unreachable(f"{server}: {str(exc) or 'no answer'}")
    writer.transport.abort()
    return None


async def explained(target: Target, secrets: Secrets, silence: Unreachable) -> BackendError:
    """See Note [A wrong password looks like silence]."""
    for server in target.bootstrap_servers:
        refused = await _expects_tls(server, target.security.protocol) or await _refused(server, target, secrets)
        if refused is not None:
            return refused
    return silence


async def _expects_tls(server: str, protocol: str) -> TerminalError | None:
    if protocol.endswith("SSL") or await _handshake(server, _trusting_all()) is not None:
        return None
    secure = "SASL_SSL" if protocol.startswith("SASL") else "SSL"
    return TerminalError(f"{server} speaks TLS: security.protocol must be {secure}", reason="TlsExpected")


async def _refused(server: str, target: Target, secrets: Secrets) -> TerminalError | None:
    """Why this server doesn't let us in; None: it does, or it doesn't say."""
    from aiokafka.conn import create_conn  # noqa: PLC0415 - loaded with the first target that is in trouble
    from aiokafka.errors import AuthenticationFailedError, KafkaError, SaslAuthenticationFailed  # noqa: PLC0415

    try:
        async with asyncio.timeout(ASK_S):
            connection = await create_conn(*_address(server), **_security(target, secrets))
    except (AuthenticationFailedError, SaslAuthenticationFailed) as exc:
        message = f"{server} refuses {target.security.username}: {exc}"
        return TerminalError(message, reason="AuthenticationFailed")
    except (KafkaError, OSError, TimeoutError):
        return None
    connection.close()
    return None


def _trusting_all() -> ssl.SSLContext:
    """Nothing is said to whom it trusts: that there is a handshake is all."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _address(server: str) -> tuple[str, int]:
    host, _, port = server.rpartition(":")
    return host.strip("[]"), int(port)
