"""Are declarations sound? All faults of a document at once, each with a JSON pointer and what to do about it.

Validation happens before a change request is appended and never in the fold: replicas of different versions may know
different schemas, but must reach the same verdicts.

Messages name fields, types and bounds, never the offending value: it may be a secret that was written in the wrong place.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from controlplane.domain.changes import pointer, pointer_parts
from controlplane.domain.errors import Fault
from controlplane.domain.messages import closest, faults_of
from controlplane.domain.muting import mutes
from schemas.setting import Declaration

MOST_LEVELS: Final = 32
"""Deepest nesting of a declaration; the codec and everything that walks values can rely on it."""

_INT_RANGE: Final = range(-(2**63), 2**64)
"""What msgpack can hold."""


def check(
    declarations: Sequence[Any], kinds: Mapping[str, type[BaseModel]], prefix: str = ""
) -> tuple[list[Declaration], list[Fault]]:
    """The sound declarations, in order, and every fault; pointers begin with `{prefix}/{index}`."""
    sound: list[Declaration] = []
    faults: list[Fault] = []
    first: dict[tuple[str, str], str] = {}
    for index, document in enumerate(declarations):
        path = f"{prefix}/{index}"
        declaration, found = check_one(document, kinds, path)
        faults += found
        if declaration is None:
            continue
        other = first.setdefault((declaration.type, declaration.name), path)
        if other == path:
            sound.append(declaration)
        else:
            what = f"{declaration.type}/{declaration.name}"
            faults.append(Fault(f"{path}/name", f"{what} is declared at {other} already: keep one of the two"))
    return sound, faults


def check_one(
    document: Any, kinds: Mapping[str, type[BaseModel]], prefix: str = ""
) -> tuple[Declaration | None, list[Fault]]:
    """One declaration, or None and its faults; pointers begin with `prefix`."""
    if not isinstance(document, Mapping):
        return None, [Fault(prefix, "a declaration is a map with type, name and value")]
    faults = unstorable(document, prefix)
    if faults:
        return None, faults
    declaration: Declaration | None = None
    try:
        declaration = Declaration.model_validate(document)
    except ValidationError as exc:
        faults += [fault for fault in faults_of(exc, document, Declaration, prefix) if fault.path != f"{prefix}/type"]
    faults += _type_faults(document, kinds, prefix)
    model = kinds.get(document["type"]) if isinstance(document.get("type"), str) else None
    value = document.get("value")
    if model is not None and isinstance(value, Mapping):
        found = value_faults(value, model, f"{prefix}/value")
        faults += found
        if declaration is not None and not found:
            faults += _ignore_faults(declaration, model, prefix)
    if declaration is not None:
        faults += _reference_faults(declaration, kinds, prefix)
    return (None, faults) if faults else (declaration, [])


def value_faults(value: Mapping[str, Any], model: type[BaseModel], prefix: str = "") -> list[Fault]:
    """What is wrong with the value of a setting, or with the body of an operation."""
    try:
        model.model_validate(value)
    except ValidationError as exc:
        return faults_of(exc, value, model, prefix)
    return []


def unstorable(document: Any, prefix: str = "") -> list[Fault]:
    """What in a document isn't JSON that the log can hold: YAML dates, keys that aren't text, NaN, huge integers."""
    faults = []
    waiting = [(prefix, document, 0)]
    while waiting:
        path, value, level = waiting.pop()
        if level > MOST_LEVELS:
            return [Fault(path, f"nested deeper than {MOST_LEVELS} levels")]
        message = _unstorable(value)
        if message:
            faults.append(Fault(path, message))
        elif isinstance(value, Mapping):
            waiting += [(path + pointer(name), inner, level + 1) for name, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{path}/{index}", inner, level + 1) for index, inner in enumerate(value)]
    return sorted(faults)


def stored_body(declaration: Declaration) -> dict[str, Any]:
    """The body of the change record: the value exactly as it was written, and only what was written of the policy.

    Defaults aren't filled in: a later version may have better ones, and only what a user declared is owned.
    """
    return {
        "value": declaration.value,
        "labels": dict(declaration.labels),
        "depends_on": sorted(set(declaration.depends_on)),
        "policy": declaration.policy.model_dump(mode="json", exclude_unset=True, exclude_none=True),
    }


def owned_value(body: Mapping[str, Any], now: float | None = None) -> dict[str, Any]:
    """The value without the paths that the policy ignores at a time (Unix seconds; None: at any)."""
    value: dict[str, Any] = body["value"]
    ignored = mutes(body, now)
    if not ignored:
        return value
    value = copy.deepcopy(value)
    for mute in ignored:
        _remove(value, pointer_parts(mute.path))
    return value


def _type_faults(document: Mapping[str, Any], kinds: Mapping[str, type[BaseModel]], prefix: str) -> list[Fault]:
    kind = document.get("type")
    if kind is None:
        return [Fault(f"{prefix}/type", "is required, for example cache.namespace")]
    if isinstance(kind, str) and kind in kinds:
        return []
    return [
        Fault(f"{prefix}/type", f"unknown setting type{closest(kind, kinds)}; there are: {', '.join(sorted(kinds))}")
    ]


def _reference_faults(declaration: Declaration, kinds: Mapping[str, type[BaseModel]], prefix: str) -> list[Fault]:
    faults = []
    for index, reference in enumerate(declaration.depends_on):
        path, kind = f"{prefix}/depends_on/{index}", reference.partition("/")[0]
        if reference == f"{declaration.type}/{declaration.name}":
            faults.append(Fault(path, "a setting can't depend on itself: remove the reference"))
        elif kind not in kinds:
            faults.append(Fault(path, f"refers to an unknown setting type {kind!r}{closest(kind, kinds)}"))
    return faults


def _ignore_faults(declaration: Declaration, model: type[BaseModel], prefix: str) -> list[Fault]:
    """Each ignored path must be declared, and what is left must still be a value of its kind."""
    faults = []
    for index, one in enumerate(declaration.policy.ignore):
        place = f"{prefix}/policy/ignore/{index}"
        path, place = (one, place) if isinstance(one, str) else (one.path, f"{place}/path")
        message = _why_not_ignorable(declaration.value, path, model)
        if message:
            faults.append(Fault(place, message))
    rest = owned_value(stored_body(declaration))
    if not faults and value_faults(rest, model):
        faults.append(Fault(f"{prefix}/policy/ignore", "without all of these the value isn't valid: ignore fewer"))
    return faults


def _why_not_ignorable(value: Mapping[str, Any], path: str, model: type[BaseModel]) -> str | None:
    parts = pointer_parts(path)
    holder = _at(value, parts[:-1])
    if isinstance(holder, list):
        return "points at an element of a list: ignore the whole list or a field inside the element"
    if not isinstance(holder, Mapping) or parts[-1] not in holder:
        return "the value declares nothing at this path: remove it, or write the path as for example /ttl_s"
    if parts[0] in getattr(model, "always_owned", ()):
        return f"can't be ignored: without /{parts[0]} it would be owned as empty; pause the setting or report drift instead"
    left = copy.deepcopy(dict(value))
    _remove(left, parts)
    if value_faults(left, model):
        return "can't be ignored: the value isn't valid without it"
    return None


def _at(value: Any, parts: Sequence[str]) -> Any:
    for part in parts:
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _remove(value: dict[str, Any], parts: Sequence[str]) -> None:
    holder = _at(value, parts[:-1])
    if isinstance(holder, dict):
        holder.pop(parts[-1], None)


def _unstorable(value: Any) -> str | None:
    match value:
        case None | bool() | list():
            return None
        case int():
            return None if value in _INT_RANGE else "the number is too large: write it as text"
        case float():
            return None if value - value == 0 else "must be a finite number"
        case str():
            return None if _encodable(value) else "holds half a surrogate pair: not Unicode text"
        case Mapping():
            names_are_text = all(isinstance(name, str) and _encodable(name) for name in value)
            return None if names_are_text else "names in a map must be text: put them in quotes"
    return f"a {type(value).__name__} isn't a JSON value: put it in quotes"


def _encodable(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)
