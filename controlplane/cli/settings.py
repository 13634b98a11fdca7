"""Verbs about settings that exist: get, describe, delete, wait, history, export, reconcile."""

from __future__ import annotations

import difflib
import time
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from controlplane.cli import arguments, printing, session, tables, waiting
from controlplane.cli.event_lines import EventLine
from controlplane.cli.failure import ExitCode, Failure
from controlplane.cli.options import At, FirstReference, Labels, NameReference, Timeout
from controlplane.cli.printing import Format, Output
from controlplane.cli.rows import Facts
from controlplane.cli.session import complete_name, complete_type
from controlplane.client.http import CoreplaneClient
from schemas.names import SERVICES
from schemas.setting import Phase

Json = dict[str, Any]

DESCRIBED_EVENTS = 12


def get(
    context: typer.Context,
    setting_type: Annotated[
        str | None,
        typer.Argument(metavar="TYPE[/NAME]", help="A type, type/name or service.", autocompletion=complete_type),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The setting's name.", autocompletion=complete_name)
    ] = None,
    *,
    label: Labels = [],  # noqa: B006 - Typer copies it
    service: Annotated[str | None, typer.Option("--service", help="Only settings of this service.")] = None,
    phase: Annotated[
        Phase | None, typer.Option("--phase", case_sensitive=False, metavar="PHASE", help=f"One of {', '.join(Phase)}.")
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="Only settings that contain this text.")] = None,
    at: At = None,
    output: Output = Format.TABLE,
) -> None:
    """Show settings: all, those of a type or service, or one.

    $ coreplane get cache --phase Stalled

    $ coreplane get --at 2026-01-31T12:00:00Z -l team=shop

    $ coreplane get cache.redis_user app -o yaml --at 15m
    """
    if setting_type is not None and (name is not None or "/" in setting_type):
        found = session.run(context, lambda client: _one(client, setting_type, name, at))
        if printing.is_for_machines(output):
            printing.show_data(found, output)
        elif at is not None:
            printing.show(tables.past_table([found]), Text("-o yaml shows what was declared", "dim"))
        else:
            printing.show(tables.settings_table([found], time.time(), wide=output is Format.WIDE))
        return
    kind, of_service = (None, None) if setting_type is None else arguments.type_or_service(setting_type)
    filters: dict[str, Any] = {
        "setting_type": kind,
        "service": service or of_service,
        "labels": arguments.labels(label),
        "phase": None if phase is None else str(phase),
        "text": text,
        "at": None if at is None else arguments.place(at, time.time()),
    }
    settings = session.run(context, lambda client: _all(client, filters))
    _show_settings(settings, output, past=at is not None)


def _show_settings(settings: list[Json], output: Format, *, past: bool) -> None:
    if printing.is_for_machines(output):
        printing.show_data(settings, output)
    elif not settings:
        printing.stderr().print("no settings")
    elif past:
        printing.show(tables.past_table(settings))
    else:
        printing.show(tables.settings_table(settings, time.time(), wide=output is Format.WIDE))


async def _one(client: CoreplaneClient, first: str, second: str | None, at: str | None) -> Json:
    setting_type, name = arguments.reference(first, second)
    return await client.get_setting(setting_type, name, at=None if at is None else arguments.place(at, time.time()))


async def _all(client: CoreplaneClient, filters: dict[str, Any]) -> list[Json]:
    found = [setting async for setting in client.list_settings(**filters)]
    kind = filters["setting_type"]
    if not found and kind is not None:
        known = [item["type"] for item in (await client.schemas())["items"] if "." in item["type"]]
        if kind not in known:
            near = difflib.get_close_matches(kind, [*known, *SERVICES], n=3)
            msg = f"there is no type {kind!r}"
            raise Failure(msg, hint=f"did you mean {', '.join(near)}?" if near else f"there are: {', '.join(known)}")
    return found


def describe(
    context: typer.Context, setting_type: FirstReference, name: NameReference = None, *, output: Output = Format.TABLE
) -> None:
    """Everything about one setting: declaration, conditions, drift, last events.

    $ coreplane describe cache.redis_user app
    """
    setting, events = session.run(context, lambda client: _described(client, setting_type, name))
    if printing.is_for_machines(output):
        printing.show_data({**setting, "events": events}, output)
    else:
        printing.show(*_description(setting, events, time.time()))


async def _described(client: CoreplaneClient, first: str, second: str | None) -> tuple[Json, list[Json]]:
    setting = await _one(client, first, second, None)
    key = f"{setting['tenant']}/{setting['setting_type']}/{setting['name']}"
    page = await client.events(setting=key, limit=DESCRIBED_EVENTS)
    return setting, sorted(page.get("items", ()), key=lambda event: str(event["timestamp"]))


