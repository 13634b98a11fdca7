"""The desired state of this replica: the settings log, folded, and the answers to writes.

Theory of operation. `run` tails the settings log and folds each record. A write appends a change request and waits for
the verdict of *its request_id in our own fold*, not for the acknowledgement: an acknowledgement can be lost for a record
that is in the log. So every answer is read-your-writes, and no replica needs to ask another. Changes that the state
already refuses, and changes that alter nothing, don't reach the log.

A record that can't be folded (newer version, corrupt) stops the replica for good: it reports not ready and names the
offset; going on would fork it from the others.

Note [Appended again]. While an append is under way a repetition of its request only waits with it. Once the append has
ended without an answer the record may not be in the log at all, so a repetition appends it again, under the same
request_id: if both are in the log, the fold takes the first. Waiting only would leave that request without an answer for
ever.

Note [No refusal from behind]. A replica that is behind another one may miss the revision that a writer expects, or the record
of the very request that is repeated, accepted there. Its refusal would then contradict the log. So nothing is refused by what
the state holds before all is folded that stood in the log when the request came.

Note [Nothing to do, but to be remembered]. A writer gets no answer from replica A, which was stopped before it appended, and
repeats its request at B, where it changes nothing by now. If B only says so, the writer goes on to its next change, and A
wakes up and appends the old one after it: an update that was answered is undone. So where there are several replicas, a
request that may have been sent before goes to the log also when it changes nothing, or is refused: then A's record is a
repetition.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from controlplane.domain import requests
from controlplane.domain.errors import Reason, Refused
from controlplane.domain.events import change_headers
from controlplane.domain.fold import ChangeOutcome, State, Verdict, fold, is_unchanged, judge, replay
from controlplane.log import codec
from controlplane.log.ports import About, Indeterminate, LogCorrupt, LogUnavailable, Record, SettingsLog
from controlplane.runtime.clock import Clock
from controlplane.telemetry.metrics import Metrics
from schemas.names import timestamp
from schemas.record import VERSION

_log = structlog.get_logger()

Folded = Callable[[int, requests.ChangeRequest, Verdict], None]
"""Called after each folded record: offset, record, verdict. Must not block."""

BARRIER_S = 5.0

MOST_WRITES = 1000
"""Writes under way at once; one more is refused with TooManyRequests."""


def _verdict() -> asyncio.Future[Verdict]:
    """A future whose exception counts as seen: every waiter may have gone by the time the answer comes."""
    future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: None if done.cancelled() else done.exception())
    return future


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector: a replay makes much and drops nothing, and the collector would walk through the growing
    state over and over, for a third of the whole time and more."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@dataclass(slots=True)
class _Pending:
    """A write that has no verdict yet."""

    verdict: asyncio.Future[Verdict] = field(default_factory=_verdict)
    waiters: int = 0
    appending: bool = False
    """Being appended, or certainly in the log: the fold will answer."""


class Replica:
    """The folded settings log. `state` is read freely and changed by the fold alone."""

    def __init__(self, log: SettingsLog, clock: Clock, metrics: Metrics, *, shared: bool = False) -> None:
        """`shared`: others append to the log, too."""
        self.state = State()
        self.stopped: str | None = None
        """Why folding ended, for people; None while all is well."""
        self.halted = asyncio.Event()
        """Set when it ended."""
        self._log = log
        self.shared = shared
        self._clock = clock
        self._metrics = metrics
        self._listeners: list[Folded] = []
        self._pending: dict[str, _Pending] = {}
        self._appends: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()

    def listen(self, folded: Folded) -> None:
        """Call `folded` for every record from now on."""
        self._listeners.append(folded)

    async def catch_up(self) -> None:
        """Fold what the log holds now, before anybody listens or writes."""
        end = await self._log.end_offset()
        with uncollected():
            await self._log.scan(self.state.position, end, self._replay_batch)

    async def run(self) -> None:
        """Follow the log until it is closed or holds a record that can't be folded."""
        try:
            async for records in self._log.tail(self.state.position):
                self._fold_batch(records)
                if self.stopped:
                    return
                await asyncio.sleep(0)
        except LogCorrupt as exc:
            self._stop(exc)

    async def submit(
        self,
        changes: Sequence[Mapping[str, Any]],
        *,
        actor: str,
        request_id: str,
        reason: str = "",
        timeout_s: float = 10.0,
        remember: bool = False,
    ) -> Verdict:
        """The verdict on a change request; repeating a request_id gives the first one again. `remember`: the request may
        have been sent before, or may be again; see Note [Nothing to do, but to be remembered].

        Refusals are in the verdict. Raises `Refused` (too many writes), `LogUnavailable` (nothing stored) and
        `Indeterminate` (no verdict within `timeout_s`: retry with the same request_id).
        """
        first = self.state.verdicts.get(request_id)
        if first is not None:
            return first
        if self.stopped:
            raise LogUnavailable(self.stopped)
        asked = [requests.as_change(change) for change in changes]
        refusals = judge(self.state, asked)
        if refusals:  # Note [No refusal from behind]
            await self.be_newest()
            first = self.state.verdicts.get(request_id)
            if first is not None:
                return first
            refusals = judge(self.state, asked)
        to_the_log = remember and self.shared
        if refusals and not to_the_log:
            return Verdict(-1, request_id, (), refusals)
        if not to_the_log:
            unchanged = await self._unchanged(asked, request_id)
            if unchanged is not None:
                return unchanged
        pending = self._begin(changes, actor=actor, request_id=request_id, reason=reason)
        pending.waiters += 1
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(pending.verdict)
        except TimeoutError:
            msg = f"no verdict on request {request_id} within {timeout_s:g} s; retry with the same Idempotency-Key"
            raise Indeterminate(msg) from None
        finally:
            pending.waiters -= 1
            self._tidy(request_id, pending)

    async def reach(self, position: int, timeout_s: float) -> bool:
        """Wait until everything before `position` is folded; False when it isn't in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.state.position < position:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return self.state.position >= position
        return True

    async def newest(self, timeout_s: float) -> bool:
        """Wait until all is folded that stands in the log now; False when it isn't in time."""
        return await self.reach(await self._log.end_offset(), timeout_s)

    async def be_newest(self) -> None:
        """Note [No refusal from behind]. Raises `LogUnavailable` when it takes too long."""
        if not await self.newest(BARRIER_S):
            msg = f"this replica hasn't folded the settings log to its end within {BARRIER_S:g} s"
            raise LogUnavailable(msg)

    async def lag(self) -> int:
        """Offsets between our fold and the end of the log."""
        return max(0, await self._log.end_offset() - self.state.position)

    async def record(self, offset: int) -> dict[str, Any] | None:
        """The change request at an offset, None when there is none."""
        records = await self._log.read(offset, 1)
        return codec.decode(records[0].data) if records and records[0].offset == offset else None

    async def first_from(self, offset: int) -> requests.ChangeRequest | None:
        """The first change request at an offset or after it, None when there is none."""
        records = await self._log.read(offset, 1)
        return requests.read(*records[0]) if records else None

    async def records(self, start: int, stop: int) -> list[tuple[int, dict[str, Any]]]:
        """The change requests in [start, stop), as maps."""
        return [(record.offset, codec.decode(record.data)) async for record in self._stored(start, stop)]

    async def change_requests(self, start: int, stop: int) -> list[tuple[int, requests.ChangeRequest]]:
        """The change requests in [start, stop)."""
        return [(record.offset, requests.read(*record)) async for record in self._stored(start, stop)]

    async def _stored(self, start: int, stop: int) -> AsyncIterator[Record]:
        while start < stop:
            batch = [r for r in await self._log.read(start, min(500, stop - start)) if r.offset < stop]
            if not batch:
                break
            for record in batch:
                yield record
            start = batch[-1].offset + 1

    async def close(self) -> None:
        """Wait for appends under way; call after writes are no longer accepted."""
        if self._appends:
            await asyncio.wait(self._appends, timeout=5)

    async def _unchanged(self, changes: Sequence[requests.Change], request_id: str) -> Verdict | None:
        """The verdict when no change would alter anything in the newest state; None otherwise."""
        if not all(is_unchanged(self.state.entries.get(c.key), c) for c in changes):
            return None
        if not await self.newest(5.0):
            return None
        entries = [self.state.entries.get(change.key) for change in changes]
        if not all(is_unchanged(entry, change) for entry, change in zip(entries, changes, strict=True)):
            return None
        outcomes = tuple(ChangeOutcome(e.key, "unchanged", e.generation, e.revision) for e in entries if e is not None)
        return Verdict(-1, request_id, outcomes, ())

    def _begin(self, changes: Sequence[Mapping[str, Any]], *, actor: str, request_id: str, reason: str) -> _Pending:
        pending = self._pending.get(request_id)
        if pending is not None and pending.appending:
            return pending
        if pending is None and len(self._pending) >= MOST_WRITES:
            raise Refused(Reason.TOO_MANY_REQUESTS, f"{MOST_WRITES} writes are under way", retry_after_s=1.0)
        record = {
            "v": VERSION,
            "request_id": request_id,
            "actor": actor,
            "at": timestamp(self._clock.now()),
            "reason": reason,
            "changes": list(changes),
        }
        if pending is None:
            pending = self._pending[request_id] = _Pending()
        pending.appending = True  # Note [Appended again]
        task = asyncio.create_task(self._append(request_id, pending, record))
        self._appends.add(task)
        task.add_done_callback(self._appends.discard)
        return pending

    async def _append(self, request_id: str, pending: _Pending, record: Mapping[str, Any]) -> None:
        """Append; certain failures answer the waiters at once, uncertain ones leave the answer to the fold."""
        started = self._clock.monotonic()
        try:
            await self._log.append(codec.encode(record), About(*change_headers(record["changes"])))
        except Indeterminate as exc:
            _log.warning("append indeterminate", correlation_id=request_id, error=str(exc))
            pending.appending = False
        except Exception as exc:  # noqa: BLE001 - whatever it is, the waiters must hear of it
            if not pending.verdict.done():
                pending.verdict.set_exception(exc if isinstance(exc, LogUnavailable) else LogUnavailable(repr(exc)))
        self._tidy(request_id, pending)
        self._metrics.appended(self._clock.monotonic() - started)

    def _tidy(self, request_id: str, pending: _Pending) -> None:
        """Forget a write that is answered, or that nobody waits for and nothing appends any more."""
        over = pending.verdict.done() or not (pending.waiters or pending.appending)
        if over and self._pending.get(request_id) is pending:
            del self._pending[request_id]

    def _replay_batch(self, records: Sequence[Record]) -> bool:
        """Fold records whose verdicts nobody waits for; False once one can't be folded."""
        state, read = self.state, requests.read
        try:
            for offset, data in records:
                replay(state, offset, read(offset, data))
        except requests.UnknownRecord as exc:
            self._stop(exc)
        self._metrics.folded(len(records), state.position)
        return self.stopped is None

    def _fold_batch(self, records: Sequence[Record]) -> None:
        for record in records:
            try:
                request = requests.read(record.offset, record.data)
                verdict = fold(self.state, record.offset, request)
            except requests.UnknownRecord as exc:
                self._stop(exc)
                break
            self._metrics.verdict(accepted=verdict.accepted)
            self._answer(verdict, request.request_id)
            for folded in self._listeners:
                folded(record.offset, request, verdict)
        self._metrics.folded(len(records), self.state.position)
        self._moved.set()

    def _answer(self, verdict: Verdict, request_id: str) -> None:
        pending = self._pending.pop(request_id, None)
        if pending is not None and not pending.verdict.done():
            pending.verdict.set_result(verdict)

    def _stop(self, exc: Exception) -> None:
        self.stopped = str(exc)
        self.halted.set()
        _log.error("replica stopped", error=self.stopped)
        for pending in self._pending.values():
            if not pending.verdict.done():
                pending.verdict.set_exception(Indeterminate(self.stopped))
        self._pending.clear()
        self._moved.set()
