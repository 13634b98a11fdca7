"""What `coreplane doctor` makes of the daemon's answers, and what it advises. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from controlplane.api.auth import is_loopback
from controlplane.cli import tables
from controlplane.cli.daemon_status import target_name, target_trouble
from controlplane.cli.tokens import SOON_S
from controlplane.log.kafka_topics import Fault
from schemas.names import parse_timestamp, timestamp

Json = dict[str, Any]

MOST_LISTED = 5
BEHIND_S = 60.0
"""The projection is usually two seconds behind at most."""
GOOD = "good"
BAD = "bad"
WARNED = "warned"
"""All is well now, and won't be."""

PART_ADVICE = {
    "log": "look for disk space and permissions of the data directory; nothing is accepted until it can be written",
    "topics": "start the brokers, or correct log.url; a log that is refused says itself what mends it",
    "projection": "it catches up by itself; if it doesn't: stop the daemon, `coreplane doctor --rebuild-projection`",
    "indices": "start Elasticsearch, or correct projection.url, username and password; nothing is lost meanwhile",
    "replica": "it is still reading the log; wait, then look again",
}
REASON_ADVICE = {
    "Unreachable": "start the server, or correct the target's url; it is tried again by itself",
    "AuthenticationFailed": "correct the target's username or password reference",
    "SecretNotFound": "set the variable or make the file where the daemon runs, and as `secrets` of its configuration allows",
    "TargetNotFound": "declare that target, or correct `target` in the settings that name it",
    "Conflict": "retire one of the two, or have it name another object",
    "NoPermission": "give the target's user the permission it names",
}
STALLED_ADVICE = "correct the declaration and apply it again; `coreplane describe {}` shows all of it"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    check: str
    state: str
    message: str
    advice: str = ""


def of_health(health: Json) -> Iterator[Finding]:
    """Log and projection, by /readyz: what isn't complained about is well."""
    troubles = [trouble for trouble in _troubles(health) if isinstance(trouble, dict)]
    for part in ("log", "projection"):
        if not any(trouble.get("part") == part for trouble in troubles):
            yield Finding(part, GOOD, "no complaint")
    for trouble in troubles:
        part = str(trouble.get("part") or "daemon")
        message = ": ".join(str(trouble[name]) for name in ("reason", "message") if trouble.get(name))
        yield Finding(part, BAD, message, PART_ADVICE.get(part, ""))
    if not health["ready"] and not troubles:
        yield Finding("ready", BAD, str(health.get("detail") or "the daemon isn't ready yet"), "look again in a moment")


def of_topics(url: str, faults: Sequence[Fault]) -> Iterator[Finding]:
    """The topics of a log that has some. What the daemon would refuse to start with is bad, the rest is only told."""
    if url.startswith("kafka:") and not faults:
        yield Finding("topics", GOOD, f"as they should be at {url}")
    for fault in faults:
        advice = f"`coreplane doctor --mend`, or {fault.mend}" if fault.config else fault.mend
        yield Finding(f"topic {fault.topic}", BAD if fault.refused else GOOD, fault.message, advice)


def of_mended(faults: Sequence[Fault]) -> Iterator[Finding]:
    """Topics whose configuration was set right just now."""
    for fault in faults:
        values = ", ".join(f"{name}={value}" for name, value in fault.config.items())
        yield Finding(f"topic {fault.topic}", GOOD, f"mended: it {fault.message}; now {values}")


def of_indices(url: str, complaint: str | None) -> Finding:
    """The indices of a projection in Elasticsearch."""
    if complaint is None:
        return Finding("indices", GOOD, f"as they should be at {url}")
    return Finding(
        "indices", BAD, complaint, "`coreplane project --rebuild` makes new ones, while the old ones are used"
    )


def of_projection(lag: Json | None) -> Iterator[Finding]:
    """How far the searchable copy is behind, by /v1/status."""
    if lag is not None and lag["seconds"] > BEHIND_S:
        message = f"{lag['records']} records and {lag['seconds']:.0f} s behind"
        yield Finding("lag", BAD, message, "wait, or have more replicas (or `coreplane project`) share the work")


