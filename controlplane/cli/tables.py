"""Settings, events and statuses as text and rows. Pure: `now` comes in as an argument, printing is elsewhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from controlplane.cli.arguments import reference_of
from schemas.names import parse_timestamp

Json = Mapping[str, Any]

PHASE_STYLES = {
    "Ready": "green",
    "Reconciling": "cyan",
    "Pending": "cyan",
    "Drifted": "yellow",
    "Retiring": "magenta",
    "Stalled": "bold red",
    "Unknown": "yellow",
    "Paused": "dim",
}
STATUS_STYLES = {"started": "cyan", "succeeded": "green", "failed": "bold red", "unknown": "yellow"}
OUTCOME_STYLES = {"created": "green", "updated": "cyan", "unchanged": "dim", "retired": "magenta"}
OUTCOMES = ("created", "updated", "unchanged", "retired")
GIST_CHARS = 160
SUBJECT_CHARS = 28
"""Wide enough for most `type/name`s to stand in a column."""


def rows(columns: Sequence[str], body: Iterable[Sequence[str | Text]]) -> Table:
    """A table without lines; only the last column is folded when the terminal is narrow."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns[:-1]:
        table.add_column(column, no_wrap=True)
    table.add_column(columns[-1], overflow="fold")
    for row in body:
        table.add_row(*(_plain(cell) for cell in row))
    return table


def facts(pairs: Iterable[tuple[str, str | Text]]) -> Table:
    """Name and value, line by line."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, _plain(value))
    return table


def _plain(cell: str | Text) -> Text:
    """A cell as it is: what comes from the daemon is never taken for markup."""
    return cell if isinstance(cell, Text) else Text(cell)


def settings_table(settings: Iterable[Json], now: float, *, wide: bool = False) -> Table:
    """type, name, phase, generation, age, message; wide: also revision, external name, labels."""
    columns = ["TYPE", "NAME", "PHASE", "GEN", "AGE"]
    columns += ["REVISION", "EXTERNAL", "LABELS"] if wide else []
    return rows([*columns, "MESSAGE"], (_setting_row(setting, now, wide=wide) for setting in settings))


def _setting_row(setting: Json, now: float, *, wide: bool) -> list[str | Text]:
    row: list[str | Text] = [
        setting["setting_type"],
        setting["name"],
        phase_text(phase_of(setting)),
        generation_of(setting),
        age(setting.get("created_at"), now),
    ]
    if wide:
        external = setting.get("status", {}).get("external") or "-"
        row += [str(setting.get("revision", "")), str(external), pairs(setting.get("labels") or {})]
    return [*row, message_of(setting)]


def phase_of(setting: Json) -> str:
    """The phase, as the status says it; `Pending` before there is a status."""
    return str((setting.get("status") or {}).get("phase") or "Pending")


def phase_text(phase: str) -> Text:
    """The phase in its colour."""
    return Text(phase, PHASE_STYLES.get(phase, ""))


def generation_of(setting: Json) -> str:
    """`3`, or `2→3` while the world is still at an older generation."""
    generation, observed = setting.get("generation", 0), (setting.get("status") or {}).get("observed_generation", 0)
    return str(generation) if observed >= generation or not observed else f"{observed}→{generation}"


def message_of(setting: Json) -> str:
    """What a person wants to know first: why it isn't ready, or nothing."""
    status = setting.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    for kind, bad in (("Stalled", "True"), ("Drifted", "True"), ("Ready", "False"), ("Ready", "Unknown")):
        condition = conditions.get(kind)
        if condition is not None and condition["status"] == bad:
            return ": ".join(part for part in (condition.get("reason"), condition.get("message")) if part)
    return ""


def counted(words: Iterable[str]) -> str:
    """`9 Ready, 2 Stalled`, the most frequent first."""
    return ", ".join(f"{count} {word}" for word, count in Counter(words).most_common())


