"""`coreplane down`: stop what `coreplane up` started."""

from __future__ import annotations

from typing import Annotated

import psutil
import typer
from rich.text import Text

from controlplane.cli import arguments, printing, upfile
from controlplane.cli.failure import ExitCode, Failure
from controlplane.cli.session import DEFAULT_DATA, Data


def down(
    *,
    data: Data = DEFAULT_DATA,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="DURATION", help="How long to wait for its end.")
    ] = "60s",
) -> None:
    """Stop the `coreplane up` of a data directory and wait until it has ended.

    $ coreplane down --data .coreplane
    """
    wait_s = arguments.duration_s(timeout)
    running = upfile.read(data)
    process = None if running is None else upfile.process(running)
    if running is None or process is None:
        upfile.remove(data)
        printing.show(Text(f"nothing is up on {data}"))
        return
    process.terminate()
    try:
        with printing.stderr().status(f"stopping {running.url} (pid {running.pid})"):
            process.wait(timeout=wait_s)
    except psutil.TimeoutExpired as exc:
        msg = f"pid {running.pid} hasn't ended after {wait_s:g} s"
        hint = "it may wait for a backend: look into its log, or wait longer with --timeout"
        raise Failure(msg, hint=hint, code=ExitCode.TIMED_OUT) from exc
    upfile.remove(data)
    printing.show(Text(f"{running.url} is down"))
