"""Index and template documents of Elasticsearch, as its API gives and takes them, as declarations. Pure.

Read are: the answer of `GET /INDEX` (names on the outside), the body of `PUT /INDEX` (called as its file), the answer of
`GET /_index_template` and the body of `PUT /_index_template/NAME`. What the server put into the settings by itself is left
out: it can't be declared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from reconcilers.contract import Discovered, FileFormat
from reconcilers.discovery import setting_name
from reconcilers.manifests import listed, maps, part
from reconcilers.search import model
from reconcilers.search.definition import PRIVATE

TEMPLATE: Final = "search.index_template"
_TIER: Final = {"_tier_preference": "data_content"}
_DEFAULT_TIERS: Final[tuple[Any, ...]] = ({"allocation": {"include": _TIER}}, "data_content")
"""Where the server puts an index when nobody says anything."""
_PARTS: Final = frozenset({"settings", "mappings", "aliases"})

Found = tuple[str, Discovered]


def read(text: str, name: str) -> Sequence[Found]:
    """Every index and index template. Raises ValueError."""
    found = [one for document in maps(text) for one in _read(document, name)]
    if not found:
        msg = "an index is {settings, mappings, aliases}, a template {index_patterns, template}"
        raise ValueError(msg)
    return found


def _read(document: Mapping[str, Any], name: str) -> list[Found]:
    if "index_templates" in document:
        rows = [one for one in listed(document["index_templates"]) if isinstance(one, Mapping)]
        return [_template(str(row.get("name")), part(row, "index_template")) for row in rows]
    if "index_patterns" in document:
        return [_template(name, document)]
    if _PARTS & document.keys():
        return [_index(name, document)]
    indices = {index: body for index, body in document.items() if isinstance(body, Mapping) and _PARTS & body.keys()}
    return [_index(index, body) for index, body in sorted(indices.items())]


def _index(name: str, body: Mapping[str, Any]) -> Found:
    setting = setting_name(name)
    value: dict[str, Any] = {} if setting == name else {"index": name}
    parts = {
        "settings": _declarable(part(body, "settings")),
        "mappings": dict(part(body, "mappings")),
        "aliases": dict(part(body, "aliases")),
    }
    return model.INDEX, Discovered(setting, value | {field: held for field, held in parts.items() if held})


def _declarable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without what the server sets by itself; nested or flat, with or without `index`."""
    inner = part(settings, "index") or settings
    kept: dict[str, Any] = {}
    for field, held in inner.items():
        flat = field if field.startswith("index.") else f"index.{field}"
        if (
            flat not in PRIVATE
            and not any(one.startswith(f"{flat}.") for one in PRIVATE)
            and held not in _DEFAULT_TIERS
        ):
            kept[field] = held
    return kept


def _template(name: str, body: Mapping[str, Any]) -> Found:
    fields = {"template": "template", "composed_of": "composed_of", "priority": "priority", "version": "version"}
    value: dict[str, Any] = {"index_patterns": listed(body.get("index_patterns"))}
    value |= {field: body[given] for field, given in fields.items() if body.get(given)}
    value |= {"meta": body["_meta"]} if body.get("_meta") else {}
    return TEMPLATE, Discovered(setting_name(name), value)


def _recognises(text: str) -> bool:
    parts = ('"mappings"', '"settings"', '"index_patterns"')
    return any(one in text for one in parts) and '"Statement"' not in text


ELASTICSEARCH: Final = FileFormat("elasticsearch", _recognises, read)