def of_targets(report: Json) -> Iterator[Finding]:
    """Every target of /v1/status."""
    for target in report.get("targets") or ():
        name = f"target {target_name(target)}"
        if target.get("up"):
            yield Finding(name, GOOD, "up")
        else:
            advice = REASON_ADVICE.get(str(target.get("reason")), "it is tried again by itself")
            yield Finding(name, BAD, target_trouble(target) or "not reached yet", advice)
    if not report.get("targets"):
        yield Finding("targets", GOOD, "none is declared")


def of_access(url: str, report: Json) -> Iterator[Finding]:
    """Who gets in, and who can listen."""
    split = urlsplit(url)
    here = is_loopback(split.hostname or "")
    if not (report.get("access") or {}).get("required"):
        message = "nobody needs a token"
        advice = "configure `auth.tokens`, or make tokens and set `auth.required`"
        yield Finding("access", GOOD if here else WARNED, message, "" if here else advice)
    else:
        yield Finding("access", GOOD, "tokens are required")
    if split.scheme == "http" and not here:
        advice = "configure `http.tls`, or put a proxy with TLS before the daemon"
        yield Finding("tls", WARNED, f"tokens travel to {split.hostname} for everybody to read", advice)


def of_tokens(tokens: Sequence[Json], now: float) -> Iterator[Finding]:
    """Those that have ended, and those that soon will."""
    for token in tokens:
        at = token["value"].get("expires_at")
        left_s = None if at is None else parse_timestamp(at) - now
        if left_s is not None and left_s < SOON_S:
            when = "has expired" if left_s <= 0 else f"expires in {tables.age(timestamp(now - left_s), now)}"
            advice = f"make another with `coreplane token create`, then `coreplane token revoke {token['name']}`"
            yield Finding(f"token {token['name']}", WARNED, when, advice)


def of_stalled(stalled: list[Json]) -> Iterator[Finding]:
    """Settings that won't go on by themselves."""
    if not stalled:
        yield Finding("settings", GOOD, "none is stalled")
    for setting in stalled:
        name = f"{setting['setting_type']}/{setting['name']}"
        yield Finding(name, BAD, tables.message_of(setting), _advice(setting, name))


def of_advice(
    analyses: Mapping[str, Json], advised: Mapping[tuple[str, str], Sequence[Json]] = MappingProxyType({})
) -> Iterator[Finding]:
    """What services advise of what they see now, and from their metrics what that doesn't say already. Nothing is broken,
    so it is only told. `analyses`: by service; `advised`: by service and target."""
    told = set()
    for (service, target), rows in sorted(advised.items()):
        for one in rows:
            told.add((service, target, one.get("index"), one["about"]))
            yield _advised(service, target, one)
    for service, analysis in sorted(analyses.items()):
        for one in analysis.get("advice") or ():
            if (service, one["target"], one.get("index"), one["about"]) not in told:
                yield _advised(service, one["target"], one)


def _advised(service: str, target: str, one: Json) -> Finding:
    evidence = ", ".join(f"{name} {_listed(value)}" for name, value in (one.get("evidence") or {}).items())
    about = f"{one['index']}: {one['about']}" if one.get("index") else one["about"]
    return Finding(f"advice {service}/{target}", GOOD, f"{about} ({evidence})", one["advice"])


def _listed(value: Any) -> str:
    """The first few of many; whole numbers as such."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    rest = ", …" if isinstance(value, list) and len(value) > MOST_LISTED else ""
    return ", ".join(map(str, value[:MOST_LISTED])) + rest if isinstance(value, list) else str(value)


def _advice(setting: Json, name: str) -> str:
    reasons = [c.get("reason") for c in (setting.get("status") or {}).get("conditions") or () if c["type"] == "Stalled"]
    return REASON_ADVICE.get(str(next(iter(reasons), "")), STALLED_ADVICE.format(name))


def _troubles(health: Json) -> list[Any]:
    for name in ("troubles", "reasons"):
        if isinstance(health.get(name), list):
            return list(health[name])
    return []
