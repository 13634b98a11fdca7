"""When the keys of one target are looked at: the queue, and the reasons for which a key must wait. No tasks, no I/O.

Theory of operation. Two things keep a key back. A *hold*: an effect of unknown outcome may land yet, and nothing, neither a
user's change nor a sweep nor a failing log, makes the key due before it is over. A *pause* after failures, growing with
them: a user's change ends it, the backend's hints and sweeps don't.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

from controlplane.runtime.backoff import Backoff
from controlplane.runtime.clock import Clock
from controlplane.runtime.workqueue import Priority, WorkQueue

SHORTEST_S: Final = 0.1
"""Nobody, backends included, gets a key looked at again and again without a pause."""

LONGEST_S: Final = 86_400.0


class Schedule:
    """The keys of one target, and when they are due."""

    def __init__(
        self, clock: Clock, backoff: Backoff, unit: Callable[[], float], *, hold_s: float, wake: Callable[[], None]
    ) -> None:
        """`unit`: random numbers in [0, 1). `wake` is called whenever a key may have become due sooner."""
        self._clock = clock
        self._backoff = backoff
        self._unit = unit
        self._hold_s = hold_s
        self._wake = wake
        self._queue = WorkQueue()
        self._failures: dict[str, int] = {}
        self._pausing: set[str] = set()
        """Keys in the queue because they failed."""
        self._held: dict[str, float] = {}
        self._asked: set[str] = set()
        """Keys in a pass for which a user asked meanwhile: a failure of that pass is no reason to wait."""

    # --- asking for a look ---------------------------------------------------------------------------------------------

    def look(self, key: str, priority: Priority = Priority.USER) -> None:
        """A user's doing: as soon as it may be; pauses start anew."""
        self._failures.pop(key, None)
        self._pausing.discard(key)
        if self._queue.is_out(key):
            self._asked.add(key)
        self._add(key, priority, self._clock.monotonic())

    def again(self, key: str) -> None:
        """At once: it was just acted on."""
        self._add(key, Priority.USER, self._clock.monotonic())

    def resync(self, key: str) -> None:
        """A sweep's or a hint's doing: soon, unless it is held or pauses; then it will be looked at anyway.

        A key in a pass comes back: the pass may have looked before what caused this.
        """
        if self._queue.is_out(key) or self.may_resync(key):
            self._add(key, Priority.RESYNC, self._clock.monotonic())

    def later(self, key: str, pause_s: float) -> None:
        """After a pause that no failure caused."""
        self._add(key, Priority.RESYNC, self._clock.monotonic() + _bounded(pause_s))

    def retry(self, key: str, pause_s: float | None = None) -> float:
        """After the next growing pause of this key, or the one that the backend asked for; the pause."""
        if key in self._asked:
            self.again(key)
            return 0.0
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause_s = self._backoff.pause_s(failures, self._unit()) if pause_s is None else _bounded(pause_s)
        now = self._clock.monotonic()
        due = max(now + pause_s, self._held.get(key, now))
        self._pausing.add(key)
        self._queue.postpone(key, Priority.USER, now, due)
        return due - now

    def hold(self, key: str, still_running_s: float = 0.0) -> float:
        """Not before an effect of unknown outcome must have landed; the pause. `still_running_s`: who sent it may not even
        have given up yet."""
        now, pause_s = self._clock.monotonic(), self._hold_s + still_running_s
        self._held[key] = now + pause_s
        self._queue.postpone(key, Priority.USER, now, now + pause_s)
        return pause_s

    def settled(self, key: str) -> None:
        """Converged: pauses start anew."""
        self._failures.pop(key, None)

    # --- what is known -------------------------------------------------------------------------------------------------

    def may_resync(self, key: str) -> bool:
        """False while the key is held, pauses after a failure, or is in a pass."""
        held = self._held.get(key, 0.0) > self._clock.monotonic()
        return not held and key not in self._pausing and not self._queue.is_out(key)

    def is_out(self, key: str) -> bool:
        """True while the key is in a pass."""
        return self._queue.is_out(key)

    def is_planned(self, key: str) -> bool:
        """True when the key is due some time, or in a pass."""
        return key in self._queue

    def keep(self, keys: Collection[str]) -> None:
        """Forget what is remembered of all other keys, and holds that are over."""
        now = self._clock.monotonic()
        self._failures = {key: failures for key, failures in self._failures.items() if key in keys}
        self._held = {key: until for key, until in self._held.items() if until > now}

    # --- passes --------------------------------------------------------------------------------------------------------

    def take(self, limit: int, waited: Callable[[float], None]) -> list[str]:
        """Up to `limit` due keys, out until `done`. `waited` hears how long each was due."""
        taken = self._queue.take(limit, self._clock.monotonic(), waited)
        self._pausing.difference_update(taken)
        return taken

    def done(self, keys: Iterable[str]) -> None:
        """The pass is over."""
        now = self._clock.monotonic()
        for key in keys:
            self._queue.done(key, now)
            self._asked.discard(key)
        self._wake()

    def next_s(self) -> float | None:
        """How long until a key is due; None when none is."""
        due = self._queue.next_due()
        return None if due is None else due - self._clock.monotonic()

    @property
    def waiting(self) -> int:
        """Keys in the queue."""
        return len(self._queue)

    @property
    def out(self) -> int:
        """Keys in passes."""
        return self._queue.out

    def _add(self, key: str, priority: Priority, due: float) -> None:
        now = self._clock.monotonic()
        held = self._held.get(key, 0.0)
        if held > now:
            self._queue.postpone(key, priority, now, max(due, held))
        else:
            self._queue.add(key, priority, now, due=due)
        self._wake()


def _bounded(pause_s: float) -> float:
    return min(max(pause_s, SHORTEST_S), LONGEST_S)
