"""One-shot requests to a service."""

from __future__ import annotations

from aiohttp import web

from controlplane.api import admission, bodies, parameters
from controlplane.api.call import Call, answer
from controlplane.domain.errors import Reason, Refused


async def run(call: Call[parameters.Parameters]) -> web.Response:
    """Run `{service}.{name}` with the body as its request."""
    name = call.request.match_info["operation"]
    known = call.parts.operations.requests()
    if name not in known:
        raise Refused(Reason.NOT_FOUND, f"there is no operation {name}; there are: {', '.join(sorted(known))}")
    body = await bodies.json_map(call.request, call.most_bytes) if call.request.body_exists else {}
    admission.count_operation(call)
    done = await call.parts.operations.run(call.tenant, name, body, actor=call.caller.actor, request_id=call.request_id)
    return answer(done)


async def many(call: Call[parameters.Parameters]) -> web.Response:
    """What can be run, each with the JSON Schema of its request."""
    known = call.parts.operations.requests()
    items = [{"operation": name, "request": known[name].model_json_schema()} for name in sorted(known)]
    return answer({"items": items})
