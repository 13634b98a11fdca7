"""Requests to Elasticsearch as raw documents, and what their failures mean. I/O.

The transport of the official client does connections, nodes and TLS; its typed methods aren't used, because they drop keys
they don't know. Reads are tried on other nodes, writes never: a write that got no answer may have happened.
"""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from reconcilers import certificates
from reconcilers.contract import (
    SUCCEEDED,
    BackendError,
    Connection,
    Fence,
    Outcome,
    TerminalError,
    TransientError,
    Unreachable,
    failed,
    unknown,
)
from schemas.search import Target

REQUEST_S: Final = 20.0
READ_RETRIES: Final = 2
MOST_SAID: Final = 600
"""Characters of a server's refusal that are told."""
_BUSY: Final = (408, 429, 502, 503, 504)


class Answer(NamedTuple):
    """What the server said."""

    status: int
    body: Any


class Refused(TerminalError):
    """The server understood and refused; `kind` is its error type."""

    def __init__(self, message: str, *, status: int, kind: str, reason: str = "Refused") -> None:
        super().__init__(message, reason=reason)
        self.status = status
        self.kind = kind


class OutcomeUnknown(Unreachable):
    """A write got no answer: it may have happened or may happen yet."""


class Wire:
    """One cluster."""

    def __init__(self, transport: Any, headers: Mapping[str, str], *, secure: bool) -> None:
        self.secure = secure
        """Whether it goes by TLS."""
        self._transport = transport
        self._headers = dict(headers)

    async def close(self) -> None:
        """Release connections; safe to call twice."""
        await self._transport.close()

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, Any] | None = None,
        timeout_s: float = REQUEST_S,
        retries: int = 0,
        authorization: str | None = None,
    ) -> Answer:
        """One request, whatever the status of the answer. Raises `Unreachable`; `OutcomeUnknown` when it was written;
        `TerminalError` for a certificate that isn't trusted."""
        import aiohttp  # noqa: PLC0415 - loaded with the daemon anyway, not with this module
        import elastic_transport  # noqa: PLC0415 - loaded with the first target

        headers = dict(self._headers)
        if authorization is not None:
            headers["authorization"] = authorization
        if isinstance(body, bytes):
            headers["content-type"] = "application/x-ndjson"
        elif body is not None:
            headers["content-type"] = "application/json"
        target = path + (f"?{urlencode(_spelled(params))}" if params else "")
        try:
            answer = await self._transport.perform_request(
                method, target, body=body, headers=headers, max_retries=retries, request_timeout=timeout_s
            )
        except elastic_transport.ConnectionTimeout as exc:
            raise OutcomeUnknown(f"no answer within {timeout_s:g} s to {method} {path}", reason="Timeout") from exc
        except elastic_transport.TransportError as exc:
            inner = next((e for e in _beneath(exc) if isinstance(e, aiohttp.ClientConnectorError)), None)
            if isinstance(inner, aiohttp.ClientConnectorCertificateError):
                raise certificates.untrusted(f"{inner.host}:{inner.port}", inner.certificate_error) from exc
            if inner is not None:
                why = os.strerror(inner.os_error.errno) if inner.os_error.errno else inner.os_error
                raise Unreachable(f"no connection to {inner.host}:{inner.port}: {why}") from exc
            raise OutcomeUnknown(f"connection lost: {_first_line(exc)}") from exc
        return Answer(answer.meta.status, answer.body)

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, Any] | None = None,
        timeout_s: float = REQUEST_S,
        absent: Any = ...,
    ) -> Any:
        """The body of the answer to something that may be repeated. `absent`: what a 404 means, instead of an error."""
        answer = await self.call(method, path, body, params=params, timeout_s=timeout_s, retries=READ_RETRIES)
        if answer.status == 404 and absent is not ...:
            return absent
        return understood(answer)

    async def send(
        self,
        fence: Fence,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, Any] | None = None,
        timeout_s: float = REQUEST_S,
        absent: Any = ...,
    ) -> Any:
        """The body of the answer to an effect: behind the fence, and never repeated."""
        fence.check()
        answer = await self.call(method, path, body, params=params, timeout_s=timeout_s)
        if answer.status == 404 and absent is not ...:
            return absent
        return understood(answer)


