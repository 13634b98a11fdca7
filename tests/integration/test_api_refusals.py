"""Every code of the contract, as a problem that says what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel

from controlplane.config import HttpConfig
from controlplane.domain.errors import Reason, Refused
from controlplane.log.ports import Indeterminate, LogUnavailable
from controlplane.projection.ports import StoreUnavailable
from controlplane.runtime.clock import SystemClock
from controlplane.runtime.replica import Replica
from controlplane.telemetry.metrics import Metrics
from tests.integration.api_daemon import APP, BASE, REDIS, TARGET, USER, Api, daemon

APPLY = f"{BASE}/apply"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with daemon(http=HttpConfig(max_body_bytes=10_000, request_timeout_s=2.0)) as running:
        yield running


async def test_a_problem_has_all_its_parts(api: Api) -> None:
    response = await api.raw("GET", TARGET)
    assert response.content_type == "application/problem+json"
    assert response.headers["X-Correlation-Id"]
    problem = json.loads(await response.text())
    assert problem.keys() == {"type", "title", "status", "detail", "reason", "errors"}
    assert (problem["status"], problem["title"], problem["reason"]) == (404, "Not Found", "NotFound")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"\xff\xfe",
        b'{"value": NaN}',
        b'{"value": 1e999, "value": 2}',
        b'{"value": {}, "value": {}}',
        b"[]",
        b"null",
        b"5",
        b'{"colour": 1, "value": {}}',
        b"[" * 100_0,
        b'{"value": ' + b"9" * 5000 + b"}",
    ],
)
async def test_a_malformed_body_is_400(api: Api, body: bytes) -> None:
    problem = await api.call("PUT", TARGET, 400, data=body, headers={"Content-Type": "application/json"})
    assert problem["reason"] == "Malformed"
    assert problem["errors"]


@pytest.mark.parametrize(
    "body",
    [
        b"a: [",
        b"a: 1\na: 2",
        b"{" * 500,
        b"- " * 500,
        b"\x00",
        b"a: !!python/object/apply:os.system [echo]",
        b"a: &a [*a]",
        b"a: &a [1]\n" + b"".join(b"b%d: &b%d [*a,*a,*a,*a,*a,*a,*a,*a]\n" % (n, n) for n in range(200)),
        b"a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)),
        b"? [a, b]\n: c",
        b"--- \n...\n",
    ],
)
async def test_malformed_yaml_is_400(api: Api, body: bytes) -> None:
    problem = await api.call("POST", APPLY, 400, data=body, headers={"Content-Type": "application/yaml"})
    assert problem["reason"] == "Malformed"


@pytest.mark.parametrize(
    "value",
    [{"settings": [{"type": "cache.namespace", "name": "n", "value": {"prefix": "\ud800"}}]}, {"settings": [1e400]}],
)
async def test_what_the_log_cannot_hold_is_refused(api: Api, value: Any) -> None:
    body = json.dumps(value).replace("Infinity", "1e999")
    await api.call("POST", APPLY, 422, data=body, headers={"Content-Type": "application/json"})


async def test_unknown_parameters_are_named(api: Api) -> None:
    problem = await api.call("GET", f"{BASE}/settings?colour=red&limit=0&limit=5&phase=Nice&label=x", 400)
    assert {error["path"] for error in problem["errors"]} == {"?colour", "?limit", "?phase"}


@pytest.mark.parametrize(
    "path",
    [
        f"{TARGET}?at=yesterday",
        f"{TARGET}?min_revision=-1",
        f"{BASE}/settings?label=x",
        f"{BASE}/settings?cursor=%25",
        f"{BASE}/settings?service=nothing",
        f"{TARGET}/history?cursor=eA",
        f"{BASE}/events?since=yesterday",
        f"{BASE}/events?cursor=5",
        f"{BASE}/events?event_type=Nothing",
        f"{BASE}/metrics?interval=fast",
        f"{BASE}/metrics?interval=0",
        f"{BASE}/metrics?interval=99999d",
        f"{BASE}/metrics?tag=x",
        "/healthz?x=1",
    ],
)
async def test_wrong_parameters_are_400(api: Api, path: str) -> None:
    await api.put(TARGET, REDIS, 201)
    problem = await api.call("GET", path, 400)
    assert problem["errors"]


async def test_wrong_headers_are_400(api: Api) -> None:
    for headers in ({"If-Match": "abc"}, {"Idempotency-Key": "two words"}, {"X-Actor": "a" * 200}):
        await api.call("PUT", TARGET, 400, json={"value": REDIS}, headers=headers)


async def test_what_is_not_there_is_404(api: Api) -> None:
    for method, path in (
        ("GET", TARGET),
        ("DELETE", TARGET),
        ("GET", f"{TARGET}/history"),
        ("POST", f"{TARGET}/reconcile"),
        ("GET", TARGET.replace("default", "nobody")),
        ("GET", "/nothing"),
        ("GET", "/v1/schemas/nothing"),
        ("GET", "/web/nothing"),
        ("GET", f"{BASE}/analytics/nothing"),
        ("POST", f"{BASE}/operations/cache.nothing"),
    ):
        assert (await api.call(method, path, 404))["reason"] == "NotFound"
    await api.call("PATCH", TARGET, 404, json={})


async def test_a_wrong_method_is_405_and_names_the_right_ones(api: Api) -> None:
    response = await api.raw("POST", TARGET)
    assert response.status == 405
    assert set(response.headers["Allow"].split(",")) == {"GET", "HEAD", "PUT", "PATCH", "DELETE"}


async def test_a_body_over_the_limit_is_413(api: Api) -> None:
    huge = b'{"value": "' + b"x" * 20_000 + b'"}'
    await api.call("PUT", TARGET, 413, data=huge, headers={"Content-Type": "application/json"})

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b" " * 1000

    await api.call("PUT", TARGET, 413, data=endless(), headers={"Content-Type": "application/json"})


async def test_other_content_types_are_415(api: Api) -> None:
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"):
        problem = await api.call("PUT", TARGET, 415, data=b"{}", headers={"Content-Type": media_type})
        assert problem["reason"] == "UnsupportedMediaType"
    await api.call("PUT", TARGET, 415, data=b"{}", headers={"Content-Type": "application/yaml"})
    await api.call("PATCH", USER, 404, data=b"{}", headers={"Content-Type": "application/merge-patch+json"})


async def test_every_error_of_a_value_comes_at_once_with_its_path(api: Api) -> None:
    body = {"value": {**APP, "keys": 5, "colour": 1}, "labels": {"": "x"}, "depends_on": "x", "policy": {"drift": "no"}}
    problem = await api.call("PUT", USER, 422, json=body)
    paths = {error["path"] for error in problem["errors"]}
    assert {"/value/keys", "/value/colour", "/depends_on", "/policy/drift"} <= paths
    assert problem["reason"] == "Invalid"


@pytest.mark.parametrize("name", ["%20", "a%2Fb", "-a", "a%0A", "%C3%BC", "x" * 129, "a b"])
async def test_an_odd_name_is_422(api: Api, name: str) -> None:
    problem = await api.put(f"{BASE}/settings/cache.target/{name}", REDIS, 422)
    assert [error["path"] for error in problem["errors"]] == ["/name"]


async def test_a_refused_operation_says_why() -> None:
    class Refusing:
        def requests(self) -> dict[str, type[BaseModel]]:
            return {"cache.invalidate": BaseModel}

        async def run(self, *_: Any, **__: Any) -> dict[str, Any]:
            raise Refused(Reason.TOO_MANY_REQUESTS, "64 operations are under way", retry_after_s=1.0)

    async with daemon(operations=Refusing()) as api:
        response = await api.raw("POST", f"{BASE}/operations/cache.invalidate", json={})
        assert (response.status, response.headers["Retry-After"]) == (429, "1")


class _Broken:
    """A settings log that fails as it is told."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    async def append(self, _data: bytes, _about: object) -> None:
        if self._error:
            raise self._error

    async def read(self, _start: int, _limit: int = 500) -> list[Any]:
        return []

    async def tail(self, _start: int) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield []

    async def end_offset(self) -> int:
        if isinstance(self._error, LogUnavailable):
            raise self._error
        return 0


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (LogUnavailable("disk full"), 503, "LogUnavailable"),
        (Indeterminate("no acknowledgement"), 504, "OutcomeUnknown"),
        (None, 504, "OutcomeUnknown"),
    ],
)
async def test_a_log_that_fails_says_whether_something_was_stored(
    error: Exception | None, status: int, reason: str
) -> None:
    replica = Replica(_Broken(error), SystemClock(), Metrics())
    async with daemon(http=HttpConfig(request_timeout_s=0.05), replica=replica) as api:
        for method, path, body in (
            ("PUT", TARGET, {"value": REDIS}),
            ("POST", APPLY, {"settings": [{"type": "cache.target", "name": "a", "value": REDIS}]}),
        ):
            problem = await api.call(method, path, status, json=body, headers={"Idempotency-Key": "k"})
            assert problem["reason"] == reason
            assert problem.get("request_id") == ("default/k" if status == 504 else None)
        ready = await api.call("GET", "/readyz")
        assert ready["ready"] is (status == 504)
        await api.call("GET", "/v1/status", 200)


async def test_a_projection_that_fails_leaves_the_rest_alone(api: Api) -> None:
    class Closed:
        async def events(self, _: Any) -> Any:
            raise StoreUnavailable("rebuilding")

    async with daemon(queries=Closed()) as broken:
        assert (await broken.call("GET", f"{BASE}/events", 503))["reason"] == "ProjectionUnavailable"
        await broken.put(TARGET, REDIS, 201)


async def test_a_bug_is_500_without_its_insides(api: Api) -> None:
    class Broken:
        async def events(self, _: Any) -> Any:
            raise RuntimeError("hunter2")

    async with daemon(queries=Broken()) as broken:
        response = await broken.raw("GET", f"{BASE}/events", headers={"Idempotency-Key": "k"})
        assert response.status == 500
        assert "hunter2" not in await response.text()
        assert broken.parts.metrics.value("coreplane_bugs_total", where="api") == 1
