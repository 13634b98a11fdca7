"""Pydantic's errors in words that say what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from controlplane.domain.changes import pointer
from controlplane.domain.errors import Fault
from schemas.names import NAME_PATTERN, REFERENCE_PATTERN, TARGET_PATTERN
from schemas.secret import SecretRef

_PATTERNS: Final = {
    NAME_PATTERN: "must begin with a letter or digit and hold at most 128 letters, digits, '.', '_' and '-'",
    TARGET_PATTERN: "must be the name of a target, or tenant/name of one that another tenant shares",
    REFERENCE_PATTERN: "must be a reference type/name, for example cache.target/redis",
    r"^/": "must be a JSON pointer into the value, for example /ttl_s",
}

_TYPES: Final = {
    "string_type": "must be text",
    "dict_type": "must be a map",
    "model_type": "must be a map",
    "model_attributes_type": "must be a map",
    "mapping_type": "must be a map",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "set_type": "must be a list",
    "frozen_set_type": "must be a list",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "missing": "is required",
}

_SHOULD: Final = re.compile(r"^[A-Z][a-z]+ should ")

_SECRET: Final = "must be a reference to a secret, {from_env: NAME} or {from_file: PATH}; never the secret itself"  # noqa: S105


def faults_of(exc: ValidationError, document: Any, model: type[BaseModel], prefix: str = "") -> list[Fault]:
    """One fault a path, in document order; the alternatives of a union are joined by "or"."""
    found: dict[str, list[str]] = {}
    for error in exc.errors(include_url=False, include_input=False):
        parts = _path(error, document)
        if _only_short_of_faulty_items(error, document, parts):
            continue
        path = prefix + pointer(*parts)
        messages = found.setdefault(path, [])
        message = _message(error, model)
        if message not in messages:
            messages.append(message)
    return [Fault(path, ", or ".join(messages)) for path, messages in found.items()]


def closest(word: object, words: Iterable[str]) -> str:
    """`; did you mean 'x'?` when a known word is near."""
    near = get_close_matches(str(word), list(words), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _path(error: ErrorDetails, document: Any) -> list[str | int]:
    """The error's place without the tags that pydantic puts in for members of unions: they aren't in the document."""
    path: list[str | int] = []
    last = len(error["loc"]) - 1
    for index, part in enumerate(error["loc"]):
        if _holds(document, part):
            document = document[part]
        elif index != last or error["type"] != "missing":
            continue
        path.append(part)
    return path


def _only_short_of_faulty_items(error: ErrorDetails, document: Any, parts: list[str | int]) -> bool:
    """True for a list that is too short only because pydantic doesn't count its faulty items."""
    if error["type"] != "too_short":
        return False
    for part in parts:
        document = document[part]
    return bool(len(document) >= error["ctx"]["min_length"])


def _holds(document: Any, part: str | int) -> bool:
    if isinstance(document, list):
        return isinstance(part, int) and part < len(document)
    return isinstance(document, Mapping) and part in document


def _message(error: ErrorDetails, model: type[BaseModel]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        name = str(error["loc"][-1])
        return f"unknown field {name!r}{closest(name, _fields(_models_at(model, error['loc'][:-1])))}"
    if kind.startswith(("model", "dict", "mapping")) and SecretRef in _models_at(model, error["loc"]):
        return _SECRET
    if kind == "string_pattern_mismatch":
        text = _PATTERNS.get(context["pattern"], f"must match {context['pattern']}")
        return f"the name {text}" if error["loc"][-1] == "[key]" else text
    if kind == "value_error":
        return str(context["error"])
    return _TYPES.get(kind) or _reworded(error["msg"])


def _reworded(message: str) -> str:
    message = _SHOULD.sub("must ", message).replace(" after validation", "")
    return message[:1].lower() + message[1:]


def _models_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """The models that may stand at a place; indexes, map keys and union tags lead to the same candidates."""
    candidates = [model]
    for part in location:
        fields = [m.model_fields[part] for m in candidates if isinstance(part, str) and part in m.model_fields]
        if fields:
            candidates = [found for field in fields for found in _models_in(field.annotation)]
    return candidates


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _models_in(inner)]


def _fields(models: Iterable[type[BaseModel]]) -> list[str]:
    return [name for model in models for name in model.model_fields]
