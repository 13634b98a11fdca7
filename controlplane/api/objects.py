"""Contents of a target, streamed through: what is read or written is never held whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from aiohttp import web

from controlplane.api import admission, parameters
from controlplane.api.call import CORRELATION, Call
from controlplane.api.passing import passed_on
from controlplane.domain.errors import Elsewhere, Reason, Refused
from reconcilers.contract import StreamAnswer, StreamRequest

IDLE_S: Final = 60.0
"""A sender or reader that does nothing for so long is given up."""
AHEAD_BYTES: Final = 2 * 2**20
"""What is read ahead of a reader, so that reading and sending overlap."""
HARMLESS: Final = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Content-Disposition": "attachment",
    "X-Content-Type-Options": "nosniff",
}
"""What somebody stored must not act as a page of this daemon."""


async def read(call: Call[parameters.Object]) -> web.StreamResponse:
    """Send what is there; `Range` and `If-None-Match` mean what they always mean."""
    return await _served(call, _read)


async def _read(call: Call[parameters.Object]) -> web.StreamResponse:
    async with _open(call) as answer:
        return await _sent(call, answer)


async def _sent(call: Call[Any], answer: StreamAnswer) -> web.StreamResponse:
    headers = {**answer.headers, **HARMLESS, CORRELATION: call.request_id}
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(call.request)
    if call.request.transport is not None:
        call.request.transport.set_write_buffer_limits(high=AHEAD_BYTES)
    if call.request.method == "HEAD" or answer.body is None:
        return response
    await passed_on(answer.body, response, IDLE_S)
    await response.write_eof()
    return response


async def exchange(call: Call[parameters.Documents]) -> web.StreamResponse:
    """Answer while the body still arrives. What fails once the answer has begun is for its last line to say."""
    return await _served(call, _exchanged)


async def _exchanged(call: Call[parameters.Documents]) -> web.StreamResponse:
    body = _arriving(call.request)
    async with _opened(call, "documents", body, options=call.query.model_dump(exclude_none=True)) as answer:
        return await _sent(call, answer)


async def write(call: Call[parameters.Object]) -> web.StreamResponse:
    """Store the body. What doesn't arrive whole isn't stored at all."""
    return await _served(call, _written)


async def _written(call: Call[parameters.Object]) -> web.StreamResponse:
    async with _open(call, _arriving(call.request)) as answer:
        return web.Response(status=answer.status, headers=answer.headers)


async def remove(call: Call[parameters.Object]) -> web.StreamResponse:
    """Remove it, or one version of it."""
    return await _served(call, _removed)


async def _removed(call: Call[parameters.Object]) -> web.StreamResponse:
    async with _open(call) as answer:
        return web.Response(status=answer.status, headers=answer.headers)


async def _served(call: Call[Any], serve: Callable[[Call[Any]], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """By this replica, or by the one that drives the target."""
    with admission.hold_stream(call):
        try:
            return await serve(call)
        except Elsewhere as elsewhere:
            return await call.parts.forwarding.stream(call.request, call.request_id, elsewhere)


def _open(
    call: Call[parameters.Object], body: AsyncIterator[bytes] | None = None
) -> AbstractAsyncContextManager[StreamAnswer]:
    return _opened(call, "objects", body, version=call.query.version)


def _opened(
    call: Call[Any], what: str, body: AsyncIterator[bytes] | None, **further: Any
) -> AbstractAsyncContextManager[StreamAnswer]:
    admission.count_operation(call)
    request = call.request
    asked = StreamRequest(
        method=request.method,
        path=request.match_info["path"],
        headers={name.lower(): value for name, value in request.headers.items()},
        body=body,
        size_bytes=None if body is None else request.content_length,
        **further,
    )
    return call.parts.streams.open(call.tenant, what, request.match_info["target"], asked)


async def _arriving(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it comes. Raises `Refused` when the sender leaves or stops."""
    content = request.content
    while True:
        try:
            async with asyncio.timeout(IDLE_S):
                chunk = await content.readany()
        except TimeoutError:
            raise Refused(Reason.MALFORMED, f"nothing arrived for {IDLE_S:g} s") from None
        except (ConnectionError, web.RequestPayloadError) as exc:
            raise Refused(Reason.MALFORMED, f"the body didn't arrive whole: {exc}") from exc
        if not chunk:
            return
        yield chunk
