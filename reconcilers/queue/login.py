"""How clients come in to a cluster, and why one didn't.

Note [A wrong password looks like silence]. kafka-python tries every server until its bootstrap times out and doesn't say
that one of them refused the login. So when nobody answers, one connection is made with aiokafka, which says so.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final

from reconcilers.contract import BackendError, Secrets, TerminalError, Unreachable
from schemas.queue import Target

ASK_S: Final = 3.0
REQUEST_MS: Final = 10_000


def admin_options(target: Target, secrets: Secrets) -> dict[str, Any]:
    """For kafka-python. Raises `SecretNotFound`, and `TerminalError` for a CA file that can't be read."""
    options: dict[str, Any] = {"bootstrap_servers": list(target.bootstrap_servers)}
    return options | _security(target, secrets)


def client_options(target: Target, secrets: Secrets) -> dict[str, Any]:
    """For aiokafka's consumers and producers. Raises as `admin_options` does."""
    options: dict[str, Any] = {
        "bootstrap_servers": ",".join(target.bootstrap_servers),
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


async def explained(target: Target, secrets: Secrets, silence: Unreachable) -> BackendError:
    """See Note [A wrong password looks like silence]."""
    from aiokafka.conn import create_conn  # noqa: PLC0415 - loaded with the first target that is in trouble
    from aiokafka.errors import AuthenticationFailedError, KafkaError, SaslAuthenticationFailed  # noqa: PLC0415

    options = _security(target, secrets)
    for server in target.bootstrap_servers:
        host, _, port = server.rpartition(":")
        try:
            async with asyncio.timeout(ASK_S):
                connection = await create_conn(host.strip("[]"), int(port), **options)
        except (AuthenticationFailedError, SaslAuthenticationFailed) as exc:
            message = f"{server} refuses {target.security.username}: {exc}"
            return TerminalError(message, reason="AuthenticationFailed")
        except (KafkaError, OSError, TimeoutError):
            continue
        connection.close()
        return silence
    return silence
