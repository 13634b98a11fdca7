"""`coreplane doctor`: what is wrong, and what to do about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from controlplane.app import rebuild_projection
from controlplane.cli import configuration, printing, session, tables, upfile
from controlplane.cli.daemon_status import target_name, target_trouble
from controlplane.cli.failure import Ended, ExitCode, Failure
from controlplane.cli.printing import Format, Output
from controlplane.cli.session import DEFAULT_DATA, Data
from controlplane.client.errors import ApiError, ClientError, DaemonUnreachable
from controlplane.client.http import CoreplaneClient

Json = dict[str, Any]

GOOD = "good"
BAD = "bad"
MARKS = {GOOD: Text("✓", "green"), BAD: Text("✗", "bold red")}

PART_ADVICE = {
    "log": "look for disk space and permissions of the data directory; nothing is accepted until it can be written",
    "projection": "it catches up by itself; if it doesn't: stop the daemon, `coreplane doctor --rebuild-projection`",
    "replica": "it is still reading the log; wait, then look again",
}
REASON_ADVICE = {
    "Unreachable": "start the server, or correct the target's url; it is tried again by itself",
    "AuthenticationFailed": "correct the target's username or password reference",
    "SecretNotFound": "set the environment variable or file it names, for the daemon, and start it again",
}
STALLED_ADVICE = "`coreplane describe {}` says which field or permission it waits for"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    check: str
    state: str
    message: str
    advice: str = ""


def doctor(
    context: typer.Context,
    *,
    rebuild: Annotated[
        bool, typer.Option("--rebuild-projection", help="Make the searchable copy anew. The daemon must be stopped.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="The daemon's configuration, for a rebuild.")
    ] = None,
    data: Data = DEFAULT_DATA,
    output: Output = Format.TABLE,
) -> None:
    """Check daemon, log, projection and every target, and say what to do.

    coreplane doctor

    coreplane doctor --rebuild-projection --data .coreplane
    """
    if rebuild:
        _rebuild(config, data)
        return
    findings = session.run(context, examine)
    if printing.is_for_machines(output):
        printing.show_data([asdict(finding) for finding in findings], output)
    else:
        _show(findings)
    if any(finding.state == BAD for finding in findings):
        raise Ended(ExitCode.FAILED)


async def examine(client: CoreplaneClient) -> list[Finding]:
    """Every check, as far as the daemon answers."""
    try:
        health = await client.health()
    except DaemonUnreachable as exc:
        advice = "`coreplane up` starts one; --url or COREPLANE_URL says where else it is"
        return [Finding("daemon", BAD, str(exc), advice)]
    findings = [Finding("daemon", GOOD, f"answers at {client.url}"), *health_findings(health)]
    try:
        report = await client.status()
        settings = [setting async for setting in client.list_settings(phase="Stalled")]
    except ApiError as exc:
        failure = printing.failure_of(exc)
        return [*findings, Finding("access", BAD, failure.message, failure.hint)]
    except ClientError as exc:
        return [*findings, Finding("daemon", BAD, str(exc))]
    return [*findings, *target_findings(report), *setting_findings(settings)]


def health_findings(health: Json) -> Iterator[Finding]:
    """Log and projection, by /readyz: what isn't complained about is well."""
    troubles = [trouble for trouble in _troubles(health) if isinstance(trouble, dict)]
    for part in ("log", "projection"):
        if not any(trouble.get("part") == part for trouble in troubles):
            yield Finding(part, GOOD, "")
    for trouble in troubles:
        part = str(trouble.get("part") or "daemon")
        message = ": ".join(str(trouble[name]) for name in ("reason", "message") if trouble.get(name))
        yield Finding(part, BAD, message, PART_ADVICE.get(part, ""))
    if not health["ready"] and not troubles:
        yield Finding("ready", BAD, str(health.get("detail") or "the daemon isn't ready yet"), "look again in a moment")


def target_findings(report: Json) -> Iterator[Finding]:
    """Every target of /v1/status."""
    for target in report.get("targets") or ():
        name = f"target {target_name(target)}"
        if target.get("up"):
            yield Finding(name, GOOD, "")
        else:
            advice = REASON_ADVICE.get(str(target.get("reason")), "it is tried again by itself")
            yield Finding(name, BAD, target_trouble(target) or "not reached yet", advice)
    if not report.get("targets"):
        yield Finding("targets", GOOD, "none is declared")


def setting_findings(stalled: list[Json]) -> Iterator[Finding]:
    """Settings that won't go on by themselves."""
    if not stalled:
        yield Finding("settings", GOOD, "none is stalled")
    for setting in stalled:
        name = f"{setting['setting_type']}/{setting['name']}"
        yield Finding(name, BAD, tables.message_of(setting), STALLED_ADVICE.format(name))


def _troubles(health: Json) -> list[Any]:
    for name in ("troubles", "reasons"):
        if isinstance(health.get(name), list):
            return list(health[name])
    return []


def _show(findings: list[Finding]) -> None:
    body = [(MARKS[finding.state], finding.check, finding.message) for finding in findings]
    printing.show(tables.rows(["", "CHECK", "FINDING"], body))
    advised = [finding for finding in findings if finding.advice]
    if advised:
        printing.show("", Text("What to do", "bold"))
        printing.show(*(Text(f"  {finding.check}: {finding.advice}") for finding in advised))


def _rebuild(config_file: Path | None, data: Path) -> None:
    running = upfile.alive(data)
    if running is not None:
        msg = f"the daemon runs on {data} (pid {running.pid})"
        raise Failure(msg, hint="coreplane down, then again")
    config = configuration.load(config_file, {"data_dir": None if config_file else str(data)})
    if not config.data_dir.is_dir():
        msg = f"there is no data directory {config.data_dir}"
        raise Failure(msg, hint="name it with --data")
    begun = time.monotonic()
    with printing.stderr().status("rebuilding the projection from the journal"):
        asyncio.run(rebuild_projection(config))
    printing.show(Text(f"the projection of {config.data_dir} is rebuilt ({time.monotonic() - begun:.1f} s)"))
