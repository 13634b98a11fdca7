"""Servers that are reached by TLS: whose certificates are trusted, and what is said of one that isn't.

`field`: the path under which the authority is declared, for people.
"""

from __future__ import annotations

import ssl
from typing import Final

from reconcilers.contract import TerminalError

UNTRUSTED: Final = "CertificateNotTrusted"


def trusting(ca_file: str | None, field: str = "ca_file") -> ssl.SSLContext:
    """Trusts the authorities in the PEM file; without one those that the system trusts. Raises `TerminalError`."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as exc:  # an `SSLError` is one
        msg = f"{field} {ca_file}: {exc.strerror or exc}"
        raise TerminalError(msg, reason="InvalidCaFile") from exc


def advice(field: str = "ca_file") -> str:
    """What to do about a certificate that isn't trusted."""
    return f"{field} must hold the authority, and the certificate the server's name"


def untrusted(server: str, why: object, field: str = "ca_file") -> TerminalError:
    """`why`: the error of the handshake."""
    return TerminalError(f"{server}: {getattr(why, 'verify_message', why)}: {advice(field)}", reason=UNTRUSTED)
