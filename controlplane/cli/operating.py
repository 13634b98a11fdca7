"""`coreplane op`: one-shot requests to backends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from controlplane.cli import arguments, printing, session
from controlplane.cli.documents import JsonLoader
from controlplane.cli.failure import Failure
from controlplane.cli.printing import Format, Output
from controlplane.cli.rows import Rows


def op(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="SERVICE.NAME",
            help="For example cache.invalidate; left out, all are listed.",
            autocompletion=session.complete_operation,
        ),
    ] = None,
    argument: Annotated[
        list[str],
        typer.Argument(metavar="K=V", help="Arguments; values are read as YAML, a.b=1 sets a field of a."),
    ] = [],  # noqa: B006 - Typer copies it
    *,
    data: Annotated[
        str | None, typer.Option("--data", metavar="JSON|@FILE|@-", help="The whole body; arguments are added to it.")
    ] = None,
    output: Output = Format.YAML,
) -> None:
    r"""Run an operation and print its result; without a name, list what can be run.

    $ coreplane op

    $ coreplane op cache.invalidate namespace=sessions keys='\[a, b]'

    $ coreplane op cache.inspect --data @inspect.yaml
    """
    if name is None:
        _list(session.run(context, lambda client: client.operations())["items"], output)
        return
    if "." not in name:
        msg = f"{name!r} is no operation"
        raise Failure(msg, hint="write service.name, for example cache.invalidate")
    body = {**_body(data), **arguments.operation_arguments(argument)}
    result = session.run(context, lambda client: client.operate(name, body))
    printing.show_data(result, output if printing.is_for_machines(output) else Format.YAML)


def _list(operations: list[dict[str, Any]], output: Format) -> None:
    if printing.is_for_machines(output) and output is not Format.YAML:
        printing.show_data(operations, output)
    else:
        printing.show(
            Rows(["OPERATION", "ARGUMENTS"], ((o["operation"], _arguments(o["request"])) for o in operations))
        )


def _arguments(schema: dict[str, Any]) -> str:
    """`namespace [keys] [all]`: what may be left out stands in brackets."""
    required = schema.get("required", ())
    return " ".join(name if name in required else f"[{name}]" for name in schema.get("properties", {}))


def _body(data: str | None) -> dict[str, Any]:
    if data is None:
        return {}
    try:
        body = yaml.load(_text(data), JsonLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as exc:
        msg = f"can't read {data}: {exc}"
        raise Failure(msg) from exc
    if not isinstance(body, dict):
        msg = f"{data}: the body of an operation is a map"
        raise Failure(msg)
    return body


def _text(data: str) -> str:
    if data == "@-":
        return sys.stdin.read()
    return Path(data[1:]).read_text(encoding="utf-8") if data.startswith("@") else data
