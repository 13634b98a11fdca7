"""`coreplane events`: what happened, or what happens."""

from __future__ import annotations

import json
import sys
import time
from contextlib import aclosing
from typing import Annotated, Any

import typer

from controlplane.cli import arguments, printing, session
from controlplane.cli.event_lines import EventLine
from controlplane.cli.failure import Failure
from controlplane.cli.options import Since, Until
from controlplane.cli.printing import Format, Output
from controlplane.client.errors import Gone
from controlplane.client.http import CoreplaneClient
from schemas.event import EventStatus, EventType

Json = dict[str, Any]


def events(
    context: typer.Context,
    setting: Annotated[str | None, typer.Argument(metavar="TYPE/NAME", help="Only events of this setting.")] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they happen, until Ctrl-C.")] = False,
    service: Annotated[str | None, typer.Option("--service", help="Only events of this service.")] = None,
    event_type: Annotated[
        EventType | None,
        typer.Option(
            "--type", metavar="EVENT_TYPE", case_sensitive=False, help="Only this type, for example Converged."
        ),
    ] = None,
    status: Annotated[
        EventStatus | None,
        typer.Option("--status", metavar="STATUS", case_sensitive=False, help=f"One of {', '.join(EventStatus)}."),
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="Only events that contain this text.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many, the newest.")] = 50,
    output: Output = Format.TABLE,
) -> None:
    """Show the last events, oldest first; with -f go on as they happen.

    $ coreplane events -f --service cache

    $ coreplane events cache.redis_user/app --type DriftDetected --since 2h
    """
    filters = {
        "service_name": service,
        "event_type": None if event_type is None else str(event_type),
        "status": None if status is None else str(status),
        "setting": setting,
    }
    now = time.time()
    past = {
        "text": text,
        "since": None if since is None else arguments.moment(since, now),
        "until": None if until is None else arguments.moment(until, now),
    }
    if not follow:
        found = session.run(context, lambda client: _page(client, {**filters, **past}, limit))
        _show(found, output)
        return
    if any(past.values()):
        msg = "--text, --since and --until look back; leave them out with -f"
        raise Failure(msg)
    session.run(context, lambda client: _follow(client, filters, output))


async def _page(client: CoreplaneClient, filters: dict[str, str | None], limit: int) -> list[Json]:
    page = await client.events(limit=limit, **filters)
    return sorted(page.get("items", ()), key=lambda event: str(event["timestamp"]))


def _show(found: list[Json], output: Format) -> None:
    if printing.is_for_machines(output):
        printing.show_data(found, output)
    elif not found:
        printing.stderr().print("no events")
    else:
        printing.show(*(EventLine(event) for event in found))


async def _follow(client: CoreplaneClient, filters: dict[str, str | None], output: Format) -> None:
    """Print what the stream delivers; JSON as one event a line, YAML as one document an event."""
    notice = _Notice()
    try:
        async with aclosing(client.stream(**filters, watcher=notice)) as stream:
            async for event in stream:
                _print(event.data, output)
    except Gone as exc:
        msg = "the events that would come next are no longer kept"
        raise Failure(msg, hint="start again; `coreplane events --since` shows what is left") from exc


def _print(event: Json, output: Format) -> None:
    if output is Format.JSON:
        sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")
    elif output is Format.YAML:
        sys.stdout.write("---\n" + printing.rendered(event, output))
    else:
        printing.show(EventLine(event))
    sys.stdout.flush()


class _Notice:
    """Says on stderr when the stream broke and when it is back, and nothing about its first connection."""

    def __init__(self) -> None:
        self._broken = False

    def __call__(self, connected: bool) -> None:  # noqa: FBT001 - the client's Watcher
        if connected and self._broken:
            printing.stderr().print("connected again", style="dim")
        elif not connected:
            printing.stderr().print("the connection broke; trying again, nothing gets lost", style="yellow")
        self._broken = not connected
