"""Values of the search service: targets, indices, templates, pipelines, snapshots, security, and requests of its operations.

What a server accepts in settings, mappings or pipelines is the server's to judge: those are raw documents, kept as they
were written, so that nothing that a newer server knows is dropped. Here stands what is wrong on any server.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from schemas.names import Name, TargetName
from schemas.secret import SecretRef

Document = dict[str, Any]
"""Raw JSON, as the server takes it."""


class Value(BaseModel):
    """Frozen, and closed to fields it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


# --- names -------------------------------------------------------------------------------------------------------------

_FORBIDDEN = re.compile(r"[A-Z\\/*?\"<>| ,#:]")


def _index_name(name: str) -> str:
    if _FORBIDDEN.search(name) or name.startswith(("-", "_", "+", ".")) or len(name.encode()) > 200:
        msg = "an index name is lower case, begins with a letter or number, and has no spaces or \\ / * ? < > | , # :"
        raise ValueError(msg)
    return name


IndexName = Annotated[str, Field(min_length=1), AfterValidator(_index_name)]
ObjectName = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\s/,*?\"<>|#\\]+$")]
Pattern = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\s/\"<>|#\\]+$")]
Duration = Annotated[float, Field(gt=0, le=3650 * 86_400, allow_inf_nan=False)]


# --- targets -----------------------------------------------------------------------------------------------------------


_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def _url(url: str) -> str:
    split = urlsplit(url)
    if split.scheme not in ("http", "https") or not split.hostname:
        msg = "an URL of Elasticsearch begins with http:// or https://, as in http://127.0.0.1:9200"
        raise ValueError(msg)
    if split.username is not None or split.password is not None:
        msg = "a URL must not hold credentials: use username and password: {from_env: NAME}"
        raise ValueError(msg)
    if split.query or split.fragment:
        msg = "a URL is scheme, host, port and perhaps a path"
        raise ValueError(msg)
    return url.rstrip("/")


class Target(Value):
    """Where an Elasticsearch is. Several URLs are nodes of one cluster."""

    url: Annotated[str, AfterValidator(_url)] | None = None
    urls: Annotated[tuple[Annotated[str, AfterValidator(_url)], ...], Field(min_length=1, max_length=64)] | None = None
    username: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    password: SecretRef | None = None
    api_key: SecretRef | None = None
    """The encoded form, as the server gives it."""
    ca_file: str | None = None
    """PEM file on the daemon's host; None: the system's authorities."""
    verify: bool = True
    verify_passwords: bool = False
    """Log in as each declared user at every look, to notice passwords that somebody else changed."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every node's URL."""
        return self.urls if self.urls is not None else (str(self.url),)

    @property
    def place(self) -> tuple[tuple[str, int], ...]:
        """Host and port of every node, in one spelling."""
        split = [urlsplit(url) for url in self.nodes]
        ports = [one.port or (443 if one.scheme == "https" else 80) for one in split]
        hosts = ["localhost" if one.hostname in _LOOPBACK else str(one.hostname).lower() for one in split]
        return tuple(sorted(zip(hosts, ports, strict=True)))

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.url is None) == (self.urls is None):
            msg = "give exactly one of url or urls"
            raise ValueError(msg)
        if (self.username is None) != (self.password is None):
            msg = "username and password go together"
            raise ValueError(msg)
        if self.username is not None and self.api_key is not None:
            msg = "give either username and password, or api_key"
            raise ValueError(msg)
        return self


# --- indices -----------------------------------------------------------------------------------------------------------

Tuning = Literal["ingest", "search", "balanced"]


class RankCheck(Value):
    """A query whose answer must hold after a migration as before it."""

    query: Document
    """Body of a query, as in `{match: {title: shoes}}`."""
    ids: Annotated[tuple[str, ...], Field(max_length=100)] = ()
    """Documents that must be among the first `size`."""
    size: Annotated[int, Field(ge=1, le=100)] = 10
    overlap: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Least share of the old first hits that must be among the new ones."""


class Verify(Value):
    """What is compared before an alias is swapped."""

    sample: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Documents that are compared one by one."""
    queries: Annotated[tuple[RankCheck, ...], Field(max_length=50)] = ()


class Migration(Value):
    """How changes come about that can't be made in place."""

    mode: Literal["automatic", "manual"] = "automatic"
    """manual: wait for the operation `search.migrate` with `action: start`."""
    keep_old_s: Annotated[float, Field(ge=0, le=365 * 86_400)] = 86_400.0
    """How long the old generation is kept, write-blocked, after the swap."""
    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    """Documents per second of the copy; None: as fast as it goes."""
    hold_s: Annotated[float, Field(gt=0, le=30)] = 5.0
    """Longest time writers may be held at the swap."""
    allow_close: bool = False
    """Close and reopen the index for settings that need it, instead of migrating: it is unavailable meanwhile."""
    verify: Verify = Verify()


class AliasProperties(Value):
    """A further name of an index."""

    filter: Document | None = None
    routing: str | None = None
    index_routing: str | None = None
    search_routing: str | None = None
    is_hidden: bool | None = None


