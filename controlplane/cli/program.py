"""The `coreplane` program: which verbs there are, and how their errors reach the shell.

Exit codes: 0 done, 1 failed (also: mistyped), 2 differs, 3 timed out, 130 after Ctrl-C. A person's mistake gets a message
and a hint; a bug gets one line, and its traceback with --debug.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Final, NamedTuple

import typer
from rich.text import Text

from controlplane.cli import arguments, printing
from controlplane.cli.failure import Ended, ExitCode, Failure
from controlplane.cli.session import Session
from controlplane.client.errors import ClientError

DAEMON = "The daemon"
SETTINGS = "Settings"
WATCHING = "Watching and operating"
ACCESS = "Access"

USAGE_ERROR = 2
"""Typer's exit code for a mistyped command; 2 means "differs" here."""


class Verb(NamedTuple):
    """One verb: panel of the help, name, module of this package, and its function; None: its `app` has verbs of its own."""

    panel: str
    name: str
    module: str
    function: str | None


VERBS: Final = (
    Verb(DAEMON, "up", "up", "up"),
    Verb(DAEMON, "down", "down", "down"),
    Verb(DAEMON, "serve", "serving", "serve"),
    Verb(DAEMON, "project", "projecting", "project"),
    Verb(DAEMON, "status", "daemon_status", "status"),
    Verb(DAEMON, "doctor", "doctor", "doctor"),
    Verb(SETTINGS, "plan", "planning", "plan"),
    Verb(SETTINGS, "diff", "planning", "diff"),
    Verb(SETTINGS, "apply", "applying", "apply"),
    Verb(SETTINGS, "get", "settings", "get"),
    Verb(SETTINGS, "describe", "settings", "describe"),
    Verb(SETTINGS, "explain", "explaining", "explain"),
    Verb(SETTINGS, "delete", "settings", "delete"),
    Verb(SETTINGS, "wait", "settings", "wait"),
    Verb(SETTINGS, "history", "settings", "history"),
    Verb(SETTINGS, "rollback", "rolling_back", "rollback"),
    Verb(SETTINGS, "import", "importing", "import_"),
    Verb(SETTINGS, "export", "settings", "export"),
    Verb(SETTINGS, "reconcile", "settings", "reconcile"),
    Verb(WATCHING, "events", "events", "events"),
    Verb(WATCHING, "drift", "drifting", "drift"),
    Verb(WATCHING, "op", "operating", "op"),
    Verb(ACCESS, "audit", "auditing", "audit"),
    Verb(ACCESS, "token", "tokens", None),
)


def root(
    context: typer.Context,
    *,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            envvar="COREPLANE_URL",
            help="The daemon; else the running `coreplane up`, else port 8470.",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", metavar="TOKEN", envvar="COREPLANE_TOKEN", help="Bearer token.", show_envvar=True),
    ] = None,
    tenant: Annotated[
        str, typer.Option("--tenant", metavar="TENANT", envvar="COREPLANE_TENANT", help="Tenant.")
    ] = "default",
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a bug.")] = False,
) -> None:
    """Declare the settings of your core services; Coreplane keeps the backends there.

    Start here: coreplane up, then coreplane get, coreplane events -f.
    """
    context.obj = Session(url, token, tenant, debug)


def version() -> None:
    """Show the version."""
    typer.echo(f"coreplane {importlib.metadata.version('coreplane')}")


def program(words: Collection[str] = ()) -> typer.Typer:
    """The command line with the verbs among the words; with all of them when none is, for help and completion.

    A verb's module is imported with it: what only `up` and `serve` need, the whole daemon, would make every other verb
    start a second later.
    """
    app = typer.Typer(
        name="coreplane",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(root)
    for verb in [verb for verb in VERBS if verb.name in words] or VERBS:
        module = importlib.import_module(f"controlplane.cli.{verb.module}")
        if verb.function is None:
            app.add_typer(module.app(), name=verb.name, rich_help_panel=verb.panel)
        else:
            app.command(verb.name, rich_help_panel=verb.panel)(getattr(module, verb.function))
    app.command("version", rich_help_panel=DAEMON)(version)
    return app


def main(argv: Sequence[str] | None = None) -> None:
    """The console script: runs a verb and ends the process with its code."""
    arguments_ = arguments.hoisted(sys.argv[1:] if argv is None else argv)
    sys.exit(_code(arguments_))


def _code(argv: list[str]) -> int:
    try:
        completed = os.environ.get("COMP_WORDS", "").split()
        program([*argv, *completed])(argv, prog_name="coreplane")
    except SystemExit as exc:
        code: Any = exc.code
        return ExitCode.FAILED if code == USAGE_ERROR else int(code or 0)
    except Ended as exc:
        return exc.code
    except Failure as exc:
        printing.complain(exc)
        return exc.code
    except ClientError as exc:
        printing.complain(exc)
        return ExitCode.FAILED
    except Exception as exc:  # noqa: BLE001 - the last boundary: a bug is told in one line
        return _bug(exc, debug="--debug" in argv)
    return ExitCode.DONE


def _bug(exc: Exception, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(exc)
    text = str(exc).strip().splitlines()
    console = printing.stderr()
    console.print(
        Text.assemble(("bug: ", "bold red"), f"{type(exc).__name__}: {text[0] if text else ''}"), soft_wrap=True
    )
    if not debug:
        console.print(Text("hint: --debug shows where"), soft_wrap=True)
    return ExitCode.FAILED
