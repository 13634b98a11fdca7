"""Signed requests to an S3 server, and what its refusals mean. I/O.

aiohttp carries the requests, minio-py signs them (Signature V4) and encrypts the bodies of MinIO's admin API. Nothing is
tried again here: that is the controller's affair. A request that wasn't sent for sure raises `Unreachable`; one that may
have landed raises `Unanswered`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets as randomness
import ssl
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from reconcilers import certificates
from reconcilers.contract import BackendError, Connection, Fence, TerminalError, TransientError, Unreachable
from reconcilers.storage.lifecycle import plain
from schemas.storage import Target

CA_FILE: Final = "tls.ca_file"
AT_ONCE: Final = 16
"""Requests under way to one target."""
TIMEOUT_S: Final = 8.0
CONNECT_S: Final = 3.0
BUFFER_BYTES: Final = 2**20
"""Of an answer that is read; it waits in the server until somebody takes it."""
TAKEN_BYTES: Final = 2 * 2**20
"""Of a stream, at once: each turn of the loop costs as much, however little it takes."""
READS: Final = ("GET", "HEAD")
UNSIGNED: Final = "UNSIGNED-PAYLOAD"
ADMIN: Final = "/minio/admin/v3/"
MOST_SAID: Final = 200
"""Bytes of a refusal that is neither XML nor JSON."""
TOKEN_S: Final = 60
BUSY_S: Final = 2.0
TRANSIENT: Final = frozenset(
    {
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "ServiceUnavailable",
        "ServerNotInitialized",
        "XMinioServerNotInitialized",
        "RequestTimeout",
        "OperationAborted",
        "OperationTimedOut",
        "InternalError",
        "TooManyRequests",
        # Who is named may be declared too, and comes in a moment.
        "XMinioAdminNoSuchUser",
        "XMinioAdminNoSuchGroup",
        "XMinioAdminNoSuchPolicy",
        "XMinioIAMPolicyInUse",
    }
)
LOGIN: Final = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "AccountProblem"})
"""Refusals that concern whatever we ask."""

Query = Sequence[tuple[str, str]] | Mapping[str, str]


class Refused(Exception):
    """The server answered, and said no."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message

    def translated(self, about: str = "") -> BackendError:
        """As the controller takes it; `about`: what it was about, for the message."""
        message = (f"{about}: " if about else "") + (self.message or self.code)
        if self.code in TRANSIENT or self.status in (429, 502, 503, 504):
            return TransientError(message, reason=self.code, retry_after_s=BUSY_S)
        return TerminalError(message, reason=self.code)


class Unanswered(Unreachable):
    """No answer to a request that was, or may have been, sent."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `path`: quoted already, from the root. `body` bytes, or a stream of `size_bytes`."""

    method: str
    path: str
    query: Query = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b""
    size_bytes: int | None = None
    timeout_s: float = TIMEOUT_S
    fence: Fence | None = None


def bucket_path(bucket: str) -> str:
    """Of a bucket."""
    return f"/{quote(bucket, safe='')}"


def object_path(bucket: str, key: str) -> str:
    """Of an object: each slash of its key stays one."""
    return f"/{quote(bucket, safe='')}/{quote(key, safe='/~')}"


def query_text(query: Query) -> str:
    """As it is signed and sent."""
    rows = query.items() if isinstance(query, Mapping) else query
    return "&".join(sorted(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in rows))


