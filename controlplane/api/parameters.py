"""Query parameters: one model per kind of request. What a model doesn't know is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from multidict import MultiMapping
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from controlplane.domain.drifting import DriftState
from controlplane.domain.errors import Fault, Reason, Refused
from schemas.event import EventStatus, EventType
from schemas.names import ACCESS, SERVICES, parse_timestamp
from schemas.setting import Phase


class Parameters(BaseModel):
    """No parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Limit = Annotated[int, Field(ge=1, le=1000, description="Most items in the answer.")]
Timeout = Annotated[float, Field(gt=0, le=3600, description="Longest wait, seconds.")]
DryRun = Annotated[bool, Field(description="Validate and answer what would be stored; store nothing.")]
MinRevision = Annotated[int, Field(ge=0, description="Wait until this replica has folded the revision.")]
Cursor = Annotated[str, Field(max_length=2000, description="`next_cursor` of the page before.")]
Time = Annotated[str, Field(description="RFC 3339 time.")]


class Object(Parameters):
    """Of what is streamed."""

    version: Annotated[str | None, Field(max_length=1024, description="This version, not the newest.")] = None


class Documents(Parameters):
    """Of a stream of documents."""

    results: Annotated[
        Literal["failed", "all"], Field(description="Which items are told one by one; all are counted.")
    ] = "failed"
    pipeline: Annotated[str | None, Field(max_length=255, description="Ingest pipeline of the items.")] = None
    refresh: Annotated[bool, Field(description="Searches find them when they are answered.")] = False


class Write(Parameters):
    """Of PUT and PATCH."""

    dry_run: DryRun = False
    wait: Annotated[Literal["Ready"] | None, Field(description="Answer when this generation is Ready.")] = None
    timeout: Timeout = 30.0


class Retire(Parameters):
    """Of DELETE."""

    dry_run: DryRun = False
    wait: Annotated[Literal["Gone"] | None, Field(description="Answer when it is gone from the backend.")] = None
    timeout: Timeout = 30.0
    deletion: Annotated[
        Literal["retain", "delete"] | None, Field(description="Overrides policy.deletion this once.")
    ] = None


At = Annotated[str, Field(max_length=64, description="As it was at a revision of the log, or at an RFC 3339 time.")]


class Read(Parameters):
    """Of GET of one setting."""

    at: At | None = None
    min_revision: MinRevision | None = None
    timeout: Timeout | None = None


class List(Parameters):
    """Of GET settings."""

    type: str | None = None
    service: str | None = None
    label: Annotated[list[str], Field(description="`key=value`; several must all hold.")] = []
    phase: Phase | None = None
    text: Annotated[str | None, Field(description="Found in the key, a label or the value.")] = None
    at: At | None = None
    limit: Limit = 100
    cursor: Cursor | None = None
    min_revision: MinRevision | None = None
    timeout: Timeout | None = None


class History(Parameters):
    """Of GET history."""

    limit: Limit = 100
    cursor: Cursor | None = None


AllowPrune = Annotated[bool, Field(description="Prune over the safety share.")]
PlanOf = Annotated[str | None, Field(description="`plan_id` of the plan of this body: 409 if the world moved.")]


class Apply(Parameters):
    """Of POST apply."""

    dry_run: DryRun = False
    allow_prune: AllowPrune = False
    plan: PlanOf = None


class Plan(Parameters):
    """Of POST plan."""

    allow_prune: AllowPrune = False


class Rollback(Parameters):
    """Of POST rollback."""

    dry_run: DryRun = False
    plan: PlanOf = None


class Diff(Parameters):
    """Of GET diff."""

    from_: Annotated[str, Field(alias="from", max_length=64, description="A revision of the log, or an RFC 3339 time.")]
    to: Annotated[str | None, Field(max_length=64, description="The other place; now when left out.")] = None
    type: str | None = None
    service: str | None = None
    label: Annotated[list[str], Field(description="`key=value`; several must all hold.")] = []


class Export(Parameters):
    """Of GET export."""

    at: At | None = None

    type: str | None = None
    service: str | None = None
    label: Annotated[list[str], Field(description="`key=value`; several must all hold.")] = []
    format: Annotated[Literal["json", "yaml"] | None, Field(description="Instead of the Accept header.")] = None


class Drift(Parameters):
    """Of GET drift."""

    state: DriftState | None = None
    setting: Annotated[str | None, Field(description="A key, or type/name of this tenant.")] = None
    type: str | None = None
    service: str | None = None
    label: Annotated[list[str], Field(description="`key=value`; several must all hold.")] = []
    since: Annotated[str | None, Field(description="RFC 3339 time; 7 days ago when left out.")] = None
    limit: Limit = 100
    cursor: Cursor | None = None


class EventQuery(Parameters):
    """Of GET events."""

    service_name: str | None = None
    event_type: EventType | None = None
    status: EventStatus | None = None
    setting: Annotated[str | None, Field(description="A key, or type/name of this tenant.")] = None
    since: Time | None = None
    until: Time | None = None
    text: str | None = None
    limit: Limit = 100
    cursor: Cursor | None = None


