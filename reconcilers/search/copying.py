"""Migrations on the server: generations are made, filled, verified and switched to. I/O; `migrating` decides what is next.

The copy is a reindex that the server runs as a task. A task doesn't survive its node; starting it again skips what is there.
Feeders live as long as this process does; another one lists anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from reconcilers.contract import Fence, Outcome, TerminalError
from reconcilers.search import feeding, verifying
from reconcilers.search.feeding import Feeder
from reconcilers.search.generations import Generation, Mark, mark_of, marked
from reconcilers.search.model import Copy, Feed
from reconcilers.search.shadow import simulated
from reconcilers.search.steps import (
    CompareDocuments,
    CreateGeneration,
    DropGeneration,
    FeedChanges,
    ListDocuments,
    MarkGeneration,
    RecordProgress,
    RetireGeneration,
    StartCopy,
    VerifyGeneration,
)
from reconcilers.search.wire import Wire, done, path_of, said

REINDEX: Final = "*reindex"
UNAVAILABLE: Final = 503
AWAY: Final = {
    "search_phase_execution_exception",
    "no_shard_available_action_exception",
    "unavailable_shards_exception",
    "node_closed_exception",
}
"""Errors of a copy that found some of the source or of the new generation away, as after a node's restart: it is begun anew."""


class Copies:
    """The migrations of one cluster."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._feeders: dict[str, Feeder] = {}

    # --- what is seen --------------------------------------------------------------------------------------------------

    def feed(self, building: Generation) -> Feed:
        """What this process knows of the changes."""
        feeder = self._feeders.get(building.name)
        return Feed() if feeder is None else feeder.state

    def feeder(self, source: str, index: str, checkpoints: Mapping[str, int]) -> Feeder:
        """The one feeder of a generation."""
        found = self._feeders.get(index)
        if found is None:
            found = self._feeders[index] = Feeder(self._wire, source, index, checkpoints)
        return found

    def forget(self, index: str) -> None:
        """A generation that isn't being made any more."""
        self._feeders.pop(index, None)

    async def copy(self, building: Generation) -> Copy | None:
        """How far the server's copy is; None before it was started."""
        task = building.mark.task
        if not task:
            return None
        answer = await self._wire.ask("GET", path_of("_tasks", task), absent=None)
        if answer is None:
            return Copy("lost")
        if answer["completed"]:
            return _ended(answer)
        copied, total = _progress(answer["task"]["status"])
        if not total:
            copied, total = await self._slices(task)
        return Copy("running", copied, total)

    async def _slices(self, task: str) -> tuple[int, int]:
        """Progress of a sliced copy, whose own task shows zeros until its parts end."""
        params = {"parent_task_id": task, "detailed": True, "actions": REINDEX}
        answer = await self._wire.ask("GET", "/_tasks", params=params)
        rows = [one["status"] for node in answer.get("nodes", {}).values() for one in node["tasks"].values()]
        return sum(_progress(row)[0] for row in rows), sum(_progress(row)[1] for row in rows)

    # --- steps ---------------------------------------------------------------------------------------------------------

    async def create(self, step: CreateGeneration, fence: Fence) -> Outcome:
        """Checkpoints first, then a refresh: everything up to them is visible to the copy."""
        reached = await feeding.checkpoints(self._wire, step.source)
        await self._wire.ask("POST", path_of(step.source, "_refresh"))
        mark = replace(step.mark, checkpoints={str(s): n for s, n in reached.items()}, since=time.time())
        body = {"settings": _given(step.body.settings), "mappings": _with_mark(step.body.mappings, mark)}
        await self._checked(body, step)
        self.forget(step.index)
        await self._wire.send(fence, "PUT", path_of(step.index), body)
        return done(checkpoints=dict(mark.checkpoints))

    async def _checked(self, body: dict[str, Any], step: CreateGeneration) -> None:
        """What is taken over from the old generation may not go with what is declared: say so before anything is made."""
        try:
            await simulated(self._wire, body)
        except TerminalError as exc:
            message = f"what {step.source} has and what is declared don't go together: {exc.message}"
            raise TerminalError(message, reason="InvalidDefinition") from exc

    async def start(self, step: StartCopy, fence: Fence) -> Outcome:
        """Begin, or find what was begun by somebody whose word of it was lost."""
        task = await self._running(step.index)
        if task is None:
            await feeding.checkpoints(self._wire, step.source)  # all of it can be read
            body = {
                "conflicts": "proceed",
                "source": {"index": step.source, "size": 1_000},
                "dest": {"index": step.index, "version_type": "external", "pipeline": "_none"},
            }
            rate = step.requests_per_second
            params = {
                "wait_for_completion": False,
                "slices": "auto",
                "wait_for_active_shards": 1,
                "requests_per_second": -1 if rate is None else rate,
            }
            task = (await self._wire.send(fence, "POST", "/_reindex", body, params=params))["task"]
        await self.remark(step.index, fence, lambda mark: replace(mark, task=task))
        return done(task=task)

    async def _running(self, index: str) -> str | None:
        answer = await self._wire.ask("GET", "/_tasks", params={"actions": REINDEX, "detailed": True})
        for node in answer.get("nodes", {}).values():
            for name, one in node["tasks"].items():
                if f"to [{index}]" in one.get("description", "") and "parent_task_id" not in one:
                    return str(name)
        return None

    async def progress(self, step: RecordProgress, fence: Fence) -> Outcome:
        """A tenth more."""
        await self.remark(step.index, fence, lambda mark: replace(mark, percent=step.percent))
        return done(percent=step.percent)

    async def mark(self, step: MarkGeneration, fence: Fence) -> Outcome:
        """Another phase."""
        reason = step.reason[:1_000]
        await self.remark(step.index, fence, lambda mark: mark.at(step.phase, time.time(), reason=reason))
        return done()

    async def list_documents(self, step: ListDocuments, _fence: Fence) -> Outcome:
        """A part of the listing."""
        feeder = await self._feeder_of(step.source, step.index)
        return done(**await feeder.list_some())

    async def compare(self, step: CompareDocuments, fence: Fence) -> Outcome:
        """A part of the comparison."""
        feeder = await self._feeder_of(step.source, step.index)
        return done(**await feeder.compare_some(fence))

    async def feed_changes(self, step: FeedChanges, fence: Fence) -> Outcome:
        """Some passes; how far they got stands in the mark."""
        feeder = await self._feeder_of(step.source, step.index)
        try:
            said_of = await feeder.feed(fence)
        except TerminalError as exc:
            await self._refuse(step.index, exc, fence)
            raise
        await self.note(feeder, fence)
        return done(**said_of)

    async def verify(self, step: VerifyGeneration, fence: Fence) -> Outcome:
        """Compare; then let copies be made."""
        feeder = await self._feeder_of(step.source, step.index)
        try:
            found = await verifying.verified(self._wire, feeder, step.migration.verify, fence)
        except TerminalError as exc:
            await self._refuse(step.index, exc, fence)
            raise
        await self.note(feeder, fence, phase="verified")
        return done(**found)

    async def retire(self, step: RetireGeneration, fence: Fence) -> Outcome:
        """The new one serves, the old one is old. The old one first: it is found by its source as long as need be."""
        now = time.time()
        if await self._wire.ask("GET", path_of(step.source, "_alias"), absent=None) is not None:
            await self.remark(step.source, fence, lambda mark: Mark("old", mark.digest, since=now))
        await self.remark(
            step.index, fence, lambda mark: Mark("serving", mark.digest, step.source, since=now, pinned=step.pinned)
        )
        self.forget(step.index)
        return done()

    async def drop(self, step: DropGeneration, fence: Fence) -> Outcome:
        """Stop its copy, if there is one, and remove it."""
        task = await self._running(step.index)
        if task is not None:
            await self._wire.ask("POST", path_of("_tasks", task, "_cancel"), absent=None)
        self.forget(step.index)
        await self._wire.send(fence, "DELETE", path_of(step.index), absent=None)
        return done()

    async def _refuse(self, index: str, error: TerminalError, fence: Fence) -> None:
        self.forget(index)
        await self.remark(index, fence, lambda mark: mark.at("refused", time.time(), reason=error.message[:1_000]))

    async def _feeder_of(self, source: str, index: str) -> Feeder:
        known = self._feeders.get(index)
        if known is not None:
            return known
        mark = await self.mark_of(index)
        return self.feeder(source, index, mark.checkpoints)

    # --- marks ---------------------------------------------------------------------------------------------------------

    async def note(self, feeder: Feeder, fence: Fence, *, phase: str | None = None) -> None:
        """Write down how far everything is carried over."""
        reached = {str(shard): number for shard, number in feeder.done.items()}

        def change(mark: Mark) -> Mark:
            moved = replace(mark, checkpoints=reached)
            return moved if phase is None else moved.at(phase, time.time())

        await self.remark(feeder.index, fence, change)

    async def mark_of(self, index: str) -> Mark:
        """The mark as it stands. Raises `TerminalError` when there is none."""
        document = await self._wire.ask("GET", path_of(index, "_mapping"))
        mark = mark_of(document[index]["mappings"])
        if mark is None:
            raise TerminalError(f"{index} bears no mark of a migration", reason="NotMarked")
        return mark

    async def remark(self, index: str, fence: Fence, change: Callable[[Mark], Mark]) -> None:
        """Change the mark; everything else in `_meta` stays."""
        document = await self._wire.ask("GET", path_of(index, "_mapping"))
        mappings = document[index]["mappings"]
        meta = marked(mappings.get("_meta"), change(mark_of(mappings) or Mark()))
        await self._wire.send(fence, "PUT", path_of(index, "_mapping"), {"_meta": meta})


def _progress(status: Mapping[str, Any]) -> tuple[int, int]:
    copied = sum(int(status.get(name, 0)) for name in ("created", "updated", "deleted", "version_conflicts"))
    return copied, int(status.get("total", 0))


def _ended(answer: Mapping[str, Any]) -> Copy:
    response = answer.get("response", {})
    copied, total = _progress(response)
    failures = response.get("failures", [])
    if str(answer.get("error", {}).get("type")) in AWAY or any(one.get("status") == UNAVAILABLE for one in failures):
        return Copy("lost", copied, total)
    if failures:
        told = [f"{one.get('id', '?')}: {said(one.get('cause', one.get('reason', one)))[1]}" for one in failures[:3]]
        return Copy("failed", copied, total, f"{len(failures)} documents or more are refused: {'; '.join(told)}")
    if "error" in answer:
        return Copy("failed", copied, total, said(answer["error"])[1])
    if response.get("canceled"):
        return Copy("lost", copied, total)
    return Copy("done", copied, total)


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _with_mark(mappings: Mapping[str, Any], mark: Mark) -> dict[str, Any]:
    return {**mappings, "_meta": marked(mappings.get("_meta"), mark)}
