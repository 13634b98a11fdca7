"""Buckets: what is declared and what is observed, in the same form. Pure."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from reconcilers.storage import lifecycle, policies, replication
from reconcilers.storage.lifecycle import Expiring, Rule, Rules, tag
from reconcilers.storage.policies import Policy
from reconcilers.storage.replication import Held, Wanted
from schemas.storage import Bucket as BucketValue
from schemas.storage import KmsEncryption, OwnAccess

BUCKET: Final = "storage.bucket"
FROZEN_BYTES: Final = 1
"""As a quota: MinIO refuses every object that isn't smaller, and needs no count for that."""
XMLNS: Final = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass(frozen=True, slots=True)
class Versioning:
    """`status`: off (never enabled), enabled or suspended."""

    status: str = "off"
    excluded_prefixes: tuple[str, ...] = ()
    exclude_folders: bool = False

    def shown(self) -> dict[str, Any]:
        """JSON."""
        rows = {"excluded_prefixes": list(self.excluded_prefixes), "exclude_folders": self.exclude_folders}
        return {"versioning": self.status} | {name: value for name, value in rows.items() if value}


@dataclass(frozen=True, slots=True)
class Retention:
    """`unit`: days or years."""

    mode: str
    count: int
    unit: str

    def shown(self) -> dict[str, Any]:
        """JSON."""
        return {"mode": self.mode, self.unit: self.count}


@dataclass(frozen=True, slots=True)
class Notification:
    """One queue configuration."""

    id: str
    arn: str
    events: tuple[str, ...]
    prefix: str = ""
    suffix: str = ""

    def shown(self) -> dict[str, Any]:
        """JSON."""
        return {"arn": self.arn, "events": list(self.events), "prefix": self.prefix, "suffix": self.suffix}


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is declared. None: not owned."""

    name: str
    versioning: Versioning | None = None
    object_lock: bool = False
    retention: Retention | None = None
    rules: tuple[Rule, ...] | None = None
    encryption: str | None = None
    """`sse-s3`, or the name of a KMS key after `kms:`."""
    quota_bytes: int | None = None
    tags: tuple[tuple[str, str], ...] | None = None
    access: Policy | None = None
    notifications: tuple[Notification, ...] | None = None
    replication: tuple[Wanted, ...] | None = None


@dataclass(frozen=True, slots=True)
class Contents:
    """What a bucket that is to go still holds. `first`: key and version of the first, None when it is empty."""

    first: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class HeldBucket:
    """What the server holds."""

    versioning: Versioning = field(default_factory=Versioning)
    object_lock: bool = False
    retention: Retention | None = None
    rules: Rules = field(default_factory=Rules)
    encryption: str | None = None
    quota_bytes: int | None = 0
    """None: the server doesn't let us know."""
    tags: tuple[tuple[str, str], ...] = ()
    access: Policy = policies.NOTHING
    notifications: Mapping[str, Notification] = field(default_factory=dict)
    notification_texts: Mapping[str, str] = field(default_factory=dict)
    """XML of each, in the server's order; those of a kind we don't declare are among them."""
    replication: Held = field(default_factory=Held)
    contents: Contents | None = None
    """Only of a bucket that is retired."""
    expiring: Mapping[str, Expiring] = field(default_factory=dict)
    """What declared rules that aren't there yet would remove today."""
    former: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Ids of the parts that were ours when it was last as declared: rules, notifications, tags."""


def bucket_name(name: str, value: BucketValue) -> str:
    """The bucket's name on the server."""
    return value.bucket or name


def declared(name: str, value: BucketValue) -> Bucket:
    """The declaration's canonical form."""
    bucket = bucket_name(name, value)
    versioning = None
    if value.versioning is not None:
        versioning = Versioning(value.versioning, tuple(sorted(set(value.excluded_prefixes))), value.exclude_folders)
    elif value.object_lock:
        versioning = Versioning("enabled")
    return Bucket(
        name=bucket,
        versioning=versioning,
        object_lock=value.object_lock,
        retention=_retention(value),
        rules=None if value.lifecycle is None else tuple(map(lifecycle.declared, value.lifecycle)),
        encryption=_encryption(value),
        quota_bytes=value.quota_bytes,
        tags=None if value.tags is None else tuple(sorted(value.tags.items())),
        access=_access(value, bucket),
        notifications=_notifications(value),
        replication=None if value.replication is None else tuple(map(replication.declared, value.replication)),
    )


