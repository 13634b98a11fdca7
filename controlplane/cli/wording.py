"""Values, differences and reasons in few words. Pure.

Collections and lists of words are told by what is too much and what is missing: whoever reads that a user `has ~*` needn't
compare forty rules by eye.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

VALUE_CHARS = 48
WORDS = 4
"""So many elements of a collection are named, the others counted."""
_UNITS = ("bytes", "kB", "MB", "GB", "TB")
PATHS = 3
"""So many differences are told, the others counted."""


def compact(value: Any) -> str:
    """A JSON value in as few characters as people can read."""
    if value is None:
        return "absent"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def difference(desired: Any, observed: Any) -> str:
    """`60 → 90` (desired → observed), or `has ~b:*, lacks ~a:*` of what holds several."""
    if None not in (desired, observed) and (_several(desired) or _several(observed)):
        wanted, found = _elements(desired), _elements(observed)
        extra, missing = [w for w in found if w not in wanted], [w for w in wanted if w not in found]
        told = [f"{verb} {shortened(words)}" for verb, words in (("has", extra), ("lacks", missing)) if words]
        if told:
            return ", ".join(told)
    return f"{cut(compact(desired))} → {cut(compact(observed))}"


def differences(drift: Sequence[Mapping[str, Any]]) -> str:
    """`/maxmemory 60 → 90 · /keys has ~b:*`, the first few."""
    told = [f"{d.get('path')} {difference(d.get('desired'), d.get('observed'))}" for d in drift[:PATHS]]
    return " · ".join(told + ([f"{len(drift) - PATHS} more"] if len(drift) > PATHS else []))


def trouble(reason: str | None, message: str | None, tenant: str | None = None) -> str:
    """`Reason: message`, each thing said once: keys of the reader's own tenant go without it."""
    said = message or ""
    if tenant:
        said = re.sub(rf"\b{re.escape(tenant)}/(?=[a-z]+[./])", "", said)
    if not reason or said.startswith(reason):
        return said
    return f"{reason}: {said}" if said else reason


def amount(name: str, count: int) -> str:
    """`1,204 messages`, `1 client`, `12.3 MB`."""
    if name.endswith("_bytes"):
        power = min((len(str(count)) - 1) // 3, len(_UNITS) - 1)
        return f"{count / 1000**power:.{0 if power == 0 else 1}f} {_UNITS[power]}"
    return f"{count:,} {name.removesuffix('s') if count == 1 else name}"


def shortened(words: Sequence[str], most: int = WORDS) -> str:
    """`a b c d and 9 more`."""
    rest = len(words) - most
    return " ".join(words) if rest <= 0 else f"{' '.join(words[:most])} and {rest} more"


def cut(text: str, most: int = VALUE_CHARS) -> str:
    """The text, with `…` for what is beyond."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _several(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and len(value.split()) > 1)


def _elements(value: Any) -> list[str]:
    """The parts of a list, the words of a text, the value itself of everything else."""
    parts = value.split() if isinstance(value, str) else value if isinstance(value, list) else [value]
    return [cut(compact(part)) for part in parts]
