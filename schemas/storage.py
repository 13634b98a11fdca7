"""Values of the storage service: targets, buckets, policies, users, groups, access keys, server parameters.

What is left out isn't owned. What MinIO accepts and then drops, or holds in another form for ever, is refused here; whether
a policy or a tier exists is the server's to judge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from schemas.names import Name, TargetName
from schemas.secret import SecretRef


class Value(BaseModel):
    """Frozen, and closed to fields it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


# --- targets -----------------------------------------------------------------------------------------------------------


_PORTS: Final = {"http": 80, "https": 443}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def _endpoint(url: str) -> str:
    split = urlsplit(url)
    if split.scheme not in ("http", "https") or not split.hostname:
        msg = "an endpoint is a URL such as http://127.0.0.1:9000"
        raise ValueError(msg)
    if split.username is not None or split.password is not None:
        msg = "an endpoint must not hold credentials: use access_key and secret_key: {from_env: NAME}"
        raise ValueError(msg)
    if split.path not in ("", "/") or split.query or split.fragment:
        msg = "an endpoint is scheme, host and port"
        raise ValueError(msg)
    try:
        port = split.port
    except ValueError as exc:
        msg = "the port of a URL is a number up to 65535"
        raise ValueError(msg) from exc
    host = f"[{split.hostname}]" if ":" in split.hostname else split.hostname
    return f"{split.scheme}://{host}" + (f":{port}" if port is not None else "")


class Tls(Value):
    """How the server's certificate is checked."""

    ca_file: str | None = None
    """PEM file on the daemon's host; None: the system's authorities."""
    verify: bool = True


class Target(Value):
    """Where a MinIO, or another S3 server, is. Without the right to administer it, only what S3 itself offers is managed."""

    endpoint: Annotated[str, AfterValidator(_endpoint)]
    access_key: SecretRef
    secret_key: SecretRef
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")] = "us-east-1"
    tls: Tls | None = None

    @property
    def place(self) -> tuple[str, int]:
        """Host and port, in one spelling."""
        split = urlsplit(self.endpoint)
        host = split.hostname or ""
        return "localhost" if host in _LOOPBACK else host, split.port or _PORTS[split.scheme]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.tls is not None and not self.endpoint.startswith("https://"):
            msg = "tls needs an endpoint that begins with https://"
            raise ValueError(msg)
        return self


# --- buckets -----------------------------------------------------------------------------------------------------------

_BUCKET = re.compile(r"(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9](?:[a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]")
_TAG = re.compile(r"[A-Za-z0-9 +\-=._:/@]*")
MOST_TAGS: Final = 50
MOST_DAYS: Final = 36_500


def _bucket_name(name: str) -> str:
    if not _BUCKET.fullmatch(name):
        msg = "a bucket's name has 3 to 63 lower-case letters, digits, hyphens and dots, and isn't an IP address"
        raise ValueError(msg)
    return name


def _tags(tags: dict[str, str]) -> dict[str, str]:
    for key, value in tags.items():
        if not (1 <= len(key) <= 128 and _TAG.fullmatch(key)) or len(value) > 256 or not _TAG.fullmatch(value):
            msg = f"{key}: tags hold letters, digits, spaces and + - = . _ : / @ only, keys up to 128, values up to 256"
            raise ValueError(msg)
    return tags


