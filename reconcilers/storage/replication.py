"""Replication: rules of a bucket, and the remote buckets that they copy to, as the server holds them. Pure.

A rule names its remote by an ARN that the server gave it, so a rule comes after its remote and goes before it. A bucket has
one remote at an endpoint. The export tells a remote's secret in clear: what leaves here is a digest of the login.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from reconcilers.storage.lifecycle import plain, tag
from schemas.secret import SecretRef
from schemas.storage import Destination
from schemas.storage import Replication as ReplicationValue

Place = tuple[str, str]
"""(endpoint, bucket)"""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `place`: where it copies to; None when nobody knows its remote any more."""

    id: str
    place: Place | None
    enabled: bool = True
    priority: int = 1
    prefix: str = ""
    delete_markers: bool = True
    deletes: bool = False
    existing_objects: bool = False
    beyond: str = ""
    """What the server holds beyond that, as XML: somebody else wrote it."""

    def shown(self) -> dict[str, Any]:
        """JSON."""
        endpoint, bucket = self.place or ("", "")
        return {
            "to": f"{endpoint}/{bucket}",
            "enabled": self.enabled,
            "priority": self.priority,
            "prefix": self.prefix,
            "delete_markers": self.delete_markers,
            "deletes": self.deletes,
            "existing_objects": self.existing_objects,
        } | ({"beyond": self.beyond} if self.beyond else {})


@dataclass(frozen=True, slots=True)
class Wanted:
    """A declared rule, and how the server logs in at its remote."""

    rule: Rule
    access_key: SecretRef
    secret_key: SecretRef


@dataclass(frozen=True, slots=True)
class Remote:
    """A remote bucket that the server knows. `login`: a digest; `current`: it is that of the declaration."""

    arn: str
    place: Place
    login: str = field(repr=False, default="")
    current: bool = True


@dataclass(frozen=True, slots=True)
class Held:
    """What the server holds of a bucket's replication."""

    rules: Mapping[str, Rule] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    """XML of each rule, in the server's order."""
    remotes: tuple[Remote, ...] = ()
    used: frozenset[str] = frozenset()
    """ARNs that rules name."""

    def remote(self, place: Place) -> Remote | None:
        """The remote at a place."""
        return next((one for one in self.remotes if one.place == place), None)


def declared(value: ReplicationValue) -> Wanted:
    """The declaration's canonical form."""
    rule = Rule(
        id=value.id,
        place=_place(value.to),
        enabled=value.enabled,
        priority=value.priority,
        prefix=value.prefix,
        delete_markers=value.delete_markers,
        deletes=value.deletes,
        existing_objects=value.existing_objects,
    )
    return Wanted(rule, value.to.access_key, value.to.secret_key)


def _place(to: Destination) -> Place:
    return to.endpoint, to.bucket


def parsed(rules: bytes | None, targets: bytes | None, digest: Callable[[str, str], str]) -> Held:
    """From `?replication` and the list of remotes; `digest` of access key and secret key."""
    remotes = tuple(_remotes(targets, digest))
    places = {one.arn: one.place for one in remotes}
    found, texts, used = {}, {}, set()
    root = plain(ET.fromstring(rules)) if rules else None  # noqa: S314 - of the server that we administer
    for element in root.iterfind("Rule") if root is not None else ():
        arn = element.findtext("Destination/Bucket") or ""
        rule = _rule(element, places.get(arn))
        found[rule.id] = rule
        texts[rule.id] = ET.tostring(element, encoding="unicode")
        used.add(arn)
    return Held(found, texts, remotes, frozenset(used))


def _remotes(document: bytes | None, digest: Callable[[str, str], str]) -> Iterable[Remote]:
    root = plain(ET.fromstring(document)) if document else None  # noqa: S314 - of the server that we administer
    for element in root.iterfind("Targets") if root is not None else ():
        if element.findtext("Type") != "replication":
            continue
        scheme = "https" if element.findtext("Secure") == "true" else "http"
        login = [element.findtext(f"Credentials/{name}") or "" for name in ("AccessKeyId", "SecretAccessKey")]
        place = (f"{scheme}://{element.findtext('Endpoint')}", element.findtext("TargetBucket") or "")
        yield Remote(element.findtext("Arn") or "", place, digest(*login))


def text(rule: Rule, arn: str) -> str:
    """The rule as XML."""
    rows = (
        ("DeleteMarkerReplication", rule.delete_markers),
        ("DeleteReplication", rule.deletes),
        ("ExistingObjectReplication", rule.existing_objects),
    )
    switches = "".join(f"<{name}>{tag('Status', _switch(on))}</{name}>" for name, on in rows)
    where = tag("Prefix", rule.prefix)
    head = tag("ID", rule.id) + tag("Status", _switch(rule.enabled)) + tag("Priority", rule.priority)
    to = f"<Destination>{tag('Bucket', arn)}</Destination>"
    return f"<Rule>{head}{switches}{to}<Filter>{where}</Filter></Rule>"


def document(texts: Iterable[str]) -> bytes:
    """Of rules as XML."""
    return f"<ReplicationConfiguration>{''.join(texts)}</ReplicationConfiguration>".encode()


def remote_target(bucket: str, place: Place, login: tuple[str, str], arn: str = "") -> dict[str, Any]:
    """What MinIO's admin API is told of a remote; it holds the secret, so it is sealed."""
    endpoint, target = place
    scheme, _, host = endpoint.partition("://")
    return {
        "sourcebucket": bucket,
        "endpoint": host,
        "credentials": {"accessKey": login[0], "secretKey": login[1]},
        "targetbucket": target,
        "secure": scheme == "https",
        "path": "auto",
        "api": "s3v4",
        "type": "replication",
        "healthCheckDuration": CHECKED_NS,
    } | ({"arn": arn} if arn else {})


CHECKED_NS: Final = 60 * 10**9
"""How often the server sees whether the remote is there."""
_KNOWN: Final = frozenset(
    {
        "ID",
        "Status",
        "Priority",
        "DeleteMarkerReplication",
        "DeleteReplication",
        "ExistingObjectReplication",
        "Destination",
        "Filter",
        "SourceSelectionCriteria",
    }
)
"""The last one the server adds by itself."""


def _rule(element: ET.Element, place: Place | None) -> Rule:
    strange = [child for child in element if child.tag not in _KNOWN]
    strange += [child for child in element.iterfind("Filter/*") if child.tag != "Prefix"]
    strange += [child for child in element.iterfind("Destination/*") if child.tag != "Bucket"]
    return Rule(
        id=element.findtext("ID") or "",
        place=place,
        enabled=element.findtext("Status") == "Enabled",
        priority=int(element.findtext("Priority") or 0),
        prefix=element.findtext("Filter/Prefix") or "",
        delete_markers=_on(element, "DeleteMarkerReplication"),
        deletes=_on(element, "DeleteReplication"),
        existing_objects=_on(element, "ExistingObjectReplication"),
        beyond="".join(ET.tostring(child, encoding="unicode") for child in strange),
    )


def _on(element: ET.Element, name: str) -> bool:
    return element.findtext(f"{name}/Status") == "Enabled"


def _switch(on: bool) -> str:  # noqa: FBT001 - it is what is said
    return "Enabled" if on else "Disabled"
