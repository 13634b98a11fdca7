"""Requests that only the owner of a shard can answer, handed on to it.

Theory of operation. Any replica takes any request. What needs the connection to a backend (operations, plans, a look at a
setting now) raises `Elsewhere` where the shard is another replica's; the request is then sent to that replica as it came,
with the caller's own credentials, and its answer is the answer. The log's group of replicas says who owns a shard, and
where that one is reached.

Note [Hops]. While a shard moves, two replicas may each take the other for its owner. A request that was handed on twice is
refused with 503 and Retry-After. Its id stays the same, so that a repetition gets the first answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import aiohttp
import structlog
from aiohttp import web
from yarl import URL

from controlplane.api.bodies import BODY
from controlplane.api.passing import passed_on
from controlplane.domain.errors import Elsewhere
from controlplane.log.ports import LogUnavailable

_log = structlog.get_logger()

HOPS: Final = "X-Coreplane-Hops"
MOST_HOPS: Final = 2
CONNECT_S: Final = 3.0
FREE_S: Final = 10.0
"""Contents may be on their way over all connections that there may be: then the caller is told to come again."""
ANSWER_S: Final = 70.0
"""A little longer than the longest operation."""
_HANDED_ON: Final = ("Authorization", "Content-Type", "Accept", "X-Actor", "If-Match", "If-None-Match")
_HANDED_BACK: Final = ("Content-Type", "Retry-After", "ETag", "X-Correlation-Id", "WWW-Authenticate")
_OF_THE_HOP: Final = frozenset(
    {"connection", "expect", "host", "keep-alive", "server", "te", "transfer-encoding", "upgrade"}
)
READ_BYTES: Final = 256 * 1024

Owner = Callable[[int], Awaitable[str | None]]
"""Shard → where its owner is reached; None while nobody knows."""


class Forwarding:
    """Hands requests on. Without `owner` there are no other replicas."""

    def __init__(self, owner: Owner | None = None) -> None:
        self._owner = owner
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """End the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def forward(self, request: web.Request, request_id: str, elsewhere: Elsewhere) -> web.Response:
        """The owner's answer. Raises `Elsewhere` when it can't be had."""
        address = await self._address(request, elsewhere.shard)
        if address is None:
            raise elsewhere
        try:
            return await self._sent(request, request_id, address + request.raw_path)
        except (aiohttp.ClientConnectionError, TimeoutError) as exc:
            _log.warning("owner not reached", shard=elsewhere.shard, error=repr(exc))
            raise elsewhere from exc

    async def stream(self, request: web.Request, request_id: str, elsewhere: Elsewhere) -> web.StreamResponse:
        """The same of contents, passed on as they come, either way. Raises `Elsewhere` when the owner can't be asked."""
        address = await self._address(request, elsewhere.shard)
        if address is None:
            raise elsewhere
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OF_THE_HOP}
        headers |= {"Idempotency-Key": request_id, HOPS: str(_hops(request) + 1)}
        options: dict[str, Any] = {
            "data": _arriving(request) if request.body_exists else None,
            "timeout": aiohttp.ClientTimeout(total=None, connect=FREE_S, sock_connect=CONNECT_S, sock_read=ANSWER_S),
            "skip_auto_headers": ("Accept-Encoding", "Content-Type"),
            "auto_decompress": False,
            "read_bufsize": READ_BYTES,
        }
        url = URL(address + request.raw_path, encoded=True)
        try:
            answer = await self._opened().request(
                request.method, url, headers=headers, allow_redirects=False, **options
            )
        except (aiohttp.ClientError, TimeoutError) as exc:
            _log.warning("owner not reached", shard=elsewhere.shard, error=repr(exc))
            raise elsewhere from exc
        async with answer:
            return await _handed_back(answer, request)

    async def plans(
        self, request: web.Request, request_id: str, wanted: Mapping[int, Iterable[str]], path: str
    ) -> dict[str, Mapping[str, Any]]:
        """Setting → the plan of its target's owner, for those whose owner answers. `wanted`: shard → settings."""
        if _hops(request):
            return {}  # who asks for our part asks the others for theirs
        addresses: dict[str, set[str]] = {}
        for shard, keys in wanted.items():
            address = await self._address(request, shard)
            if address is not None:
                addresses.setdefault(address, set()).update(keys)
        found: dict[str, Mapping[str, Any]] = {}
        for address, keys in addresses.items():
            try:
                document = await self._asked(request, request_id, address + path)
            except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
                _log.warning("owner not asked for its plan", error=repr(exc))
            else:
                found |= dict.fromkeys(keys, document)
        return found

    async def _address(self, request: web.Request, shard: int) -> str | None:
        """Note [Hops]."""
        if self._owner is None or _hops(request) >= MOST_HOPS:
            return None
        try:
            return await self._owner(shard)
        except LogUnavailable:
            return None

    async def _sent(self, request: web.Request, request_id: str, url: str) -> web.Response:
        async with self._asking(request, request_id, url, request.method) as answer:
            headers = {name: answer.headers[name] for name in _HANDED_BACK if name in answer.headers}
            return web.Response(status=answer.status, body=await answer.read(), headers=headers)

    async def _asked(self, request: web.Request, request_id: str, url: str) -> Mapping[str, Any]:
        async with self._asking(request, request_id, url, "POST") as answer:
            answer.raise_for_status()
            document: Mapping[str, Any] = await answer.json()
            return document

    def _asking(self, request: web.Request, request_id: str, url: str, method: str) -> Any:
        headers = {name: request.headers[name] for name in _HANDED_ON if name in request.headers}
        headers |= {"Idempotency-Key": request_id, HOPS: str(_hops(request) + 1)}
        return _Asking(self._opened(), request, method, url, headers)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


class _Asking:
    """One request with the body that came; a context."""

    def __init__(
        self, session: aiohttp.ClientSession, request: web.Request, method: str, url: str, headers: Mapping[str, str]
    ) -> None:
        self._session = session
        self._request = request
        self._method = method
        self._url = url
        self._headers = headers
        self._answer: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> aiohttp.ClientResponse:
        body = self._request.get(BODY, b"")
        self._answer = await self._session.request(
            self._method, self._url, data=body, headers=self._headers, allow_redirects=False
        )
        return self._answer

    async def __aexit__(self, *_: object) -> None:
        if self._answer is not None:
            self._answer.release()


async def _arriving(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it comes; a sender that leaves or stops ends it with an error."""
    while True:
        async with asyncio.timeout(ANSWER_S):
            chunk = await request.content.readany()
        if not chunk:
            return
        yield chunk


async def _handed_back(answer: aiohttp.ClientResponse, request: web.Request) -> web.StreamResponse:
    """What breaks off there breaks off here."""
    headers = {name: value for name, value in answer.headers.items() if name.lower() not in _OF_THE_HOP}
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(request)
    if request.method != "HEAD":
        await passed_on(answer.content.iter_any(), response, ANSWER_S)
    await response.write_eof()
    return response


def _hops(request: web.Request) -> int:
    text = request.headers.get(HOPS, "0")
    return int(text) if text.isdecimal() and len(text) < 3 else MOST_HOPS