def _unique(what: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"{what} need ids of their own: {', '.join(twice)} stands twice"
        raise ValueError(msg)


BucketName = Annotated[str, AfterValidator(_bucket_name)]
Tags = Annotated[dict[str, str], Field(max_length=MOST_TAGS), AfterValidator(_tags)]
Days = Annotated[int, Field(ge=1, le=MOST_DAYS)]
PartId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]
Prefix = Annotated[str, Field(max_length=1024, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Retention(Value):
    """How long a new version of an object can't be removed. Exactly one of days and years."""

    mode: Literal["governance", "compliance"]
    days: Days | None = None
    years: Annotated[int, Field(ge=1, le=100)] | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.days is None) == (self.years is None):
            msg = "give exactly one of days or years"
            raise ValueError(msg)
        return self


class Transition(Value):
    """Move objects to a tier, which the server must know already."""

    days: Annotated[int, Field(ge=0, le=MOST_DAYS)]
    tier: Annotated[str, Field(pattern=r"^[A-Z0-9][A-Z0-9_-]{0,63}$")]


class LifecycleRule(Value):
    """What becomes of old objects. Owned by its id: rules of others in the same bucket stay."""

    id: PartId
    enabled: bool = True
    prefix: Prefix = ""
    tags: Tags = Field(default_factory=dict)
    larger_than_bytes: Annotated[int, Field(ge=1, le=2**50)] | None = None
    smaller_than_bytes: Annotated[int, Field(ge=1, le=2**50)] | None = None
    expire_days: Days | None = None
    noncurrent_days: Days | None = None
    noncurrent_keep: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """So many newest noncurrent versions stay in any case."""
    expired_delete_marker: bool = False
    """Remove delete markers that hide nothing any more."""
    transition: Transition | None = None
    abort_multipart_days: int | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.abort_multipart_days is not None:
            msg = (
                "abort_multipart_days: MinIO drops it without a word, and removes incomplete uploads by itself; declare "
                "storage.server_config api with stale_uploads_expiry instead"
            )
            raise ValueError(msg)
        if self.expired_delete_marker and (self.expire_days is not None or self.tags):
            msg = "expired_delete_marker stands in a rule of its own, without expire_days and tags"
            raise ValueError(msg)
        actions = (self.expire_days, self.noncurrent_days, self.noncurrent_keep, self.transition)
        if not self.expired_delete_marker and all(action is None for action in actions):
            msg = "a rule does something: give expire_days, noncurrent_days, noncurrent_keep, transition or expired_delete_marker"
            raise ValueError(msg)
        return self


def _kms_key(value: Any) -> Any:
    return {"kms_key": value["kms_key"]} if isinstance(value, Mapping) and "kms_key" in value else value


class KmsEncryption(Value):
    """Encrypt by a key of the server's key service."""

    kms_key: Annotated[str, Field(min_length=1, max_length=256)]


Encryption = Annotated[Literal["sse-s3"] | KmsEncryption, BeforeValidator(_kms_key)]


class Notification(Value):
    """Tell somebody what happens to objects. Owned by its id."""

    id: PartId
    arn: Annotated[str, Field(pattern=r"^arn:[a-z0-9-]+:sqs:[a-z0-9-]*:[^:\s]+:[a-z]+$")]
    """As the server names its notification target: `arn:minio:sqs::NAME:webhook`."""
    events: Annotated[tuple[Annotated[str, Field(pattern=r"^s3:[A-Za-z]+:[A-Za-z*:]+$")], ...], Field(min_length=1)]
    prefix: Prefix = ""
    suffix: Prefix = ""


class Destination(Value):
    """Where objects are copied to: a bucket with versioning, of another server."""

    endpoint: Annotated[str, AfterValidator(_endpoint)]
    """As the server itself reaches it."""
    bucket: BucketName
    access_key: SecretRef
    secret_key: SecretRef


class Replication(Value):
    """Copy new versions to another server's bucket. Owned by its id: rules of others in the same bucket stay."""

    id: PartId
    to: Destination
    enabled: bool = True
    priority: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Of two rules for one object the higher one counts."""
    prefix: Prefix = ""
    delete_markers: bool = True
    """An object that is removed there, too."""
    deletes: bool = False
    """A version that is removed there, too."""
    existing_objects: bool = False
    """What was there before the rule, too."""


class OwnAccess(Value):
    """A bucket policy of one's own."""

    policy: dict[str, Any]


Access = Literal["private", "public-read", "public-read-write"] | OwnAccess


class Bucket(Value):
    """A bucket. Only what is given is owned."""

    target: TargetName
    bucket: BucketName | None = None
    """None: the name of the setting."""
    versioning: Literal["enabled", "suspended", "off"] | None = None
    excluded_prefixes: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=1024)], ...], Field(max_length=10)
    ] = ()
    """Objects below them have no versions. Owned with `versioning`."""
    exclude_folders: bool = False
    object_lock: bool = False
    """Versions can be locked. Decided when the bucket is made, for ever."""
    retention: Retention | None = None
    lifecycle: Annotated[tuple[LifecycleRule, ...], Field(max_length=1000)] | None = None
    encryption: Encryption | None = None
    quota_bytes: Annotated[int, Field(ge=0, le=2**62)] | None = None
    """0: none."""
    tags: Tags | None = None
    access: Access | None = None
    """What anybody may do without logging in."""
    notifications: Annotated[tuple[Notification, ...], Field(max_length=100)] | None = None
    replication: Annotated[tuple[Replication, ...], Field(max_length=100)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _explained(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "cors" in value:
            msg = "cors: MinIO has none per bucket; declare storage.server_config api with cors_allow_origin instead"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.excluded_prefixes or self.exclude_folders) and self.versioning != "enabled":
            msg = "excluded_prefixes and exclude_folders need versioning: enabled"
            raise ValueError(msg)
        if self.object_lock and (self.versioning not in (None, "enabled") or self.excluded_prefixes):
            msg = "object_lock needs versioning enabled for everything"
            raise ValueError(msg)
        if self.retention is not None and not self.object_lock:
            msg = "retention needs object_lock: true"
            raise ValueError(msg)
        _unique("lifecycle rules", [rule.id for rule in self.lifecycle or ()])
        _unique("notifications", [one.id for one in self.notifications or ()])
        self._replicates()
        return self

    def _replicates(self) -> None:
        rules = self.replication or ()
        if rules and self.versioning != "enabled" and not self.object_lock:
            msg = "replication needs versioning: enabled"
            raise ValueError(msg)
        _unique("replication rules", [rule.id for rule in rules])
        if len({rule.priority for rule in rules}) != len(rules):
            msg = "replication rules need priorities of their own"
            raise ValueError(msg)
        if len({rule.to for rule in rules}) != len({rule.to.endpoint for rule in rules}):
            msg = "a bucket is copied to one bucket of an endpoint, by one login"
            raise ValueError(msg)


# --- who may do what ---------------------------------------------------------------------------------------------------

_KEY = r"^[^=,\s]{3,128}$"
AccessKeyName = Annotated[str, Field(pattern=r"^[^=,\s]{3,20}$")]
PolicyName = Annotated[str, Field(pattern=_KEY)]
GroupName = Annotated[str, Field(pattern=r"^[^,\s]{1,128}$")]
Names = Annotated[tuple[PolicyName, ...], Field(max_length=100)]


def _document(document: dict[str, Any]) -> dict[str, Any]:
    statements = document.get("Statement")
    if not document.get("Version") or not statements or not isinstance(statements, list | dict):
        msg = "a policy has a Version (2012-10-17) and at least one Statement"
        raise ValueError(msg)
    for statement in statements if isinstance(statements, list) else [statements]:
        if not isinstance(statement, dict) or statement.get("Effect") not in ("Allow", "Deny"):
            msg = "a statement has an Effect, Allow or Deny"
            raise ValueError(msg)
    return document


Document = Annotated[dict[str, Any], AfterValidator(_document)]


class Policy(Value):
    """A policy of the server, for users, groups and access keys."""

    target: TargetName
    policy: PolicyName | None = None
    """None: the name of the setting."""
    document: Document


class User(Value):
    """Somebody who may log in. `policies` and `groups` are owned as a whole when they are given: a group with `members` that
    names the user, or is named by it, is in conflict with it; the younger of both is refused."""

    target: TargetName
    access_key: AccessKeyName | None = None
    """None: the name of the setting."""
    secret_key: SecretRef
    """8 to 40 characters. A new secret counts at once; for a rotation with an overlap give each program an access key."""
    enabled: bool = True
    policies: Names | None = None
    groups: Names | None = None


class Group(Value):
    """Users with policies in common. `members` and `policies` are owned as a whole when they are given."""

    target: TargetName
    group: GroupName | None = None
    """None: the name of the setting."""
    enabled: bool = True
    members: Annotated[tuple[AccessKeyName, ...], Field(max_length=10_000)] | None = None
    policies: Names | None = None


class AccessKey(Value):
    """A key by which a program logs in as a user, with no more rights than the user has."""

    target: TargetName
    user: AccessKeyName
    access_key: AccessKeyName | None = None
    """None: the name of the setting."""
    secret_key: SecretRef
    policy: Document | None = None
    """What of the user's rights it has; None: all of them."""
    enabled: bool = True
    expires_at: datetime | None = None
    """At least 15 minutes and at most a year ahead when it is set."""
    description: Annotated[str, Field(max_length=256)] | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            msg = "expires_at needs a time zone, as in 2027-01-31T12:00:00Z"
            raise ValueError(msg)
        return self


# --- the server's parameters -------------------------------------------------------------------------------------------

_SECRETIVE = re.compile(r"secret|password|token|private", re.IGNORECASE)


def _parameter(value: Any) -> Any:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) if isinstance(value, int | float) else value


