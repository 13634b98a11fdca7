"""`coreplane doctor`: what is wrong, and what to do about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from controlplane.app import accept_log_loss, examine_projection, rebuild_projection
from controlplane.cli import configuration, findings, printing, session, starting, upfile
from controlplane.cli.failure import Ended, ExitCode, Failure
from controlplane.cli.findings import BAD, GOOD, WARNED, Finding
from controlplane.cli.printing import Format, Output
from controlplane.cli.rows import Facts, Rows
from controlplane.cli.session import DEFAULT_DATA, Data
from controlplane.client.errors import ApiError, ClientError, DaemonUnreachable
from controlplane.client.http import CoreplaneClient
from controlplane.config import Config
from controlplane.log.choice import examine as examine_log
from controlplane.log.choice import is_kafka
from controlplane.log.choice import mend as mend_log
from controlplane.log.ports import LogUnavailable
from controlplane.projection import elasticsearch_address
from controlplane.projection.ports import StoreUnavailable

MARKS = {GOOD: Text("✓", "green"), BAD: Text("✗", "bold red"), WARNED: Text("!", "yellow")}


def doctor(
    context: typer.Context,
    *,
    rebuild: Annotated[
        bool, typer.Option("--rebuild-projection", help="Make the searchable copy anew. The daemon must be stopped.")
    ] = False,
    accept_loss: Annotated[
        bool,
        typer.Option("--accept-loss", help="Go on with a log that lost its last commits. The daemon must be stopped."),
    ] = False,
    mend: Annotated[
        bool, typer.Option("--mend", help="Set right what is wrong with the configuration of the log's topics.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="The daemon's configuration, for repairs and for its log."),
    ] = None,
    log: Annotated[
        str | None, typer.Option("--log", metavar="URL", help="Look at the topics of this log: kafka://HOST:PORT.")
    ] = None,
    data: Data = DEFAULT_DATA,
    output: Output = Format.TABLE,
) -> None:
    """Check daemon, log, projection and every target, and say what to do.

    $ coreplane doctor

    $ coreplane doctor --rebuild-projection --data .coreplane

    $ coreplane doctor --accept-loss --data .coreplane

    $ coreplane doctor --log kafka://127.0.0.1:9092

    $ coreplane doctor --log kafka://127.0.0.1:9092 --mend
    """
    if accept_loss:
        _accept_loss(_stopped(config, data))
        return
    if rebuild:
        _rebuild(_stopped(config, data))
        return
    mended = _mend_log(config, log, data) if mend else []
    found = [*session.run(context, examine), *mended]
    found += [*_examine_log(config, log, data), *_examine_projection(config, data)]
    if printing.is_for_machines(output):
        printing.show_data([asdict(finding) for finding in found], output)
    else:
        _show(found)
    if any(finding.state == BAD for finding in found):
        raise Ended(ExitCode.FAILED)


async def examine(client: CoreplaneClient) -> list[Finding]:
    """Every check, as far as the daemon answers."""
    try:
        health = await client.health()
    except DaemonUnreachable as exc:
        advice = "`coreplane up` starts one; --url or COREPLANE_URL says where else it is"
        return [Finding("daemon", BAD, str(exc), advice)]
    found = [Finding("daemon", GOOD, f"answers at {client.url}"), *findings.of_health(health)]
    try:
        report = await client.status()
        settings = [setting async for setting in client.list_settings(phase="Stalled")]
        tokens = [setting async for setting in client.list_settings(setting_type="access.token")]
    except ApiError as exc:
        failure = printing.failure_of(exc)
        return [*found, Finding("access", BAD, failure.message, failure.hint)]
    except ClientError as exc:
        return [*found, Finding("daemon", BAD, str(exc))]
    advised = findings.of_advice(await _analyses(client, report), await _advice(client, report))
    access = (*findings.of_access(client.url, report), *findings.of_tokens(tokens, time.time()))
    found += findings.of_projection(report.get("projection"))
    return [*found, *access, *findings.of_targets(report), *findings.of_stalled(settings), *advised]


async def _analyses(client: CoreplaneClient, report: Mapping[str, Any]) -> dict[str, Any]:
    """Of every service that has a target up and an analysis."""
    found: dict[str, Any] = {}
    for service in sorted({str(target["service"]) for target in report.get("targets") or () if target.get("up")}):
        try:
            found[service] = await client.analytics(service)
        except ClientError:
            continue  # it has none, or it can't be told just now: advice isn't worth an error
    return found


async def _advice(client: CoreplaneClient, report: Mapping[str, Any]) -> dict[tuple[str, str], list[findings.Json]]:
    """(service, target) → what the service advises when it looks at the target now."""
    try:
        known = {one["operation"] for one in (await client.operations())["items"]}
    except ClientError:
        return {}
    found: dict[tuple[str, str], list[findings.Json]] = {}
    for target in report.get("targets") or ():
        service, name = str(target["service"]), str(target["target"])
        if target.get("up") and target.get("tenant") == client.tenant and f"{service}.advise" in known:
            try:
                answer = await client.operate(f"{service}.advise", {"target": name})
            except ClientError:
                continue  # as above; who may only look mayn't run operations either
            found[service, name] = answer["result"]["advice"]
    return found


def _examine_log(config_file: Path | None, url: str | None, data: Path) -> list[Finding]:
    """The topics of the log that is named, or of the one that `coreplane up` started; nothing for one without topics."""
    config = _of_log(config_file, url, data)
    try:
        faults = asyncio.run(examine_log(config))
    except LogUnavailable as exc:
        return [Finding("topics", BAD, str(exc), findings.PART_ADVICE["topics"])]
    return list(findings.of_topics(config.log.url, faults))


def _mend_log(config_file: Path | None, url: str | None, data: Path) -> list[Finding]:
    """What was wrong with the same topics, and isn't any more."""
    config = _of_log(config_file, url, data)
    if not is_kafka(config):
        msg = "there are no topics to mend: the log isn't Kafka"
        raise Failure(msg, hint="--log kafka://HOST:PORT, or --config FILE, names one that is")
    try:
        faults = asyncio.run(mend_log(config))
    except LogUnavailable as exc:
        return [Finding("mending", BAD, str(exc), findings.PART_ADVICE["topics"])]
    return list(findings.of_mended(faults))


