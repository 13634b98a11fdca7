"""`coreplane explain`: why a setting is as it is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from controlplane.cli import arguments, printing, session, tables
from controlplane.cli.arguments import reference_of
from controlplane.cli.event_lines import when
from controlplane.cli.options import FirstReference, NameReference
from controlplane.cli.printing import Format, Output
from controlplane.cli.rows import Rows
from controlplane.cli.session import complete_path
from controlplane.cli.wording import compact, cut, difference, shortened, trouble

Json = Mapping[str, Any]

SHOWN_CHARS = 40


def explain(
    context: typer.Context,
    setting_type: FirstReference,
    name: NameReference = None,
    *,
    path: Annotated[
        str | None,
        typer.Option("--path", "-p", metavar="PATH", help="Only this path: /commands", autocompletion=complete_path),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Why a setting is as it is: who set each path, when and why, what was done about it, and what is there now.

    $ coreplane explain cache.redis_config shop --path /parameters/maxmemory
    """
    reference = arguments.reference(setting_type, name)
    told = session.run(context, lambda client: client.explain(*reference, path=path))
    if printing.is_for_machines(output):
        printing.show_data(told, output)
    else:
        printing.show(*explanation(told, time.time()))


def explanation(told: Json, now: float) -> Iterator[RenderableType]:
    """The answer for people."""
    head = f"{reference_of(told['setting'])}, revision {told['revision']}, generation {told['generation']}: "
    yield Text.assemble((head, "bold"), tables.phase_text(told["phase"]))
    if told["unknown"]:
        yield Text(f"not looked at: {trouble(told['unknown']['reason'], told['unknown']['message'])}", "yellow")
    yield ""
    columns = ["PATH", "DESIRED", "OBSERVED", "REVISION", "BY", "AGE", "REASON"]
    yield Rows(columns, (_row(row, now) for row in told["paths"]))
    yield ""
    yield Text("From the request to what was observed", "bold")
    yield steps(told["chain"])
    episode = told["drift"]
    if episode:
        yield ""
        yield Text(
            f"Drift since {when(episode['since'])[:19]}" if episode["until"] is None else "The last drift", "bold"
        )
        yield steps(episode["chain"])


def _row(row: Json, now: float) -> list[str | Text]:
    by = row["set_by"]
    return [
        row["path"] or "/",
        cut(compact(row["desired"]), SHOWN_CHARS),
        _observed(row),
        str(by["revision"]),
        by["actor"],
        tables.age(by["at"], now),
        by["reason"],
    ]


def _observed(row: Json) -> Text:
    if row["muted"] and not row["drift"]:
        return Text("ignored", "dim")
    if not row["known"]:
        return Text("unknown", "yellow")
    if not row["drift"]:
        return Text("as desired", "green")
    told = difference(row["drift"][0]["desired"], row["drift"][0]["observed"])
    return Text(f"ignored: {told}", "dim") if row["muted"] else Text(told, "yellow")


def steps(chain: Iterable[Json]) -> Rows:
    """A chain, line by line."""
    return Rows(["AT", "STAGE", "WHAT"], ((when(one["at"])[11:23], one["stage"], _what(one)) for one in chain))


def _what(one: Json) -> str:
    if one["stage"] == "request":
        return f"{one['id']} by {one['actor']}" + (f": {one['reason']}" if one["reason"] else "")
    if one["stage"] == "change":
        return f"revision {one['revision']}, {one['op']} {shortened(one['changed'], tables.CHANGED)}"
    details = one["details"]
    if one["stage"] == "intent":
        return f"{details.get('summary')} (try {details.get('attempt')})"
    if one["stage"] == "effect":
        return trouble(details.get("reason"), details.get("message")) or str(one["status"])
    return f"{one['event_type']} {_observation(details)}".strip()


def _observation(details: Json) -> str:
    if "drift" in details:
        return " · ".join(f"{d['path']} {difference(d['desired'], d['observed'])}" for d in details["drift"])
    return trouble(details.get("reason"), details.get("message")) or " ".join(details.get("paths", ()))
