"""Differences between declarations, line by line; and `coreplane diff --from`: between two times."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import typer
from rich.text import Text

from controlplane.cli import arguments, printing, session
from controlplane.cli.arguments import reference_of
from controlplane.cli.event_lines import when
from controlplane.cli.failure import Ended, ExitCode
from controlplane.cli.printing import Format

Json = Mapping[str, Any]

DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}
DECLARED = ("labels", "depends_on", "policy", "value")
OUTCOMES = ("created", "updated", "retired", "gone")


def unified(old: Json | None, old_title: str, new: Json | None, new_title: str) -> Iterator[Text]:
    """The lines of a unified diff of two declarations as YAML. None: not declared."""
    for line in difflib.unified_diff(_yaml(old), _yaml(new), old_title, new_title, lineterm=""):
        yield Text(line, "bold" if line.startswith(("---", "+++")) else DIFF_STYLES.get(line[:1], ""))


def show(context: typer.Context, begin: str, end: str | None, labels: dict[str, str], output: Format) -> None:
    """What was declared otherwise at one time than at the other. Ends with 2 when anything was."""
    now = time.time()
    places = arguments.place(begin, now), None if end is None else arguments.place(end, now)
    found = session.run(context, lambda client: client.diff(*places, labels=labels))
    if printing.is_for_machines(output):
        printing.show_data(found, output)
    else:
        printing.show(*lines(found))
    if found["items"]:
        raise Ended(ExitCode.DIFFERS)


def lines(found: Json) -> Iterator[Text]:
    """The differences for people: who made each, and what it was."""
    for item in found["items"]:
        reference = reference_of(item["setting"])
        old = f"{reference} ({_place(item['before'])})"
        new = f"{reference} ({_place(item['after'])})"
        yield from unified(_declared(item["before"]), old, _declared(item["after"]), new)
    counts = [(outcome, sum(item["outcome"] == outcome for item in found["items"])) for outcome in OUTCOMES]
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts if count) or "no difference"
    yield Text(f"{told} between revisions {found['from']} and {found['to']}")


def _place(side: Json | None) -> str:
    if side is None:
        return "not declared"
    why = f": {side['reason']}" if side["reason"] else ""
    state = ", retired" if side["retiring"] else ""
    return f"revision {side['revision']}{state} by {side['actor']} at {when(side['at'])[:19]}{why}"


def _declared(side: Json | None) -> Json | None:
    declaration: Json | None = None if side is None or side["retiring"] else side["declaration"]
    return declaration


def _yaml(declaration: Json | None) -> list[str]:
    parts = {part: declaration[part] for part in DECLARED if declaration.get(part)} if declaration is not None else {}
    return printing.rendered(parts, Format.YAML).splitlines() if parts else []
