"""OpenAPI 3.1, made from the route table and the models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel
from pydantic.json_schema import models_json_schema

from controlplane.api import parameters, problems
from controlplane.api.table import Body, Route
from controlplane.domain.access import Role
from controlplane.domain.drifting import DriftState
from schemas.event import InfrastructureEvent
from schemas.metric import InfrastructureMetric
from schemas.names import NAME_PATTERN, SERVICES, Reference
from schemas.setting import Declaration, Difference, InfrastructureSetting, LabelKey, LabelValue, Policy, SettingStatus

_MAP: Final = {"type": "object", "additionalProperties": True}
_PROBLEM: Final = {"$ref": "#/components/schemas/Problem"}

_HEADERS: Final = {
    "If-Match": 'Quoted revisions, or *: 412 when the setting is at another, for example "42".',
    "If-None-Match": "* : 412 when the setting exists.",
    "Idempotency-Key": "Repeating a request with its key gives the first result again.",
    "Idempotency-Attempt": "1: the key was never sent before, so a request that changes nothing needn't be remembered.",
    "Range": "Which bytes, for example bytes=0-99.",
    "Content-MD5": "Base64 of the body's MD5: what arrives otherwise isn't stored.",
    "Last-Event-ID": "Cursor to go on from; outranks `from`.",
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PutBody(_Strict):
    """What PUT takes."""

    value: dict[str, Any]
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    depends_on: list[Reference] = Field(default_factory=list)
    policy: Policy = Field(default_factory=Policy)
    reason: str = ""


class Prune(_Strict):
    """What may be retired by an apply: everything with these labels that it doesn't declare."""

    labels: dict[str, str]


class ApplyBody(_Strict):
    """What apply takes; a list of declarations or a single one will do too, and several YAML documents of these."""

    settings: list[Declaration]
    prune: Prune | None = None
    reason: str = ""


class RollbackBody(_Strict):
    """What rollback takes. `settings`: type/name each; left out, all settings, or all with the labels, are meant."""

    to: int | str = Field(description="A revision of the log, or an RFC 3339 time.")
    settings: list[str] | None = None
    labels: dict[str, str] | None = None
    reason: str = ""


class ComparedSetting(BaseModel):
    """One setting that isn't the same at both places."""

    setting: str
    outcome: Literal["created", "updated", "retired", "gone"]
    changed: list[str]
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class Compared(BaseModel):
    """`from` and `to` are revisions of the log."""

    model_config = ConfigDict(populate_by_name=True)

    from_: int = Field(alias="from")
    to: int
    items: list[ComparedSetting]


class DriftedPath(BaseModel):
    """One path of one setting. `episodes`: how often it was detected in the time asked about."""

    setting: str
    path: str
    state: DriftState
    desired: Any
    observed: Any
    since: str | None
    until: str | None
    first_at: str | None
    episodes: int
    correlation_id: str | None
    policy: Literal["enforce", "report"]
    muted: dict[str, str | None] | None


class Drifts(BaseModel):
    """A page. `complete`: false when there were more events than are looked at."""

    items: list[DriftedPath]
    next_cursor: str | None
    counts: dict[DriftState, int]
    complete: bool


class SetBy(BaseModel):
    """The revision that gave a path its value, and the request that made it."""

    revision: int
    generation: int | None
    at: str
    actor: str
    reason: str
    request_id: str


class ExplainedPath(BaseModel):
    """One owned path. `known`: whether `observed` was looked at now."""

    path: str
    desired: Any
    observed: Any
    known: bool
    set_by: SetBy
    last_action: dict[str, Any] | None
    drift: list[dict[str, Any]]
    muted: dict[str, Any] | None


class Explanation(BaseModel):
    """`chain`: request, change, intent, effect, observation, of what set the newest of the paths; `drift`: the newest episode."""

    setting: str
    revision: int
    generation: int
    phase: str
    observed_generation: int
    unknown: dict[str, str] | None
    paths: list[ExplainedPath]
    chain: list[dict[str, Any]]
    drift: dict[str, Any] | None


class ImportBody(_Strict):
    """What import takes: `type`, `target` and `match` of what exists in a backend, or `text`, `target` and `format` of a file."""

    target: str
    type: str | None = None
    match: str = Field("*", description="Glob over the objects' names in the backend.")
    text: str | None = Field(None, description="The file's content.")
    format: str | None = Field(None, description="Instead of the one that recognises the text.")
    name: str | None = Field(None, description="Of the file, without its suffix: some formats don't name the object.")


class FillIn(BaseModel):
    """What a person has to say, since it can't be read."""

    setting: str
    path: str
    message: str


class SkippedObject(BaseModel):
    """An object that can't be declared as it is."""

    type: str
    name: str
    reason: str


class DeclaredObject(BaseModel):
    """An object that is declared already."""

    type: str
    external: str
    setting: str


class Imported(BaseModel):
    """`settings` converge without a write, as far as can be seen before `fill_in` is done."""

    settings: list[Declaration]
    fill_in: list[FillIn]
    skipped: list[SkippedObject]
    declared: list[DeclaredObject]


class Fault(BaseModel):
    """One thing wrong."""

    path: str
    message: str


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    reason: str
    errors: list[Fault]


