"""Lifecycle rules: the document as the server holds it, rule by rule. Pure.

The server keeps a rule as it was sent, so both sides are parsed into the same form. What this module doesn't know of a
foreign rule is kept as text and sent again as it came.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from xml.sax.saxutils import escape

from schemas.storage import LifecycleRule

DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Equal rules are the same to the server."""

    id: str
    enabled: bool = True
    prefix: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    larger_than_bytes: int | None = None
    smaller_than_bytes: int | None = None
    expire_days: int | None = None
    noncurrent_days: int | None = None
    noncurrent_keep: int | None = None
    expired_delete_marker: bool = False
    transition: tuple[int, str] | None = None
    """(days, tier)"""
    beyond: str = ""
    """What the server holds beyond that, as XML: somebody else wrote it."""

    def shown(self) -> dict[str, Any]:
        """JSON, without what is at its default."""
        rows = {
            "prefix": self.prefix,
            "tags": dict(self.tags),
            "larger_than_bytes": self.larger_than_bytes,
            "smaller_than_bytes": self.smaller_than_bytes,
            "expire_days": self.expire_days,
            "noncurrent_days": self.noncurrent_days,
            "noncurrent_keep": self.noncurrent_keep,
            "expired_delete_marker": self.expired_delete_marker,
            "transition": None if self.transition is None else list(self.transition),
            "beyond": self.beyond,
        }
        return {"enabled": self.enabled} | {name: value for name, value in rows.items() if value}

    @property
    def removes(self) -> bool:
        """It removes versions of objects once they are old enough."""
        return self.enabled and not self.beyond and any((self.expire_days, self.noncurrent_days, self.noncurrent_keep))


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a bucket as the server holds them."""

    rules: Mapping[str, Rule] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    """XML of each, in the server's order."""


def declared(rule: LifecycleRule) -> Rule:
    """The declaration's canonical form."""
    return Rule(
        id=rule.id,
        enabled=rule.enabled,
        prefix=rule.prefix,
        tags=tuple(sorted(rule.tags.items())),
        larger_than_bytes=rule.larger_than_bytes,
        smaller_than_bytes=rule.smaller_than_bytes,
        expire_days=rule.expire_days,
        noncurrent_days=rule.noncurrent_days,
        noncurrent_keep=rule.noncurrent_keep,
        expired_delete_marker=rule.expired_delete_marker,
        transition=None if rule.transition is None else (rule.transition.days, rule.transition.tier),
    )


def parsed(document: bytes | None) -> Rules:
    """The document of the server; no rules when there is none."""
    if not document:
        return Rules()
    rules, texts = {}, {}
    for element in plain(ET.fromstring(document)).iterfind("Rule"):  # noqa: S314 - of the server that we administer
        rule = _rule(element)
        rules[rule.id] = rule
        texts[rule.id] = ET.tostring(element, encoding="unicode")
    return Rules(rules, texts)


def document(texts: Iterable[str]) -> bytes:
    """Of rules as XML."""
    return f"<LifecycleConfiguration>{''.join(texts)}</LifecycleConfiguration>".encode()


def text(rule: Rule) -> str:
    """The rule as XML."""
    expiration = tag("Days", rule.expire_days) + tag(
        "ExpiredObjectDeleteMarker", "true" if rule.expired_delete_marker else None
    )
    noncurrent = tag("NoncurrentDays", rule.noncurrent_days) + tag("NewerNoncurrentVersions", rule.noncurrent_keep)
    transition = ""
    if rule.transition is not None:
        days, tier = rule.transition
        transition = f"<Transition><Days>{days}</Days><StorageClass>{escape(tier)}</StorageClass></Transition>"
    return (
        f"<Rule>{tag('ID', rule.id)}<Status>{'Enabled' if rule.enabled else 'Disabled'}</Status>{_filter(rule)}"
        + (f"<Expiration>{expiration}</Expiration>" if expiration else "")
        + transition
        + (f"<NoncurrentVersionExpiration>{noncurrent}</NoncurrentVersionExpiration>" if noncurrent else "")
        + "</Rule>"
    )


def tag(name: str, value: object | None) -> str:
    """An element with a text, nothing for None."""
    return "" if value is None else f"<{name}>{escape(str(value))}</{name}>"