class S3Client:
    """One login at one server."""

    def __init__(self, connection: Connection) -> None:
        # Loaded with the first target: some 20 MB.
        from minio import crypto, signer  # noqa: PLC0415 - loaded with the first target
        from minio.credentials.credentials import Credentials  # noqa: PLC0415 - loaded with the first target

        target: Target = connection.value
        self._secret = connection.secrets.reveal(target.secret_key)
        self.access_key = connection.secrets.reveal(target.access_key)
        self.endpoint = target.endpoint
        self._credentials = Credentials(self.access_key, self._secret)
        self._region = target.region
        self._host = urlsplit(target.endpoint).netloc
        self._sign: Callable[..., Any] = signer.sign_v4_s3
        self._presign: Callable[..., Any] = signer.presign_v4
        self._encrypt: Callable[[bytes, str], bytes] = crypto.encrypt
        self._decrypt: Callable[[Any, str], bytes] = crypto.decrypt
        self.agent = f"coreplane/{randomness.token_hex(8)}"
        """By which our own requests are known in the server's trace."""
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._cipher = asyncio.Lock()
        connector = aiohttp.TCPConnector(limit=4 * AT_ONCE, ssl=_tls(target), keepalive_timeout=20)
        self._session = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        )
        # aiohttp would send a PUT again by itself when a connection breaks: past the fence, and without a word.
        self._session._retry_connection = False  # noqa: SLF001 - there is no public word for it

    async def close(self) -> None:
        """Close all connections; safe to call twice."""
        await self._session.close()

    # --- requests ------------------------------------------------------------------------------------------------------

    async def call(self, request: Request) -> Reply:
        """The whole answer. Raises `Refused`, `Unreachable`, `Unanswered`, `NotSent`; TerminalError CertificateNotTrusted."""
        async with self._slots, self.opened(request) as response:
            body = await self._read(response, request)
        return Reply(response.status, response.headers, body)

    @asynccontextmanager
    async def opened(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer as soon as its head is there; for streams. Raises what `call` raises."""
        try:
            response = await self._sent(request)
        except aiohttp.ServerDisconnectedError as exc:
            if request.method not in READS:
                raise Unanswered(f"{self.endpoint}: {exc}", reason="ConnectionLost") from exc
            response = await self._answered(request)  # a read may be sent again: the connection was an old one
        try:
            if response.status >= 300:
                if response.connection is not None and response.connection.protocol is not None:
                    response.connection.protocol.force_close()  # MinIO ends it after some refusals, without saying so
                raise refused(response.status, await self._read(response, request))
            yield response
        finally:
            response.release()

    async def _answered(self, request: Request) -> aiohttp.ClientResponse:
        try:
            return await self._sent(request)
        except aiohttp.ServerDisconnectedError as exc:
            raise Unanswered(f"{self.endpoint}: {exc}", reason="ConnectionLost") from exc

    async def _sent(self, request: Request) -> aiohttp.ClientResponse:
        """Raises ServerDisconnectedError when the server ended the connection, politely or not, instead of answering."""
        url, headers = self._signed(request)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=request.timeout_s)
        if self._session.closed:
            raise Unreachable(f"{self.endpoint}: the connection was given up", reason="ConnectionLost")
        if request.fence is not None:
            request.fence.check()
        try:
            return await self._session.request(
                request.method,
                url,
                headers=headers,
                data=request.body or None,
                timeout=timeout,
                allow_redirects=False,
                read_bufsize=BUFFER_BYTES,
            )
        except aiohttp.ClientConnectorCertificateError as exc:
            raise certificates.untrusted(self.endpoint, exc.certificate_error, CA_FILE) from exc
        except aiohttp.ClientConnectorError as exc:
            raise Unreachable(f"{self.endpoint}: {exc.os_error.strerror or exc}", reason="Unreachable") from exc
        except aiohttp.ServerDisconnectedError:
            raise
        except (aiohttp.ClientError, OSError) as exc:  # TimeoutError is one
            if isinstance(exc.__cause__, ConnectionResetError | BrokenPipeError):
                raise aiohttp.ServerDisconnectedError(str(exc)) from exc
            raise Unanswered(f"{self.endpoint}: {str(exc) or type(exc).__name__}", reason=_reason(exc)) from exc

    async def chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body of an open answer as it comes. Raises `Unanswered` when it breaks off."""
        _take_more(response)
        try:
            while chunk := await response.content.readany():
                yield chunk
        except (aiohttp.ClientError, OSError) as exc:
            raise Unanswered(f"{self.endpoint}: {str(exc) or type(exc).__name__}", reason=_reason(exc)) from exc

    async def _read(self, response: aiohttp.ClientResponse, request: Request) -> bytes:
        try:
            async with asyncio.timeout(request.timeout_s):
                return await response.read()
        except (aiohttp.ClientError, OSError) as exc:
            raise Unanswered(f"{self.endpoint}: {str(exc) or type(exc).__name__}", reason=_reason(exc)) from exc

    def _signed(self, request: Request) -> tuple[URL, dict[str, str]]:
        query = query_text(request.query)
        url = f"{self.endpoint}{request.path}" + (f"?{query}" if query else "")
        body = request.body
        digest = hashlib.sha256(body).hexdigest() if isinstance(body, bytes) else UNSIGNED
        now = datetime.now(UTC)
        signed = {"Host": self._host, "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"), "x-amz-content-sha256": digest}
        signed |= request.headers
        size = len(body) if isinstance(body, bytes) else request.size_bytes
        headers: dict[str, str] = self._sign(
            method=request.method,
            url=urlsplit(url),
            region=self._region,
            headers=signed,
            credentials=self._credentials,
            content_sha256=digest,
            date=now,
        )
        headers |= {"User-Agent": self.agent, "Accept-Encoding": "identity"}
        if size is not None and request.method in ("PUT", "POST"):
            headers["Content-Length"] = str(size)
        return URL(url, encoded=True), headers

    def presigned(self, method: str, path: str, query: Query, expires_s: int) -> str:
        """A URL by which anybody may do just this until it expires."""
        text = query_text(query)
        url = urlsplit(f"{self.endpoint}{path}" + (f"?{text}" if text else ""))
        signed = self._presign(
            method=method,
            url=url,
            region=self._region,
            credentials=self._credentials,
            date=datetime.now(UTC),
            expires=expires_s,
        )
        return str(signed.geturl())

    # --- the usual requests --------------------------------------------------------------------------------------------

    async def get(self, path: str, query: Query = ()) -> bytes:
        """The body of a GET."""
        return (await self.call(Request("GET", path, query))).body

    async def put(
        self,
        path: str,
        query: Query,
        body: bytes,
        fence: Fence | None,
        *,
        method: str = "PUT",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Reply:
        """A document, with the checksum that some requests want."""
        digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        return await self.call(Request(method, path, query, {"Content-MD5": digest, **headers}, body, fence=fence))

    async def delete(self, path: str, query: Query, fence: Fence | None) -> Reply:
        """A DELETE."""
        return await self.call(Request("DELETE", path, query, fence=fence))

    # --- MinIO's admin API ---------------------------------------------------------------------------------------------

    async def admin(
        self, method: str, command: str, query: Query = (), body: bytes = b"", *, fence: Fence | None = None
    ) -> bytes:
        """One command of it."""
        return (await self.call(Request(method, ADMIN + command, query, body=body, fence=fence))).body

    async def prometheus(self) -> str:
        """What the server tells Prometheus, which logs in by a token that whoever knows the secret can make."""
        expires = int(datetime.now(UTC).timestamp()) + TOKEN_S
        claims = {"exp": expires, "sub": self.access_key, "iss": "prometheus"}
        parts = [_encoded(json.dumps(part).encode()) for part in ({"alg": "HS512", "typ": "JWT"}, claims)]
        text = ".".join(parts)
        token = f"{text}.{_encoded(hmac.new(self._secret.encode(), text.encode(), hashlib.sha512).digest())}"
        url, timeout = f"{self.endpoint}/minio/v2/metrics/cluster", aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with self._session.get(
                url, headers={"Authorization": f"Bearer {token}"}, timeout=timeout
            ) as response:
                body = await response.read()
        except (aiohttp.ClientError, OSError) as exc:
            raise Unanswered(f"{self.endpoint}: {str(exc) or type(exc).__name__}", reason=_reason(exc)) from exc
        if response.status >= 300:
            raise refused(response.status, body)
        return body.decode()

    async def sealed(self, content: Any) -> bytes:
        """JSON (or text) as the admin API takes what must not be read on the way. One at a time: it costs 64 MB and 0.1 s."""
        text = content if isinstance(content, str) else json.dumps(content)
        async with self._cipher:
            return await asyncio.to_thread(self._encrypt, text.encode(), self._secret)

    async def unsealed(self, body: bytes) -> bytes:
        """What an answer of the admin API says."""
        async with self._cipher:
            return await asyncio.to_thread(self._decrypt, _Stored(body), self._secret)


def _take_more(response: aiohttp.ClientResponse) -> None:
    """Have asyncio take more at once than its 256 KiB. A TLS transport has no such attribute, and its records are small."""
    transport = response.connection.transport if response.connection is not None else None
    if transport is not None and hasattr(transport, "max_size"):
        transport.max_size = TAKEN_BYTES


class _Stored:
    """A body that was read already, as minio-py's `decrypt` reads one."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self, size: int) -> bytes:
        """The next bytes."""
        part, self._body = self._body[:size], self._body[size:]
        return part

    def stream(self, size: int) -> Any:
        """All of it, in parts."""
        while self._body:
            yield self.read(size)

    def close(self) -> None:
        """Nothing is open."""

    def release_conn(self) -> None:
        """Nothing is open."""


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def refused(status: int, body: bytes) -> Refused:
    """What a refusal says, in XML as S3 has it or in JSON as the admin API has it."""
    try:
        if body.lstrip().startswith(b"{"):
            told = json.loads(body)
            return Refused(status, str(told.get("Code") or status), str(told.get("Message") or ""))
        root = plain(ET.fromstring(body))  # noqa: S314 - an error of the server that we administer
        return Refused(status, root.findtext("Code") or str(status), root.findtext("Message") or "")
    except (ValueError, ET.ParseError):
        code = {403: "AccessDenied", 404: "NotFound", 503: "ServiceUnavailable"}.get(status, f"Http{status}")
        text = body[:MOST_SAID].decode(errors="replace").strip()
        return Refused(status, code, f"HTTP {status}: {text}" if text else f"HTTP {status}")


def _tls(target: Target) -> ssl.SSLContext | bool:
    if target.tls is None:
        return True
    if not target.tls.verify:
        return False
    return certificates.trusting(target.tls.ca_file, CA_FILE)


def _reason(exc: BaseException) -> str:
    return "Timeout" if isinstance(exc, TimeoutError) else "ConnectionLost"
