"""Values of the queue service: clusters, topics, users, permissions, quotas, groups and routes of Kafka.

Whether a cluster accepts a configuration is the cluster's to judge; here stands what is wrong on any cluster. The requests
of the operations are in `schemas.queue_operations`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

from schemas.names import TargetName
from schemas.secret import SecretRef


class Value(BaseModel):
    """Frozen, and closed to fields it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


# --- targets -----------------------------------------------------------------------------------------------------------

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SERVER = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
MECHANISMS: Final = ("SCRAM-SHA-256", "SCRAM-SHA-512")


def _server(server: str) -> str:
    match = _SERVER.fullmatch(server)
    if match is None or not 0 < int(match[2]) < 65_536:
        msg = "a server is host:port, as in broker-1:9092"
        raise ValueError(msg)
    return server


def _servers(servers: Any) -> Any:
    return tuple(part.strip() for part in servers.split(",")) if isinstance(servers, str) else servers


class Security(Value):
    """How the daemon comes in."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"] = "SCRAM-SHA-512"
    username: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    password: SecretRef | None = None
    ca_file: str | None = None
    """PEM file on the daemon's host; None: the system's authorities."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        logs_in = self.protocol.startswith("SASL")
        if logs_in != (self.username is not None) or logs_in != (self.password is not None):
            msg = (
                "SASL protocols need username and password: {from_env: NAME} or {from_file: PATH}; others take neither"
            )
            raise ValueError(msg)
        if self.ca_file is not None and not self.protocol.endswith("SSL"):
            msg = "ca_file needs protocol SSL or SASL_SSL"
            raise ValueError(msg)
        return self


class Target(Value):
    """Where a Kafka cluster is. Some of its brokers are enough."""

    bootstrap_servers: Annotated[
        tuple[Annotated[str, AfterValidator(_server)], ...],
        Field(min_length=1, max_length=64, json_schema_extra={"type": ["array", "string"]}),
        BeforeValidator(_servers),
    ]
    security: Security = Security()
    canary: bool = False
    """Measure how long a message takes by sending one with every sample, through a topic `coreplane.canary.TENANT.TARGET`."""

    @property
    def place(self) -> tuple[tuple[str, int], ...]:
        """Host and port of every server, in one spelling."""
        found = (server.rpartition(":") for server in self.bootstrap_servers)
        return tuple(
            sorted({("localhost" if host in _LOOPBACK else host.lower(), int(port)) for host, _, port in found})
        )


