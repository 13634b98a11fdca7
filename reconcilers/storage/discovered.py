"""What exists on a server, as declarations. Pure.

Secrets can't be declared, so a declaration names where they are: a file that a person fills. Policies that come with MinIO
and the server's parameters, of which nobody knows which somebody has set, are left out unless they are named.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from reconcilers.contract import Discovered
from reconcilers.discovery import setting_name
from reconcilers.storage import policies
from reconcilers.storage.lifecycle import Rule
from reconcilers.storage.logins import HeldGroup, HeldKey, HeldUser
from reconcilers.storage.model import HeldBucket
from reconcilers.storage.policies import Policy

BUILT_IN: Final = frozenset({"consoleAdmin", "diagnostics", "readonly", "readwrite", "writeonly"})


def bucket(name: str, held: HeldBucket) -> Discovered:
    """A bucket. Rules that there are no words for stay as they are, since nobody owns them."""
    value: dict[str, Any] = _named("bucket", name)
    if held.versioning.status != "off":
        value |= held.versioning.shown()
    if held.object_lock:
        value["object_lock"] = True
    if held.retention is not None:
        value["retention"] = held.retention.shown()
    rules = [_rule(rule) for rule in held.rules.rules.values() if not rule.beyond]
    value |= {"lifecycle": rules} if rules else {}
    if held.encryption is not None:
        key = held.encryption.removeprefix("kms:")
        value["encryption"] = {"kms_key": key} if held.encryption.startswith("kms:") else held.encryption
    value |= {"quota_bytes": held.quota_bytes} if held.quota_bytes else {}
    value |= {"tags": dict(held.tags)} if held.tags else {}
    value["access"] = _access(name, held.access)
    if held.notifications:
        value["notifications"] = [{"id": name, **one.shown()} for name, one in held.notifications.items()]
    return Discovered(setting_name(name), value)


def policy(name: str, held: Policy) -> Discovered:
    """A policy."""
    return Discovered(setting_name(name), {**_named("policy", name), "document": held.document()})


def user(name: str, held: HeldUser) -> Discovered:
    """A user. The groups tell their members; a membership has one owner."""
    return _with_secret(name, {"enabled": held.enabled, "policies": sorted(held.policies)})


def group(name: str, held: HeldGroup) -> Discovered:
    """A group."""
    rows = {"enabled": held.enabled, "members": sorted(held.members), "policies": sorted(held.policies)}
    return Discovered(setting_name(name), {**_named("group", name), **rows})


def access_key(name: str, held: HeldKey) -> Discovered:
    """An access key."""
    value: dict[str, Any] = {"user": held.user, "enabled": held.enabled}
    if held.policy is not None:
        value["policy"] = held.policy.document()
    if held.expires_at is not None:
        value["expires_at"] = datetime.fromtimestamp(held.expires_at, UTC).isoformat().replace("+00:00", "Z")
    value |= {"description": held.description} if held.description else {}
    return _with_secret(name, value)


def _with_secret(name: str, value: dict[str, Any]) -> Discovered:
    place = f"secrets/{setting_name(name)}"
    told = f"its secret key, which isn't told, in the file {place} of the daemon's data directory"
    named = _named("access_key", name)
    return Discovered(setting_name(name), {**named, "secret_key": {"from_file": place}, **value}, {"/secret_key": told})


def _named(field: str, name: str) -> dict[str, Any]:
    return {} if setting_name(name) == name else {field: name}


def _rule(rule: Rule) -> dict[str, Any]:
    shown = {"id": rule.id, **rule.shown()}
    if rule.transition is not None:
        shown["transition"] = {"days": rule.transition[0], "tier": rule.transition[1]}
    return shown


def _access(name: str, held: Policy) -> Any:
    if held == policies.NOTHING:
        return "private"
    for word, write in (("public-read", False), ("public-read-write", True)):
        if held == policies.public(name, write=write):
            return word
    return {"policy": held.document()}
