"""Declarations out of files: many YAML documents, JSON, directories of both, or standard input.

Each keeps its place (file, document number, line) so that a complaint of the daemon about `/settings/3/value/x` can be
told as one about the person's file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from controlplane.cli.failure import Failure

SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"

_IN_APPLY = re.compile(r"^/settings/(\d+)(/.*)?$")


@dataclass(frozen=True, slots=True)
class Document:
    """A declaration and where it was read."""

    declaration: dict[str, Any]
    place: str
    """`shop.yaml document 3, line 41`"""

    @property
    def reference(self) -> str:
        """`type/name`"""
        return f"{self.declaration.get('type')}/{self.declaration.get('name')}"


class JsonLoader(yaml.SafeLoader):
    """YAML as far as JSON goes: no dates (they stay text), no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        """A map with text keys, each once."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = f"the key {key!r} isn't text; quote it"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in seen:
                problem = f"the key {key!r} stands here twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


JsonLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load(sources: Sequence[str], stdin: str | None = None) -> list[Document]:
    """Every declaration of the files, directories and `-` (`stdin`), in order. Failure with every place at fault."""
    documents = [document for source in sources for document in _from_source(source, stdin)]
    if not documents:
        msg = f"no declaration in {', '.join(sources)}"
        raise Failure(msg, hint="a declaration has at least type, name and value")
    faults = [*_unnamed(documents), *_repeated(documents)]
    if faults:
        msg = f"{len(faults)} of {len(documents)} declarations can't be sent"
        raise Failure(msg, faults=tuple(faults))
    return documents


def parse(text: str, source: str) -> list[Document]:
    """The declarations in a text. A document may also be a list of them, or `{settings: [...]}`."""
    documents: list[Document] = []
    for number, (line, content) in enumerate(_contents(text, source), start=1):
        if content is None:
            continue
        place = f"{source} document {number}, line {line}"
        documents += _declarations(content, place)
    return documents


def placed(path: str, documents: Sequence[Document]) -> str:
    """A path of the daemon's complaint, told as a place in the files."""
    match = _IN_APPLY.match(path)
    if match is None or int(match[1]) >= len(documents):
        return path
    document = documents[int(match[1])]
    return f"{document.place} ({document.reference}) {match[2] or ''}".rstrip()


def _from_source(source: str, stdin: str | None) -> Iterator[Document]:
    if source == STDIN:
        yield from parse(stdin or "", "standard input")
        return
    for file in _files(Path(source)):
        yield from parse(_read(file), str(file))


def text_of(source: str, stdin: str | None) -> str:
    """The whole of a file, or of standard input for `-`. Failure when it can't be read."""
    return (stdin or "") if source == STDIN else _read(Path(source))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        msg = f"can't read {file}: {getattr(exc, 'strerror', None) or exc}"
        raise Failure(msg) from exc


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix in SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not files:
        msg = f"no {', '.join(SUFFIXES)} file in {path}"
        raise Failure(msg)
    return files


def _contents(text: str, source: str) -> Iterator[tuple[int, Any]]:
    """(first line, content) of every document."""
    if source.endswith(".json"):
        yield 1, _json(text, source)
        return
    loader = JsonLoader(text)
    number = 1
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield node.start_mark.line + 1, loader.construct_document(node)
            number += 1
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        msg = f"{source} document {number}{line}: {getattr(exc, 'problem', None) or exc}"
        raise Failure(msg) from exc
    finally:
        loader.dispose()


def _json(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as exc:
        msg = f"{source}, line {exc.lineno}: {exc.msg}"
        raise Failure(msg) from exc


def _declarations(content: Any, place: str) -> list[Document]:
    if isinstance(content, dict) and isinstance(content.get("settings"), list) and "type" not in content:
        content = content["settings"]
    if isinstance(content, dict):
        return [Document(content, place)]
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        msg = f"{place}: a declaration is a map with type, name and value, not {_kind(content)}"
        raise Failure(msg)
    return [Document(item, f"{place}, item {index}") for index, item in enumerate(content, start=1)]


def _kind(content: Any) -> str:
    if isinstance(content, list):
        return "a list of something else"
    return "a text" if isinstance(content, str) else repr(content)


def _unnamed(documents: Sequence[Document]) -> Iterator[tuple[str, str]]:
    for document in documents:
        missing = [name for name in ("type", "name") if not isinstance(document.declaration.get(name), str)]
        if missing:
            yield document.place, f"{' and '.join(missing)} must be there, as text{_mistaken(document.declaration)}"


def _mistaken(declaration: Mapping[str, Any]) -> str:
    """A hint for those who feed back what `get` prints."""
    return " (this looks like the output of get; use export)" if "setting_type" in declaration else ""


def _repeated(documents: Sequence[Document]) -> Iterator[tuple[str, str]]:
    first: dict[str, str] = {}
    for document in documents:
        if document.reference in first:
            yield document.place, f"{document.reference} is declared already at {first[document.reference]}"
        first.setdefault(document.reference, document.place)
