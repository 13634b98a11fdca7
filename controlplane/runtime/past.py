"""What was declared, all of it, at any place of the settings log.

Theory of operation. The state of long ago is replayed from the nearest checkpoint before it: a copy of the map of entries as
they were there. Nothing is judged again: `State.history` names the offsets at which each key changed, so a change counts
exactly if its revision is among them. Checkpoints are made along the way of the first question that comes by, at distances
that grow with the log, so that neither their number nor the longest replay between two of them does. Entries that didn't
change are shared by all checkpoints.

Note [Times]. A time means the log up to its last record that isn't later. It is found by halving, always at the same
offsets however long the log has become, so the same time means the same place tomorrow. The clocks of several writers are
taken to agree.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from controlplane.domain.fold import Entry, applied
from controlplane.domain.requests import ChangeRequest
from controlplane.runtime.replica import Replica, uncollected
from schemas.names import parse_timestamp

Entries = Mapping[str, Entry]

CLOSEST: Final = 2_048
"""Offsets between two checkpoints, at least; else this times a power of two."""
MOST_KEPT: Final = 20_000
"""Entries that all checkpoints together may name: a few dozen megabytes if none were shared."""
FEWEST: Final = 8
"""Checkpoints, however many settings there are."""
BATCH: Final = 500
"""Records folded between two moments in which other tasks may run: some milliseconds."""
ANSWERS: Final = 4
"""Places asked for of late whose states are kept, for the next page."""


class Past:
    """States of the replica as they were. `offsets_replayed` counts what questions have cost."""

    def __init__(self, replica: Replica, *, closest: int = CLOSEST) -> None:
        self.offsets_replayed = 0
        self._replica = replica
        self._closest = closest
        self._checkpoints: dict[int, dict[str, Entry]] = {0: {}}
        self._answers: OrderedDict[int, dict[str, Entry]] = OrderedDict()
        self._turn = asyncio.Lock()

    async def entries(self, revision: int) -> Entries:
        """Every entry as of a revision of the log: the state after folding offset `revision - 1`."""
        state = self._replica.state
        if revision >= state.position:
            return state.entries
        async with self._turn:  # two at once would replay the same records
            known = self._answers.get(revision)
            if known is None:
                known = self._answers[revision] = await self._replayed(revision)
            self._answers.move_to_end(revision)
            while len(self._answers) > ANSWERS:
                self._answers.popitem(last=False)
        return known

    async def revision(self, instant: float) -> int:
        """The revision of the log at a time (Unix seconds); 0 before the first record. See the note on times."""
        end, found = self._replica.state.position, 0
        for bit in reversed(range(end.bit_length())):
            place = found | 1 << bit
            if place <= end and await self._written(place - 1) <= instant:
                found = place
        return found

    @property
    def spacing(self) -> int:
        """Offsets between two checkpoints, now."""
        state, spacing = self._replica.state, self._closest
        most = max(FEWEST, MOST_KEPT // max(1, len(state.entries)))
        while state.position // spacing > most:
            spacing *= 2
        return spacing

    async def _written(self, offset: int) -> float:
        """When the record at the offset was written, or the first after it."""
        request = await self._replica.first_from(offset)
        return parse_timestamp(request.at) if request is not None else float("inf")

    async def _replayed(self, revision: int) -> dict[str, Entry]:
        spacing = self.spacing
        self._checkpoints = {place: kept for place, kept in self._checkpoints.items() if place % spacing == 0}
        places = sorted(self._checkpoints)
        begin = places[bisect_right(places, revision) - 1]
        entries = dict(self._checkpoints[begin])
        with uncollected():
            while begin < revision:
                end = min(revision, begin + BATCH, (begin // spacing + 1) * spacing)
                for offset, request in await self._replica.change_requests(begin, end):
                    self._take(entries, offset, request)
                self.offsets_replayed += end - begin
                begin = end
                if begin % spacing == 0 and begin not in self._checkpoints:
                    self._checkpoints[begin] = dict(entries)
                await asyncio.sleep(0)
        return entries

    def _take(self, entries: dict[str, Entry], offset: int, request: ChangeRequest) -> None:
        """The changes of a request that were accepted and changed something."""
        history, revision = self._replica.state.history, offset + 1
        for change in request.changes:
            key = change.key
            revisions = history.get(key, ())
            index = bisect_left(revisions, revision)
            if index == len(revisions) or revisions[index] != revision:
                continue
            entry = applied(entries.get(key), change, offset, request)
            if entry is None:
                entries.pop(key, None)
            else:
                entries[key] = entry