def _of_log(config_file: Path | None, url: str | None, data: Path) -> Config:
    return configuration.of_running(config_file, data, {"log": {"url": url}})


def _examine_projection(config_file: Path | None, data: Path) -> list[Finding]:
    """The indices of the configuration that is named, or of what `coreplane up` started; nothing for a file of SQLite."""
    config = configuration.of_running(config_file, data)
    if not elasticsearch_address.is_elasticsearch(config.projection.url):
        return []
    try:
        complaint = asyncio.run(examine_projection(config))
    except (StoreUnavailable, ValueError) as exc:
        return [Finding("indices", BAD, str(exc), findings.PART_ADVICE["indices"])]
    return [findings.of_indices(config.projection.url, complaint)]


def _show(found: list[Finding]) -> None:
    body = [(MARKS[finding.state], finding.check, finding.message) for finding in found]
    printing.show(Rows(["", "CHECK", "FINDING"], body))
    advised = [finding for finding in found if finding.advice]
    if advised:
        printing.show("", Text("What to do", "bold"))
        printing.show(Facts((f"  {finding.check}", finding.advice) for finding in advised))


def _stopped(config_file: Path | None, data: Path) -> Config:
    """The configuration of a daemon that doesn't run; Failure when it does."""
    running = upfile.alive(data)
    if running is not None:
        msg = f"the daemon runs on {data} (pid {running.pid})"
        raise Failure(msg, hint="coreplane down, then again")
    config = configuration.load(config_file, {"data_dir": None if config_file else str(data)})
    starting.check(config)
    if not config.data_dir.is_dir():
        msg = f"there is no data directory {config.data_dir}"
        raise Failure(msg, hint="name it with --data")
    return config


def _accept_loss(config: Config) -> None:
    try:
        loss = asyncio.run(accept_log_loss(config))
    except starting.TROUBLES as exc:
        raise starting.failure_of(exc, config) from exc
    lost = loss.acknowledged - loss.kept
    printing.show(Text(f"the log of {config.data_dir} goes on after commit {loss.kept}; {max(0, lost)} were lost"))


def _rebuild(config: Config) -> None:
    begun = time.monotonic()
    try:
        with printing.stderr().status("rebuilding the projection from the journal"):
            asyncio.run(rebuild_projection(config))
    except starting.TROUBLES as exc:
        raise starting.failure_of(exc, config) from exc
    printing.show(Text(f"the projection of {config.data_dir} is rebuilt ({time.monotonic() - begun:.1f} s)"))
