"""One request to the daemon: address, headers, deadline, retries, problems.

What is retried follows from what may be repeated. A read can always be. A write carries an Idempotency-Key that stays
the same over its retries, so that the daemon answers with the first result whatever became of the first try; it is
repeated when the connection broke (outcome unknown), on 503 (nothing stored) and on 504 (outcome unknown). An operation
acts on a backend, and the daemon remembers its key only while it runs: it is repeated only when it can't have begun, on
429 or when there was no connection. `Retry-After` is honoured, within bounds.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any
from urllib.parse import quote

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from controlplane.client.errors import ApiError, DaemonUnreachable, problem_error

ATTEMPT = "Idempotency-Attempt"
"""Header that says, by a 1, that a key was never sent before; left out when it may have been."""
PAUSE_INITIAL_S = 0.2
PAUSE_CAP_S = 5.0
MAX_RETRY_AFTER_S = 30.0
"""A server that asks for more is answered with its own error instead."""


@dataclass(frozen=True, slots=True)
class Request:
    """`query`: None values are left out, booleans become true/false, sequences repeat the parameter."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    """False: once it may have arrived it isn't sent again."""
    extra_time_s: float = 0.0
    """Added to the client's timeout: how long the daemon was asked to wait."""
    accepted: frozenset[int] = frozenset()
    """Statuses from 400 on whose body is an answer all the same."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`body`: parsed JSON, the text of anything else, None when empty."""

    status: int
    body: Any
    headers: Mapping[str, str]


class Transport:
    """A pool of connections to one daemon. Open after the first request, until `close`."""

    def __init__(self, url: str, headers: Mapping[str, str], timeout_s: float, attempts: int) -> None:
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self._headers = {"Accept": "application/json", **headers}
        self._attempts = attempts
        self._session: aiohttp.ClientSession | None = None

    def session(self) -> aiohttp.ClientSession:
        """The connections; made on first use because aiohttp binds them to the running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers)
        return self._session

    async def close(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(self, request: Request) -> Answer:
        """The answer to a request, after retries; ApiError or DaemonUnreachable when there is none."""
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._attempts),
            wait=_pause_s,
            retry=retry_if_exception(lambda exc: _may_repeat(request, exc)),
            reraise=True,
        )
        again = {name: value for name, value in request.headers.items() if name != ATTEMPT}
        tries = chain([dict(request.headers)], repeat(again))

        async def once() -> Answer:
            return await self._once(request, next(tries))

        try:
            return await retrying(once)
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise DaemonUnreachable(self.url, explanation(exc)) from exc

    async def _once(self, request: Request, headers: Mapping[str, str]) -> Answer:
        timeout = aiohttp.ClientTimeout(total=self.timeout_s + request.extra_time_s, sock_connect=self.timeout_s)
        async with self.session().request(
            request.method,
            self.url + request.path,
            params=query_items(request.query),
            json=request.body,
            headers=headers,
            timeout=timeout,
        ) as response:
            text = await response.text(errors="replace")
            body = parsed(text, response.content_type)
            if response.status >= 400 and response.status not in request.accepted:
                raise problem_from(response.status, body, response.headers.get("Retry-After"))
            return Answer(response.status, body, response.headers)


def segment(text: str) -> str:
    """One path segment, whatever the text contains."""
    return quote(text, safe="")


def query_items(query: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Query parameters in order."""
    return [
        (name, str(value).lower() if isinstance(value, bool) else str(value))
        for name, given in query.items()
        if given is not None
        for value in (given if isinstance(given, list | tuple) else (given,))
    ]


def parsed(text: str, content_type: str) -> Any:
    """The body as JSON where it says so (and is)."""
    if not text:
        return None
    if content_type.endswith("json"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def problem_from(status: int, body: Any, retry_after: str | None) -> ApiError:
    """The exception for an answer of 400 and above; a proxy's HTML becomes a detail of at most 500 characters."""
    problem = body if isinstance(body, dict) else {"detail": str(body or "").strip()[:500]}
    try:
        retry_after_s = None if retry_after is None else float(retry_after)
    except ValueError:
        retry_after_s = None
    return problem_error(status, problem, retry_after_s)


def explanation(exc: BaseException) -> str:
    """A few words on why there was no answer."""
    if isinstance(exc, asyncio.TimeoutError):
        return "it took too long"
    if isinstance(exc, aiohttp.ClientConnectorError):
        number = exc.os_error.errno or 0
        return os.strerror(number) if number > 0 else exc.os_error.strerror or str(exc.os_error)
    return str(exc) or type(exc).__name__


def _may_repeat(request: Request, exc: BaseException) -> bool:
    if isinstance(exc, ApiError):
        repeatable = {429} if not request.repeatable else {429, 503, 504} if _is_keyed(request) else {429, 503}
        return exc.status in repeatable and (exc.retry_after_s or 0.0) <= MAX_RETRY_AFTER_S
    if isinstance(exc, aiohttp.InvalidURL):
        return False
    if not request.repeatable:
        return isinstance(exc, aiohttp.ClientConnectorError)
    return isinstance(exc, aiohttp.ClientError | TimeoutError)


def _is_keyed(request: Request) -> bool:
    return "Idempotency-Key" in request.headers


def _pause_s(state: RetryCallState) -> float:
    """Full jitter below a doubling bound; what the daemon asked for goes first."""
    outcome = state.outcome
    exc = outcome.exception() if outcome is not None else None
    if isinstance(exc, ApiError) and exc.retry_after_s is not None:
        return exc.retry_after_s
    bound = min(PAUSE_CAP_S, PAUSE_INITIAL_S * 2.0 ** (state.attempt_number - 1))
    return random.uniform(bound / 2, bound)  # noqa: S311 - spreading retries
