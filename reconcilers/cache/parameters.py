"""Parameters of Redis in canonical form, so that equality is convergence. Pure; behaviour as of 7.0.15.

What the server does to a value: memory units become bytes (`1gb` 1073741824, but `1g` 1000000000), enums and yes/no are
folded to lower case, event flags are reordered, output buffer limits of several classes are merged and `replica` is shown
as `slave`, some numbers are clamped without a word. What isn't known here is learnt: the backend reads back what it set
in the same transaction and keeps the server's verdict.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from schemas.redis_parameters import real_name

_VERBATIM: Final = frozenset(
    {
        "replica-announce-ip",
        "cluster-announce-ip",
        "cluster-announce-hostname",
        "proc-title-template",
        "ignore-warnings",
        "syslog-ident",
        "tls-protocols",
        "tls-ciphers",
        "tls-ciphersuites",
    }
)
"""Texts that mean what is written, capitals included."""

_UNITS: Final = MappingProxyType(
    {"b": 1, "k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2, "g": 1000**3, "gb": 1024**3}
)
_MEMORY = re.compile(r"(\d+)(b|kb?|mb?|gb?)")
_ALL_EVENTS: Final = frozenset("g$lshzxetd")
_CLAMPS: Final = MappingProxyType({"hz": (1, 500), "repl-backlog-size": (16_384, 2**63 - 1)})
"""Real name → least and greatest value; the server takes others and silently holds these."""


def canonical(name: str, text: str) -> str:
    """The value as the server would show it, for the families that are known; both sides go through this."""
    name = real_name(name)
    if name in _VERBATIM:
        return text
    folded = " ".join(text.split()).lower() if name != "notify-keyspace-events" else text
    special = _SPECIAL.get(name)
    return _clamped(name, special(folded) if special is not None else _bytes(folded))


def clamped(name: str, text: str) -> bool:
    """True when the server holds another value than the declared one, and which one is known."""
    value = _bytes(text.strip().lower())
    return _clamped(real_name(name), value) != value


def holds(name: str, wanted: str, held: str) -> bool:
    """Does the server hold what is wanted? Both canonical. Of output buffer limits only the classes named count."""
    if name == "client-output-buffer-limit":
        have = _limits(held)
        return all(have.get(client) == limit for client, limit in _limits(wanted).items())
    return wanted == held


def relevant(name: str, wanted: str, held: str) -> str:
    """What is held, without classes of output buffer limits that aren't declared."""
    if name != "client-output-buffer-limit":
        return held
    named = _limits(wanted)
    return _limits_text({client: limit for client, limit in _limits(held).items() if client in named})


def _bytes(text: str) -> str:
    match = _MEMORY.fullmatch(text)
    return str(int(match[1]) * _UNITS[match[2]]) if match is not None else text


def _clamped(name: str, text: str) -> str:
    if name not in _CLAMPS or not text.isdecimal():
        return text
    least, greatest = _CLAMPS[name]
    return str(min(max(int(text), least), greatest))


def _events(text: str) -> str:
    """`A` is short for all classes but misses (m) and new keys (n); the server writes A, then the rest, then K and E."""
    flags = set(text.replace('"', "").strip())
    if "A" in flags:
        flags |= _ALL_EVENTS
    flags.discard("A")
    classes = ["A"] if flags >= _ALL_EVENTS else sorted(flags & _ALL_EVENTS)
    return "".join([*classes, *sorted(flags - _ALL_EVENTS)])


def _limits(text: str) -> dict[str, tuple[str, ...]]:
    """Class of client → (hard, soft, seconds); empty when the text isn't a list of limits."""
    words = text.split()
    if len(words) % 4:
        return {"": tuple(words)}
    rows = [words[i : i + 4] for i in range(0, len(words), 4)]
    return {_class(client): tuple(map(_bytes, limit)) for client, *limit in rows}


def _class(client: str) -> str:
    return "replica" if client == "slave" else client


def _limits_text(limits: Mapping[str, tuple[str, ...]]) -> str:
    return " ".join(" ".join((client, *limit) if client else limit) for client, limit in sorted(limits.items()))


def _numbers(text: str) -> str:
    """Floats without trailing zeros: `99.90` is shown as `99.9`."""
    return " ".join(_number(word) for word in text.split())


def _number(word: str) -> str:
    try:
        return format(float(word), "g")
    except ValueError:
        return word


def _relative(text: str) -> str:
    return "yes" if text == "relative" else text


_SPECIAL: Final[Mapping[str, Callable[[str], str]]] = MappingProxyType(
    {
        "notify-keyspace-events": _events,
        "client-output-buffer-limit": lambda text: _limits_text(_limits(text)),
        "latency-tracking-info-percentiles": _numbers,
        "oom-score-adj": _relative,
        "shutdown-on-sigint": lambda text: " ".join(sorted(set(text.split()))),
        "shutdown-on-sigterm": lambda text: " ".join(sorted(set(text.split()))),
    }
)


# --- what the server said to a value -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """The server's answer to one value of one parameter: held as another value, or refused."""

    held: str | None = None
    """Canonical value that was read back in the same transaction."""
    reason: str | None = None
    message: str = ""


_ARGUMENT = re.compile(r"argument '([^']+)'|CONFIG SET - '([^']+)'")


def refused_parameter(message: str) -> str | None:
    """The parameter that the server's error names (they are set all or none); None when it names none."""
    match = _ARGUMENT.search(message)
    return (match[1] or match[2]) if match is not None else None


def refusal(message: str) -> Verdict:
    """An error of `CONFIG SET` by what the reader must do."""
    if "immutable config" in message or "protected config" in message:
        return Verdict(reason="RestartRequired", message=f"{message}; change it where the server is started")
    if "Unknown option" in message or "Unsupported CONFIG parameter" in message:
        return Verdict(reason="UnknownParameter", message=message)
    return Verdict(reason="InvalidParameter", message=message)