def _description(setting: Json, events: list[Json], now: float) -> list[RenderableType]:
    status = setting.get("status") or {}
    action = status.get("last_action")
    head: list[tuple[str, str | Text]] = [
        ("Setting", Text(f"{setting['setting_type']}/{setting['name']}", "bold")),
        ("Phase", tables.phase_text(tables.phase_of(setting))),
        ("Generation", tables.generation_of(setting)),
        ("Revision", str(setting.get("revision"))),
        ("Created", f"{setting.get('created_at')} ({tables.age(setting.get('created_at'), now)} ago)"),
        ("Updated", f"{setting.get('updated_at')} ({tables.age(setting.get('updated_at'), now)} ago)"),
        ("Labels", tables.pairs(setting.get("labels") or {}) or "-"),
        ("Depends on", " ".join(setting.get("depends_on") or ()) or "-"),
        ("Policy", tables.pairs(setting.get("policy") or {}) or "-"),
        ("External", str(status.get("external") or "-")),
    ]
    if action:
        head.append(("Last action", f"{action['step']} {action['status']} at {action['at']}, try {action['attempt']}"))
    if status.get("next_at"):
        head.append(("Next look", str(status["next_at"])))
    value = printing.rendered(setting.get("value"), Format.YAML)
    parts: list[RenderableType] = [Facts(head), "", Text("Value", "bold"), Text(_indented(value))]
    if status.get("conditions"):
        parts += [tables.conditions_table(status["conditions"], now), ""]
    if status.get("drift"):
        parts += [Text("Drift", "bold"), tables.drift_table(status["drift"]), ""]
    parts.append(Text("Last events" if events else "No events yet", "bold"))
    parts += [EventLine(event, about=False) for event in events]
    return parts


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


def delete(
    context: typer.Context,
    setting_type: FirstReference,
    name: NameReference = None,
    *,
    deletion: Annotated[
        str | None,
        typer.Option("--deletion", metavar="retain|delete", help="What becomes of the backend object, this once."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until the setting is gone.")] = False,
    timeout: Timeout = "60s",
) -> None:
    """Retire a setting: its backend object is dealt with by its policy, then the setting is forgotten.

    $ coreplane delete cache.redis_user app --deletion retain --wait
    """
    reference = arguments.reference(setting_type, name)
    wait_s = arguments.duration_s(timeout)
    if deletion not in {None, "retain", "delete"}:
        msg = f"--deletion is retain or delete, not {deletion!r}"
        raise Failure(msg)

    async def verb(client: CoreplaneClient) -> None:
        await client.delete_setting(*reference, deletion=deletion)
        printing.show(Text(f"{'/'.join(reference)} is retiring"))
        if wait:
            await _await(client, waiting.Watch({"/".join(reference): waiting.GONE}), wait_s)
            printing.show(Text(f"{'/'.join(reference)} is gone"))

    session.run(context, verb)


def wait(
    context: typer.Context,
    setting_type: FirstReference,
    name: NameReference = None,
    *,
    for_: Annotated[str, typer.Option("--for", metavar="Ready|Gone|PHASE", help="What to wait for.")] = "Ready",
    timeout: Timeout = "60s",
) -> None:
    """Wait until a setting is Ready (as declared now), Gone, or in another phase. Exit code 3 when it takes too long.

    $ coreplane wait cache.redis_user/app --for Ready --timeout 30s
    """
    reference = arguments.reference(setting_type, name)
    wait_s = arguments.duration_s(timeout)
    wished = for_.capitalize()
    if wished not in {*Phase, "Gone"}:
        msg = f"--for is Gone or one of {', '.join(Phase)}, not {for_!r}"
        raise Failure(msg)
    session.run(context, lambda client: _wait(client, reference, wished, wait_s))


async def _wait(client: CoreplaneClient, reference: tuple[str, str], wished: str, wait_s: float) -> None:
    joined = "/".join(reference)
    if wished in {"Ready", "Gone"}:
        gone = wished == "Gone"
        generation = waiting.GONE if gone else (await client.get_setting(*reference))["generation"]
        await _await(client, waiting.Watch({joined: generation}), wait_s)
    elif not await waiting.until_phase(client, reference, wished, wait_s):
        msg = f"{joined} isn't {wished} after {wait_s:g} s"
        raise Failure(msg, code=ExitCode.TIMED_OUT)
    printing.show(Text(f"{joined} is {wished.lower() if wished == 'Gone' else wished}"))


async def _await(client: CoreplaneClient, watch: waiting.Watch, wait_s: float) -> None:
    with waiting.Progress() as progress:
        in_time = await waiting.settle(client, watch, wait_s, progress)
    waiting.conclude(watch, in_time=in_time, wait_s=wait_s)


def history(
    context: typer.Context, setting_type: FirstReference, name: NameReference = None, *, output: Output = Format.TABLE
) -> None:
    """Every accepted revision of a setting: who changed what, when and why.

    $ coreplane history cache.redis_user app
    """
    reference = arguments.reference(setting_type, name)
    revisions = session.run(context, lambda client: client.history(*reference))
    if printing.is_for_machines(output):
        printing.show_data(revisions, output)
    else:
        printing.show(tables.history_table(revisions))


def export(
    context: typer.Context,
    *,
    label: Labels = [],  # noqa: B006 - Typer copies it
    at: At = None,
    output: Output = Format.YAML,
) -> None:
    """Print declarations, fit for `coreplane apply -f`.

    $ coreplane export -l team=shop > shop.yaml

    $ coreplane export --at 1h > before.yaml
    """
    place = None if at is None else arguments.place(at, time.time())
    declarations = session.run(context, lambda client: client.export(labels=arguments.labels(label), at=place))
    if not declarations:
        printing.stderr().print("no settings")
    typer.echo(printing.documents(declarations, output), nl=False)


def reconcile(context: typer.Context, setting_type: FirstReference, name: NameReference = None) -> None:
    """Have a setting looked at now instead of at its next turn.

    $ coreplane reconcile cache.redis_user app
    """
    reference = arguments.reference(setting_type, name)
    session.run(context, lambda client: client.reconcile(*reference))
    printing.show(Text(f"{'/'.join(reference)} will be looked at now"))
