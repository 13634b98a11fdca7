"""`coreplane apply`: declare what files say, and follow it until it is so."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Sequence
from typing import Annotated, Any

import typer
from rich.text import Text

from controlplane.cli import arguments, documents, printing, session, tables, waiting
from controlplane.cli.documents import Document
from controlplane.cli.failure import ExitCode, Failure
from controlplane.cli.options import Timeout
from controlplane.cli.printing import Format, Output
from controlplane.client.errors import ApiError
from controlplane.client.http import CoreplaneClient

Json = dict[str, Any]


def apply(
    context: typer.Context,
    *,
    file: Annotated[
        list[str],
        typer.Option("--file", "-f", metavar="FILE|DIR|-", help="YAML or JSON, a directory of both, or - for stdin."),
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Until every setting is Ready.")] = False,
    timeout: Timeout = "120s",
    prune: Annotated[bool, typer.Option("--prune", help="Retire what has the labels and isn't in the files.")] = False,
    label: Annotated[list[str], typer.Option("--label", "-l", metavar="K=V", help="Labels for --prune.")] = [],  # noqa: B006 - Typer copies it
    allow_prune: Annotated[bool, typer.Option("--allow-prune", help="Also retire more than the safety share.")] = False,
    plan: Annotated[
        str | None, typer.Option("--plan", metavar="ID", help="Only if the world is as `coreplane plan` found it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be stored.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; stands in the history.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Declare every setting in the files: all of them, or none.

    $ coreplane apply -f shop.yaml --wait --reason 'more memory for the sale'

    $ coreplane apply -f shop/ --prune -l app=shop
    """
    labels = arguments.labels(label)
    if prune != bool(labels):
        msg = "--prune needs -l" if prune else "-l needs --prune"
        raise Failure(msg, hint="coreplane apply -f shop.yaml --prune -l app=shop")
    wait_s = arguments.duration_s(timeout)
    declared = documents.load(file, stdin(file))
    options = {"prune": labels or None, "allow_prune": allow_prune, "reason": reason, "plan": plan, "dry_run": dry_run}

    async def verb(client: CoreplaneClient) -> None:
        result = await declare(client, declared, **options)
        watch = watch_of(result["results"]) if wait and not dry_run else waiting.Watch({})
        if not printing.is_for_machines(output):
            _show(result["results"], dry_run=dry_run)
        in_time = await settled(client, watch, wait_s)
        if printing.is_for_machines(output):
            printing.show_data(_answer(result, watch), output)
        waiting.conclude(watch, in_time=in_time, wait_s=wait_s)
        if watch.wanted and not printing.is_for_machines(output):
            printing.show(Text(f"all {len(watch.wanted)} as declared", "green"))

    session.run(context, verb)


async def declare(client: CoreplaneClient, declared: Sequence[Document], **options: Any) -> Json:
    """Apply the documents; a refusal is told with the places in the files."""
    return await told_in_files(client.apply([document.declaration for document in declared], **options), declared)


async def told_in_files(call: Awaitable[Json], declared: Sequence[Document]) -> Json:
    """The answer to a call that sends the documents; what it complains about is told with the places in the files."""
    try:
        return await call
    except ApiError as exc:
        failure = printing.failure_of(exc)
        if not any(fault.path.startswith("/settings/") for fault in exc.errors):
            raise
        faults = tuple((documents.placed(path, declared), message) for path, message in exc.errors)
        raise Failure(failure.message, faults=faults, hint=failure.hint, code=ExitCode.FAILED) from exc


def watch_of(results: Sequence[Json]) -> waiting.Watch:
    """What to wait for after an apply: every declared generation, and the end of what is retired."""
    return waiting.Watch(
        {
            arguments.reference_of(result["setting"]): (
                waiting.GONE if result["outcome"] == "retired" else result["generation"]
            )
            for result in results
        }
    )


async def settled(client: CoreplaneClient, watch: waiting.Watch, wait_s: float) -> bool:
    """Follow all that is waited for, shown as it goes; False when it isn't done in time."""
    if not watch.wanted:
        return True
    with waiting.Progress() as progress:
        return await waiting.settle(client, watch, wait_s, progress)


def _answer(result: Json, watch: waiting.Watch) -> Json:
    """The daemon's answer; with --wait each result has the status it was last seen with."""
    if not watch.wanted:
        return result
    results = [
        {**r, "status": (watch.seen.get(arguments.reference_of(r["setting"])) or {}).get("status")}
        for r in result["results"]
    ]
    return {**result, "results": results}


def _show(results: Sequence[Json], *, dry_run: bool) -> None:
    if results:
        printing.show(tables.results_table(results))
    printing.show(Text(tables.results_line(results) + (" (dry run: nothing stored)" if dry_run else "")))


def stdin(sources: Sequence[str]) -> str | None:
    """What comes in, when the files say so."""
    return sys.stdin.read() if documents.STDIN in sources else None
