"""Why a setting is as it is: for each owned path who set it, when and why, and what came of it. Pure.

Owned paths are JSON pointers into the value, as in drift and `policy.ignore`. A list is one path, as it is one to whoever
declares it. Differences may name a path below or above an owned one, or one node of several (`/commands@10.0.0.2:6379`);
those that belong to no owned path stand in rows of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from controlplane.domain.changes import changed_paths, identical, pointer, pointer_parts
from controlplane.domain.history import Moment
from controlplane.domain.muting import Mute, mute_of, related
from schemas.event import EventType

STAGES: Final[Mapping[str, str]] = {
    EventType.ACTION_STARTED: "intent",
    EventType.ACTION_SUCCEEDED: "effect",
    EventType.ACTION_FAILED: "effect",
    EventType.ACTION_UNKNOWN: "effect",
}
"""Event type → its place in the chain; every other event says what was observed."""

LEFT_OUT: Final = frozenset({EventType.SETTING_ACCEPTED, EventType.SETTING_RETIRED, EventType.SETTING_FORGOTTEN})
"""Events that say what the change itself says already."""


@dataclass(frozen=True, slots=True)
class World:
    """What is there, as far as it is known. `unknown`: why nothing is."""

    differences: Sequence[tuple[str, Any, Any]] = ()
    """(path, desired, observed)"""
    unknown: Mapping[str, str] | None = None
    """reason and message."""
    muted: Sequence[tuple[str, Any, Any]] = ()
    """What differed on paths that aren't owned, when they were last looked at."""


@dataclass(frozen=True, slots=True)
class Past:
    """What happened to one key: its revisions, oldest first, and its events, oldest first."""

    moments: Sequence[Moment]
    events: Sequence[Mapping[str, Any]]
    mutes: Sequence[Mute] = ()
    """Paths that aren't owned now."""


def explained(past: Past, world: World, path: str | None = None) -> list[dict[str, Any]]:
    """A row for each owned path at or below `path`, and for each difference that belongs to none."""
    entry = past.moments[-1].entry
    value = {} if entry is None else {name: part for name, part in entry.body["value"].items() if name != "target"}
    owned = dict(leaves(value))
    rows = [_row(leaf, desired, past, world) for leaf, desired in owned.items()]
    rows += [
        {**_row(_bare(at), desired, past, world), "observed": observed}
        for at, desired, observed in world.differences
        if not any(related(_bare(at), leaf) for leaf in owned)
    ]
    return [row for row in rows if path is None or related(row["path"], path)]


def chain(past: Past, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """From the request that set the newest of the rows to what was observed after it."""
    revision = max((row["set_by"]["revision"] for row in rows), default=0)
    index = next((n for n, moment in enumerate(past.moments) if moment.offset + 1 == revision), None)
    if index is None:
        return []
    moment = past.moments[index]
    before = past.moments[index - 1].entry if index else None
    asked, body = moment.request, moment.entry.body if moment.entry is not None else None
    request = {"stage": "request", "at": asked.at, "id": asked.request_id, "actor": asked.actor, "reason": asked.reason}
    change = {
        "stage": "change",
        "at": asked.at,
        "revision": revision,
        "generation": moment.entry.generation if moment.entry is not None else None,
        "op": moment.op,
        "changed": changed_paths(None if before is None else before.body, body),
    }
    return [request, change, *stages(past.events, asked.request_id)]


def stages(events: Iterable[Mapping[str, Any]], correlation_id: str) -> Iterator[dict[str, Any]]:
    """What one request, or one episode of drift, led to: intents, effects, observations, oldest first."""
    for event in events:
        if event["correlation_id"] == correlation_id and event["event_type"] not in LEFT_OUT:
            yield {
                "stage": STAGES.get(event["event_type"], "observation"),
                "at": event["timestamp"],
                "id": event["id"],
                "event_type": event["event_type"],
                "status": event["status"],
                "causation_id": event["causation_id"],
                "details": event["details"],
            }


def episode(events: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The newest episode of drift: its beginning, its end if it has one, and what was done. None: there was none."""
    found = [event for event in events if event["event_type"] == EventType.DRIFT_DETECTED]
    if not found:
        return None
    told = list(stages(events, found[-1]["correlation_id"]))
    ended = next((one["at"] for one in told if one["event_type"] == EventType.DRIFT_RESOLVED), None)
    return {"correlation_id": found[-1]["correlation_id"], "since": told[0]["at"], "until": ended, "chain": told}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(pointer, value) of everything that isn't a map with something in it."""
    if isinstance(value, Mapping) and (value or not path):
        for name, inner in value.items():
            yield from leaves(inner, path + pointer(name))
    else:
        yield path, value


def _row(path: str, desired: Any, past: Past, world: World) -> dict[str, Any]:
    muted = mute_of(path, past.mutes)
    seen = world.differences if muted is None else world.muted
    mine = [one for one in seen if related(_bare(one[0]), path)]
    known = world.unknown is None
    observed = mine[0][2] if mine and known else desired if known else None
    return {
        "path": path,
        "desired": desired,
        "observed": observed,
        "known": known,
        "set_by": _set_by(path, past.moments),
        "last_action": _last_action(path, past.events),
        "drift": [{"path": at, "desired": wanted, "observed": held} for at, wanted, held in mine],
        "muted": None if muted is None else muted._asdict(),
    }


def _set_by(path: str, moments: Sequence[Moment]) -> dict[str, Any]:
    """The revision that gave the path the value it has: the last that changed it. A path that nobody set was as it is
    when the setting was created."""
    setter, held = moments[0], object()
    for moment in moments:
        now = None if moment.entry is None else at(moment.entry.body["value"], path)
        if moment.entry is None or not identical(now, held):
            setter, held = moment, now if moment.entry is not None else object()
    request = setter.request
    return {
        "revision": setter.offset + 1,
        "generation": None if setter.entry is None else setter.entry.generation,
        "at": request.at,
        "actor": request.actor,
        "reason": request.reason,
        "request_id": request.request_id,
    }


def _last_action(path: str, events: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The newest step that touched the path: one that names other paths only didn't."""
    for event in reversed(events):
        if event["event_type"] != EventType.ACTION_STARTED:
            continue
        paths = event["details"].get("paths")
        if paths is None or any(related(path, one) for one in paths):
            ended = next((e for e in events if e["causation_id"] == event["id"] and e["event_type"] in STAGES), None)
            return {
                "step": event["details"].get("step"),
                "summary": event["details"].get("summary"),
                "status": event["status"] if ended is None else ended["status"],
                "at": event["timestamp"] if ended is None else ended["timestamp"],
                "attempt": event["details"].get("attempt"),
                "event_id": event["id"],
                "correlation_id": event["correlation_id"],
            }
    return None


def at(value: Any, path: str) -> Any:
    """What stands at the pointer; None where nothing does."""
    for part in pointer_parts(path):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _bare(path: str) -> str:
    """The path without the node it speaks of."""
    return path.partition("@")[0]
