"""Objects that the server holds as whole documents: templates, pipelines, scripts, roles … Desired, observed, planner. Pure.

    nothing there, wanted    → PutDocument
    there, differs           → PutDocument          (replaces the whole document)
    there, not wanted        → RemoveDocument

Both sides are compared part by part in one form: for templates the server's own (`_simulate`), for others what it answers to
what it was sent. What is left out is owned as left out, but for cluster settings and repositories, of which parts are owned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from reconcilers.contract import CONVERGED, Difference, ExternalId, Instant, Kind, Plan, Step
from reconcilers.search import confining, implied
from reconcilers.search.definition import flattened, same_setting
from schemas import search
from schemas.secret import SecretRef

COMPONENT_TEMPLATE: Final = "search.component_template"
INDEX_TEMPLATE: Final = "search.index_template"
ALIAS: Final = "search.alias"
PIPELINE: Final = "search.pipeline"
SCRIPT: Final = "search.script"
SYNONYMS: Final = "search.synonyms"
LIFECYCLE: Final = "search.lifecycle"
REPOSITORY: Final = "search.repository"
ROLE: Final = "search.role"
USER: Final = "search.user"
CLUSTER_SETTINGS: Final = "search.cluster_settings"

USER_MARK: Final = "coreplane"
"""In a user's metadata: fingerprint of the password that was written last."""
CLUSTER: Final = "cluster"
"""Name of the one object of a cluster's settings."""


@dataclass(frozen=True, slots=True)
class Document:
    """What is declared, as the server takes it."""

    body: Mapping[str, Any]
    checks: tuple[Any, ...] = ()
    """What must hold of it before it is put."""
    secret: SecretRef | None = None
    context: str | None = None
    """Of a script."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the server holds, and what is declared in the same form (empty when it is retired)."""

    parts: Mapping[str, Any]
    wanted: Mapping[str, Any] = field(default_factory=dict)
    in_part: bool = False
    """Only what is wanted is owned."""
    reserved: bool = False
    """The server's own: never changed or removed."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PutDocument(Step):
    """Put the whole document in its place."""

    document: Document

    def details(self) -> dict[str, Any]:
        """JSON for events and plans; secrets as references."""
        secret = {} if self.document.secret is None else {"password": str(self.document.secret)}
        return {"external": self.external.name, "document": dict(self.document.body), **secret}


@dataclass(frozen=True, slots=True)
class RemoveDocument(Step):
    """Remove it."""


def plan_document(external: ExternalId, desired: Document | None, observed: Held | None, _now: Instant) -> Plan:
    """See the table above."""
    if desired is None:
        return CONVERGED if observed is None or observed.reserved else Plan((RemoveDocument(external),))
    if observed is None:
        return Plan((PutDocument(external, desired),), (Difference("/", external.name, None),))
    found = tuple(differences(observed))
    steps = (PutDocument(external, desired),) if found else ()
    return Plan(steps, found, warnings=observed.warnings)


def plan_preexisting(external: ExternalId, desired: Document | None, observed: Held | None, now: Instant) -> Plan:
    """The same for settings that are there whether declared or not: retired ones keep their values."""
    return CONVERGED if desired is None or observed is None else plan_document(external, desired, observed, now)


def differences(observed: Held) -> Iterator[Difference]:
    """Parts that aren't as declared."""
    names = observed.wanted.keys() | (set() if observed.in_part else observed.parts.keys())
    for name in sorted(names):
        wanted, held = observed.wanted.get(name), observed.parts.get(name)
        if wanted != held and not (observed.in_part and same_setting(name, wanted, held)):
            yield Difference(f"/{name}", wanted, held)


# --- what is declared, as the server takes it -------------------------------------------------------------------------


def own_name(name: str, _value: Any) -> str:
    """The object is called as the setting."""
    return name


def alias_name(name: str, value: search.Alias) -> str:
    """The alias, or the setting's name."""
    return value.alias or name


def user_name(name: str, value: search.User) -> str:
    """The user, or the setting's name."""
    return value.username or name


def cluster_name(_name: str, _value: Any) -> str:
    """All settings of a cluster mean the same object."""
    return CLUSTER


def given(**parts: Any) -> dict[str, Any]:
    """Without what says nothing."""
    return {name: value for name, value in parts.items() if value not in (None, (), [])}


def component_template(_name: str, value: search.ComponentTemplate) -> Document:
    """`PUT _component_template`."""
    return Document(given(template=value.template, version=value.version, _meta=value.meta))


def index_template(_name: str, value: search.IndexTemplate) -> Document:
    """`PUT _index_template`."""
    parts = given(
        index_patterns=list(value.index_patterns),
        template=value.template or None,
        composed_of=list(value.composed_of),
        priority=value.priority,
        version=value.version,
        _meta=value.meta,
    )
    return Document(parts)


