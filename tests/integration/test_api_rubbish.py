"""Whatever is sent to whatever route: never a 5xx, and what is refused is refused as a problem."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from controlplane.api.routes import ROUTES
from controlplane.config import HttpConfig
from tests.integration.api_daemon import APP, REDIS, Api, daemon

_WORDS = (
    "default",
    "other",
    "main",
    "app",
    "cache.target",
    "cache.redis_user",
    "cache.namespace",
    "cache",
    "cache.echo",
)
_NAMES = ("value", "labels", "depends_on", "policy", "reason", "settings", "prune", "type", "name", "target", "kind")

_path_part = st.sampled_from(_WORDS) | st.text(min_size=1, max_size=40)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from((REDIS, APP)),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_NAMES) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=15,
)
_body = (
    st.binary(max_size=200)
    | _json.map(lambda value: json.dumps(value).encode())
    | st.text().map(lambda text: text.encode("utf-8", "replace"))
)
_media_type = st.sampled_from(
    (
        "application/json",
        "application/merge-patch+json",
        "application/yaml",
        "text/plain",
        "application/json; charset=x",
    )
)
_header = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
_headers = st.dictionaries(
    st.sampled_from(
        ("If-Match", "If-None-Match", "Idempotency-Key", "X-Actor", "Last-Event-ID", "Authorization", "Accept")
    ),
    _header,
    max_size=3,
)
_query = st.dictionaries(
    st.sampled_from(("limit", "cursor", "at", "label", "since", "from", "interval", "text", "tag", "dry_run", "x")),
    st.text(max_size=20) | st.integers().map(str),
    max_size=3,
)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[asyncio.Runner, Api]]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        limits = HttpConfig(max_body_bytes=100_000, request_timeout_s=2)
        api = runner.run(stack.enter_async_context(daemon(http=limits)))
        yield runner, api
        runner.run(stack.aclose())


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    route=st.sampled_from(ROUTES),
    parts=st.lists(_path_part, min_size=5, max_size=5),
    query=_query,
    headers=_headers,
    media_type=_media_type,
    body=_body,
)
def test_no_rubbish_is_answered_with_a_5xx(
    running: tuple[asyncio.Runner, Api],
    route: Any,
    parts: list[str],
    query: dict[str, str],
    headers: dict[str, str],
    media_type: str,
    body: bytes,
) -> None:
    runner, api = running
    names = ("tenant", "type", "name", "service", "operation")
    given_parts = {
        name: quote(part.encode("utf-8", "replace"), safe="") for name, part in zip(names, parts, strict=True)
    }
    again = {"file": given_parts["name"], "target": given_parts["type"], "path": given_parts["service"]}
    path = route.path.format(**given_parts, **again)
    asked = "&".join(f"{name}={quote(value.encode('utf-8', 'replace'), safe='')}" for name, value in query.items())
    url = URL(f"{path}?{asked}" if asked else path, encoded=True)

    async def send() -> tuple[int, str, bytes]:
        sent = {**headers, "Content-Type": media_type}
        async with api.client.request(route.method, url, data=body, headers=sent) as response:
            streaming = response.content_type == "text/event-stream"
            return response.status, response.content_type, b"" if streaming else await response.read()

    status, content_type, text = runner.run(send())
    assert status < 500, text
    if status >= 400:
        assert content_type == "application/problem+json"
        assert json.loads(text)["status"] == status


@settings(max_examples=100, deadline=None)
@given(document=_json)
def test_what_was_stored_can_be_read_back(running: tuple[asyncio.Runner, Api], document: Any) -> None:
    runner, api = running
    path = "/v1/tenants/default/settings/cache.target/main"
    body = json.dumps({"value": REDIS, "labels": document})

    async def send() -> None:
        response = await api.raw("PUT", path, data=body, headers={"Content-Type": "application/json"})
        if response.status < 300:
            assert (await api.call("GET", path, 200))["labels"] == document

    runner.run(send())
