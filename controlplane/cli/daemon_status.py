"""`coreplane status`: the daemon at a glance."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import typer
from rich.console import RenderableType
from rich.text import Text

from controlplane.cli import printing, session, tables
from controlplane.cli.printing import Format, Output
from controlplane.cli.rows import Facts, Rows
from controlplane.cli.wording import compact, trouble
from controlplane.client.http import CoreplaneClient

Json = dict[str, Any]

DRAWN = ("url", "tenant", "tenants", "ready", "replica", "projection", "targets", "shards", "settings", "phases")
"""Parts of /v1/status with a picture of their own; others, of newer daemons, are shown as they come."""


def status(context: typer.Context, *, output: Output = Format.TABLE) -> None:
    """Show the daemon: log, lag, shards, targets, and how many settings are in which phase.

    $ coreplane status -o json
    """
    found = session.run(context, gather)
    if printing.is_for_machines(output):
        printing.show_data(found, output)
    else:
        printing.show(*picture(found))


async def gather(client: CoreplaneClient) -> Json:
    """/v1/status, and the number of settings in each phase of the tenant."""
    report = await client.status()
    phases: dict[str, int] = {}
    async for setting in client.list_settings():
        phase = tables.phase_of(setting)
        phases[phase] = phases.get(phase, 0) + 1
    return {"url": client.url, "tenant": client.tenant, **report, "phases": phases}


def picture(report: Json) -> list[RenderableType]:
    """The report for people."""
    head: list[tuple[str, str | Text]] = [
        ("URL", report["url"]),
        ("Tenant", report["tenant"] + _others(report)),
        ("Ready", Text("yes", "green") if report.get("ready") else Text("no; `coreplane doctor` says why", "bold red")),
        *_replica(report.get("replica") or {}),
        *_projection(report.get("projection") or {}),
    ]
    for name, value in report.items():
        head += [] if name in DRAWN else _facts(name, value)
    if "shards" in report:
        head.append(("Shards", _shards(report["shards"])))
    head.append(("Settings", _phases(report["phases"])))
    parts: list[RenderableType] = [Facts(head)]
    targets = report.get("targets") or ()
    if targets:
        parts += ["", targets_table(targets, time.time())]
    return parts


def _others(report: Json) -> str:
    others = [tenant for tenant in report.get("tenants") or () if tenant != report["tenant"]]
    return f" (also: {', '.join(others)})" if others else ""


def _replica(replica: Mapping[str, Any]) -> list[tuple[str, str | Text]]:
    lag = replica.get("lag")
    behind = "the log doesn't answer" if lag is None else f"{lag} behind" if lag else "nothing behind"
    facts: list[tuple[str, str | Text]] = [("Log", f"revision {replica.get('position', '-')}, {behind}")]
    return facts + ([("Stopped", Text(str(replica["stopped"]), "bold red"))] if replica.get("stopped") else [])


def _projection(lag: Mapping[str, Any]) -> list[tuple[str, str | Text]]:
    if "records" not in lag:
        return []
    behind = f"{lag['records']} records, {lag['seconds']:.1f} s behind" if lag["records"] else "nothing behind"
    return [("Projection", behind)]


def targets_table(targets: Iterable[Json], now: float) -> RenderableType:
    """The targets, up or down since when, and why."""
    return Rows(
        ["TARGET", "STATE", "SINCE", "SETTINGS", "QUEUED", "MESSAGE"], (_target(target, now) for target in targets)
    )


def target_name(target: Json) -> str:
    """`cache/redis`; with the tenant in front when it isn't the default one."""
    name = f"{target.get('service', '')}/{target.get('target', '')}"
    return name if target.get("tenant") in {None, "default"} else f"{target['tenant']}/{name}"


def target_trouble(target: Json) -> str:
    """`Unreachable: connection refused`, nothing while it is up."""
    return trouble(target.get("reason"), target.get("message"), target.get("tenant"))


def _target(target: Json, now: float) -> list[str | Text]:
    trouble = target_trouble(target)
    state = Text("up", "green") if target.get("up") else Text("down", "bold red") if trouble else Text("-", "dim")
    since = tables.age(target.get("since"), now)
    counts = [str(target.get(part, "")) for part in ("settings", "queued")]
    return [target_name(target), state, since, *counts, trouble]


def _facts(name: str, value: Any) -> list[tuple[str, str | Text]]:
    """One line for a value, one for each part of a map."""
    title = name.replace("_", " ").capitalize() if name != "url" else "URL"
    if isinstance(value, Mapping):
        return [(f"{title} {key.replace('_', ' ')}", _plain(inner)) for key, inner in value.items()]
    if isinstance(value, list):
        return [(title, ", ".join(compact(inner) for inner in value) or "-")]
    return [(title, _plain(value))]


def _plain(value: Any) -> str:
    return (
        {True: "yes", False: "no", None: "-"}.get(value, "")
        if value is None or isinstance(value, bool)
        else compact(value)
    )


def _shards(shards: Any) -> str:
    if isinstance(shards, list):
        numbers = sorted(shard if isinstance(shard, int) else shard.get("shard", -1) for shard in shards)
        return f"{len(numbers)} owned ({ranges(numbers)})" if numbers else "none owned"
    return compact(shards)


def ranges(numbers: list[int]) -> str:
    """`0-3, 7` of sorted numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _phases(phases: Mapping[str, int]) -> Text:
    if not phases:
        return Text("none", "dim")
    parts = sorted(phases.items(), key=lambda item: -item[1])
    joined = Text("  ")
    return joined.join(Text(f"{count} {phase}", tables.PHASE_STYLES.get(phase, "")) for phase, count in parts)
