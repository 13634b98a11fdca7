"""JSON and YAML as the API takes them: strict, bounded, and with errors that say where.

Theory of operation. What Python's parsers forgive is refused, since the writer meant something else: duplicate names, NaN,
YAML dates. What could be made to cost more than its bytes is bounded: nesting, and what YAML aliases expand to. YAML is
scanned as events first, because the composer below recurses in C and deep nesting would end the process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

import yaml

from controlplane.domain.errors import Fault, Reason, Refused

MOST_LEVELS: Final = 64
MOST_NODES: Final = 1_000_000
"""Values in one body, aliases expanded: far above what 8 MB of declarations hold."""

MOST_ALIASES: Final = 1_000


class _Loader(yaml.CSafeLoader):
    """Safe YAML without dates: `2026-01-31` is text, as it is in JSON."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.CSafeDumper):
    """YAML without anchors: people read it."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        """Write every value out."""
        return True


def parse_json(data: bytes) -> Any:
    """One JSON value. Raises `Refused` (Malformed)."""
    try:
        return json.loads(_text(data), object_pairs_hook=_without_repeats, parse_constant=_not_json)
    except RecursionError:
        raise malformed("the JSON is nested too deeply") from None
    except json.JSONDecodeError as exc:
        raise malformed(f"not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}") from exc
    except ValueError as exc:
        raise malformed(f"not JSON: {exc}") from exc


def parse_yaml(data: bytes) -> list[Any]:
    """Every document of a YAML stream; empty ones are left out. Raises `Refused` (Malformed)."""
    text = _text(data)
    try:
        _scan(text)
        documents = [document for document in yaml.load_all(text, _Loader) if document is not None]
    except yaml.YAMLError as exc:
        raise malformed(f"not YAML: {_where(exc)}") from exc
    except (ValueError, TypeError, OverflowError, RecursionError) as exc:
        raise malformed(f"not YAML that can be read: {exc}") from exc
    _bounded(documents)
    return documents


def yaml_text(documents: Sequence[Any]) -> str:
    """The documents as one YAML stream that `parse_yaml` reads back."""
    text: str = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, explicit_start=True)
    return text


def malformed(detail: str, path: str = "") -> Refused:
    """The refusal of a body that can't be read."""
    return Refused(Reason.MALFORMED, detail, [Fault(path, detail)])


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise malformed(f"the body isn't UTF-8: byte {exc.start} is 0x{exc.object[exc.start]:02x}") from exc


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        repeated = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise malformed(f"the name {repeated!r} appears twice in one object: keep one of the two", f"/{repeated}")
    return made


def _not_json(constant: str) -> NoReturn:
    raise malformed(f"{constant} isn't JSON: leave the field out or write text")


def _scan(text: str) -> None:
    """Refuse what would be dangerous to compose, and names that appear twice."""
    aliases = 0
    open_maps: list[_Names | None] = []
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.AliasEvent):
            aliases += 1
            if aliases > MOST_ALIASES:
                raise malformed(f"more than {MOST_ALIASES} YAML aliases: write the values out")
        if isinstance(event, yaml.CollectionEndEvent):
            open_maps.pop()
        elif isinstance(event, yaml.NodeEvent):
            if open_maps and open_maps[-1] is not None:
                open_maps[-1].take(event)
            if isinstance(event, yaml.CollectionStartEvent):
                open_maps.append(_Names() if isinstance(event, yaml.MappingStartEvent) else None)
        if len(open_maps) > MOST_LEVELS:
            raise malformed(f"the YAML is nested deeper than {MOST_LEVELS} levels")


class _Names:
    """The names of one open mapping: every other node of it is a name."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._is_name = True

    def take(self, event: yaml.NodeEvent) -> None:
        """The next node of the mapping; raises `Refused` when it is a name that was there already."""
        if self._is_name and isinstance(event, yaml.ScalarEvent):
            if event.value in self._names:
                line = event.start_mark.line + 1 if event.start_mark else 0
                raise malformed(f"line {line}: the name {event.value!r} appears twice in one map", f"/{event.value}")
            self._names.add(event.value)
        self._is_name = not self._is_name


def _bounded(documents: list[Any]) -> None:
    """Refuse what aliases blow up: a few hundred bytes may stand for billions of values, or contain themselves."""
    waiting: list[tuple[Any, int]] = [(documents, 0)]
    count = 0
    while waiting:
        value, level = waiting.pop()
        count += 1
        if count > MOST_NODES or level > MOST_LEVELS + 1:
            raise malformed("the YAML aliases expand to too much: write the values out")
        waiting += [(inner, level + 1) for inner in _inside(value)]


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _where(exc: yaml.YAMLError) -> str:
    mark, problem = getattr(exc, "problem_mark", None), getattr(exc, "problem", None)
    if mark is None:
        return str(exc)
    return f"{problem} at line {mark.line + 1}, column {mark.column + 1}"
