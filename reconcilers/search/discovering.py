"""What exists, as declarations that converge without a write. Pure; indices are told by `indices`.

What the server has for itself is left out: reserved roles and users, names that begin with a dot, and what its metadata or
`_meta` says is managed. An alias of one index comes with its index; by itself it is told when it is asked for by its very
name. Suggesters are told by the sub-fields that a declared one would have made. Policies of snapshots are the daemon's own
notion: nothing on a server says how often, or how many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from reconcilers.contract import Discovered
from reconcilers.discovery import matches, setting_name
from reconcilers.search.documents import (
    CLUSTER_SETTINGS,
    COMPONENT_TEMPLATE,
    INDEX_TEMPLATE,
    LIFECYCLE,
    PIPELINE,
    REPOSITORY,
    ROLE,
    SCRIPT,
    SYNONYMS,
    USER,
    USER_MARK,
    rule_id,
)
from reconcilers.search.generations import alias_of_generation
from reconcilers.search.suggesters import SUFFIXES

Raw = Mapping[str, Any]
OWN_IDS: Final = "its rules have ids of their own: a declaration's have others, so that it would be written anew"
UNEQUAL: Final = "its filter or its routing differs from index to index"


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
            why = OWN_IDS if setting_type == SYNONYMS and not _is_ours(raw) else None
            found.append(Discovered(setting_name(name), value, fill_in, undeclarable=why))
    return found


def aliases(listing: Mapping[str, Mapping[str, Raw]], match: str) -> list[Discovered]:
    """Those of several indices. `listing`: index → alias → properties."""
    holding: dict[str, dict[str, Raw]] = {}
    for index, named in sorted(listing.items()):
        for alias, properties in named.items():
            if alias_of_generation(index) != alias:
                holding.setdefault(alias, {})[index] = properties
    found = []
    for alias, by_index in sorted(holding.items()):
        if matches(alias, match, reserved=alias.startswith(".") or len(by_index) == 1):
            found.append(_alias(alias, by_index))
    return found


def _alias(alias: str, by_index: Mapping[str, Raw]) -> Discovered:
    names = {index: alias_of_generation(index) or index for index in by_index}
    each = [{part: one for part, one in row.items() if part != "is_write_index"} for row in by_index.values()]
    written = [names[index] for index, row in by_index.items() if row.get("is_write_index")]
    value = {
        "alias": alias,
        "indices": sorted(set(names.values())),
        **each[0],
        **({"write_index": written[0]} if written else {}),
    }
    return Discovered(setting_name(alias), value, undeclarable=UNEQUAL if any(one != each[0] for one in each) else None)


def suggesters(mappings: Mapping[str, Raw], match: str) -> list[Discovered]:
    """Of each index that is so called: alias or name → mapping."""
    found = []
    for index, mapping in sorted(mappings.items()):
        if not matches(index, match, reserved=index.startswith(".")):
            continue
        for path, field in _fields(mapping):
            for kind, suffix in SUFFIXES.items():
                held = field.get("fields", {}).get(suffix, {})
                if held.get("type") == ("completion" if kind == "completion" else "text"):
                    parameters = {part: one for part, one in held.items() if part != "type"}
                    value = {"index": index, "field": path, "kind": kind, "mapping": parameters}
                    found.append(Discovered(setting_name(f"{index}-{path}-{kind}"), value))
    return found


def _fields(mapping: Raw, prefix: str = "") -> Iterator[tuple[str, Raw]]:
    """(dotted path, field), without sub-fields."""
    for name, field in mapping.get("properties", {}).items():
        yield f"{prefix}{name}", field
        yield from _fields(field, f"{prefix}{name}.")


def _is_ours(raw: Raw) -> bool:
    """Has every rule the id that a declaration would give it?"""
    return all(row["id"] == rule_id(row["synonyms"]) for row in raw["synonyms_set"])


def _is_reserved(name: str, raw: Raw) -> bool:
    marks = [raw.get(part) or {} for part in ("metadata", "_meta")] + [raw.get("policy", {}).get("_meta") or {}]
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


def _synonyms(_name: str, raw: Raw) -> dict[str, Any]:
    return {"rules": [row["synonyms"] for row in raw["synonyms_set"]]}


def _lifecycle(_name: str, raw: Raw) -> dict[str, Any]:
    return {"phases": raw["policy"].get("phases"), "meta": raw["policy"].get("_meta")}


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
    SYNONYMS: _synonyms,
    LIFECYCLE: _lifecycle,
    REPOSITORY: _repository,
    CLUSTER_SETTINGS: _cluster,
    ROLE: _role,
    USER: _user,
}
