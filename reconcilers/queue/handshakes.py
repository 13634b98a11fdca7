"""Why a broker lets nobody in. I/O; for the targets of the queue, and for a log that is kept on Kafka.

Note [A wrong password looks like silence]. The clients try every server until their bootstrap times out, and say neither that
one of them refused the login nor that it speaks TLS or doesn't. So when nobody answers, a handshake tells whether it is TLS
that the server waits for, and one connection of aiokafka's whether the login is refused.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from reconcilers.certificates import UNTRUSTED

ASK_S: Final = 3.0

NO_TLS: Final = "NoTls"
TLS_EXPECTED: Final = "TlsExpected"
LOGIN_REFUSED: Final = "AuthenticationFailed"
LOGIN_UNEXPECTED: Final = "LoginNotExpected"
OTHER_MECHANISM: Final = "MechanismNotEnabled"
SILENT: Final = "Unreachable"


class Rejection(NamedTuple):
    """`fact`: which server, and what is wrong, for people; what to do about it depends on where it was declared."""

    reason: str
    fact: str


def address(server: str) -> tuple[str, int]:
    """Host and port of what a client is told as a server."""
    host, _, port = server.rpartition(":")
    return host.strip("[]"), int(port)


async def of_tls(servers: Sequence[str], context: ssl.SSLContext) -> Rejection | None:
    """What is wrong with the certificates or the listeners; None: one of them is well."""
    found: list[Rejection] = []
    for server in servers:
        rejection = await _handshake(server, context)
        if rejection is None:
            return None
        found.append(rejection)
    return next((one for one in found if one.reason == UNTRUSTED), found[0])


async def of_login(servers: Sequence[str], security: Mapping[str, Any]) -> Rejection | None:
    """See Note [A wrong password looks like silence]. `security`: the options of aiokafka's clients that are about it. None: it
    isn't that, or it can't be told."""
    for server in servers:
        rejection = await _expects_tls(server, security) or await _refused(server, security)
        if rejection is not None:
            return rejection
    return None


async def _handshake(server: str, context: ssl.SSLContext) -> Rejection | None:
    """Why there was none."""
    host, port = address(server)
    try:
        async with asyncio.timeout(ASK_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLCertVerificationError as exc:
        return Rejection(UNTRUSTED, f"{server}: {exc.verify_message}")
    except (ssl.SSLError, ConnectionResetError) as exc:
        return Rejection(NO_TLS, f"{server} hangs up on TLS ({exc}): is it a listener without?")
    except (OSError, TimeoutError) as exc:
        return Rejection(SILENT, f"{server}: {str(exc) or 'no answer'}")
    writer.transport.abort()
    return None


async def _expects_tls(server: str, security: Mapping[str, Any]) -> Rejection | None:
    if security["security_protocol"].endswith("SSL") or await _handshake(server, _trusting_all()) is not None:
        return None
    return Rejection(TLS_EXPECTED, f"{server} speaks TLS")


async def _refused(server: str, security: Mapping[str, Any]) -> Rejection | None:
    """Why this server doesn't let us in; None: it does, or it doesn't say."""
    from aiokafka.conn import AIOKafkaConnection  # noqa: PLC0415 - loaded with the first target that is in trouble
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    connection, refusal = AIOKafkaConnection(*address(server), **security), None
    try:
        async with asyncio.timeout(ASK_S):
            await connection.connect()
    except KafkaError as exc:
        refusal = _refusal(server, security, exc)
    except OSError:
        return None
    if (closed := connection.close()) is not None:  # by TLS not before the server has closed it, too
        await asyncio.wait([closed], timeout=ASK_S)
    return refusal


def _refusal(server: str, security: Mapping[str, Any], exc: Exception) -> Rejection | None:
    from aiokafka.errors import (  # noqa: PLC0415 - as above
        AuthenticationFailedError,
        IllegalSaslStateError,
        SaslAuthenticationFailed,
        UnsupportedSaslMechanismError,
    )

    match exc:
        case AuthenticationFailedError() | SaslAuthenticationFailed():
            return Rejection(LOGIN_REFUSED, f"{server} refuses {security['sasl_plain_username']}: {exc}")
        case UnsupportedSaslMechanismError():
            return Rejection(OTHER_MECHANISM, f"{server} doesn't take logins by {security['sasl_mechanism']}")
        case IllegalSaslStateError():
            return Rejection(LOGIN_UNEXPECTED, f"{server} is a listener that takes no logins")
        case _:
            return None


def _trusting_all() -> ssl.SSLContext:
    """Nothing is said to whom it trusts: that there is a handshake is all."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