class StatusQuery(Parameters):
    """Of GET statuses."""

    type: str | None = None
    service: str | None = None
    setting: Annotated[str | None, Field(description="A key, or type/name of this tenant.")] = None
    phase: Phase | None = None
    condition: Annotated[
        list[Annotated[str, Field(pattern=r"^(Ready|Reconciling|Stalled|Drifted)=(True|False|Unknown)$")]],
        Field(description="`Ready=False`; several must all hold."),
    ] = []
    reason: Annotated[str | None, Field(description="Of any condition, for example SecretNotFound.")] = None
    text: Annotated[str | None, Field(description="Words of reasons, messages and of what differs.")] = None
    limit: Limit = 100
    cursor: Cursor | None = None


class Audit(Parameters):
    """Of GET audit."""

    actor: Annotated[str | None, Field(description="Who did it, as it stands in the log.")] = None
    setting: Annotated[str | None, Field(description="A key, or type/name of this tenant.")] = None
    since: Time | None = None
    until: Time | None = None
    limit: Limit = 100
    cursor: Cursor | None = None


class MetricQuery(Parameters):
    """Of GET metrics."""

    service_name: str | None = None
    metric_type: str | None = None
    tag: Annotated[list[str], Field(description="`key=value`; several must all hold.")] = []
    since: Time | None = None
    until: Time | None = None
    interval: Annotated[str | None, Field(description="Length of the buckets: seconds, or 30s, 5m, 1h, 1d.")] = None
    aggregate: Literal["avg", "min", "max", "sum", "last", "p95"] | None = None
    limit: Limit = 1000
    cursor: Cursor | None = None


class OfService(Parameters):
    """Of lists that can be narrowed to one service."""

    service_name: str | None = None


class Analysis(Parameters):
    """Of GET analytics."""

    since: Annotated[str | None, Field(description="RFC 3339 time; a day ago when left out.")] = None


class Explain(Parameters):
    """Of GET explain."""

    path: Annotated[
        str | None, Field(pattern="^/", max_length=1024, description="JSON pointer into the value: only what is there.")
    ] = None


class Follow(Parameters):
    """Of GET stream."""

    service_name: str | None = None
    event_type: EventType | None = None
    status: EventStatus | None = None
    setting: Annotated[str | None, Field(description="A key, or type/name of this tenant.")] = None
    from_: Annotated[
        str | None, Field(alias="from", max_length=20_000, description="A cursor, `earliest` or `latest`.")
    ] = None


ParametersT = TypeVar("ParametersT", bound=Parameters)


def parsed(query: MultiMapping[str], model: type[ParametersT]) -> ParametersT:
    """The parameters of a request. Raises `Refused` (Malformed) with every fault at once."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    faults = [
        Fault(f"?{name}", f"unknown parameter; known are {', '.join(fields) or 'none'}")
        for name in dict.fromkeys(query)
        if name not in fields
    ]
    given: dict[str, Any] = {}
    for name in fields.keys() & query.keys():
        values = query.getall(name)
        if fields[name].default == [] or len(values) == 1:
            given[name] = values if fields[name].default == [] else values[0]
        else:
            faults.append(Fault(f"?{name}", "is given more than once"))
    try:
        parameters = model.model_validate(given)
    except ValidationError as exc:
        faults += [Fault(f"?{error['loc'][0]}", error["msg"]) for error in exc.errors(include_url=False)]
    if faults:
        names = ", ".join(dict.fromkeys(fault.path for fault in faults))
        raise Refused(Reason.MALFORMED, f"query parameters are wrong: {names}", faults)
    return parameters


def instant(text: str | None, name: str) -> float | None:
    """A time parameter as Unix seconds. Raises `Refused` (Malformed)."""
    if text is None:
        return None
    try:
        return parse_timestamp(text.replace(" ", "+"))  # an unescaped + in a URL arrives as a space
    except (ValueError, OverflowError, OSError) as exc:
        message = "must be an RFC 3339 time such as 2026-01-31T12:00:00Z"
        raise Refused(Reason.MALFORMED, f"{name} {message}", [Fault(f"?{name}", message)]) from exc


def place(text: str, name: str) -> int | float:
    """A revision of the log (int), or a time (Unix seconds, float). Raises `Refused` (Malformed)."""
    if text.isdecimal() and len(text) < 19:
        return int(text)
    return instant(text, name) or 0.0


def known_service(service: str | None, name: str = "service_name") -> str | None:
    """The service, if it is one. Raises `Refused` (Malformed)."""
    if service is None or service in SERVICES or service == ACCESS:
        return service
    message = f"unknown service; there are: {', '.join(SERVICES)}"
    raise Refused(Reason.MALFORMED, message, [Fault(f"?{name}", message)])


def openapi(model: type[Parameters]) -> list[Mapping[str, Any]]:
    """The parameters as OpenAPI describes them."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    described: list[Mapping[str, Any]] = []
    for name, property_ in schema.get("properties", {}).items():
        told = _without_null(property_)
        rest = {part: value for part, value in told.items() if part not in {"title", "description"}}
        described.append({"name": name, "in": "query", "description": told.get("description", ""), "schema": rest})
    return described


def _without_null(property_: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is left out of a query is absent; it can't be null."""
    kinds = [kind for kind in property_.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return property_
    return {**kinds[0], **{part: value for part, value in property_.items() if part not in {"anyOf", "default"}}}


def setting_key(setting: str | None, tenant: str) -> str | None:
    """A `setting` parameter as a key: `type/name` is meant within the tenant."""
    return f"{tenant}/{setting}" if setting is not None and setting.count("/") == 1 else setting
