"""`coreplane drift`: what differs, or did, from what is declared."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.text import Text

from controlplane.cli import arguments, printing, session, tables
from controlplane.cli.arguments import reference_of
from controlplane.cli.options import Labels, Since
from controlplane.cli.printing import Format, Output
from controlplane.cli.rows import Rows
from controlplane.cli.session import complete_type
from controlplane.cli.wording import difference
from controlplane.domain.drifting import DriftState

Json = Mapping[str, Any]

STYLES = {"open": "bold yellow", "muted": "dim", "recurring": "yellow", "resolved": "green"}


def drift(
    context: typer.Context,
    setting_type: Annotated[
        str | None,
        typer.Argument(metavar="TYPE[/NAME]", help="A type, type/name or service.", autocompletion=complete_type),
    ] = None,
    *,
    state: Annotated[
        DriftState | None,
        typer.Option("--state", case_sensitive=False, help="Only in this state; else all but what is resolved."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what is resolved.")] = False,
    label: Labels = [],  # noqa: B006 - Typer copies it
    since: Since = None,
    output: Output = Format.TABLE,
) -> None:
    """List drift: paths that differ now, that are left as they are, and that keep coming back. Of the last 7 days.

    $ coreplane drift

    $ coreplane drift cache --all --since 24h
    """
    first, slash, _ = (setting_type or "").partition("/")
    kind, service = arguments.type_or_service(first) if first and not slash else (None, None)
    filters: dict[str, Any] = {
        "setting": "/".join(arguments.reference(setting_type, None)) if setting_type and slash else None,
        "setting_type": kind,
        "service": service,
        "labels": arguments.labels(label),
        "state": None if state is None else str(state),
        "since": None if since is None else arguments.moment(since, time.time()),
    }
    found = session.run(context, lambda client: client.drift(**filters))
    everything = everything or state is not None
    items = [item for item in found["items"] if everything or item["state"] != DriftState.RESOLVED]
    if printing.is_for_machines(output):
        printing.show_data(found | {"items": items}, output)
        return
    if items:
        printing.show(table(items, time.time()))
    printing.show(Text(line(found["counts"])))


def table(items: Iterable[Json], now: float) -> Rows:
    """A row for each path."""
    return Rows(["SETTING", "PATH", "STATE", "TIMES", "SINCE", "DRIFT"], (_row(item, now) for item in items))


def _row(item: Json, now: float) -> list[str | Text]:
    told = difference(item["desired"], item["observed"])
    muted = item["muted"]
    if muted is not None:
        until = f" until {muted['until']}" if muted["until"] else ""
        told = f"{told} (ignored{until}: {muted['reason'] or 'no reason given'})"
    elif item["state"] == DriftState.OPEN and item["policy"] == "report":
        told = f"{told} (reported only)"
    return [
        reference_of(item["setting"]),
        item["path"],
        Text(item["state"], STYLES.get(item["state"], "")),
        str(item["episodes"] or "-"),
        tables.age(item["since"], now),
        told,
    ]


def line(counts: Mapping[str, int]) -> str:
    """`1 open, 2 muted`, or that there is none."""
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no drift"
