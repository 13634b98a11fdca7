"""What somebody tries who means harm: bombs, names that lead elsewhere, lines that aren't theirs."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import pytest

from controlplane.api import bodies
from tests.integration.api_daemon import BASE, REDIS, TARGET, Api, daemon

JSON = {"Content-Type": "application/json"}
DEEP = 100_000


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with daemon() as running:
        yield running


@pytest.mark.parametrize("path", [f"{BASE}/apply", f"{BASE}/plan", f"{BASE}/rollback", f"{BASE}/import", TARGET])
async def test_nesting_without_end_is_refused(api: Api, path: str) -> None:
    method = "PUT" if path == TARGET else "POST"
    for data in ("[" * DEEP, '{"value":' * DEEP, '{"value": ' + "[" * DEEP + "]" * DEEP + "}"):
        response = await api.raw(method, path, data=data, headers=JSON)
        assert response.status in {400, 422}
    if path.endswith("apply"):
        for data in ("[" * DEEP, "- " * 20_000, "a: &a [*a]", "{a: " * 5_000):
            response = await api.raw(method, path, data=data, headers={"Content-Type": "application/yaml"})
            assert response.status in {400, 422}, data[:20]


async def test_a_small_body_that_unpacks_to_a_large_one_is_refused(api: Api) -> None:
    bomb = gzip.compress(b" " * (64 * 1024 * 1024))
    assert len(bomb) < api.parts.config.http.max_body_bytes
    response = await api.raw("PUT", TARGET, data=bomb, headers={**JSON, "Content-Encoding": "gzip"})
    assert response.status in {400, 413}


async def test_a_body_that_never_ends_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "ARRIVAL_S", 0.3)

    async def slowly() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    response = await api.raw("PUT", TARGET, data=slowly(), headers=JSON)
    assert response.status == 400


@pytest.mark.parametrize(
    "path",
    [
        f"{BASE}/settings/cache.target/..%2F..%2Fetc%2Fpasswd",
        f"{BASE}/settings/cache.target/a%0d%0aX-Evil:%20yes",
        f"{BASE}/settings/..%2Fcache.target/a",
        f"{BASE.replace('default', 'default%0d%0aX-Evil:%20yes')}/settings",
        f"{BASE.replace('default', 'default%2Fsettings')}/settings",
        f"{BASE.replace('default', '..%2Fdefault')}/settings",
        "/web/..%2F..%2Fconfig.py",
        "/web/%2Fetc%2Fpasswd",
    ],
)
async def test_names_lead_nowhere_but_to_their_setting(api: Api, path: str) -> None:
    await api.put(TARGET, REDIS, 201)
    response = await api.raw("GET", path)
    assert response.status in {403, 404, 422}
    assert "X-Evil" not in response.headers
    assert "root:" not in await response.text()


async def test_an_actor_writes_no_lines_into_the_log(api: Api) -> None:
    for actor in ("a\tb", "é", "x" * 200):
        response = await api.raw("PUT", TARGET, json={"value": REDIS}, headers={"X-Actor": actor})
        assert response.status == 400, actor
