"""Values of the cache service: targets, server parameters, users, namespaces, and the requests of its operations.

Whether a server accepts a rule or a value is the server's to judge; here stands what is wrong on any server, and what
would cut the daemon off or put a secret into the log.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from schemas.names import Name, TargetName
from schemas.redis_parameters import REFUSED_PARAMETERS, real_name
from schemas.secret import SecretRef

SCRATCH_USER_PREFIX: Final = "__coreplane_scratch_"
"""Users with this prefix are the daemon's own, made and removed within one transaction to canonicalise rules."""


class Value(BaseModel):
    """Frozen, and closed to fields it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


# --- targets -----------------------------------------------------------------------------------------------------------

_SCHEMES: Final = {"redis": ("redis", "rediss"), "memcached": ("memcached",)}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
DEFAULT_PORTS: Final = {"redis": 6379, "rediss": 6379, "memcached": 11211}


class Tls(Value):
    """How the server's certificate is checked."""

    ca_file: str | None = None
    """PEM file on the daemon's host; None: the system's authorities."""
    verify: bool = True


class Target(Value):
    """Where a Redis or Memcached server is. Several nodes are driven each by itself and all alike."""

    kind: Literal["redis", "memcached"]
    url: str | None = None
    nodes: Annotated[tuple[str, ...] | None, Field(min_length=1, max_length=64)] = None
    username: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    password: SecretRef | None = None
    tls: Tls | None = None
    save_acl: bool = False
    """Redis: `ACL SAVE` after each change of users; needs a server with `aclfile`."""

    @property
    def urls(self) -> tuple[str, ...]:
        """Every node's URL."""
        return self.nodes if self.nodes is not None else (str(self.url),)

    @property
    def place(self) -> tuple[tuple[str, int], ...]:
        """Host and port of every node, in one spelling."""
        nodes = (_host_and_port(urlsplit(url)) for url in self.urls)
        return tuple(sorted(("localhost" if host in _LOOPBACK else host.lower(), port) for host, port in nodes))

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.url is None) == (self.nodes is None):
            msg = "give exactly one of url or nodes"
            raise ValueError(msg)
        if self.kind == "memcached" and (self.username is not None or self.password is not None or self.save_acl):
            msg = "memcached's text protocol has no users: leave out username, password and save_acl"
            raise ValueError(msg)
        if self.username is not None and self.password is None:
            msg = "username needs a password: add password: {from_env: NAME} or {from_file: PATH}"
            raise ValueError(msg)
        places = [_place(url, self.kind, tls=self.tls is not None) for url in self.urls]
        if len(set(places)) != len(places):
            msg = "the same node is named twice"
            raise ValueError(msg)
        return self


def _place(url: str, kind: str, *, tls: bool) -> tuple[str, int]:
    """Host and port of a node's URL; ValueError when it isn't one."""
    split = urlsplit(url)
    if split.scheme not in _SCHEMES[kind]:
        msg = f"a {kind} URL begins with {' or '.join(f'{s}://' for s in _SCHEMES[kind])}, as in {kind}://127.0.0.1:{DEFAULT_PORTS[kind]}"
        raise ValueError(msg)
    if split.username is not None or split.password is not None:
        msg = "a URL must not hold credentials: use username and password: {from_env: NAME}"
        raise ValueError(msg)
    if tls and split.scheme == "redis":
        msg = "tls needs a URL that begins with rediss://"
        raise ValueError(msg)
    if split.query or split.fragment or not _path_is_sound(split, kind):
        msg = "a URL is scheme, host and port" + (
            ", and the number of a database, as in redis://host:6379/2" * (kind == "redis")
        )
        raise ValueError(msg)
    return _host_and_port(split)


def _path_is_sound(split: SplitResult, kind: str) -> bool:
    return split.path in ("", "/") or (kind == "redis" and split.path[1:].isdecimal())


