"""Files of other tools as documents: YAML and JSON, read safely. Pure.

YAML with aliases is refused: a few hundred bytes of it may stand for billions of values, and exports don't hold any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import yaml

MOST_LEVELS: Final = 64


class _Loader(yaml.SafeLoader):
    """Safe YAML without dates: `2026-01-31` is text, as it is in JSON."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def documents(text: str) -> list[Any]:
    """Every document of a YAML or JSON text that isn't empty. Raises ValueError with the line."""
    try:
        _scan(text)
        return [document for document in yaml.load_all(text, _Loader) if document is not None]
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        msg = f"{where}{getattr(exc, 'problem', None) or 'not YAML'}"
        raise ValueError(msg) from exc
    except RecursionError as exc:
        msg = "nested too deeply"
        raise ValueError(msg) from exc


def maps(text: str) -> list[Mapping[str, Any]]:
    """The documents that are maps; Kubernetes lists are taken apart. Raises ValueError."""
    found: list[Mapping[str, Any]] = []
    for document in documents(text):
        if isinstance(document, Mapping) and document.get("kind") == "List":
            found += [item for item in document.get("items") or () if isinstance(item, Mapping)]
        elif isinstance(document, Mapping):
            found.append(document)
    return found


def part(document: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The map at a place; empty when there is none."""
    found: Any = document
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def listed(value: Any) -> list[Any]:
    """A list as it is, one thing as a list of one, nothing as none."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _scan(text: str) -> None:
    level = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1 if event.start_mark else 0
            msg = f"line {line}: YAML aliases aren't read: write the values out"
            raise ValueError(msg)  # noqa: TRY004 - the text is wrong, no argument's type
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > MOST_LEVELS:
            msg = f"nested deeper than {MOST_LEVELS} levels"
            raise ValueError(msg)
