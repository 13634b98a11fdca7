"""The definition of an index, and how two of them differ on what is owned. Pure.

Both sides are the server's own words: what is declared went through `_simulate`, what is there through `GET`. Owned are the
settings that are named, components of the analysis as a whole, and fields as a whole: every parameter of a declared field,
but not fields and sub-fields that nobody declared (dynamic mapping, templates, suggesters).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from reconcilers.contract import Difference
from reconcilers.search.generations import MARK
from schemas.search import Index, Migration

ANALYSIS: Final = "index.analysis."
TIER: Final = "index.routing.allocation.include._tier_preference"
PRIVATE: Final = (
    "index.creation_date",
    "index.uuid",
    "index.version.created",
    "index.version.upgraded",
    "index.provided_name",
    "index.resize.source.name",
    "index.resize.source.uuid",
    "index.verified_before_close",
    "index.verified_read_only",
)
"""Settings of an index that nobody may set."""
_LISTS: Final = (
    "filter",
    "char_filter",
    "query.default_field",
    "sort.field",
    "sort.order",
    "sort.mode",
    "sort.missing",
)
_CHILDREN: Final = ("properties", "fields")
_ROOT_MAPS: Final = ("properties", "runtime")

TUNINGS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "ingest": {
            "index.refresh_interval": "30s",
            "index.translog.durability": "async",
            "index.translog.sync_interval": "10s",
            "index.translog.flush_threshold_size": "1gb",
        },
        "search": {
            "index.refresh_interval": "5s",
            "index.translog.durability": "request",
            "index.requests.cache.enable": "true",
            "index.search.idle.after": "10m",
        },
        "balanced": {"index.refresh_interval": "1s", "index.translog.durability": "request"},
    }
)
"""What each preset means. All dynamic: changing one's mind costs nothing."""


@dataclass(frozen=True, slots=True)
class Body:
    """Settings (flat, with `index.`), mappings and aliases."""

    settings: Mapping[str, Any]
    mappings: Mapping[str, Any]
    aliases: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Definition:
    """An index as it is declared."""

    alias: str
    body: Body
    digest: str
    migration: Migration
    backfill: bool
    notes: tuple[str, ...] = ()


def definition(name: str, value: Index) -> Definition:
    """The declaration, with its preset spelled out."""
    named = prefixed(flattened(value.settings)) | prefixed(flattened({"analysis": value.analysis}))
    preset = TUNINGS.get(value.tuning or "", {})
    added = {key: text for key, text in preset.items() if key not in named}
    aliases = {alias: props.model_dump(exclude_none=True) for alias, props in value.aliases.items()}
    body = Body({**added, **named}, value.mappings, aliases)
    notes = (f"tuning {value.tuning}: " + ", ".join(f"{k}={v}" for k, v in sorted(added.items())),) if added else ()
    return Definition(value.index or name, body, digest_of(body), value.migration, value.backfill, notes)


