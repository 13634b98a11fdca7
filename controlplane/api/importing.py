"""What exists, as declarations: nothing is stored."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from controlplane.api import auth, bodies, parameters
from controlplane.api.call import Call, answer
from controlplane.domain.access import Role
from controlplane.domain.documents import only_fields, text_field
from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.runtime.importing import Text, Wish

FROM_BACKEND: Final = ("type", "target", "match")
FROM_FILE: Final = ("text", "target", "format", "name")
_LONGEST_FILE: Final = 1024 * 1024
"""Letters. It is read in a thread, a megabyte of YAML for some seconds."""


async def declarations(call: Call[parameters.Parameters]) -> web.Response:
    """Of what exists in a backend (`type`, `target`, `match`), or stands in a file (`text`, `target`, `format`)."""
    body = await bodies.json_map(call.request, call.most_bytes)
    if "text" in body:
        only_fields(body, FROM_FILE)
        file = Text(
            call.tenant,
            _needed(body, "target"),
            _file(body),
            text_field(body, "format") or None,
            text_field(body, "name", most=128),
        )
        return answer((await call.parts.importing.from_file(file)).document())
    only_fields(body, FROM_BACKEND)
    service = _needed(body, "type").partition(".")[0]
    auth.authorise(call.caller, Role.EDITOR, call.tenant, service)
    wish = Wish(call.tenant, _needed(body, "type"), _needed(body, "target"), text_field(body, "match") or "*")
    return answer((await call.parts.importing.from_backend(wish)).document())


def _needed(body: dict[str, Any], name: str) -> str:
    text = text_field(body, name)
    if not text:
        raise Refused(Reason.INVALID, f"/{name} is required", [Fault(f"/{name}", "is required: text")])
    return text


def _file(body: dict[str, Any]) -> str:
    return text_field(body, "text", most=_LONGEST_FILE)
