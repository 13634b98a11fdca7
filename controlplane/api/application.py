"""The route table as an aiohttp application: who may call, what is refused before a handler, how errors are answered."""

from __future__ import annotations

import mimetypes
import uuid
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Middleware

from controlplane.api import auth, meta, openapi, parameters, problems
from controlplane.api.call import CORRELATION, Call, request_id_of
from controlplane.api.parts import Parts
from controlplane.api.refusals import COUNTED, Attempt
from controlplane.api.stream import STREAMS, Streams, follow
from controlplane.api.table import Route
from controlplane.domain.access import Caller, Role
from controlplane.domain.errors import Reason, Refused

_log = structlog.get_logger()

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS"})
_WEB: Final = Path(__file__).parent / "web"
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_PUBLIC: Final = Caller("public", ())


def build(parts: Parts, routes: Sequence[Route], streams: Streams) -> web.Application:
    """The application; it owns nothing but its open streams, which end when it shuts down."""
    app = web.Application(middlewares=[_answering(parts)], client_max_size=parts.config.http.max_body_bytes)
    app[STREAMS] = streams
    app[meta.OPENAPI] = openapi.document(routes, parts.kinds, version("coreplane"))
    app[meta.ASSETS] = _assets()
    for route in routes:
        # HEAD comes with GET, but not where the answer has no end.
        head = ["HEAD"] if route.method == "GET" and route.handler is not follow else []
        resource = app.router.add_resource(route.pattern)
        for method in (route.method, *head):
            resource.add_route(method, _endpoint(route, parts))

    async def end_streams(_: web.Application) -> None:
        streams.closing.set()

    app.on_shutdown.append(end_streams)
    app.on_response_prepare.append(_secure)
    return app


async def _secure(request: web.Request, response: web.StreamResponse) -> None:
    """What every answer tells a browser: to take it for nothing but what it is. No origin but our own gets to read any."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "coreplane"
    if request.secure:
        response.headers["Strict-Transport-Security"] = "max-age=31536000"


def _endpoint(route: Route, parts: Parts) -> _Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        caller = _caller(route, parts, request)
        query = parameters.parsed(request.query, route.query)
        call = Call(request, parts, caller, request[REQUEST_ID], query, lambda: _identified(route, parts, request))
        return await route.handler(call)

    return handle


def _caller(route: Route, parts: Parts, request: web.Request) -> Caller:
    if route.role is Role.PUBLIC:
        return _PUBLIC
    caller = request[CALLER] = _known(parts, request)
    if "Authorization" in request.headers:
        per_s = caller.requests_per_s or parts.config.auth.requests_per_s
        parts.limits.take("requests", f"token {caller.actor}", per_s, parts.clock.monotonic())
    return _authorised(route, parts, request, caller)


def _identified(route: Route, parts: Parts, request: web.Request) -> Caller:
    return _authorised(route, parts, request, _known(parts, request))


def _known(parts: Parts, request: web.Request) -> Caller:
    return auth.caller_of(parts.config.auth, parts.directory, request.headers, parts.clock.now())


def _authorised(route: Route, parts: Parts, request: web.Request, caller: Caller) -> Caller:
    if not route.in_tenant:
        auth.authorise_anywhere(caller, route.role)
        return caller
    tenant = request.match_info["tenant"]
    auth.authorise(caller, route.role, tenant, route.service_of(request.match_info))
    if not parts.directory.has(tenant):
        raise Refused(Reason.NOT_FOUND, f"there is no tenant {tenant}")
    return caller


def _answering(parts: Parts) -> Middleware:
    @web.middleware
    async def answering(request: web.Request, handler: _Handler) -> web.StreamResponse:
        started = parts.clock.monotonic()
        request[REQUEST_ID] = uuid.uuid4().hex
        try:
            auth.check_host(parts.config.auth, request.host)
            auth.check_origin(parts.config.auth, request.headers.get("Origin"), request.host)
            request[REQUEST_ID] = request_id_of(request)
            response = await handler(request)
        except ConnectionError:
            raise  # the caller has gone; there is nobody to answer
        except Exception as exc:  # noqa: BLE001 - answered below, and logged and counted when it is a bug
            response = _problem(parts, request, exc)
        if not response.prepared:
            response.headers.setdefault(CORRELATION, request[REQUEST_ID])
        _record(parts, request, response.status, parts.clock.monotonic() - started)
        return response

    return answering


def _problem(parts: Parts, request: web.Request, exc: Exception) -> web.Response:
    request_id: str = request[REQUEST_ID]
    if isinstance(exc, HttpProcessingError):
        exc = Refused(Reason.MALFORMED, f"the request can't be read: {exc.message}")
    if isinstance(exc, Refused) and exc.reason in COUNTED:
        _count(parts, request, exc.reason)
    problem = problems.problem_of(exc, request_id)
    if problem is None:
        parts.metrics.bug("api")
        _log.exception("request crashed", route=_route_of(request), correlation_id=request_id, error=repr(exc))
        problem = problems.internal(request_id)
    return problems.response(problem)


def _count(parts: Parts, request: web.Request, reason: Reason) -> None:
    caller, tenant = request.get(CALLER), request.match_info.get("tenant")
    known = tenant if tenant is not None and parts.directory.has(tenant) else None
    actor = None if caller is None else caller.actor
    parts.refusals.add(Attempt(known, actor, _method(request), _route_of(request), str(reason)), parts.clock.now())
    parts.metrics.refused(reason)


def _method(request: web.Request) -> str:
    """Methods themselves are without number."""
    return request.method if request.method in _METHODS else "other"


def _record(parts: Parts, request: web.Request, status: int, seconds: float) -> None:
    method = _method(request)
    route = _route_of(request)
    parts.metrics.http(route, method, status, seconds)
    log = _log.debug if method in {"GET", "HEAD"} and status < 500 else _log.info
    log(
        "request",
        route=route,
        method=method,
        status=status,
        correlation_id=request[REQUEST_ID],
        seconds=round(seconds, 4),
    )


def _route_of(request: web.Request) -> str:
    """The pattern of the path: paths themselves are without number."""
    resource = request.match_info.route.resource
    return "unmatched" if resource is None else resource.canonical


def _assets() -> dict[str, tuple[str, bytes]]:
    found = {}
    for file in sorted(_WEB.iterdir()):
        media_type, _ = mimetypes.guess_type(file.name)
        found[file.name] = (media_type or "application/octet-stream", file.read_bytes())
    return found