def _host_and_port(split: SplitResult) -> tuple[str, int]:
    try:
        port = split.port
    except ValueError as exc:
        msg = "the port of a URL is a number up to 65535"
        raise ValueError(msg) from exc
    if not split.hostname:
        msg = "the URL names no host"
        raise ValueError(msg)
    return split.hostname, DEFAULT_PORTS[split.scheme] if port is None else port


# --- redis -------------------------------------------------------------------------------------------------------------

_PARAMETER_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _parameter_text(value: Any) -> str:
    """The value as `CONFIG SET` takes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return format(value, "f").rstrip("0").rstrip(".")
    if isinstance(value, int | str):
        return str(value).strip()
    msg = "a parameter is text, a number, or true or false"
    raise ValueError(msg)


def _one_name_each(parameters: dict[str, str]) -> dict[str, str]:
    seen: dict[str, str] = {}
    for name in parameters:
        other = seen.setdefault(real_name(name), name)
        if other != name:
            msg = f"{other} and {name} are two names of one parameter: keep one"
            raise ValueError(msg)
    return parameters


def _parameter_name(name: str) -> str:
    if not _PARAMETER_NAME.fullmatch(name):
        msg = "names of parameters are lower-case words joined by hyphens, as in maxmemory-policy"
        raise ValueError(msg)
    advice = REFUSED_PARAMETERS.get(real_name(name))
    if advice is not None:
        msg = f"{name} can't be managed here: {advice}"
        raise ValueError(msg)
    return name


def _plain(text: str) -> str:
    if _CONTROL.search(text):
        msg = "holds control characters"
        raise ValueError(msg)
    return text


ParameterName = Annotated[str, AfterValidator(_parameter_name)]
ParameterText = Annotated[
    str,
    Field(max_length=4096, json_schema_extra={"type": ["string", "number", "boolean"]}),
    BeforeValidator(_parameter_text),
    AfterValidator(_plain),
]


class RedisConfig(Value):
    """Parameters of a Redis server that are settable at run time. Only those that are named are owned."""

    target: Name
    parameters: Annotated[
        dict[ParameterName, ParameterText], Field(min_length=1, max_length=256), AfterValidator(_one_name_each)
    ]
    persist: bool = False
    """Write them to the server's configuration file (`CONFIG REWRITE`) after a change."""


_SPACE = re.compile(r"[\s\x00-\x1f\x7f]")
_COMMAND = re.compile(r"[+-](@?[^\s|@]+|[^\s|@]+\|[^\s|]+)")
_KEYS_WITH_PERMISSION = re.compile(r"%(R|W|RW|WR)~.+", re.IGNORECASE)


def _no_space(what: str, text: str) -> str:
    if not text or _SPACE.search(text):
        msg = f"{what} is not empty and holds no spaces"
        raise ValueError(msg)
    return text


def _username(name: str) -> str:
    _no_space("a username", name)
    if name.startswith(SCRATCH_USER_PREFIX):
        msg = f"usernames with {SCRATCH_USER_PREFIX} are the daemon's own"
        raise ValueError(msg)
    return name


def _command_rule(rule: str) -> str:
    if rule.lower() not in ("allcommands", "nocommands") and not _COMMAND.fullmatch(rule):
        msg = "a command rule is +name, -name, +@category, -@category, +name|subcommand, allcommands or nocommands"
        raise ValueError(msg)
    return rule


def _key_pattern(pattern: str) -> str:
    _no_space("a key pattern", pattern)
    if pattern.startswith("~") or pattern.lower() in ("allkeys", "resetkeys"):
        msg = "write the pattern alone, as in app:* (all keys: *), or with a permission, as in %R~app:*"
        raise ValueError(msg)
    if pattern.startswith("%") and not _KEYS_WITH_PERMISSION.fullmatch(pattern):
        msg = "a key pattern with a permission is %R~pattern, %W~pattern or %RW~pattern"
        raise ValueError(msg)
    return pattern