class Index(Value):
    """An index, always used through its alias. Settings and fields that aren't named aren't owned."""

    target: TargetName
    index: IndexName | None = None
    """The alias that people use. None: the name of the setting."""
    settings: Document = Field(default_factory=dict)
    """Nested or flat, with or without `index.`."""
    mappings: Document = Field(default_factory=dict)
    analysis: Document = Field(default_factory=dict)
    """The same as `settings.analysis`."""
    aliases: dict[IndexName, AliasProperties] = Field(default_factory=dict)
    tuning: Tuning | None = None
    """A set of settings for a purpose; what `settings` names itself stays as it says."""
    tenant_field: str | None = None
    """Field that holds the tenant: `search.query` finds the documents of the caller's own tenant only."""
    backfill: bool = False
    """After new fields were added in place, run the old documents through them (`_update_by_query`)."""
    migration: Migration = Migration()


# --- templates, aliases, pipelines, scripts, synonyms ------------------------------------------------------------------


class ComponentTemplate(Value):
    """A part of index templates."""

    target: TargetName
    template: Document
    version: int | None = None
    meta: Document | None = None


class IndexTemplate(Value):
    """What new indices with a matching name get."""

    target: TargetName
    index_patterns: Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=64)]
    template: Document = Field(default_factory=dict)
    composed_of: tuple[ObjectName, ...] = ()
    priority: Annotated[int, Field(ge=0)] | None = None
    version: int | None = None
    meta: Document | None = None


class Alias(Value):
    """One name for one or several indices."""

    target: TargetName
    alias: IndexName | None = None
    """None: the name of the setting."""
    indices: Annotated[tuple[IndexName, ...], Field(min_length=1, max_length=64)]
    """Indices, or aliases that each stand for one."""
    write_index: IndexName | None = None
    filter: Document | None = None
    routing: str | None = None
    index_routing: str | None = None
    search_routing: str | None = None
    is_hidden: bool | None = None


class PipelineCheck(Value):
    """A document and what must come out of it."""

    document: Document
    expected: Document
    """Fields of the result that are compared."""


class Pipeline(Value):
    """An ingest pipeline."""

    target: Name
    description: str | None = None
    processors: Annotated[tuple[Document, ...], Field(max_length=500)]
    on_failure: tuple[Document, ...] = ()
    version: int | None = None
    meta: Document | None = None
    asserts: Annotated[tuple[PipelineCheck, ...], Field(max_length=100)] = ()


class Script(Value):
    """A stored script; compiled by the server before it is stored."""

    target: TargetName
    context: Annotated[str, Field(pattern=r"^[a-z_]+$")] | None = None
    """What it is compiled for: score, ingest, update, filter, field …"""
    lang: str = "painless"
    source: Annotated[str, Field(min_length=1, max_length=65_535)]
    options: dict[str, str] = Field(default_factory=dict)


class SynonymCheck(Value):
    """A text and what the analysis of it must contain."""

    text: Annotated[str, Field(min_length=1)]
    matches: Annotated[tuple[str, ...], Field(min_length=1)]
    """Tokens that must come out."""


class Synonyms(Value):
    """A set of synonym rules, in the Solr form. Indices use it by `synonyms_set`."""

    target: Name
    rules: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...], Field(max_length=10_000)]
    asserts: Annotated[tuple[SynonymCheck, ...], Field(max_length=100)] = ()


class Lifecycle(Value):
    """An ILM policy, where the server has ILM."""

    target: Name
    phases: dict[Literal["hot", "warm", "cold", "frozen", "delete"], Document]
    meta: Document | None = None


# --- snapshots ---------------------------------------------------------------------------------------------------------


class Repository(Value):
    """Where snapshots lie."""

    target: Name
    kind: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] = "fs"
    settings: Document = Field(default_factory=dict)


class SnapshotPolicy(Value):
    """Snapshots taken regularly by the daemon itself, so that it works with every build of the server."""

    target: Name
    repository: ObjectName
    indices: Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=64)]
    every_s: Annotated[float, Field(ge=1, le=366 * 86_400)] = 86_400.0
    keep: Annotated[int, Field(ge=1, le=1_000)] = 7
    """How many successful snapshots are kept."""


# --- security ----------------------------------------------------------------------------------------------------------


class IndexPrivileges(Value):
    """What a role may do with indices."""

    names: Annotated[tuple[str, ...], Field(min_length=1)]
    privileges: Annotated[tuple[str, ...], Field(min_length=1)]
    query: Document | None = None
    field_security: Document | None = None
    allow_restricted_indices: bool = False


class Role(Value):
    """A role; owned as a whole."""

    always_owned: ClassVar[frozenset[str]] = frozenset({"cluster", "indices", "applications", "run_as"})

    target: TargetName
    cluster: tuple[str, ...] = ()
    indices: tuple[IndexPrivileges, ...] = ()
    applications: tuple[Document, ...] = ()
    run_as: tuple[str, ...] = ()
    metadata: Document = Field(default_factory=dict)