# --- topics ------------------------------------------------------------------------------------------------------------

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_CONFIG = re.compile(r"[a-z][a-z0-9]*(\.[a-z0-9]+)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
TOPIC_RULE: Final = "a topic's name is 1 to 249 letters, digits, dots, underscores and hyphens, and not . or .."


def topic_name(name: str) -> str:
    """The name; ValueError with the rule when Kafka wouldn't take it, or keeps it for itself."""
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        raise ValueError(TOPIC_RULE)
    if name.startswith("__"):
        msg = f"{name}: topics that begin with __ are Kafka's own"
        raise ValueError(msg)
    return name


def _config_name(name: str) -> str:
    if not _CONFIG.fullmatch(name):
        msg = "names of configurations are lower-case words joined by dots, as in retention.ms"
        raise ValueError(msg)
    return name


def _config_text(value: Any) -> str:
    """The value as Kafka takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(map(_config_text, value))
    if isinstance(value, float):
        return format(value, "f").rstrip("0").rstrip(".")
    if isinstance(value, int | str) and not _CONTROL.search(str(value)):
        return str(value).strip()
    msg = "a configuration is text without control characters, a number, a list, or true or false"
    raise ValueError(msg)


TopicName = Annotated[str, AfterValidator(topic_name)]
ConfigText = Annotated[
    str,
    Field(max_length=4096, json_schema_extra={"type": ["string", "number", "boolean", "array"]}),
    BeforeValidator(_config_text),
]


class Topic(Value):
    """A topic. Of its configuration only what is named is owned; what was named before goes back to the cluster's default."""

    target: TargetName
    topic: TopicName | None = None
    """None: the name of the setting."""
    partitions: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """None: the cluster's default, and not owned. More can be had later, fewer never."""
    replication_factor: Annotated[int, Field(ge=1, le=32_767)] | None = None
    durability: Literal["standard", "strict"] | None = None
    """standard: three replicas, of which a majority but one has each acknowledged message, and no unclean leader.
    strict: a majority has it, on disk. What is given beside it goes before it."""
    config: Annotated[dict[Annotated[str, AfterValidator(_config_name)], ConfigText], Field(max_length=64)] = Field(
        default_factory=dict
    )


# --- users, permissions, quotas ----------------------------------------------------------------------------------------

_SPACE = re.compile(r"[\s\x00-\x1f\x7f]")
_PRINCIPAL = re.compile(r"[A-Za-z]+:[^\x00-\x1f\x7f]{1,256}")
CLUSTER: Final = "kafka-cluster"
"""What Kafka calls the one resource of type cluster."""
Resource = Literal["topic", "group", "cluster", "transactional_id"]
Verb = Literal[
    "all",
    "read",
    "write",
    "create",
    "delete",
    "alter",
    "describe",
    "cluster_action",
    "describe_configs",
    "alter_configs",
    "idempotent_write",
]
_CONFIGS: Final = frozenset({"describe_configs", "alter_configs"})
_SENSIBLE: Final[Mapping[str, frozenset[str]]] = {
    "topic": _CONFIGS | {"all", "read", "write", "create", "delete", "alter", "describe"},
    "group": _CONFIGS | {"all", "read", "delete", "describe"},
    "cluster": _CONFIGS | {"all", "create", "alter", "describe", "cluster_action", "idempotent_write"},
    "transactional_id": frozenset({"all", "write", "describe"}),
}
"""Operations that mean something for a resource; Kafka would take the others and never ask for them."""


def _username(name: str) -> str:
    if not name or _SPACE.search(name) or "," in name or "=" in name:
        msg = "a username is not empty and holds no spaces, commas and equals signs"
        raise ValueError(msg)
    return name


def _principal(name: str) -> str:
    if not _PRINCIPAL.fullmatch(name):
        msg = "a principal is type:name, as in User:alice"
        raise ValueError(msg)
    return name


class Permission(Value):
    """Operations on one resource, or on all whose names begin so."""

    resource: Resource
    name: Annotated[str, Field(min_length=1, max_length=249)] | None = None
    """`*`: every one. None: only of the resource cluster, which has no other."""
    pattern: Literal["literal", "prefixed"] = "literal"
    operations: Annotated[tuple[Verb, ...], Field(min_length=1, max_length=16)]
    permission: Literal["allow", "deny"] = "allow"
    host: Annotated[str, Field(min_length=1, max_length=256)] = "*"

    @property
    def resource_name(self) -> str:
        """As Kafka names it."""
        return CLUSTER if self.name is None else self.name

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.resource == "cluster":
            if self.name not in (None, CLUSTER) or self.pattern != "literal":
                msg = f"there is one cluster: leave out name and pattern, or say {CLUSTER}"
                raise ValueError(msg)
        elif self.name is None:
            msg = f"a permission on {self.resource} needs a name; * means every one"
            raise ValueError(msg)
        if self.pattern == "prefixed" and self.name == "*":
            msg = "the prefix * means names that begin with an asterisk; for every one, leave out pattern"
            raise ValueError(msg)
        odd = [operation for operation in self.operations if operation not in _SENSIBLE[self.resource]]
        if odd:
            allowed = ", ".join(sorted(_SENSIBLE[self.resource]))
            msg = f"{odd[0]} means nothing for a {self.resource}; there are: {allowed}"
            raise ValueError(msg)
        return self


Permissions = Annotated[tuple[Permission, ...], Field(max_length=1000)]
Rate = Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)]


class Rates(Value):
    """Limits of one principal or client. Only what is given is limited; what isn't, has none of its own."""

    producer_byte_rate: Rate | None = None
    """Bytes per second and broker."""
    consumer_byte_rate: Rate | None = None
    request_percentage: Rate | None = None
    """Share of the brokers' threads; 100 is one of them."""
    controller_mutation_rate: Rate | None = None
    """Partitions made or deleted per second."""


