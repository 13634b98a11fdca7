"""Events in the words of people: of each type what matters, on one line. Pure.

The table at the end says it per type; an event of a type that isn't there (from a newer daemon) is told by its details.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from controlplane.cli.arguments import reference_of
from controlplane.cli.wording import compact, cut, differences, shortened, trouble

Json = Mapping[str, Any]

STATUS_STYLES = {"started": "cyan", "succeeded": "green", "failed": "bold red", "unknown": "yellow"}
TYPE_STYLES = {
    "DriftDetected": "yellow",
    "SettingRetired": "magenta",
    "SettingForgotten": "magenta",
    "TargetUp": "green",
}
GIST_CHARS = 400
PATHS = 6
SUBJECT_CHARS = 28
"""Wide enough for most `type/name`s to stand in a column."""
INDENT = 4
GAP = "  "
LEAST = 50
"""A gist in less room than this goes below."""

_KNOWN = frozenset({"step", "attempt", "summary", "reason", "message", "plan", "external"})
"""Details of an outcome that are told elsewhere, or only machines want."""


def event_line(event: Json, *, about: bool = True) -> Text:
    """When, what, about which setting (unless the reader knows: `about=False`), and the gist."""
    gist_ = gist(event)
    head = _head(event, about=about)
    return Text.assemble(head, GAP, gist_) if gist_ else head


@dataclass(frozen=True)
class EventLine:
    """An event as printed: its line where that fits, else the gist below, since a terminal would break within words."""

    event: Json
    about: bool = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line, or the head with the gist wrapped: beside it where there is room, else below."""
        line, head = event_line(self.event, about=self.about), _head(self.event, about=self.about)
        if line.cell_len <= options.max_width:
            line.rstrip()
            yield line
            return
        beside = options.max_width - head.cell_len - len(GAP)
        indent, room = (head.cell_len + len(GAP), beside) if beside >= LEAST else (INDENT, options.max_width - INDENT)
        parts = Text(gist(self.event)).wrap(console, max(room, LEAST))
        for part in parts:
            part.rstrip()
        if beside >= LEAST:
            yield Text.assemble(head, GAP, parts.pop(0))
        else:
            head.rstrip()
            yield head
        yield from (Text(" " * indent) + part for part in parts)


def when(at: str) -> str:
    """`2026-01-31 12:00:00.123` of an RFC 3339 text, in UTC as it stands."""
    day, _, time = at.removesuffix("Z").partition("T")
    return f"{day} {time[:12]}"


def gist(event: Json) -> str:
    """What matters of an event of its type, in at most GIST_CHARS."""
    told = _GISTS.get(str(event.get("event_type")), _anything)
    text = told(event, event.get("details") or {})
    return cut(" ".join(text.split()), GIST_CHARS)


def _head(event: Json, *, about: bool) -> Text:
    kind = str(event["event_type"])
    style = TYPE_STYLES.get(kind) or STATUS_STYLES.get(str(event.get("status")), "")
    head = Text.assemble((when(str(event["timestamp"])), "dim"), "  ", (f"{kind:<18}", style))
    if about:
        head.append("  ").append(f"{_about(event):<{SUBJECT_CHARS}}", "bold")
    return head


def _about(event: Json) -> str:
    return reference_of(event["setting"]) if event.get("setting") else str(event.get("service_name") or "")


def _accepted(event: Json, details: Json) -> str:
    generation = f" (generation {event['generation']})" if event.get("generation") else ""
    return f"{details.get('outcome') or 'declared'}{generation}{_by(event)}{_because(details)}"


def _rejected(event: Json, details: Json) -> str:
    expected, found = details.get("expected"), details.get("revision")
    told = f"expected revision {expected}, is {found}" if expected is not None else ""
    return _joined(": ", details.get("reason"), told) + _by(event)


def _retired(event: Json, details: Json) -> str:
    return (_by(event) + _because(details)).strip()


def _started(_event: Json, details: Json) -> str:
    return f"{details.get('summary') or details.get('step', '')}{_again(details)}"


def _ended(event: Json, details: Json) -> str:
    told = _trouble(event, details)
    # What an outcome adds is worth a word when it is a number or a word and not nothing: `sessions_ended=2`.
    more = {k: v for k, v in details.items() if k not in _KNOWN and v and not isinstance(v, (dict, list))}
    return _joined(" · ", f"{details.get('step', '')}{_again(details)}", told, _pairs(more))


def _trouble(event: Json, details: Json) -> str:
    return trouble(details.get("reason"), details.get("message"), event.get("tenant"))


def _drift(_event: Json, details: Json) -> str:
    return differences(details.get("drift") or ())


def _resolved(_event: Json, details: Json) -> str:
    return shortened(details.get("paths") or (), PATHS)


def _external(event: Json, details: Json) -> str:
    external = str(details.get("external") or "")
    return "" if external == str(event.get("setting")).rpartition("/")[2] else external


def _nothing(_event: Json, _details: Json) -> str:
    return ""


def _operation(event: Json, details: Json) -> str:
    request = details.get("request")
    told = _pairs(request) if isinstance(request, Mapping) else ""
    ending = details.get("message") or ("" if details.get("result") is None else f"→ {compact(details['result'])}")
    name = str(details.get("operation") or "")
    return _joined(" · ", name, told, ending) if ending else _joined(" · ", name, told) + _by(event)


def _anything(_event: Json, details: Json) -> str:
    first = [str(details[name]) for name in ("step", "reason", "message") if details.get(name)]
    rest = {k: v for k, v in details.items() if k not in _KNOWN and v not in (None, "", [], {})}
    return _joined(" · ", *first, _pairs(rest))


def _by(event: Json) -> str:
    return f" by {event['actor']}" if event.get("actor") else ""


def _because(details: Json) -> str:
    return f": {details['reason']}" if details.get("reason") else ""


def _again(details: Json) -> str:
    attempt = details.get("attempt") or 1
    return f" (try {attempt})" if attempt > 1 else ""


def _pairs(values: Json) -> str:
    return " ".join(f"{name}={compact(value)}" for name, value in values.items() if value is not None)


def _joined(separator: str, *parts: Any) -> str:
    return separator.join(str(part) for part in parts if part)


_GISTS: Mapping[str, Callable[[Json, Json], str]] = {
    "SettingAccepted": _accepted,
    "SettingRejected": _rejected,
    "SettingRetired": _retired,
    "SettingForgotten": _nothing,
    "ActionStarted": _started,
    "ActionSucceeded": _ended,
    "ActionFailed": _ended,
    "ActionUnknown": _ended,
    "DriftDetected": _drift,
    "DriftResolved": _resolved,
    "Converged": _external,
    "Adopted": _external,
    "Stalled": _trouble,
    "TargetDown": _trouble,
    "TargetUp": _nothing,
    "OperationStarted": _operation,
    "OperationSucceeded": _operation,
    "OperationFailed": _operation,
}
