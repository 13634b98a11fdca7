"""What the server's trace tells of changes made by others.

MinIO's admin API streams every call as a line of JSON, some 10 ms after it. Calls that change documents of buckets or who
may log in are hints to look; our own are known by their user agent. The server can't be asked for changes only, so where
objects are read and written faster than `MOST_PER_S` for long the trace is left alone for a while: sweeps find what changed.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import parse_qs, unquote

import aiohttp

from reconcilers.contract import ExternalId, Hint, Unreachable
from reconcilers.storage.model import BUCKET
from reconcilers.storage.s3 import ADMIN, Refused, Request, S3Client, Unanswered

POLL_S: Final = 5.0
HEALTH: Final = "/minio/health/live"
TRACE: Final = {"s3": "true", "internal": "true"}
SILENCE_S: Final = 15.0
"""The server sends a space twice a second: a stream that is silent for so long is dead."""
MOST_PER_S: Final = 2_000
FLOOD_S: Final = 5
"""Seconds in a row with more calls than that."""
MOST_LINE_BYTES: Final = 4 * 2**20
LEFT_ALONE_S: Final = 30.0
_NAME = re.compile(
    rb'"funcname":"(s3\.(?:Put|Delete|Make)Bucket\w*|'
    rb'admin\.(?:Put|Set|Add|Remove|Delete|Del|Update|Attach|Import|Site|Restore|ImportIAM|ImportBucket)\w*)"'
)


class _Flooded(Exception):
    """More is going on than we can follow cheaply."""


class _Flood:
    """Counts the lines of each second."""

    def __init__(self) -> None:
        self._second = 0
        self._lines = 0
        self._full = 0

    def rises(self, lines: int, now: float) -> bool:
        """True when there have been too many for too long."""
        if int(now) != self._second:
            self._full = self._full + 1 if self._lines > MOST_PER_S and int(now) == self._second + 1 else 0
            self._second, self._lines = int(now), 0
        self._lines += lines
        return self._full >= FLOOD_S


def hint_of(line: bytes, agent: str) -> Hint | None:
    """The hint in a line of the trace; None when it is about something else, failed, or was our own call."""
    name = _NAME.search(line)
    if name is None or agent.encode() in line:
        return None
    try:
        call = json.loads(line)
        http = call["http"]
        if http["response"]["statuscode"] >= 300:
            return None
        request = http["request"]
    except (ValueError, KeyError, TypeError):
        return Hint(None, "something changed that can't be told")
    service, _, what = name[1].decode().partition(".")
    named = parse_qs(request.get("rawquery") or "").get("bucket", [""])[0]
    bucket = unquote(request["path"]).split("/")[1] if service == "s3" else named
    return Hint(ExternalId(BUCKET, bucket) if bucket else None, f"{what} by somebody else")


async def hints(client: S3Client, *, traced: bool) -> AsyncIterator[Hint]:
    """Hints for as long as the server answers. Raises `Unreachable` when it doesn't any more."""
    while True:
        try:
            if traced:
                async for hint in _followed(client):
                    yield hint
        except _Flooded:
            yield Hint(None, "too much is going on to follow the trace")
        except Refused:
            traced = False  # the right to trace was taken away
        async for hint in _polled(client, LEFT_ALONE_S):
            yield hint


async def _followed(client: S3Client) -> AsyncIterator[Hint]:
    request = Request("GET", f"{ADMIN}trace", TRACE, timeout_s=SILENCE_S)
    async with client.opened(request) as response:
        pending = b""
        flood = _Flood()
        while chunk := await _chunk(response.content, client):
            *whole, pending = (pending + chunk).split(b"\n")
            for line in whole:
                hint = hint_of(line, client.agent)
                if hint is not None:
                    yield hint
            if len(pending) > MOST_LINE_BYTES or flood.rises(len(whole), asyncio.get_running_loop().time()):
                raise _Flooded
    raise Unreachable(f"{client.endpoint}: the trace has ended", reason="ConnectionLost")


async def _chunk(stream: aiohttp.StreamReader, client: S3Client) -> bytes:
    try:
        chunk: bytes = await stream.readany()
    except (aiohttp.ClientError, OSError) as exc:
        raise Unanswered(f"{client.endpoint}: {str(exc) or type(exc).__name__}", reason="ConnectionLost") from exc
    return chunk


async def _polled(client: S3Client, seconds: float) -> AsyncIterator[Hint]:
    """No hints, but the end of the connection."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    while loop.time() < ends:
        await asyncio.sleep(POLL_S)
        try:
            await client.call(Request("GET", HEALTH))
        except Refused as exc:
            if exc.status >= 500:
                raise Unreachable(exc.message, reason=exc.code) from exc
    yield Hint(None, "a regular look")
