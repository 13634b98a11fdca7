"""What the client makes of answers, and what it sends again."""

import aiohttp
import pytest
from aiohttp import web
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.test_utils import TestServer

from controlplane.client.errors import ApiError, Fault, Gone
from controlplane.client.http import CoreplaneClient
from controlplane.client.transport import ATTEMPT, Request, _may_repeat, parsed, problem_from, query_items, segment

READ = Request("GET", "/x")
WRITE = Request("PUT", "/x", headers={"Idempotency-Key": "k"})
OPERATION = Request("POST", "/x", headers={"Idempotency-Key": "k"}, repeatable=False)


def refused() -> aiohttp.ClientConnectorError:
    key = ConnectionKey("localhost", 1, False, True, None, None, None)  # type: ignore[arg-type]
    return aiohttp.ClientConnectorError(key, ConnectionRefusedError(111, "refused"))


def test_a_problem_becomes_an_error_with_every_fault() -> None:
    body = {
        "title": "Invalid",
        "detail": "two things",
        "reason": "Invalid",
        "errors": [{"path": "/value/a", "message": "is missing"}, {"path": "", "message": "b"}, "odd"],
    }
    error = problem_from(422, body, None)
    assert (error.status, error.title, error.detail, error.reason) == (422, "Invalid", "two things", "Invalid")
    assert error.errors == (Fault("/value/a", "is missing"), Fault("", "b"))
    assert str(error) == "422 Invalid: two things"


def test_an_answer_of_a_proxy_becomes_an_error_too() -> None:
    error = problem_from(502, "<html>Bad Gateway</html>", "soon")
    assert error.detail == "<html>Bad Gateway</html>"
    assert error.retry_after_s is None


def test_gone_knows_the_oldest_cursor() -> None:
    error = problem_from(410, {"oldest": "12-0"}, None)
    assert isinstance(error, Gone)
    assert error.oldest == "12-0"


@pytest.mark.parametrize(
    ("request_", "status", "again"),
    [
        (READ, 503, True),
        (READ, 504, False),
        (READ, 429, True),
        (READ, 404, False),
        (WRITE, 503, True),
        (WRITE, 504, True),
        (WRITE, 412, False),
        (OPERATION, 503, False),
        (OPERATION, 429, True),
        (OPERATION, 504, False),
        (OPERATION, 502, False),
    ],
)
def test_an_answer_is_asked_for_again_only_where_that_is_safe(request_: Request, status: int, again: bool) -> None:
    assert _may_repeat(request_, ApiError(status, {})) is again


def test_a_broken_connection_is_no_reason_to_operate_twice() -> None:
    broken = aiohttp.ServerDisconnectedError()
    assert _may_repeat(READ, broken)
    assert _may_repeat(WRITE, broken)
    assert not _may_repeat(OPERATION, broken)
    assert _may_repeat(OPERATION, refused())


def test_a_bug_is_never_repeated() -> None:
    assert not _may_repeat(READ, ValueError())


def test_a_pause_that_is_too_long_is_left_to_the_caller() -> None:
    assert not _may_repeat(READ, ApiError(429, {}, retry_after_s=3600))


def test_query_values_are_spelt_for_the_daemon() -> None:
    query = {"a": None, "b": True, "c": 3, "label": ["x=1", "y=2"]}
    assert query_items(query) == [("b", "true"), ("c", "3"), ("label", "x=1"), ("label", "y=2")]


def test_a_path_segment_holds_anything() -> None:
    assert segment("a/b?c") == "a%2Fb%3Fc"


def test_a_body_is_json_only_where_it_says_so() -> None:
    assert parsed("", "application/json") is None
    assert parsed('{"a": 1}', "application/problem+json") == {"a": 1}
    assert parsed("{oops", "application/json") == "{oops"
    assert parsed("{}", "text/plain") == "{}"


async def test_only_the_first_try_of_a_key_of_its_own_says_that_it_is_the_first() -> None:
    seen: list[tuple[str | None, str | None]] = []

    async def put(request: web.Request) -> web.Response:
        seen.append((request.headers.get("Idempotency-Key"), request.headers.get(ATTEMPT)))
        return web.json_response({}, status=200 if len(seen) % 2 == 0 else 503, headers={"Retry-After": "0"})

    app = web.Application()
    app.router.add_put("/{path:.*}", put)
    async with TestServer(app) as server, CoreplaneClient(str(server.make_url(""))) as client:
        await client.put_setting("cache.target", "a", {"value": {}})
        await client.put_setting("cache.target", "a", {"value": {}}, idempotency_key="mine")
    (key, first), again, mine, mine_again = seen
    assert (first, again) == ("1", (key, None))
    assert mine == mine_again == ("mine", None)