def recall(held: HeldBucket | None, remembered: Mapping[str, str]) -> HeldBucket | None:
    """The observation, with the ids that were ours."""
    if held is None or not remembered:
        return held
    return replace(held, former={part: frozenset(json.loads(ids)) for part, ids in remembered.items()})


def remembered(part: str, ids: Iterable[str]) -> dict[str, str]:
    """What `recall` reads."""
    return {part: json.dumps(sorted(ids))}


def _retention(value: BucketValue) -> Retention | None:
    if value.retention is None:
        return None
    days, years = value.retention.days, value.retention.years
    return Retention(value.retention.mode, days or years or 0, "days" if days else "years")


def _encryption(value: BucketValue) -> str | None:
    return f"kms:{value.encryption.kms_key}" if isinstance(value.encryption, KmsEncryption) else value.encryption


def _access(value: BucketValue, bucket: str) -> Policy | None:
    match value.access:
        case None:
            return None
        case "private":
            return policies.NOTHING
        case OwnAccess():
            return policies.canonical(value.access.policy)
        case _:
            return policies.public(bucket, write=value.access == "public-read-write")


def _notifications(value: BucketValue) -> tuple[Notification, ...] | None:
    if value.notifications is None:
        return None
    return tuple(
        Notification(n.id, n.arn, tuple(sorted(set(n.events))), n.prefix, n.suffix) for n in value.notifications
    )


# --- the documents of the server -----------------------------------------------------------------------------------------

Documents = Mapping[str, bytes]
"""Name in the export → content; what isn't configured is missing."""


def held(documents: Documents, digest: Callable[[str, str], str]) -> HeldBucket:
    """A bucket from its documents. ValueError (`ParseError` is one) when one of them can't be read."""
    lock, retention = object_lock(documents.get("object-lock.xml"))
    notifications, texts = notified(documents.get("notification.xml"))
    quota = documents.get("quota.json")
    return HeldBucket(
        versioning=versioned(documents.get("versioning.xml")),
        object_lock=lock,
        retention=retention,
        rules=lifecycle.parsed(documents.get("lifecycle.xml")),
        encryption=encrypted(documents.get("bucket-encryption.xml")),
        quota_bytes=None if quota is None else int(json.loads(quota).get("quota") or 0),
        tags=tagged(documents.get("tagging.xml")),
        access=policies.parsed(documents.get("policy.json")),
        notifications=notifications,
        notification_texts=texts,
        replication=replication.parsed(documents.get("replication.xml"), documents.get("bucket-targets.json"), digest),
    )


def versioned(document: bytes | None) -> Versioning:
    """Of `?versioning`."""
    root = _root(document)
    if root is None:
        return Versioning()
    status = (root.findtext("Status") or "off").lower()
    prefixes = {element.findtext("Prefix") or "" for element in root.iterfind("ExcludedPrefixes")}
    return Versioning(status, tuple(sorted(prefixes)), root.findtext("ExcludeFolders") == "true")


def object_lock(document: bytes | None) -> tuple[bool, Retention | None]:
    """Of `?object-lock`: whether there is a lock, and its default retention."""
    root = _root(document)
    if root is None:
        return False, None
    default = root.find("Rule/DefaultRetention")
    if default is None:
        return True, None
    days, years = default.findtext("Days"), default.findtext("Years")
    mode = (default.findtext("Mode") or "").lower()
    return True, Retention(mode, int(days or years or 0), "days" if days else "years")


def encrypted(document: bytes | None) -> str | None:
    """Of `?encryption`."""
    root = _root(document)
    rule = None if root is None else root.find("Rule/ApplyServerSideEncryptionByDefault")
    if rule is None:
        return None
    key = rule.findtext("KMSMasterKeyID")
    return f"kms:{(key or '').removeprefix('arn:aws:kms:')}" if rule.findtext("SSEAlgorithm") == "aws:kms" else "sse-s3"


