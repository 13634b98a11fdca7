"""Would documents that an older schema allowed still be allowed? A conservative, pure comparison of two JSON Schemas.

Incompatible: a property that went, a newly required property, a narrower type, enum,
pattern or bound, a lost alternative. Whatever it can't compare counts as incompatible when it differs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

Schema = Mapping[str, Any]

_LOWER: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_EXACT: Final = ("pattern", "format", "const", "multipleOf", "uniqueItems")
_ANNOTATIONS: Final = ("title", "description", "default", "examples", "deprecated", "$id", "$schema", "$defs")


def incompatibilities(old: Schema, new: Schema) -> list[str]:
    """What the new schema no longer allows, as `path: what`; empty when every old document is still good."""
    return sorted(set(_Comparison(old, new).compare("", old, new)))


class _Comparison:
    """Holds the two roots, where `$ref` leads."""

    def __init__(self, old_root: Schema, new_root: Schema) -> None:
        self._old_root, self._new_root = old_root, new_root
        self._under_way: set[tuple[str, str]] = set()

    def compare(self, path: str, old: Any, new: Any) -> Iterator[str]:
        """Differences that refuse what was allowed; recursive schemas are followed once."""
        pair = (_reference(old), _reference(new))
        if any(pair):
            if pair in self._under_way:
                return
            self._under_way.add(pair)
            yield from self._resolved(path, _resolve(self._old_root, old), _resolve(self._new_root, new))
            self._under_way.discard(pair)
        else:
            yield from self._resolved(path, old, new)

    def _resolved(self, path: str, old: Any, new: Any) -> Iterator[str]:
        if new is True or (new == old and not _refers(old)):
            return
        if not isinstance(old, Mapping) or not isinstance(new, Mapping):
            yield f"{path or '/'}: was {_word(old)}, is {_word(new)}"
            return
        olds, news = _alternatives(old), _alternatives(new)
        if len(olds) > 1 or len(news) > 1:
            yield from self._alternatives(path, olds, news)
            return
        yield from _narrowed(path, old, new)
        yield from self._members(path, old, new)

    def _alternatives(self, path: str, olds: Sequence[Any], news: Sequence[Any]) -> Iterator[str]:
        """Each old alternative must be covered by one of the new."""
        for index, old in enumerate(olds):
            trials = [list(_Comparison(self._old_root, self._new_root).compare(path, old, new)) for new in news]
            if all(trials):
                yield f"{path or '/'}: alternative {index} ({_word(old)}) is no longer allowed"

    def _members(self, path: str, old: Schema, new: Schema) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        for name in before:
            if name in after:
                yield from self.compare(f"{path}/{name}", before[name], after[name])
            else:
                yield f"{path}/{name}: property removed"
        for name in set(new.get("required", ())) - set(old.get("required", ())):
            yield f"{path}/{name}: newly required"
        for keyword, mark in (("items", "*"), ("additionalProperties", "*"), ("propertyNames", "{name}")):
            if keyword in new:
                yield from self.compare(f"{path}/{mark}", old.get(keyword, True), new[keyword])


def _narrowed(path: str, old: Schema, new: Schema) -> Iterator[str]:
    where = path or "/"
    if not _types(old) <= _types(new):
        yield f"{where}: type narrowed from {_word(old)} to {_word(new)}"
    if "enum" in new and not _values(old) <= _values(new):
        yield f"{where}: enum narrowed"
    for keyword in _EXACT:
        if keyword in new and new[keyword] != old.get(keyword):
            yield f"{where}: {keyword} changed"
    for keyword in _LOWER:
        if keyword in new and (keyword not in old or new[keyword] > old[keyword]):
            yield f"{where}: {keyword} raised"
    for keyword in _UPPER:
        if keyword in new and (keyword not in old or new[keyword] < old[keyword]):
            yield f"{where}: {keyword} lowered"
    yield from _uncomparable(where, old, new)


def _uncomparable(where: str, old: Schema, new: Schema) -> Iterator[str]:
    known = {*_LOWER, *_UPPER, *_EXACT, *_ANNOTATIONS, "type", "enum", "properties", "required", "items"}
    known |= {"additionalProperties", "propertyNames", "anyOf", "oneOf", "discriminator", "$ref"}
    for keyword in sorted((old.keys() | new.keys()) - known):
        if keyword in new and old.get(keyword) != new[keyword]:
            yield f"{where}: {keyword} changed"


def _values(schema: Schema) -> set[str]:
    """What an enum or a const allows; an old schema without either allows more than any enum."""
    allowed = schema.get("enum") or ([schema["const"]] if "const" in schema else ["\0 anything else"])
    return {json.dumps(value) for value in allowed}


def _types(schema: Schema) -> set[str]:
    named = schema.get("type", ["null", "boolean", "integer", "number", "string", "array", "object"])
    types = {named} if isinstance(named, str) else set(named)
    return types | {"integer"} if "number" in types else types


def _alternatives(schema: Schema) -> Sequence[Any]:
    found: Sequence[Any] = schema.get("anyOf") or schema.get("oneOf") or (schema,)
    return found


def _reference(schema: Any) -> str:
    return str(schema.get("$ref", "")) if isinstance(schema, Mapping) else ""


def _refers(schema: Any) -> bool:
    return "$ref" in repr(schema)


def _resolve(root: Schema, schema: Any) -> Any:
    reference = _reference(schema)
    if not reference:
        return schema
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return _resolve(root, found)


def _word(schema: Any) -> str:
    if not isinstance(schema, Mapping):
        return "anything" if schema is True else "nothing"
    return _reference(schema).rpartition("/")[2] or str(schema.get("type", schema.get("const", "anything")))
