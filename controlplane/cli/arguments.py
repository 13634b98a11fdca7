"""What people type, turned into values. Pure; every complaint is a Failure that shows the right spelling."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from controlplane.cli.documents import JsonLoader
from controlplane.cli.failure import Failure
from schemas.names import SERVICES, parse_timestamp, timestamp

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, None: 1.0}
_GLOBAL_WITH_VALUE = ("--url", "--token", "--tenant")
_GLOBAL_FLAGS = ("--debug",)


def labels(texts: Sequence[str]) -> dict[str, str]:
    """`["team=shop", "tier=1"]` as a map; also several with commas in one text."""
    found: dict[str, str] = {}
    for text in (part for whole in texts for part in whole.split(",")):
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            msg = f"{text!r} is no label"
            raise Failure(msg, hint="write key=value, for example -l team=shop")
        found[key.strip()] = value.strip()
    return found


def reference(first: str, second: str | None) -> tuple[str, str]:
    """(type, name) from `TYPE NAME` or `TYPE/NAME`."""
    setting_type, slash, name = first.partition("/")
    if slash and second is not None:
        msg = f"{first!r} names a setting already, {second!r} is one too many"
        raise Failure(msg, hint="write TYPE NAME or TYPE/NAME")
    name = name if slash else (second or "")
    if not setting_type or not name:
        msg = f"{first!r} is a type without a name"
        raise Failure(msg, hint="write TYPE NAME or TYPE/NAME, for example cache.redis_user/app")
    return setting_type, name


def type_or_service(text: str) -> tuple[str | None, str | None]:
    """(type, service): `cache.redis_user` is a type, `cache` a service."""
    return (None, text) if text in SERVICES else (text, None)


def reference_of(key: str) -> str:
    """`type/name` of a key `tenant/type/name` (or of what is one already)."""
    return "/".join(key.split("/")[-2:])


def duration_s(text: str) -> float:
    """Seconds of `90`, `90s`, `1.5m`, `2h`, `7d`."""
    match = _DURATION.match(text.strip())
    if match is None:
        msg = f"{text!r} is no duration"
        raise Failure(msg, hint="write for example 30s, 5m, 2h or 7d")
    return float(match[1]) * _SECONDS[match[2]]


def moment(text: str, now: float) -> str:
    """A time as the API wants it: RFC 3339 as it stands, a duration as "that long ago"."""
    if _DURATION.match(text.strip()):
        return timestamp(now - duration_s(text))
    try:
        return timestamp(parse_timestamp(text))
    except ValueError as exc:
        msg = f"{text!r} is no time"
        raise Failure(msg, hint="write for example 2026-01-31T12:00:00Z, or 15m for 15 minutes ago") from exc


def place(text: str, now: float) -> str:
    """An offset of the log as it stands, or a time. A bare number is an offset."""
    return text if text.isdigit() else moment(text, now)


def operation_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """`["namespace=sessions", "keys=[a, b]", "all=true"]` with values read as YAML; `a.b=1` sets a field inside `a`."""
    found: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            msg = f"{text!r} is no argument"
            raise Failure(msg, hint="write key=value, for example namespace=sessions keys='[a, b]'")
        *outer, last = name.split(".")
        at = found
        for part in outer:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                msg = f"{name!r} sets a field inside {part!r}, which has a value already"
                raise Failure(msg)
        at[last] = _scalar(name, value)
    return found


def hoisted(argv: Sequence[str]) -> list[str]:
    """The arguments with the global options in front of the verb, wherever they were typed (up to a `--`)."""
    front: list[str] = []
    rest: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        if argument == "--":
            rest += [argument, *arguments]
        elif argument in _GLOBAL_FLAGS or argument.startswith(tuple(f"{option}=" for option in _GLOBAL_WITH_VALUE)):
            front.append(argument)
        elif argument in _GLOBAL_WITH_VALUE:
            front += [argument, *([value] if (value := next(arguments, None)) is not None else [])]
        else:
            rest.append(argument)
    return front + rest


def _scalar(name: str, text: str) -> Any:
    try:
        return yaml.load(text, JsonLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as exc:
        problem = getattr(exc, "problem", None) or "not YAML"
        msg = f"the value of {name!r} can't be read: {problem}"
        raise Failure(msg, hint="quote it for YAML, for example 'key=\"a: b\"'") from exc
