"""`coreplane import`: what exists already, as declarations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from controlplane.cli import applying, arguments, documents, printing, session
from controlplane.cli.arguments import reference_of
from controlplane.cli.failure import Failure
from controlplane.cli.printing import Format
from controlplane.cli.session import complete_target, complete_type
from controlplane.client.http import CoreplaneClient

Json = dict[str, Any]


def import_(
    context: typer.Context,
    setting_type: Annotated[
        str | None,
        typer.Argument(metavar="TYPE", help="What to look for in the backend.", autocompletion=complete_type),
    ] = None,
    *,
    target: Annotated[
        str, typer.Option("--target", "-t", metavar="NAME", help="Where it is.", autocompletion=complete_target)
    ],
    match: Annotated[str, typer.Option("--match", "-m", metavar="GLOB", help="Only objects so called there.")] = "*",
    file: Annotated[
        list[str],
        typer.Option("--file", "-f", metavar="FILE|-", help="Instead of the backend: a file of another tool."),
    ] = [],  # noqa: B006 - Typer copies it
    file_format: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="Of the files, where it can't be told by itself.")
    ] = None,
    label: Annotated[
        list[str], typer.Option("--label", "-l", metavar="K=V", help="Give the declarations this label.")
    ] = [],  # noqa: B006 - Typer copies it
    output: Annotated[Format, typer.Option("--output", "-o", help="yaml or json.")] = Format.YAML,
) -> None:
    """Print declarations of what exists in a backend, or of what a file says. Nothing is stored and nothing is changed.

    What is printed converges without a write. Secrets can't be read: comments say where one has to be named.

    $ coreplane import cache.redis_user -t redis -m 'app*' > users.yaml

    $ coreplane import -f users.acl -t redis | coreplane diff -f -
    """
    if bool(file) == bool(setting_type):
        msg = "give a type to look for in the backend, or -f with a file"
        raise Failure(msg, hint="coreplane import cache.redis_user -t redis")
    labels = arguments.labels(label)
    texts = [(Path(source).stem.strip("-"), documents.text_of(source, applying.stdin([source]))) for source in file]

    async def verb(client: CoreplaneClient) -> list[Json]:
        if setting_type is not None:
            return [await client.discover(setting_type, target, match)]
        return [await client.convert(text, target, file_format=file_format, name=name) for name, text in texts]

    found = session.run(context, verb)
    answer = {part: [one for each in found for one in each[part]] for part in found[0]}
    answer["settings"] = [_labelled(declaration, labels) for declaration in answer["settings"]]
    typer.echo(printing.rendered(answer, output) if output is Format.JSON else commented(answer), nl=False)
    _tell(answer)


def _labelled(declaration: Json, labels: dict[str, str]) -> Json:
    named = {part: declaration[part] for part in ("type", "name")}
    return {**named, **({"labels": labels} if labels else {}), **declaration}


def commented(answer: Json) -> str:
    """The declarations as YAML, with what is to be filled in as comments."""
    hints: dict[str, list[str]] = {}
    for one in answer["fill_in"]:
        hints.setdefault(reference_of(one["setting"]), []).append(f"# {one['path']}: {one['message']}\n")
    return "---\n".join(
        "".join(hints.get(f"{declaration['type']}/{declaration['name']}", ()))
        + printing.rendered(declaration, Format.YAML)
        for declaration in answer["settings"]
    )


def _tell(answer: Json) -> None:
    console = printing.stderr()
    for one in answer["skipped"]:
        console.print(Text(f"left out: {one['type']}/{one['name']}: {one['reason']}"), soft_wrap=True)
    console.print(Text(_line(answer["settings"], answer["declared"], answer["fill_in"])), soft_wrap=True)


def _line(settings: Sequence[Json], declared: Sequence[Json], fill_in: Sequence[Json]) -> str:
    count = "1 declaration" if len(settings) == 1 else f"{len(settings)} declarations"
    more = f", {len(declared)} declared already" if declared else ""
    return f"{count}{more}" + (f"; {len(fill_in)} with a secret to be named, see the comments" if fill_in else "")
