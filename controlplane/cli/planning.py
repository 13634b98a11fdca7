"""`coreplane plan` and `coreplane diff`: what applying files would do, and what would be different."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.text import Text

from controlplane.cli import applying, arguments, comparing, documents, printing, session, tables, wording
from controlplane.cli.arguments import reference_of
from controlplane.cli.documents import Document
from controlplane.cli.failure import Ended, ExitCode, Failure
from controlplane.cli.printing import Format, Output
from controlplane.cli.rows import Rows
from controlplane.cli.wording import compact, cut, difference, shortened, trouble
from controlplane.client.http import CoreplaneClient

Json = dict[str, Any]

Files = Annotated[
    list[str],
    typer.Option("--file", "-f", metavar="FILE|DIR|-", help="YAML or JSON, a directory of both, or - for stdin."),
]
OptionalFiles = Annotated[
    list[str],
    typer.Option("--file", "-f", metavar="FILE|DIR|-", help="YAML or JSON, a directory of both, or - for stdin."),
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="OFFSET|TIME|AGO", help="Instead of files: as it was, an offset, a time, or 15m."),
]
To = Annotated[str | None, typer.Option("--to", metavar="OFFSET|TIME|AGO", help="With --from: until then, not now.")]
DiffLabels = Annotated[
    list[str], typer.Option("--label", "-l", metavar="K=V", help="Labels for --prune, or of what --from compares.")
]
Prune = Annotated[bool, typer.Option("--prune", help="As if what has the labels and isn't in the files were retired.")]
PruneLabels = Annotated[list[str], typer.Option("--label", "-l", metavar="K=V", help="Labels for --prune.")]
AllowPrune = Annotated[bool, typer.Option("--allow-prune", help="Also retire more than the safety share.")]


def plan(
    context: typer.Context,
    *,
    file: Files,
    prune: Prune = False,
    label: PruneLabels = [],  # noqa: B006 - Typer copies it
    allow_prune: AllowPrune = False,
    output: Output = Format.TABLE,
) -> None:
    """Show what applying the files would do, step by step, in the backends too, and how much each touches. Nothing is done.

    Exit code 2 when something would change, 1 when that can't be told of something, else 0.

    $ coreplane plan -f shop.yaml

    $ coreplane apply -f shop.yaml --plan PLAN_ID
    """
    declared = documents.load(file, applying.stdin(file))
    options = _options(label, prune=prune, allow_prune=allow_prune)
    found = session.run(
        context, lambda client: applying.told_in_files(client.plan(_declarations(declared), **options), declared)
    )
    if printing.is_for_machines(output):
        printing.show_data(found, output)
    else:
        _show_plan(found)
    _conclude(found)


def diff(
    context: typer.Context,
    *,
    file: OptionalFiles = [],  # noqa: B006 - Typer copies it
    begin: From = None,
    end: To = None,
    prune: Prune = False,
    label: DiffLabels = [],  # noqa: B006 - Typer copies it
    allow_prune: AllowPrune = False,
    output: Output = Format.TABLE,
) -> None:
    """Show what is different: between files and what is declared and is there, or between two times.

    Exit code 2 when something is (or would be) different, 1 when that can't be told of something, else 0.

    $ coreplane diff -f shop.yaml

    $ coreplane diff --from 2h --to 1h -l app=shop
    """
    if bool(file) == (begin is not None):
        msg = "give files, or --from with a time"
        raise Failure(msg, hint="coreplane diff -f shop.yaml, or coreplane diff --from 15m")
    if begin is not None:
        comparing.show(context, begin, end, arguments.labels(label), output)
        return
    declared = documents.load(file, applying.stdin(file))
    options = _options(label, prune=prune, allow_prune=allow_prune)

    async def verb(client: CoreplaneClient) -> tuple[Json, dict[str, Json]]:
        found = await applying.told_in_files(client.plan(_declarations(declared), **options), declared)
        changed = [r["setting"] for r in found["results"] if r["outcome"] in {"updated", "retired"}]
        return found, {key: await client.get_setting(*key.split("/")[1:]) for key in changed}

    found, before = session.run(context, verb)
    if printing.is_for_machines(output):
        printing.show_data(found["results"], output)
    else:
        printing.show(*_diffs(found, before, {document.reference: document for document in declared}))
    _conclude(found)


def _options(label: Sequence[str], *, prune: bool, allow_prune: bool) -> Json:
    labels = arguments.labels(label)
    if prune != bool(labels):
        msg = "--prune needs -l" if prune else "-l needs --prune"
        raise Failure(msg, hint="coreplane plan -f shop.yaml --prune -l app=shop")
    return {"prune": labels or None, "allow_prune": allow_prune}


def _declarations(declared: Sequence[Document]) -> list[Json]:
    return [document.declaration for document in declared]


def differs(found: Json) -> bool:
    """True when applying would change anything, in the log or in a backend."""
    return bool(found["steps"]) or any(result["outcome"] != "unchanged" for result in found["results"])


def _conclude(found: Json) -> None:
    if differs(found):
        raise Ended(ExitCode.DIFFERS)
    if found["unknown"]:
        raise Ended(ExitCode.FAILED)


# --- plan --------------------------------------------------------------------------------------------------------------


def _show_plan(found: Json) -> None:
    rows = list(plan_rows(found))
    if rows:
        printing.show(Rows(["SETTING", "OUTCOME", "WHAT WOULD BE DONE"], rows))
    printing.show(*warnings(found))
    printing.show(Text(plan_line(found)))
    if differs(found):
        printing.show(Text(f"exactly this, or nothing: coreplane apply --plan {found['plan_id']} -f …", "dim"))


def warnings(found: Json) -> Iterator[Text]:
    """What people should know of what they declare."""
    for one in found.get("warnings", ()):
        yield Text(f"{reference_of(one['setting'])}: {one['message']}", "yellow")


def plan_rows(found: Json) -> Iterator[tuple[str, Text, str]]:
    """A row for each step, and for each setting without one that isn't simply unchanged."""
    told: dict[str, list[str]] = {}
    for step in found["steps"]:
        told.setdefault(step["setting"], []).append(_step(step))
    for kind in ("refused", "unknown"):
        for one in found[kind]:
            tenant = one["setting"].partition("/")[0]
            told.setdefault(one["setting"], []).append(f"{kind}: {trouble(one['reason'], one['message'], tenant)}")
    for result in found["results"]:
        outcome = result["outcome"]
        texts = told.get(result["setting"]) or ([_declared_only(result)] if outcome != "unchanged" else [])
        for number, text in enumerate(texts):
            first = number == 0
            style = tables.OUTCOME_STYLES.get(outcome, "")
            yield reference_of(result["setting"]) if first else "", Text(outcome if first else "", style), text


