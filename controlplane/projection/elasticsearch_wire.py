"""Requests to an Elasticsearch as raw documents, and what their failures mean. I/O.

The transport of the official client does connections and TLS. Nothing is repeated here: whoever asks knows what may be.
"""

from __future__ import annotations

import base64
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from controlplane.projection.elasticsearch_address import Address
from controlplane.projection.ports import StoreUnavailable
from reconcilers import certificates
from reconcilers.contract import TerminalError

REQUEST_S: Final = 20.0
CONNECTIONS: Final = 8
MOST_SAID: Final = 400
"""Characters of a server's refusal that are told."""
CA_FILE: Final = "ca_file in projection.url"
NDJSON: Final = "application/x-ndjson"
Login = Callable[[], tuple[str, str] | None]
"""Name and password, asked for when a connection is opened; None: no login. Raises `StoreUnavailable`."""


class Refusal(Exception):
    """The server understood and refused."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class Busy(StoreUnavailable):
    """The server answers, but can't do this now: it has no room, or an index is just being opened."""


class Wire:
    """One cluster; connected by the first request."""

    def __init__(self, address: Address, login: Login) -> None:
        self._url = address.url
        self._ca_file = address.ca_file
        self._login = login
        self._transport: Any = None
        self._closed = False

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, str] | None = None,
        timeout_s: float = REQUEST_S,
    ) -> Any:
        """The body of an answer. Raises `StoreUnavailable` for an outage, `Refusal` for anything else but success."""
        import elastic_transport  # noqa: PLC0415 - loaded with the first request, not by daemons with another projection

        transport = self._open()
        headers = {"accept": "application/json", **self._authorization()}
        if body is not None:
            headers["content-type"] = NDJSON if isinstance(body, bytes) else "application/json"
        target = f"{path}?{urlencode(params)}" if params else path
        try:
            answer = await transport.perform_request(
                method, target, body=body, headers=headers, max_retries=0, request_timeout=timeout_s
            )
        except elastic_transport.TransportError as exc:
            raise StoreUnavailable(f"{self._url}: {_told(exc)[:MOST_SAID]}{self._advice(exc)}") from exc
        if 200 <= answer.meta.status < 300:
            return answer.body
        refusal = _refusal(answer.meta.status, answer.body)
        if refusal.status in {400, 404, 409}:
            raise refusal
        kind = Busy if refusal.status in {429, 503} else StoreUnavailable
        raise kind(f"{self._url}: {refusal}")

    async def close(self) -> None:
        """Release connections; safe to call twice."""
        self._closed = True
        if self._transport is not None:
            await self._transport.close()

    def _authorization(self) -> dict[str, str]:
        login = self._login()
        if login is None:
            return {}
        return {"authorization": f"Basic {base64.b64encode(':'.join(login).encode()).decode()}"}

    def _open(self) -> Any:
        if self._closed:
            msg = "the projection is closed"
            raise StoreUnavailable(msg)
        if self._transport is None:
            import elastic_transport  # noqa: PLC0415 - see above
            from elastic_transport.client_utils import url_to_node_config  # noqa: PLC0415 - see above

            logging.getLogger("elastic_transport").setLevel(
                logging.ERROR
            )  # below that it tells of every failed request
            node = url_to_node_config(self._url, use_default_ports_for_scheme=True)
            trusted = self._trusted()
            self._transport = elastic_transport.AsyncTransport(
                [node.replace(connections_per_node=CONNECTIONS, http_compress=False, ssl_context=trusted)],
                node_class=elastic_transport.AiohttpHttpNode,
                dead_node_backoff_factor=0.0,  # there is one node: it is asked whenever somebody asks
            )
        return self._transport

    def _advice(self, exc: Any) -> str:
        import elastic_transport  # noqa: PLC0415 - as above

        if isinstance(exc, elastic_transport.TlsError):
            return f": {certificates.advice(CA_FILE)}"
        hung_up = "Server disconnected" in _told(exc) and self._url.startswith("http:")
        return "; does it speak HTTPS?" if hung_up else ""

    def _trusted(self) -> ssl.SSLContext | None:
        if not self._url.startswith("https:"):
            return None
        try:
            return certificates.trusting(self._ca_file, CA_FILE)
        except TerminalError as exc:
            raise StoreUnavailable(exc.message) from exc


def _told(exc: Any) -> str:
    """What happened; as text the client's exceptions leave it out."""
    return str(exc.message).splitlines()[0]


def _refusal(status: int, body: Any) -> Refusal:
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return Refusal(status, "", f"HTTP {status}: {str(error or body)[:MOST_SAID]}")
    causes = error.get("root_cause") or [error]
    reason = str(causes[0].get("reason") or error.get("reason"))
    return Refusal(status, str(error.get("type", "")), f"HTTP {status}: {reason[:MOST_SAID]}")
