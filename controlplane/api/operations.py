"""One-shot requests to a service."""

from __future__ import annotations

from aiohttp import web

from controlplane.api import bodies, parameters
from controlplane.api.call import Call, answer
from controlplane.domain.errors import Reason, Refused


async def run(call: Call[parameters.Parameters]) -> web.Response:
    """Run `{service}.{name}` with the body as its request."""
    name = call.request.match_info["operation"]
    if not call.parts.operations.known(name):
        raise Refused(Reason.NOT_FOUND, f"there is no operation {name}")
    body = await bodies.json_map(call.request, call.most_bytes) if call.request.body_exists else {}
    done = await call.parts.operations.run(call.tenant, name, body, actor=call.caller.actor, request_id=call.request_id)
    return answer(done)
