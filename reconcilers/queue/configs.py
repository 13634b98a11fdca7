"""Configurations of Kafka in the form in which a broker shows them. Pure.

A broker keeps the text it is given and shows what it made of it (`ConfigDef.convertToString`): numbers without zeros and
spaces, lists without spaces, booleans in small letters. Which form applies is known by the type that comes with the value.
"""

from __future__ import annotations

from typing import Final

_WHOLE: Final = frozenset({"INT", "LONG", "SHORT"})


def same(wanted: str, held: str | None, kind: str) -> bool:
    """True when both texts mean the same to Kafka. `kind`: its type, as in LONG."""
    return held is not None and (wanted == held or canonical(wanted, kind) == canonical(held, kind))


def canonical(text: str, kind: str) -> str:
    """The text as a broker shows it; what isn't of its type stays as it is, and is refused when it is set."""
    text = text.strip()
    if kind == "BOOLEAN":
        return text.lower()
    if kind == "LIST":
        return ",".join(part.strip() for part in text.split(",")) if text else ""
    try:
        if kind in _WHOLE:
            return str(int(text))
        if kind == "DOUBLE":
            return repr(float(text))
    except ValueError:
        return text
    return text
