"""The structlog chain. One line per thing that happened: a constant lower-case phrase, the variables as keys.

The keys are the same everywhere: `setting, generation, revision, shard, step, outcome, correlation_id, service, target`;
others are free. Lines go to stderr, written by one handler of the standard library, so that a library's own log lines
take the same way and the same form.

Secrets never enter a line: callers don't pass them, and what looks like one is withheld here all the same (by the name of
its key, and passwords inside URLs). Tracebacks come without local variables for the same reason.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from typing import Any, Final, Literal, TextIO

import structlog

WITHHELD: Final = "[withheld]"

_SECRET_NAMES = re.compile(r"(^|_)(password|passwd|passphrase|secret|token|credentials?|authorization|api_?key)$")
_URL_PASSWORD = re.compile(r"([a-z][a-z0-9+.-]*://[^\s:/@\"]*):[^\s/@\"]+@", re.IGNORECASE)
_REFERENCES = frozenset({"from_env", "from_file"})

_ORDER: Final = (
    "timestamp",
    "level",
    "event",
    "setting",
    "generation",
    "revision",
    "shard",
    "step",
    "outcome",
    "service",
    "target",
    "correlation_id",
)


def configure(
    format: Literal["console", "json"] = "console",  # noqa: A002 - the word of the configuration
    level: str = "info",
    stream: TextIO | None = None,
) -> None:
    """Set up logging of the whole process. Called once by whoever starts it; calling again replaces what was set.

    `level`: debug, info, warning or error. `stream` None: stderr.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        withhold,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=False,
    )
    destination = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(destination)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(format, destination)],
    )
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def withhold(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor: replaces what looks like a secret, at any depth. References to secrets stay readable."""
    for name, value in line.items():
        line[name] = _clean(name, value)
    return line


def _clean(name: str, value: Any) -> Any:
    if isinstance(value, str | bytes):
        return WITHHELD if _hides(name) else value
    if isinstance(value, Mapping):
        if value and value.keys() <= _REFERENCES:
            return value
        return {str(inner): _clean(name if _hides(name) else str(inner), v) for inner, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(name, inner) for inner in value]
    return value


@lru_cache(maxsize=1024)  # the same few names, in every line
def _hides(name: str) -> bool:
    return _SECRET_NAMES.search(name.lower()) is not None


def _rendering(form: str, destination: TextIO) -> list[structlog.typing.Processor]:
    if form == "json":
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=30)
        renderer: structlog.typing.Processor = structlog.processors.JSONRenderer(default=str)
        return [structlog.processors.ExceptionRenderer(tracebacks), _in_order, renderer, _without_passwords]
    console = structlog.dev.ConsoleRenderer(
        colors=destination.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    return [console, _without_passwords]


def _in_order(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    first = {name: line[name] for name in _ORDER if name in line}
    return {**first, **{name: value for name, value in line.items() if name not in first}}


def _without_passwords(_logger: Any, _method: str, rendered: Any) -> str:
    """Works on the finished line, because the text of an exception may hold a URL as well."""
    line = str(rendered)
    return _URL_PASSWORD.sub(rf"\1:{WITHHELD}@", line) if "://" in line else line