class User(Value):
    """A SCRAM user, with its permissions and limits. `acls` and `quotas` left out: somebody else's affair."""

    target: TargetName
    username: Annotated[str, Field(max_length=256), AfterValidator(_username)] | None = None
    """None: the name of the setting."""
    mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    password: SecretRef
    iterations: Annotated[int, Field(ge=4096, le=16_384)] = 8192
    acls: Permissions | None = None
    """Owned as a whole: other permissions of the user are taken away."""
    quotas: Rates | None = None
    """Owned as a whole."""


class Acl(Value):
    """All permissions of a principal that is no user of ours: one setting per principal."""

    target: TargetName
    principal: Annotated[str, AfterValidator(_principal)]
    """`User:alice`; `User:*` is everybody."""
    acls: Permissions


class Quota(Value):
    """Limits of a user, a client, or a client of a user; `<default>` stands for those without limits of their own."""

    target: TargetName
    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    client_id: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    ip: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    quotas: Rates | None = None
    connection_creation_rate: Rate | None = None
    """Of an ip only: connections per second."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.ip is None and self.user is None and self.client_id is None:
            msg = "say for whom: user, client_id, both, or ip"
            raise ValueError(msg)
        if self.ip is not None and (self.user, self.client_id, self.quotas) != (None, None, None):
            msg = "an ip has a connection_creation_rate only, and stands alone"
            raise ValueError(msg)
        if (self.ip is None) != (self.connection_creation_rate is None):
            msg = "ip and connection_creation_rate belong together"
            raise ValueError(msg)
        return self


# --- groups and routes -------------------------------------------------------------------------------------------------

GroupId = Annotated[str, Field(min_length=1, max_length=249)]


class Group(Value):
    """A consumer group that is watched: nothing of it is owned."""

    target: TargetName
    group: GroupId | None = None
    """None: the name of the setting."""
    max_lag: Annotated[int, Field(ge=0)] | None = None
    """Most messages of a partition that may wait."""
    max_lag_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Longest time that a message may wait, as far as its timestamp tells."""


Scalar = StrictBool | StrictInt | StrictFloat | StrictStr | None


class Test(Value):
    """What a value is to be; everything that is given must hold."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    among: Annotated[tuple[Scalar, ...] | None, Field(alias="in", min_length=1, max_length=1000)] = None
    ne: Scalar = None
    prefix: str | None = None
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None
    exists: bool | None = None


TestOrScalar = Test | StrictBool | StrictInt | StrictFloat | StrictStr
_POINTER = re.compile(r"(/[^/]+)+")


def _pointer(path: str) -> str:
    """`/a/b`, also written a.b."""
    text = path if path.startswith("/") else "/" + path.replace(".", "/")
    if not _POINTER.fullmatch(text):
        msg = "a path into a JSON message is /order/country, or order.country"
        raise ValueError(msg)
    return text


class When(Value):
    """Which messages are meant; nothing given: all."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    key: TestOrScalar | None = None
    headers: Annotated[dict[str, TestOrScalar], Field(max_length=64)] = Field(default_factory=dict)
    document: Annotated[
        dict[Annotated[str, AfterValidator(_pointer)], TestOrScalar], Field(alias="json", max_length=64)
    ] = Field(default_factory=dict)
    """Path into the message, which is JSON → what is to be there."""


class OnError(Value):
    """What becomes of a message that can't be delivered. Without a dead letter topic its partition waits."""

    dead_letter: TopicName | None = None
    retries: Annotated[int, Field(ge=0, le=100)] = 3


class Route(Value):
    """Messages of one topic that go to others. Of the routes that match, those with the highest priority take a message."""

    target: TargetName
    source: TopicName
    when: When = When()
    to: Annotated[tuple[TopicName, ...], Field(min_length=1, max_length=64)]
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    """exactly_once: readers with isolation.level read_committed see each message once, also after a crash."""
    on_error: OnError = OnError()
    start: Literal["latest", "earliest"] = "latest"
    """Where the first route of a source begins."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.source in self.to or self.source == self.on_error.dead_letter:
            msg = f"{self.source} can't be routed to itself: its messages would go round for ever"
            raise ValueError(msg)
        if len(set(self.to)) != len(self.to):
            msg = "a destination is named twice"
            raise ValueError(msg)
        return self
