"""Bodies as people send them. To `apply`: one declaration, a list, `{settings, prune, reason}`, or several of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from controlplane.domain.errors import Fault, Reason, Refused

FIELDS: Final = ("settings", "prune", "reason")

_DECLARES: Final = frozenset({"type", "name", "value"})


@dataclass(frozen=True, slots=True)
class Document:
    """All of a request to apply. `settings` are as they came: not yet checked."""

    settings: Sequence[Any] = field(default_factory=list)
    prune: Mapping[str, str] | None = None
    """Labels of what may be retired."""
    reason: str = ""


def document_of(parts: Sequence[Any]) -> Document:
    """The documents of a body taken together. Raises `Refused` (Malformed, Invalid) with every fault at once."""
    if not parts:
        raise Refused(Reason.MALFORMED, "the body holds no declaration", [Fault("", "is empty")])
    settings: list[Any] = []
    prune: Mapping[str, str] | None = None
    reason = ""
    for number, part in enumerate(parts):
        prefix = "" if len(parts) == 1 else f"/{number}"
        if isinstance(part, Mapping) and not _DECLARES & part.keys():
            settings += _settings(part, prefix)
            found = _prune(part, prefix)
            prune = prune if found is None else found
            reason = text_field(part, "reason", prefix) or reason
        elif isinstance(part, list):
            settings += part
        else:
            settings.append(part)
    return Document(settings, prune, reason)


def only_fields(part: Mapping[str, Any], known: Sequence[str], prefix: str = "") -> None:
    """Raise `Refused` (Malformed) naming every field that isn't known."""
    unknown = sorted(str(name) for name in part.keys() - set(known))
    if unknown:
        faults = [Fault(f"{prefix}/{name}", f"unknown field; known are {', '.join(known)}") for name in unknown]
        raise Refused(Reason.MALFORMED, f"unknown field: {', '.join(unknown)}", faults)


def text_field(part: Mapping[str, Any], name: str, prefix: str = "", most: int = 1000) -> str:
    """An optional text of a body. Raises `Refused` (Invalid)."""
    text = part.get(name, "")
    if not isinstance(text, str) or len(text) > most or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise _invalid(f"{prefix}/{name}", f"must be text of at most {most} letters")
    return text


def _settings(part: Mapping[str, Any], prefix: str) -> list[Any]:
    only_fields(part, FIELDS, prefix)
    settings = part.get("settings")
    if not isinstance(settings, list):
        raise _invalid(f"{prefix}/settings", "is required: a list of declarations")
    return settings


def _prune(part: Mapping[str, Any], prefix: str) -> Mapping[str, str] | None:
    prune = part.get("prune")
    if prune is None:
        return None
    if not isinstance(prune, Mapping):
        raise _invalid(f"{prefix}/prune", "is written {labels: {key: value}}")
    only_fields(prune, ("labels",), f"{prefix}/prune")
    labels = prune.get("labels")
    if not isinstance(labels, Mapping) or not all(isinstance(text, str) for pair in labels.items() for text in pair):
        raise _invalid(f"{prefix}/prune/labels", "is required: a map of text to text")
    return labels


def _invalid(path: str, message: str) -> Refused:
    return Refused(Reason.INVALID, f"{path} {message}", [Fault(path, message)])
