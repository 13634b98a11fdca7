"""Settings of Memcached 1.6: declared paths, what `stats settings` shows for them, and the commands that set them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from schemas.cache import MemcachedConfig

MEGABYTE: Final = 1024 * 1024

TUNING: Final = ("/lru/hot_pct", "/lru/warm_pct", "/lru/hot_max_factor", "/lru/warm_max_factor")
"""Set by one command, all four at once."""

RESTART_ONLY: Final = MappingProxyType({"/max_item": "-I {value}"})
"""Path → the flag to start the server with."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """How a path's value is declared and where it is shown. Both sides become the same text."""

    declared: Callable[[MemcachedConfig], Any]
    held: Callable[[Mapping[str, str]], str | None]


def _stat(name: str) -> Callable[[Mapping[str, str]], str | None]:
    return lambda stats: stats.get(name)


def _lru(field: str) -> Callable[[MemcachedConfig], Any]:
    return lambda value: getattr(value.lru, field) if value.lru is not None else None


def _megabytes(stats: Mapping[str, str]) -> str | None:
    limit = stats.get("maxbytes")
    return (
        None
        if limit is None
        else format(int(limit) / MEGABYTE, "g")
        if int(limit) % MEGABYTE
        else str(int(limit) // MEGABYTE)
    )


def _mode(stats: Mapping[str, str]) -> str | None:
    return {"yes": "segmented", "no": "flat"}.get(stats.get("lru_segmented", ""))


def _temp_ttl(stats: Mapping[str, str]) -> str | None:
    """`temporary_ttl` keeps its old value when the part is switched off; `temp_lru` says so."""
    return "-1" if stats.get("temp_lru") == "no" else stats.get("temporary_ttl")


SETTINGS: Final[Mapping[str, _Shown]] = MappingProxyType(
    {
        "/memory_mb": _Shown(lambda value: value.memory_mb, _megabytes),
        "/max_item": _Shown(lambda value: value.max_item, _stat("item_size_max")),
        "/slab_automove": _Shown(lambda value: value.slab_automove, _stat("slab_automove")),
        "/slab_automove_ratio": _Shown(lambda value: value.slab_automove_ratio, _stat("slab_automove_ratio")),
        "/lru/mode": _Shown(_lru("mode"), _mode),
        "/lru/hot_pct": _Shown(_lru("hot_pct"), _stat("hot_lru_pct")),
        "/lru/warm_pct": _Shown(_lru("warm_pct"), _stat("warm_lru_pct")),
        "/lru/hot_max_factor": _Shown(_lru("hot_max_factor"), _stat("hot_max_factor")),
        "/lru/warm_max_factor": _Shown(_lru("warm_max_factor"), _stat("warm_max_factor")),
        "/lru/temp_ttl_s": _Shown(_lru("temp_ttl_s"), _temp_ttl),
        "/verbosity": _Shown(lambda value: value.verbosity, _stat("verbosity")),
    }
)


def declared(_name: str, value: MemcachedConfig) -> Mapping[str, str]:
    """Path → text of what is declared, as the server would show it: floats have two decimals."""
    rows = {path: shown.declared(value) for path, shown in SETTINGS.items()}
    return {path: _text(given) for path, given in rows.items() if given is not None}


def held(stats: Mapping[str, str]) -> Mapping[str, str]:
    """Path → text, from `stats settings`. A path the server doesn't know is missing."""
    rows = {path: shown.held(stats) for path, shown in SETTINGS.items()}
    return {path: text for path, text in rows.items() if text is not None}


def value_of(rows: Mapping[str, str]) -> dict[str, Any]:
    """The declaration of what is held: `held` the other way. Tuning is left out where the mode has none, a memory limit
    that isn't whole megabytes because it can't be declared."""
    flat = rows.get("/lru/mode") == "flat"
    shown = {path: text for path, text in rows.items() if not (flat and path in TUNING)}
    value: dict[str, Any] = {}
    for path, text in shown.items():
        *outer, last = path.split("/")[1:]
        number = _number(text)
        if path != "/memory_mb" or isinstance(number, int):
            (value.setdefault(outer[0], {}) if outer else value)[last] = number
    return value


def _number(text: str) -> Any:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _text(value: Any) -> str:
    return format(value, ".2f") if isinstance(value, float) else str(value)


def completed(changes: Mapping[str, str], wanted: Mapping[str, str], now_held: Mapping[str, str]) -> dict[str, str]:
    """The changes, with all four of the tuning when one of them is to change; what isn't declared stays as it is."""
    if not any(path in changes for path in TUNING):
        return dict(changes)
    tuning = {path: wanted.get(path, now_held.get(path, "")) for path in TUNING}
    return {path: text for path, text in (dict(changes) | tuning).items() if text}


def commands(changes: Mapping[str, str]) -> list[tuple[tuple[str, ...], str]]:
    """(paths, command line) in an order that works: a mode before its tuning."""
    lines: list[tuple[tuple[str, ...], str]] = [
        ((path,), form.format(changes[path])) for path, form in _COMMANDS.items() if path in changes
    ]
    if TUNING[0] in changes:
        lines.append((TUNING, "lru tune " + " ".join(changes[path] for path in TUNING)))
    return lines


_COMMANDS: Final = MappingProxyType(
    {
        "/memory_mb": "cache_memlimit {}",
        "/slab_automove": "slabs automove {}",
        "/slab_automove_ratio": "slabs automove ratio {}",
        "/lru/mode": "lru mode {}",
        "/lru/temp_ttl_s": "lru temp_ttl {}",
        "/verbosity": "verbosity {}",
    }
)
