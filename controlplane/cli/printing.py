"""Where output goes and in which format. Answers on stdout, progress and complaints on stderr.

On a terminal tables fit its width and have colours. Into a pipe they are as wide as their content, so that `grep` and
`awk` see whole lines.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console, RenderableType
from rich.text import Text

from controlplane.cli.failure import Failure
from controlplane.cli.rows import Facts
from controlplane.client.errors import ApiError, ClientError, DaemonUnreachable

PIPE_WIDTH = 10_000


class Format(StrEnum):
    """Formats of `-o`."""

    TABLE = "table"
    WIDE = "wide"
    YAML = "yaml"
    JSON = "json"


Output = Annotated[
    Format, typer.Option("--output", "-o", help="table and wide for people, yaml and json for machines.")
]


def stdout() -> Console:
    """The console for answers."""
    return Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def stderr() -> Console:
    """The console for progress and complaints."""
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPE_WIDTH)


def show(*parts: RenderableType) -> None:
    """Print for people. Texts are printed as they are: what comes from the daemon is never taken for markup."""
    console = stdout()
    for part in parts:
        console.print(part, markup=False, crop=False)


def show_data(data: Any, output: Format) -> None:
    """Print for machines."""
    sys.stdout.write(rendered(data, output))
    sys.stdout.flush()


def rendered(data: Any, output: Format) -> str:
    """The data as JSON or YAML text, keys in the order of the API."""
    if output is Format.JSON:
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)


def documents(declarations: Sequence[Any], output: Format) -> str:
    """Declarations as `apply -f` reads them: one YAML document each, or a JSON list."""
    if output is Format.JSON:
        return rendered(list(declarations), output)
    return "---\n".join(rendered(declaration, Format.YAML) for declaration in declarations)


def is_for_machines(output: Format) -> bool:
    """True for JSON and YAML."""
    return output in {Format.JSON, Format.YAML}


def complain(error: Failure | ClientError) -> None:
    """Say on stderr what went wrong, where, and what to do about it."""
    console = stderr()
    failure = error if isinstance(error, Failure) else failure_of(error)
    console.print(Text.assemble(("error: ", "bold red"), failure.message), soft_wrap=True)
    if failure.faults:
        console.print(Facts((f"  {place}", message) for place, message in failure.faults), crop=False)
    if failure.hint:
        console.print(Text.assemble(("hint: ", "bold"), failure.hint), soft_wrap=True)


def failure_of(error: ClientError) -> Failure:
    """A client's error in a person's words."""
    if isinstance(error, DaemonUnreachable):
        hint = "is the daemon running? `coreplane up` starts it; --url or COREPLANE_URL says where else to look"
        return Failure(str(error), hint=hint)
    if isinstance(error, ApiError):
        kind = error.reason or error.title
        message = error.detail if kind in error.detail else f"{kind}: {error.detail}" if error.detail else kind
        told = len(error.errors) == 1 and error.errors[0].message in message  # by the message, no need to repeat it
        return Failure(
            f"{message} ({error.status})", faults=() if told else error.errors, hint=_HINTS.get(error.reason, "")
        )
    return Failure(str(error))


_HINTS = {
    "Unauthenticated": "give a token with --token or COREPLANE_TOKEN",
    "Forbidden": "this token's role doesn't allow it; ask for an editor's or admin's",
    "PlanStale": "nothing was stored; `coreplane plan` shows what applying would do now",
    "PruneRefused": "check the labels; --allow-prune does it all the same",
    "LogUnavailable": "nothing was stored; try again, `coreplane doctor` looks for the cause",
    "OutcomeUnknown": "it may or may not have been stored; doing the same again is safe",
    "TooManyRequests": "try again in a moment",
}