def _channel_pattern(pattern: str) -> str:
    _no_space("a channel pattern", pattern)
    if pattern.startswith("&") or pattern.lower() in ("allchannels", "resetchannels"):
        msg = "write the pattern alone, as in news.* (all channels: *)"
        raise ValueError(msg)
    return pattern


def _selector(selector: str) -> str:
    inner = selector[1:-1]
    if not (selector.startswith("(") and selector.endswith(")")) or "(" in inner or ")" in inner or not inner.strip():
        msg = "a selector is rules in parentheses, as in (+get ~app:*)"
        raise ValueError(msg)
    if inner != inner.strip() or _CONTROL.search(inner):
        msg = "the rules of a selector are parted by single spaces"
        raise ValueError(msg)
    return selector


class RedisUser(Value):
    """An ACL user. Passwords are references; two at a time make a rotation without a gap.

    A user is owned as a whole: what is left out is owned as empty, so it can't be ignored either.
    """

    always_owned: ClassVar[frozenset[str]] = frozenset(
        {"enabled", "nopass", "commands", "keys", "channels", "selectors"}
    )

    target: TargetName
    username: Annotated[str, Field(max_length=256), AfterValidator(_username)] | None = None
    """None: the name of the setting."""
    enabled: bool = True
    passwords: Annotated[tuple[SecretRef, ...], Field(max_length=16)] = ()
    nopass: bool = False
    """Anybody may log in as this user, with any password."""
    commands: Annotated[
        tuple[Annotated[str, Field(max_length=256), AfterValidator(_command_rule)], ...], Field(max_length=512)
    ] = ()
    """Rules in the order in which they count."""
    keys: Annotated[
        tuple[Annotated[str, Field(max_length=1024), AfterValidator(_key_pattern)], ...], Field(max_length=512)
    ] = ()
    channels: Annotated[
        tuple[Annotated[str, Field(max_length=1024), AfterValidator(_channel_pattern)], ...], Field(max_length=512)
    ] = ()
    selectors: Annotated[
        tuple[Annotated[str, Field(max_length=4096), AfterValidator(_selector)], ...], Field(max_length=64)
    ] = ()
    kill_on_revoke: bool = True
    """End the user's sessions when a password or a permission is taken away; Redis would let them go on."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.nopass and self.passwords:
            msg = "nopass lets anybody in: give either nopass or passwords"
            raise ValueError(msg)
        return self


# --- memcached ---------------------------------------------------------------------------------------------------------

_SIZE = re.compile(r"(\d{1,12})\s*(b|kb?|mb?|)", re.IGNORECASE)
_SIZE_UNITS: Final = {"": 1, "b": 1, "k": 1024, "kb": 1024, "m": 1024 * 1024, "mb": 1024 * 1024}


def _size_bytes(size: Any) -> Any:
    if not isinstance(size, str):
        return size
    match = _SIZE.fullmatch(size.strip())
    if match is None:
        msg = "a size is a number of bytes, or has a unit: 512kb, 1mb (of 1024 and 1024 x 1024 bytes)"
        raise ValueError(msg)
    return int(match[1]) * _SIZE_UNITS[match[2].lower()]


class MemcachedLru(Value):
    """How Memcached chooses what to evict. Only what is given is owned."""

    mode: Literal["flat", "segmented"] | None = None
    hot_pct: Annotated[int, Field(ge=1, le=79)] | None = None
    warm_pct: Annotated[int, Field(ge=1, le=79)] | None = None
    hot_max_factor: Annotated[float, Field(gt=0, le=100)] | None = None
    warm_max_factor: Annotated[float, Field(gt=0, le=100)] | None = None
    temp_ttl_s: Annotated[int, Field(ge=-1, le=86_400)] | None = None
    """Items with a shorter life are kept apart; -1: none are."""

    @property
    def tuned(self) -> bool:
        """True when a field of `lru tune` is given."""
        return any(v is not None for v in (self.hot_pct, self.warm_pct, self.hot_max_factor, self.warm_max_factor))

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.hot_pct or 1) + (self.warm_pct or 1) > 80:
            msg = "hot_pct and warm_pct together are at most 80"
            raise ValueError(msg)
        if self.mode == "flat" and self.tuned:
            msg = "hot and warm parts exist only in mode segmented"
            raise ValueError(msg)
        return self


class MemcachedConfig(Value):
    """Settings of a Memcached server. Only what is given is owned."""

    target: Name
    memory_mb: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    max_item: Annotated[int, Field(ge=1024, le=1024**3), BeforeValidator(_size_bytes)] | None = None
    """Largest item, bytes, or as 1mb. The server takes it at its start only."""
    slab_automove: Annotated[int, Field(ge=0, le=2)] | None = None
    slab_automove_ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    lru: MemcachedLru | None = None
    verbosity: Annotated[int, Field(ge=0, le=2)] | None = None


# --- namespaces and operations -----------------------------------------------------------------------------------------

_PREFIX = r"^[\x21-\x7d]{1,128}$"
TargetRef = Name
"""Name of a `cache.target` of the same tenant."""
Seconds = Annotated[float, Field(gt=0, le=30 * 86_400, allow_inf_nan=False)]
KeyText = Annotated[str, Field(min_length=1, max_length=1024)]


class Layer(Value):
    """One shared layer of a namespace."""

    target: TargetName
    ttl_s: Seconds
    """How long a value stays fresh there."""


class Namespace(Value):
    """One logical cache over several layers, nearest first: the unit of invalidation and analytics."""

    placed_by: ClassVar[tuple[str | int, ...]] = ("layers", 0, "target")
    """Where its registration is, which can't be moved."""
    prefix: Annotated[str, Field(pattern=_PREFIX)]
    """Every key begins with it. Visible ASCII without `~`, because Memcached takes nothing else."""
    layers: Annotated[tuple[Layer, ...], Field(min_length=1, max_length=4)]
    stale_s: Annotated[float, Field(ge=0, le=30 * 86_400, allow_inf_nan=False)] | None = None
    """How long a value may be served after its time while it is loaded anew."""
    tags: bool = False
    budget_bytes: Annotated[int, Field(gt=0, le=2**62)] | None = None
    budget_keys: Annotated[int, Field(gt=0, le=2**62)] | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        names = [layer.target for layer in self.layers]
        if len(set(names)) != len(names):
            msg = "each layer needs a target of its own"
            raise ValueError(msg)
        if any("/" in name for name in names[1:]):
            msg = "a target that another tenant shares can only be the first layer"
            raise ValueError(msg)
        if self.prefix.startswith("coreplane:"):
            msg = "keys that begin with coreplane: are the daemon's own"
            raise ValueError(msg)
        return self


class Invalidate(Value):
    """Request of `cache.invalidate`: drop keys, everything with a tag, everything that begins so, or all."""

    namespace: Name
    keys: Annotated[tuple[KeyText, ...], Field(min_length=1, max_length=10_000)] | None = None
    tags: Annotated[tuple[KeyText, ...], Field(min_length=1, max_length=1_000)] | None = None
    prefix: KeyText | None = None
    all: Literal[True] | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if sum(given is not None for given in (self.keys, self.tags, self.prefix, self.all)) != 1:
            msg = "give exactly one of keys, tags, prefix or all"
            raise ValueError(msg)
        return self


class Inspect(Value):
    """Request of `cache.inspect`: what lies in a target or a namespace, from a bounded sample."""

    target: TargetRef | None = None
    namespace: Name | None = None
    sample: Annotated[int, Field(ge=1, le=100_000)] = 2_000
    """Most keys that are looked at."""
    top: Annotated[int, Field(ge=1, le=100)] = 10
    """How many of the biggest, the hottest and the prefixes are listed."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.target is None) == (self.namespace is None):
            msg = "give exactly one of target or namespace"
            raise ValueError(msg)
        return self
