"""`coreplane audit`: who did what when, and who was refused."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.text import Text

from controlplane.cli import arguments, printing, session
from controlplane.cli.arguments import reference_of
from controlplane.cli.event_lines import when
from controlplane.cli.options import Since, Until
from controlplane.cli.printing import Format, Output
from controlplane.cli.rows import Rows

Json = dict[str, Any]


def audit(
    context: typer.Context,
    *,
    actor: Annotated[str | None, typer.Option("--actor", metavar="WHO", help="Only what this one did.")] = None,
    setting: Annotated[
        str | None, typer.Option("--setting", metavar="TYPE/NAME", help="Only what was done to this setting.")
    ] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many, the newest.")] = 50,
    output: Output = Format.TABLE,
) -> None:
    """Show who did what when, newest first, and what was refused to whom. For admins.

    $ coreplane audit --since 24h --actor default/ci
    """
    now = time.time()
    filters = {
        "actor": actor,
        "setting": setting,
        "since": None if since is None else arguments.moment(since, now),
        "until": None if until is None else arguments.moment(until, now),
    }
    page = session.run(context, lambda client: client.audit(limit=limit, **filters))
    if printing.is_for_machines(output):
        printing.show_data(page, output)
        return
    printing.show(done(page["items"]))
    if page["refused"]:
        printing.show("", refused(page["refused"]))


def done(rows: Iterable[Json]) -> Rows:
    """at, actor, action, setting, outcome, reason."""
    body = (
        [
            when(row["at"]),
            row["actor"] or "-",
            row["action"],
            reference_of(row["setting"]) if row["setting"] else "-",
            row["outcome"],
            row["reason"],
        ]
        for row in rows
    )
    return Rows(["AT", "ACTOR", "ACTION", "SETTING", "OUTCOME", "REASON"], body)


def refused(attempts: Iterable[Json]) -> Rows:
    """Attempts that weren't let in, since the replica started."""
    body = (
        [
            when(one["last_at"]),
            one["actor"] or "-",
            f"{one['method']} {one['route']}",
            Text(one["reason"], "red"),
            str(one["count"]),
        ]
        for one in attempts
    )
    return Rows(["LAST REFUSED", "ACTOR", "REQUEST", "REASON", "TIMES"], body)
