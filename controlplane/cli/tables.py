"""Settings and statuses as text and rows. Pure: `now` comes in as an argument, printing is elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.text import Text

from controlplane.cli.arguments import reference_of
from controlplane.cli.event_lines import when
from controlplane.cli.rows import Rows
from controlplane.cli.wording import compact, differences, shortened, trouble
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
OUTCOME_STYLES = {"created": "green", "updated": "cyan", "unchanged": "dim", "retired": "magenta"}
CHANGED = 3
"""So many changed paths of a revision are named."""
OUTCOMES = ("created", "updated", "unchanged", "retired")


def settings_table(settings: Iterable[Json], now: float, *, wide: bool = False) -> Rows:
    """type, name, phase, generation, age, message; wide: also revision, external name, labels."""
    columns = ["TYPE", "NAME", "PHASE", "GEN", "AGE"]
    columns += ["REVISION", "EXTERNAL", "LABELS"] if wide else []
    return Rows([*columns, "MESSAGE"], (_setting_row(setting, now, wide=wide) for setting in settings))


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


def past_table(settings: Iterable[Json]) -> Rows:
    """Settings as they were: what was declared is known, how far the world was isn't kept."""
    return Rows(
        ["TYPE", "NAME", "GEN", "REVISION", "UPDATED", "LABELS"],
        (
            (
                s["setting_type"],
                s["name"],
                str(s.get("generation", "")),
                str(s.get("revision", "")),
                when(str(s.get("updated_at", "")))[:19],
                pairs(s.get("labels") or {}),
            )
            for s in settings
        ),
    )


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
            told = differences(status.get("drift") or ()) if kind == "Drifted" else ""
            return trouble(condition.get("reason"), told or condition.get("message"), setting.get("tenant"))
    return ""


def counted(words: Iterable[str]) -> str:
    """`9 Ready, 2 Stalled`, the most frequent first."""
    return ", ".join(f"{count} {word}" for word, count in Counter(words).most_common())


def results_table(results: Iterable[Json]) -> Rows:
    """What an apply did to each setting."""
    return Rows(
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


def conditions_table(conditions: Iterable[Json], now: float) -> Rows:
    """Conditions with how long they have been so."""
    return Rows(
        ["CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"],
        (
            (c["type"], c["status"], c.get("reason", ""), age(c.get("since"), now), c.get("message") or "")
            for c in conditions
        ),
    )


def drift_table(drift: Iterable[Json]) -> Rows:
    """Path, desired and observed value of every difference."""
    return Rows(
        ["PATH", "DESIRED", "OBSERVED"],
        ((d["path"], compact(d.get("desired")), compact(d.get("observed"))) for d in drift),
    )


def history_table(revisions: Sequence[Json]) -> Rows:
    """Revisions, newest first: who made them, what they changed, and why."""
    older = [*revisions[1:], None]
    return Rows(
        ["REVISION", "GEN", "AT", "ACTOR", "OP", "CHANGED", "REASON"],
        (
            (
                str(r["revision"]),
                str(r.get("generation", "")),
                when(r["at"])[:19],
                str(r.get("actor") or ""),
                str(r.get("op") or ""),
                _changed(r, before),
                str(r.get("reason") or ""),
            )
            for r, before in zip(revisions, older, strict=True)
        ),
    )


def _changed(revision: Json, before: Json | None) -> str:
    """What a revision changed; a first declaration changes everything, which needs no list."""
    if revision.get("op") == "declare" and (before is None or before.get("op") == "forget"):
        return "new"
    return shortened(revision.get("changed") or (), CHANGED) if revision.get("op") == "declare" else ""


def pairs(labels: Mapping[str, Any]) -> str:
    """`a=1 b=2`"""
    return " ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def age(since: str | None, now: float) -> str:
    """`45s`, `12m`, `3h`, `9d`: how long ago, in the unit that fits."""
    if not since:
        return "-"
    seconds = max(0, int(now - parse_timestamp(since)))
    for size, unit, bound in ((1, "s", 120), (60, "m", 7200), (3600, "h", 172_800)):
        if seconds < bound:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86_400}d"