async def open_wire(connection: Connection) -> Wire:
    """Connections to the nodes of a target; nothing is sent yet. Raises `SecretNotFound`."""
    import elastic_transport  # noqa: PLC0415 - loaded with the first target

    logging.getLogger("elastic_transport").setLevel(logging.CRITICAL)  # what fails is said by whoever asked
    target: Target = connection.value
    trusted = {"ssl_context": certificates.trusting(target.ca_file)} if target.verify else {"verify_certs": False}
    tls: dict[str, Any] = {**trusted, "ssl_show_warn": False}
    nodes = [
        elastic_transport.NodeConfig(
            **_place(url),
            connections_per_node=32,
            request_timeout=REQUEST_S,
            **(tls if url.startswith("https") else {}),
        )
        for url in target.nodes
    ]
    transport = elastic_transport.AsyncTransport(
        nodes, node_class="aiohttp", max_retries=0, retry_on_timeout=False, meta_header=False, retry_on_status=()
    )
    headers = {"accept": "application/json"}
    if target.password is not None:
        headers["authorization"] = basic(str(target.username), connection.secrets.reveal(target.password))
    elif target.api_key is not None:
        headers["authorization"] = f"ApiKey {connection.secrets.reveal(target.api_key)}"
    return Wire(transport, headers, secure=all(url.startswith("https:") for url in target.nodes))


def basic(username: str, password: str) -> str:
    """Value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def _place(url: str) -> dict[str, Any]:
    scheme, _, rest = url.partition("://")
    where, slash, path = rest.partition("/")
    host, _, port = where.rpartition(":") if ":" in where.rpartition("]")[2] else (where, "", "")
    default = 443 if scheme == "https" else 9200
    return {
        "scheme": scheme,
        "host": host or where,
        "port": int(port) if port else default,
        "path_prefix": slash + path if path else "",
    }


def path_of(*parts: str) -> str:
    """`/a/b` with every part quoted; commas and stars stay, for lists of names."""
    return "/" + "/".join(quote(part, safe=",*:") for part in parts)


def lines(rows: Iterable[Any]) -> bytes:
    """NDJSON."""
    return b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)


# --- what failures mean ------------------------------------------------------------------------------------------------


def understood(answer: Answer) -> Any:
    """The body, or the error that the status stands for."""
    if answer.status < 400:
        return answer.body
    raise fault_of(answer)


def fault_of(answer: Answer) -> BackendError:
    """The error of an answer that refuses."""
    error = answer.body.get("error") if isinstance(answer.body, Mapping) else None
    kind, message = said(error) if error is not None else ("", str(answer.body)[:MOST_SAID] or f"HTTP {answer.status}")
    if answer.status == 401:
        return TerminalError(f"the login was refused: {message}", reason="Unauthorized")
    if answer.status == 403 and kind == "security_exception":
        return TerminalError(f"the login in the target lacks a permission: {message}", reason="Forbidden")
    if kind == "cluster_block_exception" or (answer.status == 429 and "flood" in message):
        return TransientError(message, reason="Blocked", retry_after_s=10.0)
    if answer.status in _BUSY or kind == "master_not_discovered_exception":
        return TransientError(message, reason="Busy")
    return Refused(message, status=answer.status, kind=kind, reason="Refused" if answer.status < 500 else "ServerError")


def said(error: Any) -> tuple[str, str]:
    """(type, what the server says and why) of an error document."""
    if not isinstance(error, Mapping):
        return "", str(error)[:MOST_SAID]
    reasons: list[str] = []
    inner: Any = error
    while isinstance(inner, Mapping) and len(reasons) < 4:
        reason = str(inner.get("reason") or inner.get("type"))
        if reason not in reasons:
            reasons.append(reason)
        inner = inner.get("caused_by")
    return str(error.get("type", "")), ": ".join(reasons)[:MOST_SAID]


def outcome_of(error: BackendError) -> Outcome:
    """How a step ended that met the error."""
    return unknown(error) if isinstance(error, OutcomeUnknown) else failed(error)


def done(**details: Any) -> Outcome:
    """A step that succeeded, with what there is to say."""
    return Outcome(SUCCEEDED.result, details) if details else SUCCEEDED


def _spelled(params: Mapping[str, Any]) -> dict[str, str]:
    return {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in params.items() if v is not None}


def _beneath(exc: BaseException | None) -> Iterator[BaseException]:
    """What the client's own exception is about: itself, what caused it, and what earlier tries met."""
    if exc is not None:
        yield exc
        yield from _beneath(exc.__cause__ or exc.__context__)
        for earlier in getattr(exc, "errors", ()):
            yield from _beneath(earlier)


def _first_line(exc: Any) -> str:
    """What happened; as text the client's exceptions leave it out."""
    return (str(exc.message).splitlines() or [""])[0][:200]