def digest_of(body: Body) -> str:
    """Identity of what makes an index what it is."""
    text = json.dumps([body.settings, body.mappings], sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- settings ----------------------------------------------------------------------------------------------------------


def flattened(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` → `{"a.b": 1}`. Lists and empty maps stay what they are, null means the default."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def prefixed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every name with `index.`."""
    return {name if name.startswith("index.") else f"index.{name}": value for name, value in settings.items()}


def same_setting(name: str, one: Any, other: Any) -> bool:
    """True when two values of a setting mean the same: a single value and a list of it, numbers and their text."""
    if any(name.endswith(f".{ending}") for ending in _LISTS):
        one, other = _listed(one), _listed(other)
    return bool(_text(one) == _text(other))


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _text(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_text(one) for one in value]
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None else str(value)


def component_of(setting: str) -> str | None:
    """`index.analysis.filter.de.` for a setting of the filter `de`; None for other settings."""
    if not setting.startswith(ANALYSIS):
        return None
    kind, _, rest = setting.removeprefix(ANALYSIS).partition(".")
    return f"{ANALYSIS}{kind}.{rest.partition('.')[0]}."


def changed_settings(wanted: Mapping[str, Any], held: Mapping[str, Any]) -> dict[str, Any]:
    """What to set so that everything named is as wanted; null for what is too much in a component of the analysis."""
    changed = {
        name: value for name, value in wanted.items() if name != TIER and not same_setting(name, value, held.get(name))
    }
    components = {component for name in wanted if (component := component_of(name))}
    for name in held:
        if name not in wanted and component_of(name) in components:
            changed[name] = None
    return changed


# --- mappings ----------------------------------------------------------------------------------------------------------


def differing_fields(
    wanted: Mapping[str, Any], held: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """(path, wanted, held) of each declared field that isn't as declared."""
    for name, field in wanted.items():
        here, there = f"{path}/{name}", held.get(name)
        if there is None:
            yield here, field, None
            continue
        mine, theirs = _parameters(field), _parameters(there)
        if mine != theirs:
            yield here, mine, theirs
        for children in _CHILDREN:
            yield from differing_fields(field.get(children, {}), there.get(children, {}), f"{here}/{children}")


def _parameters(field: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in field.items() if name not in _CHILDREN}


def differing_mappings(wanted: Mapping[str, Any], held: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The same for a whole mapping; parameters of the root are owned one by one."""
    for name, value in wanted.items():
        if name in _ROOT_MAPS:
            yield from differing_fields(value, held.get(name, {}), f"/{name}")
        elif name == "_meta":
            theirs = _unmarked(held.get(name, {}))
            if _unmarked(value) != theirs:
                yield "/_meta", value, theirs
        elif value != held.get(name):
            yield f"/{name}", value, held.get(name)


def _unmarked(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in meta.items() if name != MARK}


def new_fields(wanted: Mapping[str, Any], held: Mapping[str, Any]) -> tuple[str, ...]:
    """Declared fields and sub-fields that aren't there yet."""
    return tuple(path for path, _, theirs in differing_mappings(wanted, held) if theirs is None and "/" in path[1:])


def carried(wanted: Mapping[str, Any], held: Mapping[str, Any]) -> dict[str, Any]:
    """The wanted mapping with the fields of the old generation that nobody declared: dynamic ones keep their types."""
    whole = {**{k: v for k, v in held.items() if k != "_meta"}, **wanted}
    for name in _ROOT_MAPS:
        if name in wanted or name in held:
            whole[name] = _carried_fields(wanted.get(name, {}), held.get(name, {}))
    return whole


def _carried_fields(wanted: Mapping[str, Any], held: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: field for name, field in held.items() if name not in wanted}
    for name, field in wanted.items():
        old = held.get(name, {})
        children = {
            key: _carried_fields(field.get(key, {}), old.get(key, {}))
            for key in _CHILDREN
            if field.get(key) or (old.get(key) and _alike(field, old))
        }
        fields[name] = {**field, **children}
    return fields


def _alike(field: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """True when children of the old field make sense in the new one: objects and their like have properties, others fields."""
    return ("properties" in field or "type" not in field) == ("properties" in old or "type" not in old)


# --- both --------------------------------------------------------------------------------------------------------------


def differences(
    wanted: Body, settings: Mapping[str, Any], mappings: Mapping[str, Any], aliases: Mapping[str, Any]
) -> tuple[Difference, ...]:
    """Owned paths on which an index isn't as declared."""
    found = [
        Difference(f"/settings/{name.removeprefix('index.')}", value, settings.get(name))
        for name, value in sorted(changed_settings(wanted.settings, settings).items())
    ]
    found += [
        Difference(f"/mappings{path}", mine, theirs)
        for path, mine, theirs in differing_mappings(wanted.mappings, mappings)
    ]
    found += [
        Difference(f"/aliases/{alias}", properties, aliases.get(alias))
        for alias, properties in sorted(wanted.aliases.items())
        if not same_alias(properties, aliases.get(alias))
    ]
    return tuple(found)


def same_alias(wanted: Mapping[str, Any], held: Mapping[str, Any] | None) -> bool:
    """True when an alias is as wanted; which index is written to is nobody's declaration."""
    return held is not None and {k: v for k, v in held.items() if k != "is_write_index"} == dict(wanted)


def makeable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an index with which another one can be made."""
    return {
        name: value
        for name, value in settings.items()
        if name not in PRIVATE and not name.startswith(("index.blocks.", "index.version."))
    }