def alias(_name: str, value: search.Alias) -> Document:
    """Which indices it stands for, and how."""
    properties = given(
        filter=value.filter,
        index_routing=value.index_routing or value.routing,
        search_routing=value.search_routing or value.routing,
        is_hidden=value.is_hidden,
    )
    return Document({"indices": sorted(value.indices), "write_index": value.write_index, "properties": properties})


def pipeline(_name: str, value: search.Pipeline) -> Document:
    """`PUT _ingest/pipeline`."""
    parts = given(
        description=value.description,
        on_failure=list(value.on_failure),
        version=value.version,
        _meta=value.meta,
    )
    return Document({**parts, "processors": list(value.processors)}, value.asserts)


def script(_name: str, value: search.Script) -> Document:
    """`PUT _scripts`."""
    options = {"options": value.options} if value.options else {}
    return Document({"lang": value.lang, "source": value.source, **options}, context=value.context)


def synonyms(_name: str, value: search.Synonyms) -> Document:
    """`PUT _synonyms`; equal rules are equal sets."""
    rules = {rule: rule_id(rule) for rule in value.rules}
    rows = sorted(({"id": id_, "synonyms": rule} for rule, id_ in rules.items()), key=lambda row: row["id"])
    return Document({"synonyms_set": rows}, value.asserts)


def rule_id(rule: str) -> str:
    """Its digest."""
    return hashlib.sha256(rule.encode()).hexdigest()[:16]


def lifecycle(_name: str, value: search.Lifecycle) -> Document:
    """`PUT _ilm/policy`."""
    return Document({"policy": given(phases=value.phases, _meta=value.meta)})


def repository(_name: str, value: search.Repository) -> Document:
    """`PUT _snapshot`."""
    return Document({"type": value.kind, "settings": flattened(value.settings)})


def role(_name: str, value: search.Role) -> Document:
    """`PUT _security/role`, as `GET` answers it."""
    indices = []
    for one in value.indices:
        row: dict[str, Any] = {
            "names": _once(one.names),
            "privileges": _once(one.privileges),
            "allow_restricted_indices": one.allow_restricted_indices,
        }
        indices.append({**row, **given(query=one.query, field_security=one.field_security)})
    body = {
        "cluster": _once(value.cluster),
        "indices": indices,
        "applications": list(value.applications),
        "run_as": _once(value.run_as),
        "metadata": dict(value.metadata),
    }
    return Document(body)


def user(_name: str, value: search.User) -> Document:
    """`PUT _security/user`; the password stays a reference."""
    body = {
        "roles": _once(value.roles),
        "enabled": value.enabled,
        "full_name": value.full_name,
        "email": value.email,
        "metadata": dict(value.metadata),
    }
    return Document(body, secret=value.password)


def cluster_settings(_name: str, value: search.ClusterSettings) -> Document:
    """`PUT _cluster/settings`, persistent ones."""
    return Document(flattened(value.settings))


def _once(names: tuple[str, ...]) -> list[str]:
    """The server refuses duplicates, and order means nothing."""
    return sorted(set(names))


KINDS: Final = (
    Kind(
        COMPONENT_TEMPLATE,
        search.ComponentTemplate,
        own_name,
        component_template,
        plan_document,
        requires=implied.of_component_template,
        confine=confining.component_template,
    ),
    Kind(
        INDEX_TEMPLATE,
        search.IndexTemplate,
        own_name,
        index_template,
        plan_document,
        requires=implied.of_index_template,
        confine=confining.index_template,
    ),
    Kind(
        ALIAS,
        search.Alias,
        alias_name,
        alias,
        plan_document,
        named_by="alias",
        requires=implied.of_alias,
        confine=confining.alias,
    ),
    Kind(PIPELINE, search.Pipeline, own_name, pipeline, plan_document, requires=implied.of_pipeline),
    Kind(SCRIPT, search.Script, own_name, script, plan_document, confine=confining.script),
    Kind(SYNONYMS, search.Synonyms, own_name, synonyms, plan_document),
    Kind(LIFECYCLE, search.Lifecycle, own_name, lifecycle, plan_document),
    Kind(REPOSITORY, search.Repository, own_name, repository, plan_document),
    Kind(ROLE, search.Role, own_name, role, plan_document, confine=confining.role),
    Kind(
        USER,
        search.User,
        user_name,
        user,
        plan_document,
        named_by="username",
        requires=implied.of_user,
        confine=confining.user,
    ),
    Kind(
        CLUSTER_SETTINGS,
        search.ClusterSettings,
        cluster_name,
        cluster_settings,
        plan_preexisting,
        preexisting=True,
    ),
)