def tagged(document: bytes | None) -> tuple[tuple[str, str], ...]:
    """Of `?tagging`."""
    root = _root(document)
    tags = [] if root is None else root.iterfind("TagSet/Tag")
    return tuple(sorted((one.findtext("Key") or "", one.findtext("Value") or "") for one in tags))


def notified(document: bytes | None) -> tuple[dict[str, Notification], dict[str, str]]:
    """Of `?notification`: queue configurations by id, and the XML of all configurations."""
    root = _root(document)
    found, texts = {}, {}
    for index, element in enumerate(root if root is not None else ()):
        name = element.findtext("Id") or f"#{index}"
        texts[name] = ET.tostring(element, encoding="unicode")
        if element.tag == "QueueConfiguration":
            found[name] = _notification(name, element)
    return found, texts


def _notification(name: str, element: ET.Element) -> Notification:
    rules = {
        (rule.findtext("Name") or "").lower(): rule.findtext("Value") or ""
        for rule in element.iterfind("Filter/S3Key/FilterRule")
    }
    events = tuple(sorted({event.text or "" for event in element.iterfind("Event")}))
    return Notification(name, element.findtext("Queue") or "", events, rules.get("prefix", ""), rules.get("suffix", ""))


def _root(document: bytes | None) -> ET.Element | None:
    return lifecycle.plain(ET.fromstring(document)) if document else None  # noqa: S314 - of the server that we administer


def versioning_document(versioning: Versioning) -> bytes:
    """As `?versioning` takes it."""
    inner = f"<Status>{versioning.status.capitalize()}</Status>"
    inner += "".join(f"<ExcludedPrefixes>{tag('Prefix', p)}</ExcludedPrefixes>" for p in versioning.excluded_prefixes)
    inner += "<ExcludeFolders>true</ExcludeFolders>" if versioning.exclude_folders else ""
    return _document("VersioningConfiguration", inner)


def retention_document(retention: Retention) -> bytes:
    """As `?object-lock` takes it."""
    rule = tag("Mode", retention.mode.upper()) + tag(retention.unit.capitalize(), retention.count)
    inner = f"<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>{rule}</DefaultRetention></Rule>"
    return _document("ObjectLockConfiguration", inner)


def encryption_document(encryption: str) -> bytes:
    """As `?encryption` takes it."""
    key = encryption.removeprefix("kms:") if encryption.startswith("kms:") else None
    algorithm = tag("SSEAlgorithm", "AES256" if key is None else "aws:kms") + tag("KMSMasterKeyID", key)
    default = f"<ApplyServerSideEncryptionByDefault>{algorithm}</ApplyServerSideEncryptionByDefault>"
    return _document("ServerSideEncryptionConfiguration", f"<Rule>{default}</Rule>")


def tags_document(tags: Iterable[tuple[str, str]]) -> bytes:
    """As `?tagging` takes it."""
    rows = "".join(f"<Tag>{tag('Key', key)}{tag('Value', value)}</Tag>" for key, value in tags)
    return _document("Tagging", f"<TagSet>{rows}</TagSet>")


def notification_document(texts: Iterable[str]) -> bytes:
    """As `?notification` takes it."""
    return _document("NotificationConfiguration", "".join(texts))


def notification_text(one: Notification) -> str:
    """One queue configuration as XML."""
    rules = [(name, value) for name, value in (("prefix", one.prefix), ("suffix", one.suffix)) if value]
    rows = "".join(f"<FilterRule>{tag('Name', name)}{tag('Value', value)}</FilterRule>" for name, value in rules)
    where = f"<Filter><S3Key>{rows}</S3Key></Filter>" if rows else ""
    events = "".join(tag("Event", event) for event in one.events)
    return f"<QueueConfiguration>{tag('Id', one.id)}{tag('Queue', one.arn)}{events}{where}</QueueConfiguration>"


def _document(name: str, inner: str) -> bytes:
    return f'<{name} xmlns="{XMLNS}">{inner}</{name}>'.encode()