def plain(root: ET.Element) -> ET.Element:
    """The same tree without namespaces."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _filter(rule: Rule) -> str:
    sizes = tag("ObjectSizeGreaterThan", rule.larger_than_bytes) + tag("ObjectSizeLessThan", rule.smaller_than_bytes)
    tags = "".join(f"<Tag>{tag('Key', key)}{tag('Value', value)}</Tag>" for key, value in rule.tags)
    prefix = tag("Prefix", rule.prefix or None)
    conditions = len(rule.tags) + bool(prefix) + bool(rule.larger_than_bytes) + bool(rule.smaller_than_bytes)
    if conditions > 1:
        return f"<Filter><And>{sizes}{prefix}{tags}</And></Filter>"
    return f"<Filter>{sizes}{tags}{prefix or ('' if conditions else '<Prefix></Prefix>')}</Filter>"


_KNOWN: Final = {"ID", "Status", "Filter", "Prefix", "Expiration", "NoncurrentVersionExpiration", "Transition"}
_KNOWN_WITHIN: Final = {
    "Expiration": {"Days", "ExpiredObjectDeleteMarker"},
    "NoncurrentVersionExpiration": {"NoncurrentDays", "NewerNoncurrentVersions"},
    "Transition": {"Days", "StorageClass"},
}


def _rule(element: ET.Element) -> Rule:
    conditions = element.find("Filter/And")
    if conditions is None:
        conditions = element.find("Filter")
    where = conditions if conditions is not None else element
    tier = element.findtext("Transition/StorageClass")
    return Rule(
        id=element.findtext("ID") or "",
        enabled=element.findtext("Status") == "Enabled",
        prefix=where.findtext("Prefix") or "",
        tags=tuple(sorted((one.findtext("Key") or "", one.findtext("Value") or "") for one in where.iterfind("Tag"))),
        larger_than_bytes=_number(where, "ObjectSizeGreaterThan"),
        smaller_than_bytes=_number(where, "ObjectSizeLessThan"),
        expire_days=_number(element, "Expiration/Days"),
        noncurrent_days=_number(element, "NoncurrentVersionExpiration/NoncurrentDays"),
        noncurrent_keep=_number(element, "NoncurrentVersionExpiration/NewerNoncurrentVersions"),
        expired_delete_marker=element.findtext("Expiration/ExpiredObjectDeleteMarker") == "true",
        transition=None if tier is None else (_number(element, "Transition/Days") or 0, tier),
        beyond=_beyond(element),
    )


def _beyond(element: ET.Element) -> str:
    found = []
    for child in element:
        known_within = _KNOWN_WITHIN.get(child.tag)
        strange = known_within is not None and any(inner.tag not in known_within for inner in child)
        if child.tag not in _KNOWN or strange:
            found.append(ET.tostring(child, encoding="unicode"))
    return "".join(found)


def _number(element: ET.Element, path: str) -> int | None:
    found = element.findtext(path)
    return int(found) if found else None


# --- what a rule would do today ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object, as a listing names it, newest first for each key."""

    key: str
    size_bytes: int
    modified: float
    """Unix seconds."""
    latest: bool = True
    delete_marker: bool = False


@dataclass(frozen=True, slots=True)
class Expiring:
    """What a rule would remove today. `complete` False: of those that were looked at; there are more."""

    objects: int = 0
    size_bytes: int = 0
    complete: bool = True

    def said(self) -> str:
        """For people."""
        most = "" if self.complete else "at least "
        return f"{most}{self.objects} objects, {self.size_bytes} bytes"


def expiring(rule: Rule, versions: Iterable[Version], now: float, *, complete: bool) -> Expiring:
    """What the rule would remove of these versions now. Days end at midnight UTC, as the server counts them. Tags aren't
    in a listing: a rule with tags is taken as if all objects had them."""
    sizes = [version.size_bytes for version in removed((rule,), versions, now)]
    return Expiring(len(sizes), sum(sizes), complete)


def removed(rules: Sequence[Rule], versions: Iterable[Version], now: float) -> Iterator[Version]:
    """Those of the versions that one of the rules removes by then."""
    newer, key, since = 0, "", now
    for version in versions:
        newer, since = (newer, since) if version.key == key else (0, now)
        key = version.key
        if any(_matches(rule, version) and _is_over(rule, version, since, newer, now) for rule in rules):
            yield version
        newer += not version.latest
        since = version.modified


def _matches(rule: Rule, version: Version) -> bool:
    larger, smaller = rule.larger_than_bytes, rule.smaller_than_bytes
    return (
        version.key.startswith(rule.prefix)
        and (larger is None or version.size_bytes > larger)
        and (smaller is None or version.size_bytes < smaller)
    )


def _is_over(rule: Rule, version: Version, since: float, newer: int, now: float) -> bool:
    """`since`: when a noncurrent version was replaced; `newer`: noncurrent versions that are newer."""
    if version.latest:
        return (
            not version.delete_marker
            and rule.expire_days is not None
            and _due(version.modified, rule.expire_days) <= now
        )
    if rule.noncurrent_days is None and rule.noncurrent_keep is None:
        return False
    old = rule.noncurrent_days is None or _due(since, rule.noncurrent_days) <= now
    return old and newer >= (rule.noncurrent_keep or 0)


def _due(since: float, days: int) -> float:
    """The first midnight (UTC) that is so many days later."""
    day = datetime.fromtimestamp(since, UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    return day + (days + 1) * DAY_S
