"""What differs between two JSON values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def identical(left: Any, right: Any) -> bool:
    """Equal as JSON. Python's `==` takes `true` for `1` and `1` for `1.0`, which a backend may not."""
    if left.__class__ is not right.__class__ or left != right:
        return False
    if isinstance(left, dict):
        return all(identical(value, right[name]) for name, value in left.items())
    if isinstance(left, list):
        return all(map(identical, left, right))
    return True


def changed_paths(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[str]:
    """JSON pointers of the leaves that differ, sorted. None is a document that isn't there: all leaves differ.

    Lists of different lengths differ as a whole: their elements have no identity of their own.
    """
    return sorted(_differences("", {} if before is None else before, {} if after is None else after))


def pointer(*parts: object) -> str:
    """The JSON pointer (RFC 6901) of the parts."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def pointer_parts(path: str) -> list[str]:
    """The inverse of `pointer`; list indexes stay text."""
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _differences(path: str, before: Any, after: Any) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in before.keys() | after.keys():
            inner = path + pointer(name)
            if name not in before:
                yield from _leaves(inner, after[name])
            elif name not in after:
                yield from _leaves(inner, before[name])
            else:
                yield from _differences(inner, before[name], after[name])
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _differences(f"{path}/{index}", old, new)
    elif not identical(before, after):
        yield path


def _leaves(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(path + pointer(name), inner)
    else:
        yield path