def results_table(results: Iterable[Json]) -> Table:
    """What an apply did to each setting."""
    return rows(
        ["SETTING", "OUTCOME", "GEN"],
        (
            (
                reference_of(result["setting"]),
                Text(result["outcome"], OUTCOME_STYLES.get(result["outcome"], "")),
                str(result.get("generation", "")),
            )
            for result in results
        ),
    )


def results_line(results: Sequence[Json]) -> str:
    """`2 created, 10 unchanged`, in the order of OUTCOMES."""
    found = Counter(result["outcome"] for result in results)
    words = [*OUTCOMES, *sorted(set(found) - set(OUTCOMES))]
    return ", ".join(f"{found[word]} {word}" for word in words if found[word]) or "nothing to do"


def conditions_table(conditions: Iterable[Json], now: float) -> Table:
    """Conditions with how long they have been so."""
    return rows(
        ["CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"],
        (
            (c["type"], c["status"], c.get("reason", ""), age(c.get("since"), now), c.get("message") or "")
            for c in conditions
        ),
    )


def drift_table(drift: Iterable[Json]) -> Table:
    """Path, desired and observed value of every difference."""
    return rows(
        ["PATH", "DESIRED", "OBSERVED"],
        ((d["path"], compact(d.get("desired")), compact(d.get("observed"))) for d in drift),
    )


def history_table(revisions: Iterable[Json]) -> Table:
    """Revisions, who made them and what they changed."""
    return rows(
        ["REVISION", "GEN", "AT", "ACTOR", "OP", "REASON", "CHANGED"],
        (
            (
                str(r["revision"]),
                str(r.get("generation", "")),
                clock(r["at"], date=True),
                str(r.get("actor") or ""),
                str(r.get("op") or ""),
                str(r.get("reason") or ""),
                " ".join(r.get("changed") or ()),
            )
            for r in revisions
        ),
    )


def event_line(event: Json, *, date: bool = False) -> Text:
    """One event in one line: when, what, about which setting, and the gist of its details."""
    status = str(event.get("status") or "info")
    return Text.assemble(
        (clock(str(event["timestamp"]), date=date), "dim"),
        "  ",
        (f"{event['event_type']:<18}", STATUS_STYLES.get(status, "")),
        "  ",
        (f"{_about(event):<{SUBJECT_CHARS}}", "bold"),
        "  ",
        gist(event),
    )


def _about(event: Json) -> str:
    return reference_of(event["setting"]) if event.get("setting") else str(event.get("service_name") or "")


def gist(event: Json) -> str:
    """The details in one line: what was done, then the rest as key=value."""
    details = dict(event.get("details") or {})
    drift = details.pop("drift", None)
    words = [
        f"{d.get('path')}: desired {compact(d.get('desired'))}, observed {compact(d.get('observed'))}"
        for d in drift or ()
    ]
    words += [
        str(details.pop(name)) for name in ("step", "operation", "target", "reason", "message") if details.get(name)
    ]
    words += [f"{name}={compact(value)}" for name, value in details.items() if value not in (None, "", [], {})]
    if event.get("actor") and event.get("event_type", "").startswith("Setting"):
        words.append(f"by {event['actor']}")
    text = " · ".join(words)
    return text if len(text) <= GIST_CHARS else text[: GIST_CHARS - 1] + "…"


def compact(value: Any) -> str:
    """A JSON value in as few characters as people can read."""
    if value is None:
        return "absent"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def pairs(labels: Mapping[str, Any]) -> str:
    """`a=1 b=2`"""
    return " ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def clock(at: str, *, date: bool = False) -> str:
    """`12:00:00.123` of an RFC 3339 text, in UTC as it stands; with the date when asked for."""
    day, _, time = at.removesuffix("Z").partition("T")
    return f"{day} {time[:8]}" if date else time[:12]


def age(since: str | None, now: float) -> str:
    """`45s`, `12m`, `3h`, `9d`: how long ago, in the unit that fits."""
    if not since:
        return "-"
    seconds = max(0, int(now - parse_timestamp(since)))
    for size, unit, bound in ((1, "s", 120), (60, "m", 7200), (3600, "h", 172_800)):
        if seconds < bound:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86_400}d"
