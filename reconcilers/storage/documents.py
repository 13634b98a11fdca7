"""Lifecycle and policy documents of S3 (as `aws s3api` and `mc` write them) as declarations. Pure.

A lifecycle configuration doesn't say of which bucket it is: that is the name of the file. A policy with principals is one of
a bucket and names it; one without is a policy for users, and called as its file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from reconcilers.contract import Discovered, FileFormat
from reconcilers.discovery import setting_name
from reconcilers.manifests import listed, maps, part
from reconcilers.storage import logins, model

_ARN: Final = "arn:aws:s3:::"

Found = tuple[str, Discovered]


# --- lifecycle ---------------------------------------------------------------------------------------------------------


def read_lifecycle(text: str, name: str) -> Sequence[Found]:
    """The rules as those of the bucket with the file's name. Raises ValueError."""
    rules = [rule for document in maps(text) for rule in listed(document.get("Rules"))]
    if not all(isinstance(rule, Mapping) for rule in rules) or not rules:
        msg = "a lifecycle configuration is {Rules: [{ID, Status, Filter, Expiration, …}]}"
        raise ValueError(msg)
    told = [_rule(rule, number) for number, rule in enumerate(rules, start=1)]
    why = next((reason for _, reason in told if reason is not None), None)
    return [
        (model.BUCKET, Discovered(setting_name(name), _named(name, {"lifecycle": [rule for rule, _ in told]}), {}, why))
    ]


def _rule(rule: Mapping[str, Any], number: int) -> tuple[dict[str, Any], str | None]:
    """The rule, and why it can't be declared."""
    chosen = part(rule, "Filter")
    both = part(chosen, "And") or chosen
    tags = listed(both.get("Tags")) or listed(both.get("Tag"))
    expiration, noncurrent = part(rule, "Expiration"), part(rule, "NoncurrentVersionExpiration")
    transitions = listed(rule.get("Transitions")) or listed(rule.get("Transition"))
    found: dict[str, Any] = {
        "id": str(rule.get("ID") or f"rule-{number}"),
        "enabled": rule.get("Status") == "Enabled",
        "prefix": both.get("Prefix", rule.get("Prefix")),
        "tags": {str(tag.get("Key")): str(tag.get("Value")) for tag in tags if isinstance(tag, Mapping)} or None,
        "larger_than_bytes": both.get("ObjectSizeGreaterThan"),
        "smaller_than_bytes": both.get("ObjectSizeLessThan"),
        "expire_days": expiration.get("Days"),
        "expired_delete_marker": expiration.get("ExpiredObjectDeleteMarker"),
        "noncurrent_days": noncurrent.get("NoncurrentDays"),
        "noncurrent_keep": noncurrent.get("NewerNoncurrentVersions"),
        "abort_multipart_days": part(rule, "AbortIncompleteMultipartUpload").get("DaysAfterInitiation"),
    }
    if len(transitions) == 1 and isinstance(transitions[0], Mapping):
        found["transition"] = {"days": transitions[0].get("Days"), "tier": transitions[0].get("StorageClass")}
    given = {name: value for name, value in found.items() if value not in (None, "", False) or name == "id"}
    if found["enabled"] is False:
        given["enabled"] = False
    else:
        given.pop("enabled")
    return given, _undeclarable(found["id"], expiration, transitions, rule)


def _undeclarable(
    ident: str, expiration: Mapping[str, Any], transitions: list[Any], rule: Mapping[str, Any]
) -> str | None:
    if "Date" in expiration or any(isinstance(one, Mapping) and "Date" in one for one in transitions):
        return f"rule {ident} ends at a date, which can't be declared: use days"
    if len(transitions) > 1 or "NoncurrentVersionTransitions" in rule or "NoncurrentVersionTransition" in rule:
        return f"rule {ident} has transitions for which there is no word: declare one transition of current versions"
    return None


# --- policies ----------------------------------------------------------------------------------------------------------


def read_policy(text: str, name: str) -> Sequence[Found]:
    """A bucket's policy, or one for users. Raises ValueError."""
    found = [_policy(document, name) for document in maps(text) if "Statement" in document]
    if not found:
        msg = "a policy is {Version, Statement: [{Effect, Action, Resource}]}"
        raise ValueError(msg)
    return found


def _policy(document: Mapping[str, Any], name: str) -> Found:
    statements = [one for one in listed(document["Statement"]) if isinstance(one, Mapping)]
    if not any("Principal" in one or "NotPrincipal" in one for one in statements):
        setting, policy = setting_name(name), re.sub(r"[=,\s]+", "-", name)
        value = {} if setting == policy else {"policy": policy}
        return logins.POLICY, Discovered(setting, {**value, "document": dict(document)})
    buckets = {_bucket(str(arn)) for one in statements for arn in listed(one.get("Resource"))}
    if len(buckets) != 1:
        msg = f"a bucket's policy speaks of one bucket, this one of {', '.join(sorted(buckets)) or 'none'}"
        raise ValueError(msg)
    bucket = buckets.pop()
    return model.BUCKET, Discovered(setting_name(bucket), _named(bucket, {"access": {"policy": dict(document)}}))


def _bucket(arn: str) -> str:
    return arn.removeprefix(_ARN).partition("/")[0]


def _named(bucket: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {**({} if setting_name(bucket) == bucket else {"bucket": bucket}), **value}


def _recognises_lifecycle(text: str) -> bool:
    return '"Rules"' in text and '"Status"' in text


def _recognises_policy(text: str) -> bool:
    return '"Statement"' in text and '"Effect"' in text


FORMATS: Final = (
    FileFormat("s3_lifecycle", _recognises_lifecycle, read_lifecycle),
    FileFormat("s3_policy", _recognises_policy, read_policy),
)
