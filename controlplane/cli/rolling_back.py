"""`coreplane rollback`: declare again what was declared then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.text import Text

from controlplane.cli import applying, arguments, planning, printing, session, tables, waiting
from controlplane.cli.arguments import reference_of
from controlplane.cli.options import Labels, Timeout
from controlplane.cli.printing import Format, Output
from controlplane.cli.rows import Rows
from controlplane.cli.wording import shortened
from controlplane.client.http import CoreplaneClient

Json = dict[str, Any]


def rollback(
    context: typer.Context,
    setting: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TYPE/NAME]...", help="Only these settings; else all, those created since included."),
    ] = None,
    *,
    to: Annotated[
        str, typer.Option("--to", metavar="REVISION|TIME|AGO", help="Where to: a revision, a time, or 15m (ago).")
    ],
    label: Labels = [],  # noqa: B006 - Typer copies it
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be declared again, and done in the backends.")
    ] = False,
    plan: Annotated[
        str | None, typer.Option("--plan", metavar="PLAN_ID", help="Exactly what --dry-run said, or nothing.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until every setting is Ready, and the retired are gone.")
    ] = False,
    timeout: Timeout = "120s",
    reason: Annotated[str | None, typer.Option("--reason", help="Why; stands in the history.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Declare settings again as they were: all of them, or none. What was created since is retired.

    $ coreplane rollback --to 10m --dry-run

    $ coreplane rollback --to 41 cache.redis_user/app --reason 'the sale is over'
    """
    settings = ["/".join(arguments.reference(text, None)) for text in setting or ()]
    options: Json = {"settings": settings, "labels": arguments.labels(label), "reason": reason}
    place, wait_s = arguments.place(to, time.time()), arguments.duration_s(timeout)

    async def verb(client: CoreplaneClient) -> None:
        done = await client.rollback(place, **options, plan=plan, dry_run=dry_run)
        if printing.is_for_machines(output):
            printing.show_data(done, output)
        elif dry_run:
            _show_plan(done)
        else:
            _show(done["results"])
        if wait and not dry_run:
            watch = applying.watch_of(done["results"])
            in_time = await applying.settled(client, watch, wait_s)
            waiting.conclude(watch, in_time=in_time, wait_s=wait_s)

    session.run(context, verb)


def _show(results: list[Json]) -> None:
    if results:
        printing.show(tables.results_table(results))
    printing.show(Text(tables.results_line(results) if results else "nothing to do: all is declared as it was"))


def _show_plan(found: Json) -> None:
    if rows := list(foreseen_rows(found)):
        printing.show(Rows(["SETTING", "OUTCOME", "CHANGED", "WHAT WOULD BE DONE"], rows))
    printing.show(*planning.warnings(found))
    printing.show(Text(f"{planning.plan_line(found)} (dry run: nothing stored)"))
    if planning.differs(found):
        printing.show(Text(f"exactly this, or nothing: coreplane rollback --plan {found['plan_id']} --to …", "dim"))


def foreseen_rows(found: Json) -> Iterator[tuple[str, Text, str, str]]:
    """Those of a plan, with the paths that would be declared otherwise at the first row of each setting."""
    changed = {reference_of(result["setting"]): result["changed"] for result in found["results"]}
    for reference, outcome, done in planning.plan_rows(found):
        yield reference, outcome, shortened(changed.get(reference, ()), tables.CHANGED), done