class User(Value):
    """A user of the native realm; owned as a whole. The password is a reference."""

    always_owned: ClassVar[frozenset[str]] = frozenset({"roles", "enabled"})

    target: TargetName
    username: Annotated[str, Field(min_length=1, max_length=507, pattern=r"^[!-~]+$")] | None = None
    """None: the name of the setting."""
    password: SecretRef | None = None
    """None: somebody else's affair; the server makes no new user without."""
    roles: tuple[str, ...] = ()
    enabled: bool = True
    full_name: str | None = None
    email: str | None = None
    metadata: Document = Field(default_factory=dict)


class ClusterSettings(Value):
    """Persistent settings of the cluster. Only those that are named are owned; null means the default."""

    target: Name
    settings: Annotated[Document, Field(min_length=1)]


# --- suggesters --------------------------------------------------------------------------------------------------------


class Suggester(Value):
    """A way to complete or correct what people type: the sub-field it needs is kept in the index."""

    target: TargetName
    index: IndexName
    field: Annotated[str, Field(min_length=1, max_length=255)]
    """A text field of the index; its values are what is suggested."""
    kind: Literal["completion", "term", "phrase", "prefix"]
    options: Document = Field(default_factory=dict)
    """Options of the suggester's query, as in `{fuzzy: {fuzziness: 1}, size: 5}`."""
    mapping: Document = Field(default_factory=dict)
    """Parameters of the sub-field, as in `{analyzer: simple}`."""


# --- operations --------------------------------------------------------------------------------------------------------

MOST_HITS: Final = 1_000
MOST_SECONDS: Final = 30.0


class Query(Value):
    """Request of `search.query`: one search, bounded in time and size."""

    index: Name
    """Name of a `search.index`."""
    query: Document | None = None
    body: Document = Field(default_factory=dict)
    """The rest of a search body: `sort`, `aggs`, `highlight`, `_source` …"""
    size: Annotated[int, Field(ge=0, le=MOST_HITS)] = 10
    offset: Annotated[int, Field(ge=0, le=9_000)] = 0
    timeout_s: Annotated[float, Field(gt=0, le=MOST_SECONDS)] = 5.0
    filter: Document | None = None
    """Always applied, in addition: the tenant's own documents, say."""
    profile: bool = False
    label: Annotated[str, Field(max_length=64)] | None = None
    """What the analytics call it; None: its shape, without what people typed."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        taken = {"query", "size", "from", "timeout", "profile"} & self.body.keys()
        if taken:
            msg = f"body must not hold {', '.join(sorted(taken))}: they are fields of the request"
            raise ValueError(msg)
        return self


class Click(Value):
    """Request of `search.click`: somebody took a hit of a `search.query`."""

    index: Name
    """Name of the `search.index`."""
    counted_as: Annotated[str, Field(min_length=1, max_length=64)]
    """As the query's answer says."""
    position: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Where the hit stood, from 1."""


class Suggest(Value):
    """Request of `search.suggest`: what a declared suggester says of a text."""

    suggester: Name
    text: Annotated[str, Field(min_length=1, max_length=1_000)]
    size: Annotated[int, Field(ge=1, le=100)] = 5
    contexts: Document | None = None


class Analyze(Value):
    """Request of `search.analyze`: the tokens of a text."""

    index: Name
    text: Annotated[str, Field(min_length=1, max_length=10_000)]
    analyzer: str | None = None
    field: str | None = None
    explain: bool = False


class Bulk(Value):
    """Request of `search.bulk`: NDJSON lines of the bulk API, or documents."""

    index: Name
    ndjson: Annotated[str, Field(max_length=8 * 1024 * 1024)] | None = None
    documents: Annotated[tuple[Document, ...], Field(max_length=10_000)] | None = None
    id_field: str | None = None
    """Field of each document that is its id; None: the server makes one."""
    pipeline: str | None = None
    refresh: bool = False

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.ndjson is None) == (self.documents is None):
            msg = "give exactly one of ndjson or documents"
            raise ValueError(msg)
        return self


class Migrate(Value):
    """Request of `search.migrate`."""

    index: Name
    action: Literal["status", "start", "throttle", "abort", "rollback"] = "status"
    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    """Of throttle; None: as fast as it goes."""


class Snapshot(Value):
    """Request of `search.snapshot`: take one now."""

    repository: Name
    """Name of a `search.repository`."""
    snapshot: ObjectName | None = None
    indices: Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=64)] = ("*",)


class Restore(Value):
    """Request of `search.restore`: indices of a snapshot under other names, or an index back through its alias."""

    repository: Name
    snapshot: ObjectName
    indices: Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=64)]
    prefix: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")] = "restored-"


class Advise(Value):
    """Request of `search.advise`: what to do about a target, with the evidence."""

    target: Name


class Effective(Value):
    """Request of `search.effective`: which indices are as the templates that match them say now."""

    target: Name
    match: Pattern = "*"
    """Of names of indices."""