class Settings(BaseModel):
    """A page of settings."""

    items: list[InfrastructureSetting]
    next_cursor: str | None


class Events(BaseModel):
    """A page of events."""

    items: list[InfrastructureEvent]
    next_cursor: str | None


class Statuses(BaseModel):
    """A page of statuses."""

    items: list[SettingStatus]
    next_cursor: str | None


class Metrics(BaseModel):
    """A page of metrics, or of buckets."""

    items: list[InfrastructureMetric | dict[str, Any]]
    next_cursor: str | None = None


class Audit(BaseModel):
    """A page of what was done: changes and operations. `refused`: attempts that weren't let in, counted."""

    items: list[dict[str, Any]]
    next_cursor: str | None
    refused: list[dict[str, Any]]


class Result(BaseModel):
    """What became of one declaration."""

    setting: str
    outcome: str
    generation: int


class Applied(BaseModel):
    """What became of an apply or a rollback."""

    revision: int
    results: list[Result]


class Proposed(BaseModel):
    """What would become of one setting. `changed`: JSON pointers into the declaration."""

    setting: str
    outcome: Literal["created", "updated", "unchanged", "retired"]
    changed: list[str]
    differences: list[Difference]


class PlannedStep(BaseModel):
    """One effect on a backend. `affects`: how much of what people have it touches, where the service can tell
    (`{"messages": 1204, "partitions": 3}`); `at_least`: it was only counted up to a bound. `waits_for`: settings that come
    first."""

    setting: str
    step: str
    summary: str
    irreversible: bool
    details: dict[str, Any]
    affects: dict[str, int] = {}
    at_least: bool = False
    waits_for: list[str] = []


class Warned(BaseModel):
    """What people should know of a setting, whether it is done already or not."""

    setting: str
    message: str


class Unforeseen(BaseModel):
    """Why nothing can be said about a setting, or why nothing would be done."""

    setting: str
    reason: str
    message: str


class Planned(BaseModel):
    """What an apply would do. `unknown`: what couldn't be observed; `refused`: what would be stored but not carried out."""

    plan_id: str
    results: list[Proposed]
    steps: list[PlannedStep]
    unchanged: list[str]
    unknown: list[Unforeseen]
    refused: list[Unforeseen]
    warnings: list[Warned]


class RolledBack(RootModel[Applied | Planned]):
    """What became of a rollback; with `dry_run`, the plan of it."""


_MODELS: Final[Sequence[type[BaseModel]]] = (
    InfrastructureSetting,
    InfrastructureEvent,
    InfrastructureMetric,
    Declaration,
    PutBody,
    ApplyBody,
    RollbackBody,
    Compared,
    Drifts,
    Explanation,
    ImportBody,
    Imported,
    Applied,
    Audit,
    Planned,
    RolledBack,
    Settings,
    Statuses,
    Events,
    Metrics,
    Problem,
)


_IN_PATH: Final[Mapping[str, Mapping[str, Any]]] = {
    "tenant": {"pattern": NAME_PATTERN, "examples": ["default"]},
    "type": {"examples": ["cache.namespace"]},
    "name": {"pattern": NAME_PATTERN, "examples": ["sessions"]},
    "service": {"enum": list(SERVICES)},
    "operation": {"examples": ["cache.inspect"]},
}


def document(routes: Iterable[Route], kinds: Mapping[str, type[BaseModel]], version: str) -> dict[str, Any]:
    """The whole description."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Coreplane", "version": version, "description": "Declare settings; they are kept that way."},
        "paths": paths,
        "components": {
            "schemas": _schemas(kinds),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _schemas(kinds: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    models = [(model, "validation") for model in (*_MODELS, *kinds.values())]
    _, definitions = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    found: dict[str, Any] = definitions.get("$defs", {})
    return {**found, "Map": _MAP, "Text": {"type": "string"}}


def _operation(route: Route) -> dict[str, Any]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", **_IN_PATH.get(name, {})}}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    in_headers = [
        {"name": name, "in": "header", "description": _HEADERS[name], "schema": {"type": "string"}}
        for name in route.headers
    ]
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.name.partition(".")[0]],
        "description": f"Needs {route.role.name.lower()}." if route.role else "Open to everybody.",
        "parameters": [*in_path, *parameters.openapi(route.query), *in_headers],
        "responses": _responses(route),
    }
    if route.role is not Role.PUBLIC:
        operation["security"] = [{"token": []}, {}]
    if route.body is not None:
        operation["requestBody"] = _body(route.body)
    return operation


def _body(body: Body) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{body.schema}"}
    return {"required": body.required, "content": {media_type: {"schema": schema} for media_type in body.types}}


def _responses(route: Route) -> dict[str, Any]:
    responses: dict[str, Any] = {
        "default": {"description": "A problem.", "content": {problems.MEDIA_TYPE: {"schema": _PROBLEM}}}
    }
    for status, answer in route.answers.items():
        schema = {"$ref": f"#/components/schemas/{answer.schema}"} if answer.schema else {}
        content = {answer.media_type: {"schema": schema}}
        responses[str(status)] = {"description": answer.description or "Done.", "content": content}
    return responses
