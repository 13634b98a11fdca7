"""The switch: aliases move from one generation to the next while no write is lost and none is refused. I/O.

    hold      plain writes to the new generation wait (see Note [A hold is a setting] in `generations`); ours don't
    swap      one request moves all aliases: whoever writes from now on waits at the new one
    quiesce   writers that had resolved the alias before are through when the numbers of the old one stand still
    block     the old one takes no writes: a straggler fails loudly instead of being lost
    last pass what the old one took until then is carried over
    count     both hold equally many documents, else all ids are compared
    release   the writers go on

Note [Nobody knows whether it moved]. When the swap got no answer, it may have happened, or wait in the master's queue still.
Letting writers go then would have them write to a generation that lacks the last changes, and carrying these over afterwards
would undo what they wrote. So first another change of the cluster's state is sent, which the master takes after the swap;
where the aliases are then is final. As long as that can't be told, writers stay held.

Each part may be repeated. What was done shows in the cluster: where the alias is, whether the new one is held and the old
one is blocked; a process that takes over goes forward from there, or releases when the alias hadn't moved.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from reconcilers.contract import BackendError, Fence, Outcome, TerminalError, TransientError
from reconcilers.search.copying import Copies
from reconcilers.search.feeding import ACTIVE, Feeder
from reconcilers.search.generations import ALLOCATION_SETTING, WAIT_SETTING
from reconcilers.search.steps import FinishSwitch, PointAlias, ReleaseHold, SwitchAlias
from reconcilers.search.wire import Wire, done, path_of

QUIET_S: Final = 0.015
MOST_QUIET_S: Final = 3.0
REHEARSALS: Final = 4


class Switches:
    """Moves of aliases in one cluster."""

    def __init__(self, wire: Wire, copies: Copies) -> None:
        self._wire = wire
        self._copies = copies

    async def switch(self, step: SwitchAlias, fence: Fence) -> Outcome:
        """All of it. When the alias hasn't moved, the hold ends with the attempt."""
        feeder = self._copies.feeder(step.source, step.index, {})
        if not feeder.state.is_compared:
            raise TransientError("the listing is gone; it is made anew", reason="ListingLost", retry_after_s=0.1)
        pass_s = await self._rehearse(feeder, step.hold_s / 2, fence)
        if pass_s > step.hold_s / 2:
            message = f"a pass takes {pass_s:.1f} s just now, too long to hold writers"
            raise TransientError(message, reason="TooBusy", retry_after_s=1.0)
        started = time.monotonic()
        await self._hold(step.index, fence)
        try:
            await self._swap(step.source, step.index, fence)
        except BackendError:
            if not await self._moved(step.source, step.index, fence):
                await self._release(step.index, step.restore, fence)
                raise
        found = await self._rest(feeder, step.restore, fence)
        return done(**found, held_s=round(time.monotonic() - started, 3))

    async def finish(self, step: FinishSwitch, fence: Fence) -> Outcome:
        """The rest, by whoever takes over. Its listing is made while writers wait."""
        mark = await self._copies.mark_of(step.index)
        feeder = self._copies.feeder(step.source, step.index, mark.checkpoints)
        await self._block(step.source, fence)
        await feeder.prepare(fence)
        return done(**await self._rest(feeder, step.restore, fence))

    async def release(self, step: ReleaseHold, fence: Fence) -> Outcome:
        """Only that."""
        await self._release(step.index, step.restore, fence)
        return done()

    async def point(self, step: PointAlias, fence: Fence) -> Outcome:
        """Give a generation its aliases, and take the main one from whoever has it."""
        actions: list[dict[str, Any]] = []
        for alias, properties in step.aliases.items():
            holding = await self._wire.ask("GET", path_of("_alias", alias), absent={})
            actions += [{"remove": {"index": one, "alias": alias, "must_exist": True}} for one in holding]
            actions.append({"add": {"index": step.index, "alias": alias, **properties}})
        await self._act(actions, fence)
        return done()

    # --- parts ---------------------------------------------------------------------------------------------------------

    async def _rehearse(self, feeder: Feeder, enough_s: float, fence: Fence) -> float:
        """How long a pass takes. The first may carry over what has gathered since the last look; each further one begins at
        once, so it has less to do as long as the server keeps up."""
        for _ in range(REHEARSALS):
            started = time.monotonic()
            await feeder.pass_once(fence)
            took_s = time.monotonic() - started
            if took_s <= enough_s:
                break
        return took_s

    async def _hold(self, index: str, fence: Fence) -> None:
        settings = await self._wire.ask("GET", path_of(index, "_settings"), params={"flat_settings": True})
        copies = int(settings[index]["settings"].get("index.number_of_replicas", 0))
        held = {
            "index.number_of_replicas": copies + 1,
            "index.auto_expand_replicas": "false",
            WAIT_SETTING: "all",
            ALLOCATION_SETTING: "none",
        }
        await self._wire.send(fence, "PUT", path_of(index, "_settings"), held)

    async def _swap(self, source: str, index: str, fence: Fence) -> None:
        aliases = (await self._wire.ask("GET", path_of(source, "_alias")))[source]["aliases"]
        actions: list[dict[str, Any]] = []
        for alias, properties in aliases.items():
            actions.append({"remove": {"index": source, "alias": alias, "must_exist": True}})
            actions.append({"add": {"index": index, "alias": alias, **properties}})
        await self._act(actions, fence)

    async def _moved(self, source: str, index: str, fence: Fence) -> bool:
        """Note [Nobody knows whether it moved]"""
        await self._wire.send(fence, "PUT", path_of(index, "_settings"), {WAIT_SETTING: "all"})
        aliases = (await self._wire.ask("GET", path_of(source, "_alias")))[source]["aliases"]
        return not aliases

    async def _act(self, actions: list[dict[str, Any]], fence: Fence) -> None:
        answer = await self._wire.send(fence, "POST", "/_aliases", {"actions": actions})
        if answer.get("errors"):
            raise TerminalError(f"the server moved only some aliases: {str(answer)[:300]}", reason="AliasesMovedInPart")

    async def _rest(self, feeder: Feeder, restore: Mapping[str, Any], fence: Fence) -> dict[str, Any]:
        await self._quiesce(feeder.source)
        await self._block(feeder.source, fence)
        written, deleted = await feeder.pass_once(fence)
        old, new = await feeder.counts()
        found: dict[str, Any] = {"written": written, "deleted": deleted}
        if old != new:
            found["mended"] = await feeder.equalise(fence)
            old, new = await feeder.counts()
        if feeder.refused:
            found["refused"] = feeder.refused[:20]
        await self._release(feeder.index, restore, fence)
        return {**found, "documents": new, "documents_of_source": old}

    async def _quiesce(self, source: str) -> None:
        """Wait until nothing is under way in the old generation and its numbers stand still.

        A shard that isn't up yet, as after a start, tells nothing, or what it remembers.
        """
        until, before = time.monotonic() + MOST_QUIET_S, None
        while time.monotonic() < until:
            answer = await self._wire.ask("GET", path_of(source, "_stats", "docs,indexing"), params={"level": "shards"})
            shards = answer["indices"].get(source, {"shards": {}})["shards"]
            copies = [c for shard in shards.values() for c in shard]
            busy = sum(c["indexing"]["index_current"] + c["indexing"]["delete_current"] for c in copies)
            now = sorted(c["seq_no"]["max_seq_no"] for c in copies if "seq_no" in c)
            primaries = [c for c in copies if c["routing"]["primary"]]
            is_up = all(c["routing"]["state"] in ACTIVE for c in primaries)
            if primaries and is_up and not busy and now == before:
                return
            before = now
            await asyncio.sleep(QUIET_S)

    async def _block(self, source: str, fence: Fence) -> None:
        await self._wire.send(fence, "PUT", path_of(source, "_block", "write"))

    async def _release(self, index: str, restore: Mapping[str, Any], fence: Fence) -> None:
        await self._wire.send(fence, "PUT", path_of(index, "_settings"), dict(restore))
