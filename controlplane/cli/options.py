"""Arguments and options that several verbs share, each with its help text."""

from __future__ import annotations

from typing import Annotated

import typer

from controlplane.cli.session import complete_name, complete_type

FirstReference = Annotated[
    str, typer.Argument(metavar="TYPE[/NAME]", help="The setting's type, or type/name.", autocompletion=complete_type)
]
NameReference = Annotated[
    str | None, typer.Argument(metavar="NAME", help="The setting's name.", autocompletion=complete_name)
]
Labels = Annotated[
    list[str], typer.Option("--label", "-l", metavar="K=V", help="Only settings with this label; repeat for several.")
]
Timeout = Annotated[str, typer.Option("--timeout", metavar="DURATION", help="How long to wait: 30s, 5m.")]
At = Annotated[
    str | None, typer.Option("--at", metavar="OFFSET|TIME|AGO", help="As it was: an offset, a time, or 15m (ago).")
]
Since = Annotated[str | None, typer.Option("--since", metavar="TIME|AGO", help="Not before: a time, or 15m (ago).")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME|AGO", help="Before: a time, or 5m (ago).")]
