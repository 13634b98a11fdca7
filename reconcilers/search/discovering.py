"""What exists, as declarations that converge without a write. Pure; indices are told by `indices`.

What the server has for itself is left out: reserved roles and users, names that begin with a dot, and what its metadata or
`_meta` says is managed. Policies of snapshots and suggesters are the daemon's own notions: nobody else made any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from reconcilers.contract import Discovered
from reconcilers.discovery import matches, setting_name
from reconcilers.search.documents import (
    CLUSTER_SETTINGS,
    COMPONENT_TEMPLATE,
    INDEX_TEMPLATE,
    PIPELINE,
    REPOSITORY,
    ROLE,
    SCRIPT,
    USER,
    USER_MARK,
)

Raw = Mapping[str, Any]


def discovered(setting_type: str, listed: Mapping[str, Raw], match: str) -> list[Discovered]:
    """The declarations of what was listed."""
    value_of = _VALUES.get(setting_type)
    if value_of is None:
        return []
    found = []
    for name, raw in sorted(listed.items()):
        if matches(name, match, reserved=_is_reserved(name, raw)):
            value = {part: one for part, one in value_of(name, raw).items() if one not in (None, [], {}, ())}
            fill_in = {"/password": f"a reference to {name}'s password, to own it"} if setting_type == USER else {}
            found.append(Discovered(setting_name(name), value, fill_in))
    return found


def _is_reserved(name: str, raw: Raw) -> bool:
    marks = [raw.get(part) or {} for part in ("metadata", "_meta")]
    return name.startswith(".") or any(one.get("_reserved") or one.get("managed") for one in marks)


def _template(_name: str, raw: Raw) -> dict[str, Any]:
    return {"template": raw.get("template", {}), "version": raw.get("version"), "meta": raw.get("_meta")}


def _component(name: str, raw: Raw) -> dict[str, Any]:
    return {**_template(name, raw), "template": raw.get("template") or {"settings": {}}}


def _index_template(name: str, raw: Raw) -> dict[str, Any]:
    parts = {part: raw.get(part) for part in ("index_patterns", "composed_of", "priority")}
    return {**parts, **_template(name, raw)}


def _pipeline(_name: str, raw: Raw) -> dict[str, Any]:
    parts = {part: raw.get(part) for part in ("description", "processors", "on_failure", "version")}
    return {**parts, "meta": raw.get("_meta")}


def _script(_name: str, raw: Raw) -> dict[str, Any]:
    return {part: raw.get(part) for part in ("lang", "source", "options")}


def _repository(_name: str, raw: Raw) -> dict[str, Any]:
    settings = {part.removeprefix("settings/"): one for part, one in raw.items() if part.startswith("settings/")}
    return {"kind": raw["type"], "settings": settings}


def _cluster(_name: str, raw: Raw) -> dict[str, Any]:
    return {"settings": dict(raw)}


def _role(_name: str, raw: Raw) -> dict[str, Any]:
    return {part: raw.get(part) for part in ("cluster", "indices", "applications", "run_as", "metadata")}


def _user(name: str, raw: Raw) -> dict[str, Any]:
    metadata = {part: one for part, one in raw["metadata"].items() if part != USER_MARK}
    parts = {part: raw.get(part) for part in ("roles", "full_name", "email")}
    return {**parts, "username": name, "enabled": raw["enabled"], "metadata": metadata}


_VALUES: Final = {
    COMPONENT_TEMPLATE: _component,
    INDEX_TEMPLATE: _index_template,
    PIPELINE: _pipeline,
    SCRIPT: _script,
    REPOSITORY: _repository,
    CLUSTER_SETTINGS: _cluster,
    ROLE: _role,
    USER: _user,
}
