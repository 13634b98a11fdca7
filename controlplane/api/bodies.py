"""Bodies of requests: bounded while they arrive, then parsed by content type."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from controlplane.api import documents
from controlplane.domain.errors import Reason, Refused

JSON: Final = ("application/json",)
PATCH: Final = ("application/merge-patch+json", "application/json")
YAML: Final = ("application/yaml", "text/yaml", "application/x-yaml", "text/x-yaml")

ARRIVAL_S: Final = 30.0
"""A body that takes longer is given up, so that slow senders can't hold connections for ever."""

BODY: web.RequestKey[bytes] = web.RequestKey("body", bytes)
"""What was read: a request that is handed on to another replica takes its body along."""

_THREAD_BYTES: Final = 64 * 1024
"""Larger bodies are parsed in a thread: a megabyte of YAML takes a second, and the loop has leases to keep."""


async def json_map(request: web.Request, most_bytes: int, types: Collection[str] = JSON) -> dict[str, Any]:
    """The body as a JSON object. Raises `Refused` (Malformed, TooLarge, UnsupportedMediaType)."""
    check_type(request, types)
    data = await read(request, most_bytes)
    document = await _parsed(documents.parse_json, data)
    if not isinstance(document, dict):
        raise documents.malformed(f"the body must be a JSON object, not {_kind(document)}")
    return document


async def json_or_yaml(request: web.Request, most_bytes: int) -> list[Any]:
    """The documents of the body: one for JSON, any number for YAML."""
    check_type(request, (*JSON, *YAML))
    data = await read(request, most_bytes)
    if request.content_type in YAML:
        found: list[Any] = await _parsed(documents.parse_yaml, data)
        return found
    return [await _parsed(documents.parse_json, data)]


def check_type(request: web.Request, types: Collection[str]) -> None:
    """Raise `Refused` unless the content type is one of `types`, in UTF-8."""
    given = request.content_type if "Content-Type" in request.headers else "none"
    if given not in types:
        detail = f"send Content-Type: {' or '.join(types)}; got {given}"
        raise Refused(Reason.UNSUPPORTED_MEDIA_TYPE, detail)
    charset = (request.charset or "utf-8").lower()
    if charset not in {"utf-8", "utf8", "us-ascii"}:
        raise Refused(Reason.UNSUPPORTED_MEDIA_TYPE, f"send UTF-8; got charset {charset}")


async def read(request: web.Request, most_bytes: int) -> bytes:
    """The body, unpacked. Gives up at `most_bytes` without reading the rest."""
    if (request.content_length or 0) > most_bytes:
        raise _too_large(most_bytes)
    parts, size = [], 0
    try:
        async with asyncio.timeout(ARRIVAL_S):
            async for part in request.content.iter_chunked(_THREAD_BYTES):
                size += len(part)
                if size > most_bytes:
                    raise _too_large(most_bytes)
                parts.append(part)
    except TimeoutError:
        raise documents.malformed(f"the body didn't arrive within {ARRIVAL_S:g} s") from None
    except ConnectionError:
        raise documents.malformed("the sender left before the end of the body") from None  # not worth an error of ours
    except (HttpProcessingError, web.RequestPayloadError) as exc:
        raise documents.malformed(f"the body can't be read: {exc}") from exc
    request[BODY] = body = b"".join(parts)
    return body


async def _parsed(parse: Callable[[bytes], Any], data: bytes) -> Any:
    return parse(data) if len(data) < _THREAD_BYTES else await asyncio.to_thread(parse, data)


def _too_large(most_bytes: int) -> Refused:
    return Refused(Reason.TOO_LARGE, f"bodies hold at most {most_bytes} bytes: split the document")


def _kind(value: Any) -> str:
    names = {list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
