"""One request: authorised, its parameters parsed, with everything a handler may use."""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Generic

from aiohttp import web

from controlplane.api.parameters import ParametersT
from controlplane.api.parts import Parts
from controlplane.domain.access import EVERY_SERVICE, Caller, Role
from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.domain.preconditions import Precondition, precondition
from schemas.names import NAME_PATTERN, SETTING_TYPE_PATTERN, Key

CORRELATION: Final = "X-Correlation-Id"

_NAME = re.compile(NAME_PATTERN)
_SETTING_TYPE = re.compile(SETTING_TYPE_PATTERN)
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,200}")


@dataclass(frozen=True, slots=True)
class Call(Generic[ParametersT]):
    """What a handler gets."""

    request: web.Request
    parts: Parts
    caller: Caller
    request_id: str
    """Of the change it makes, and the correlation_id of everything it causes."""
    query: ParametersT
    identify: Callable[[], Caller]
    """Who calls, asked anew. Raises `Refused` when they may not do this any more."""

    @property
    def may_be_repeated(self) -> bool:
        """Whether the same request may be, or have been, sent elsewhere: it carries a key that isn't new."""
        headers = self.request.headers
        return "Idempotency-Key" in headers and headers.get("Idempotency-Attempt") != "1"

    @property
    def tenant(self) -> str:
        """The tenant in the path."""
        return self.request.match_info["tenant"]

    @property
    def services(self) -> frozenset[str] | None:
        """The services of the tenant that the caller may look at; None when that is all of them."""
        return None if (seen := self.caller.services_in(self.tenant, Role.VIEWER)) == EVERY_SERVICE else seen

    def again(self) -> Call[ParametersT]:
        """The same call as it is let in now, for those that take long. Raises `Refused`."""
        return replace(self, caller=self.identify())

    def valid_s(self) -> float:
        """So long the caller's token is good at most, seconds."""
        expires_at = self.caller.expires_at
        return math.inf if expires_at is None else max(0.0, expires_at - self.parts.clock.now())

    @property
    def most_bytes(self) -> int:
        """Size limit of the body."""
        return self.parts.config.http.max_body_bytes

    @property
    def write_timeout_s(self) -> float:
        """Longest wait for a verdict or for the fold."""
        return self.parts.config.http.request_timeout_s

    def key(self) -> Key:
        """The setting in the path. Raises `Refused` (Invalid) when it can't name one."""
        setting_type, name = self.request.match_info["type"], self.request.match_info["name"]
        faults = []
        if not _SETTING_TYPE.fullmatch(setting_type):
            faults.append(Fault("/type", "must be service.kind, for example cache.namespace"))
        if not _NAME.fullmatch(name):
            rule = "must begin with a letter or digit and hold at most 128 letters, digits, '.', '_' and '-'"
            faults.append(Fault("/name", rule))
        if faults:
            raise Refused(Reason.INVALID, "the path doesn't name a setting", faults)
        return Key(self.tenant, setting_type, name)

    def precondition(self) -> Precondition:
        """What `If-Match` and `If-None-Match` ask for."""
        headers = self.request.headers
        if_match, if_none_match = headers.getall("If-Match", []), headers.getall("If-None-Match", [])
        return precondition(
            ", ".join(if_match) if if_match else None, ", ".join(if_none_match) if if_none_match else None
        )


Handler = Callable[[Call[Any]], Awaitable[web.StreamResponse]]


def request_id_of(request: web.Request) -> str:
    """The id of a request, scoped by its tenant: two tenants may choose the same Idempotency-Key.

    An id that already has the scope is taken as it is, so that the X-Correlation-Id of an answer can be sent back.
    """
    tenant = request.match_info.get("tenant")
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        message = "Idempotency-Key is 1 to 200 visible ASCII letters"
        raise Refused(Reason.MALFORMED, message, [Fault("Idempotency-Key", message)])
    if tenant is None or not _NAME.fullmatch(tenant):
        return uuid.uuid4().hex  # the id goes into a header: nothing from a path that wasn't looked at
    if key is None:
        return f"{tenant}/{uuid.uuid4()}"
    return key if key.startswith(f"{tenant}/") else f"{tenant}/{key}"


def answer(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON response."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
