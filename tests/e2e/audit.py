"""What must hold after every run, read from the log of a daemon that has stopped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controlplane.domain.fold import State, Verdict, fold
from controlplane.domain.requests import read
from controlplane.log import codec
from controlplane.log.ports import Place, Stream
from controlplane.log.sqlite import open_sqlite

ENDS = frozenset({"ActionSucceeded", "ActionFailed", "ActionUnknown"})
OPERATION_ENDS = frozenset({"OperationSucceeded", "OperationFailed"})
ANNOUNCEMENTS = {
    "created": "SettingAccepted",
    "updated": "SettingAccepted",
    "retired": "SettingRetired",
    "forgotten": "SettingForgotten",
}
SHARDS = 16


@dataclass
class Books:
    """The whole log: change requests in order, their verdicts, and all events by shard and offset."""

    state: State = field(default_factory=State)
    verdicts: list[Verdict] = field(default_factory=list)
    """Of every record; a repetition gets the first one again."""
    offsets: list[int] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


async def books(data_dir: Path) -> Books:
    """Read the log of a stopped daemon."""
    found = Books()
    log = await open_sqlite(data_dir / "coreplane.db", shards=SHARDS)
    try:
        position = 0
        while records := await log.settings.read(position):
            for offset, data in records:
                found.verdicts.append(fold(found.state, offset, read(offset, data)))
                found.offsets.append(offset)
            position = records[-1].offset + 1
        for shard in range(SHARDS):
            position = 0
            while entries := await log.journal.read(Place(Stream.EVENTS, shard), position):
                found.events += [codec.decode(entry.data) for entry in entries if entry.data is not None]
                position = entries[-1].offset + 1
    finally:
        await log.close()
    return found


def check(found: Books) -> None:
    """Every law about events, whatever was done and whoever was killed."""
    no_id_comes_twice(found)
    every_effect_has_one_start_and_one_end(found)
    every_verdict_is_announced_exactly_once(found)


def no_id_comes_twice(found: Books) -> None:
    ids = Counter(event["id"] for event in found.events)
    twice = [event for event in found.events if ids[event["id"]] > 1]
    assert not twice, f"{len(twice)} events share their ids, for example {twice[:4]}"


def every_effect_has_one_start_and_one_end(found: Books) -> None:
    for start, ends in (("ActionStarted", ENDS), ("OperationStarted", OPERATION_ENDS)):
        begun = Counter(event["id"] for event in found.events if event["event_type"] == start)
        ended = Counter(event["causation_id"] for event in found.events if event["event_type"] in ends)
        wrong = (begun - ended) + (ended - begun)
        about = [event for event in found.events if event["id"] in wrong or event["causation_id"] in wrong]
        assert begun == ended, f"{len(wrong)} of {len(begun)} starts without exactly one end: {about[:6]}"


def every_verdict_is_announced_exactly_once(found: Books) -> None:
    expected: Counter[tuple[str, str, int]] = Counter()
    for offset, verdict in zip(found.offsets, found.verdicts, strict=True):
        if verdict.offset != offset:
            continue  # a repetition
        for outcome in verdict.outcomes:
            if outcome.outcome != "unchanged":
                expected[ANNOUNCEMENTS[outcome.outcome], outcome.key, outcome.revision] += 1
        for refusal in verdict.refusals:
            expected["SettingRejected", refusal.key, refusal.revision] += 1
    types = {*ANNOUNCEMENTS.values(), "SettingRejected"}
    told = Counter(
        (event["event_type"], event["setting"], event["revision"])
        for event in found.events
        if event["event_type"] in types
    )
    assert told == expected, f"missing {expected - told}, too many {told - expected}"
