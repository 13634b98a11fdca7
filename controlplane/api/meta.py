"""The daemon itself: health, metrics, schemas, description, page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel

from controlplane.api import parameters
from controlplane.api.auth import is_required
from controlplane.api.call import Call, answer
from controlplane.api.parts import Parts
from controlplane.domain.access import Role
from controlplane.domain.errors import Reason, Refused
from controlplane.log.ports import Indeterminate, LogCorrupt, LogUnavailable
from controlplane.telemetry.metrics import CONTENT_TYPE
from schemas.access import ALL
from schemas.event import InfrastructureEvent
from schemas.metric import InfrastructureMetric
from schemas.names import SYSTEM
from schemas.record import ChangeRequest
from schemas.setting import Declaration, InfrastructureSetting

DOCUMENTS: Final[Mapping[str, type[BaseModel]]] = {
    "declaration": Declaration,
    "setting": InfrastructureSetting,
    "event": InfrastructureEvent,
    "metric": InfrastructureMetric,
    "change_request": ChangeRequest,
}
"""What isn't the value of a setting."""

OPENAPI: web.AppKey[dict[str, Any]] = web.AppKey("openapi", dict)
ASSETS: web.AppKey[dict[str, tuple[str, bytes]]] = web.AppKey("assets", dict)
"""File name → (media type, content)."""

_POLICY: Final = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""Whatever a setting's value or an event may hold: the page runs what comes from here, and sends nothing elsewhere."""

_Nothing = parameters.Parameters


async def healthz(_call: Call[_Nothing]) -> web.Response:
    """The process answers."""
    return answer({"status": "alive"})


async def readyz(call: Call[_Nothing]) -> web.Response:
    """Whether writes and reads can be served, and if not, why."""
    reasons = await _not_ready(call.parts)
    return answer({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)


async def status(call: Call[_Nothing]) -> web.Response:
    """The replica: offsets, lag, shards and targets. Targets of tenants the caller has no role in are left out."""
    replica = call.parts.replica
    report = call.parts.control.report()
    tenants = [tenant for tenant in (*call.parts.directory.tenants(), SYSTEM) if call.caller.sees(tenant)]
    seen = {(tenant, service) for tenant in tenants for service in call.caller.services_in(tenant, Role.VIEWER)}
    targets = [target for target in report.get("targets", ()) if (target["tenant"], target["service"]) in seen]
    entries = [key for key in replica.state.entries if _tenant_and_service(key) in seen]
    position = {"position": replica.state.position, "lag": await _lag(call.parts), "stopped": replica.stopped}
    tenants = [tenant for tenant in tenants if tenant != SYSTEM]
    report = {"projection": call.parts.projection_lag()._asdict(), **report}
    document = {"tenants": tenants, "settings": len(entries), "replica": position, **report, "targets": targets}
    document["access"] = {"required": is_required(call.parts.config.auth)}
    return answer({"ready": not await _not_ready(call.parts), **document})


async def metrics(call: Call[_Nothing]) -> web.Response:
    """Prometheus: of all tenants, so only for those who see all."""
    if not any(ALL in grant.tenants and ALL in grant.services for grant in call.caller.grants):
        raise Refused(Reason.FORBIDDEN, "the metrics are of all tenants: use a token that reaches all of them (*)")
    return web.Response(body=call.parts.metrics.render(), headers={"Content-Type": CONTENT_TYPE})


async def schemas(call: Call[_Nothing]) -> web.Response:
    """Every schema there is."""
    names = [*sorted(call.parts.kinds), *DOCUMENTS]
    return answer({"items": [{"type": name, "url": f"/v1/schemas/{name}"} for name in names]})


async def schema(call: Call[_Nothing]) -> web.Response:
    """The JSON Schema of the values of a setting type, or of a document."""
    name = call.request.match_info["type"]
    model = call.parts.kinds.get(name) or DOCUMENTS.get(name)
    if model is None:
        raise Refused(Reason.NOT_FOUND, f"there is no schema {name}; see /v1/schemas")
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"/v1/schemas/{name}"}
    return answer({**dialect, **model.model_json_schema()})


async def description(call: Call[_Nothing]) -> web.Response:
    """OpenAPI 3.1."""
    return answer(call.request.app[OPENAPI])


async def page(call: Call[_Nothing]) -> web.Response:
    """The page for people."""
    return _asset(call, "index.html")


async def asset(call: Call[_Nothing]) -> web.Response:
    """What the page loads."""
    return _asset(call, call.request.match_info["file"])


def _tenant_and_service(key: str) -> tuple[str, str]:
    tenant, setting_type, _ = key.split("/")
    return tenant, setting_type.partition(".")[0]


def _asset(call: Call[_Nothing], name: str) -> web.Response:
    found = call.request.app[ASSETS].get(name)
    if found is None:
        raise Refused(Reason.NOT_FOUND, f"there is no {name} here")
    media_type, content = found
    headers = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
    return web.Response(body=content, content_type=media_type, charset="utf-8", headers=headers)


async def _lag(parts: Parts) -> int | None:
    """Offsets still to fold; None when the log doesn't say."""
    try:
        return await parts.replica.lag()
    except (LogUnavailable, LogCorrupt, Indeterminate):
        return None


async def _not_ready(parts: Parts) -> list[Mapping[str, str]]:
    reasons = list(parts.troubles())
    if parts.replica.stopped is not None:
        reasons.append({"part": "replica", "reason": "Stopped", "message": parts.replica.stopped})
    elif await _lag(parts) is None:
        message = "the settings log doesn't answer: writes are refused, reads go on from what is folded"
        reasons.append({"part": "log", "reason": str(Reason.LOG_UNAVAILABLE), "message": message})
    return reasons