def plan_line(found: Json) -> str:
    """`1 created, 11 unchanged; 2 steps, 1 of which can't be undone`"""
    steps = found["steps"]
    final = sum(step["irreversible"] for step in steps)
    counted = f"{len(steps)} step{'' if len(steps) == 1 else 's'}" if steps else "no steps"
    undone = f", {final} of which can't be undone" if final else ""
    return f"{tables.results_line(found['results'])}; {counted}{undone}"


def _step(step: Json) -> str:
    after = [reference_of(key) for key in step.get("waits_for") or ()]
    told = [step["summary"]]
    told += [affects] if (affects := touched(step)) else []
    told += ["can't be undone"] if step["irreversible"] else []
    told += [f"after {shortened(after)}"] if after else []
    return ", ".join(told)


def touched(step: Json) -> str:
    """`affects 1,204 messages and 3 partitions`; empty when the service can't tell."""
    counts = step.get("affects") or {}
    told = [wording.amount(name, count) for name, count in counts.items()]
    least = "at least " if step.get("at_least") else ""
    return f"affects {least}{' and '.join(told)}" if told else ""


def _declared_only(result: Json) -> str:
    if result["outcome"] == "updated":
        return f"declared otherwise on {shortened(result['changed'])}; nothing is to be done there"
    return "nothing is to be done there"


# --- diff --------------------------------------------------------------------------------------------------------------


def _diffs(found: Json, before: Mapping[str, Json], files: Mapping[str, Document]) -> Iterator[Text]:
    for result in found["results"]:
        reference = reference_of(result["setting"])
        document = None if result["outcome"] == "retired" else files.get(reference)
        yield from declared_diff(reference, before.get(result["setting"]), document, result["outcome"])
        yield from (
            Text(f"{reference} {there(one)}", "yellow") for one in result["differences"] if one["observed"] is not None
        )
    for kind in ("refused", "unknown"):
        for one in found[kind]:
            yield Text(f"{reference_of(one['setting'])} {kind}: {trouble(one['reason'], one['message'])}", "bold red")
    yield Text(plan_line(found))


def there(one: Json) -> str:
    """What is otherwise in the backend: `/maxmemory is 60 there, would be 90`, or `/keys has ~b:* there`."""
    told = difference(one["desired"], one["observed"])
    if told.startswith(("has ", "lacks ")):
        return f"{one['path']} {told} there"
    return f"{one['path']} is {cut(compact(one['observed']))} there, would be {cut(compact(one['desired']))}"


def declared_diff(reference: str, before: Json | None, document: Document | None, outcome: str) -> Iterator[Text]:
    """The lines of a unified diff of two declarations as YAML. None: not declared, or no longer."""
    if outcome == "unchanged":
        return
    place = document.place if document is not None else "retired"
    old = f"{reference} (revision {before['revision']})" if before is not None else "not declared"
    after = None if document is None else document.declaration
    yield from comparing.unified(before, old, after, f"{reference} ({place})")