def _no_secrets(settings: dict[str, str]) -> dict[str, str]:
    for name in settings:
        if _SECRETIVE.search(name):
            msg = f"{name} looks like a secret, which must not be declared in clear: set MINIO_{name.upper()} for the server"
            raise ValueError(msg)
    return settings


ParameterText = Annotated[
    str,
    Field(
        max_length=4096, pattern=r'^[^\x00-\x1f\x7f"]*$', json_schema_extra={"type": ["string", "number", "boolean"]}
    ),
    BeforeValidator(_parameter),
]


class ServerConfig(Value):
    """Parameters of one subsystem of MinIO. Only those that are named are owned."""

    target: Name
    subsystem: Annotated[str, Field(pattern=r"^[a-z_]+(:[A-Za-z0-9_-]+)?$")]
    """`api`, `scanner`, `notify_webhook:NAME` …"""
    settings: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z_]{1,64}$")], ParameterText],
        Field(min_length=1, max_length=64),
        AfterValidator(_no_secrets),
    ]


# --- operations --------------------------------------------------------------------------------------------------------

Key = Annotated[str, Field(min_length=1, max_length=1024)]


class OfBucket(Value):
    """What every operation on a bucket says."""

    target: TargetName
    bucket: BucketName


class Presign(OfBucket):
    """Request of `storage.presign`: a URL by which anybody may read or write one object until it expires."""

    key: Key
    method: Literal["get", "put"] = "get"
    expires_s: Annotated[int, Field(ge=1, le=7 * 86_400)] = 3600
    version: str | None = None


class ListObjects(OfBucket):
    """Request of `storage.list`: objects by prefix, or one level of folders."""

    prefix: Prefix = ""
    folders: bool = False
    """What lies deeper is told as folders."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    after: Annotated[str, Field(max_length=1024)] | None = None
    """`next` of the answer before."""


class Versions(OfBucket):
    """Request of `storage.versions`: all versions of one object, newest first."""

    key: Key
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class Restore(OfBucket):
    """Request of `storage.restore`: an older version becomes the newest; all versions stay."""

    key: Key
    version: Annotated[str, Field(min_length=1, max_length=256)]


class Usage(OfBucket):
    """Request of `storage.usage`: what lies in a bucket by prefix and age, from a listing of so many versions."""

    prefix: Prefix = ""
    sample: Annotated[int, Field(ge=1000, le=1_000_000)] = 20_000


class Empty(OfBucket):
    """Request of `storage.empty`: remove everything, all versions too. It may take several requests."""

    confirm: BucketName
    """The bucket's name once more: this can't be undone."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.confirm != self.bucket:
            msg = "confirm is the name of the bucket, to be sure"
            raise ValueError(msg)
        return self
