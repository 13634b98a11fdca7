"""What an apply would do, in the log and in the backends, without doing any of it.

Theory of operation. The proposal is laid over the folded state: entries as the fold would make them, and from them the
dependencies, claims and targets as they would be. Each backend is asked once about all the objects concerned (a read in the
sense of the contract, scratch objects included), the kinds' planners plan, and the controller's own decisions say what
comes of it: nothing here knows a gate that `decisions` doesn't. Only the target's open connection is used. Where there is
none, where the proposal itself makes or moves the target, or where no answer comes, the setting is unknown.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import structlog

from controlplane.domain.errors import Reason, Refused
from controlplane.domain.fold import Entry, State
from controlplane.domain.status import KeyStatus
from controlplane.domain.writes import Change, Trial, trials
from controlplane.runtime import decisions
from controlplane.runtime.catalogue import Catalogue, Resolved, TargetId, Unresolved
from controlplane.runtime.clock import Clock
from controlplane.runtime.decisions import Surroundings
from controlplane.runtime.desired import DesiredState
from controlplane.runtime.foreseen import Foreseen, Previewed, decided, previewed, unobserved
from controlplane.runtime.statuses import StatusView
from controlplane.telemetry.metrics import Metrics
from reconcilers.contract import Backend, BackendError, ExternalId, Plan, Secrets, TerminalError, Unreachable

_log = structlog.get_logger()

MOST_AT_ONCE: Final = 8
YIELD_EVERY: Final = 100
"""Settings arranged between two moments in which other tasks may run."""


class Link(Protocol):
    """The work on one target, as far as a preview looks at it."""

    @property
    def backend(self) -> Backend | None:
        """The open backend, None while the target is down."""

    @property
    def down(self) -> BackendError | None:
        """Why the target is down."""


class Links(Protocol):
    """The controller, as a preview sees it."""

    def loop(self, target: TargetId) -> Link | None:
        """The work on a target, if its shard is ours."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What would be applied. `prune`: the labels by which `changes` got its retires."""

    tenant: str
    changes: Sequence[Change]
    prune: Mapping[str, str] | None
    record: Mapping[str, Any]
    """at, actor, reason and request_id that the change request would have."""

    def asked(self) -> Any:
        """The request in its normal form. What a prune finds isn't asked for: it depends on what is there."""
        declared = sorted((c["key"], c["body"]) for c in self.changes if c["op"] == "declare")
        return [declared, None if self.prune is None else dict(self.prune)]


@dataclass(frozen=True, slots=True)
class _Look:
    """A setting that needs its backend."""

    trial: Trial
    resolved: Resolved
    status: KeyStatus
    missing: tuple[str, ...]
    """Keys it stands on that aren't declared."""
    waits_for: tuple[str, ...]

    @property
    def thing(self) -> ExternalId:
        """The object it is about."""
        return decisions.thing_of(self.resolved, self.status)

    @property
    def renamed(self) -> bool:
        """It made another object than the one that would be declared."""
        return decisions.is_renamed(self.resolved, self.status)

    @property
    def desired(self) -> Any:
        """What the object should be, None when it should go or is no longer wanted."""
        return None if self.status.retiring or self.renamed else self.resolved.desired

    def wanted(self) -> dict[ExternalId, Any]:
        """What to observe. Of a renamed one both: when the old is gone already, the new one counts."""
        new = {self.resolved.external: self.resolved.desired} if self.renamed else {}
        return {self.thing: self.desired, **new}


class _Overlaid(Catalogue):
    """The catalogue over a proposal: what is proposed, or has moved meanwhile, isn't remembered by the one below."""

    def __init__(self, known: Catalogue, current: Mapping[str, Entry]) -> None:
        super().__init__(known.services)
        self._known = known
        self._current = current

    def resolve(self, entry: Entry) -> Resolved | Unresolved:
        current = self._current.get(entry.key) is entry
        return self._known.resolve(entry) if current else super().resolve(entry)


class Preview:
    """Foresees proposals."""

    def __init__(
        self,
        state: State,
        catalogue: Catalogue,
        statuses: StatusView,
        links: Links,
        *,
        secrets: Secrets,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._state = state
        self._catalogue = catalogue
        self._statuses = statuses
        self._links = links
        self._secrets = secrets
        self._clock = clock
        self._metrics = metrics
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)

    async def foresee(self, proposal: Proposal) -> Previewed:
        """What would become of every setting, in the order of the changes. Nothing is done and nothing stored.

        Raises `Refused`: what the fold would refuse, and TooManyRequests.
        """
        if self._slots.locked():
            raise Refused(Reason.TOO_MANY_REQUESTS, f"{MOST_AT_ONCE} plans are under way", retry_after_s=1.0)
        async with self._slots:
            tried = trials(self._state, proposal.changes, proposal.record)
            prefix, position = f"{proposal.tenant}/", self._state.position
            entries = {key: entry for key, entry in self._state.entries.items() if key.startswith(prefix)}
            revisions = {key: entry.revision for key, entry in entries.items()}
            desired = await self._arranged(entries | {trial.key: trial.after for trial in tried})
            settings = await self._foreseen(tried, desired)
            concerned = {key: revisions.get(key, 0) for trial in tried for key in _concerned(trial, desired)}
            return await asyncio.to_thread(previewed, position, proposal.asked(), concerned, settings)

    async def _arranged(self, entries: dict[str, Entry]) -> DesiredState:
        """The tenant's settings as they would be, with their dependencies and claims."""
        catalogue = _Overlaid(self._catalogue, self._state.entries)
        desired = DesiredState(State(entries=entries), catalogue, self._statuses, self._secrets)
        for index, key in enumerate(entries):
            desired.update(key)
            if index % YIELD_EVERY == YIELD_EVERY - 1:
                await asyncio.sleep(0)
        return desired

    async def _foreseen(self, tried: Sequence[Trial], desired: DesiredState) -> list[Foreseen]:
        moving = {trial.key for trial in tried if trial.outcome != "retired" and _value(trial.before) != _value(trial.after)}
        found: dict[str, Foreseen] = {}
        looks: defaultdict[TargetId, list[_Look]] = defaultdict(list)
        for trial in tried:
            sorted_ = self._sorted(trial, desired, moving)
            if isinstance(sorted_, Foreseen):
                found[trial.key] = sorted_
            else:
                looks[sorted_.resolved.target].append(sorted_)
        for answers in await asyncio.gather(*(self._look(target, some) for target, some in looks.items())):
            found |= {one.trial.key: one for one in answers}
        return [found[trial.key] for trial in tried]

    # --- before the observation ----------------------------------------------------------------------------------------

    def _sorted(self, trial: Trial, desired: DesiredState, moving: set[str]) -> Foreseen | _Look:
        resolved = desired.resolve(trial.after)
        if isinstance(resolved, Resolved) and resolved.kind is None:
            return Foreseen(trial)  # a target only says where a backend is
        now = self._clock.now()
        known = self._statuses.get(trial.key) or KeyStatus(trial.key)
        status = replace(decisions.taken_up(trial.after, known, now), conditions=(), drift=())
        link = self._links.loop(resolved.target)
        backend = None if link is None else link.backend
        unsupported = None if backend is None else backend.unsupported(resolved.key.setting_type)
        around, waits_for = _in_time(desired.surroundings(resolved, status.external, unsupported), desired)
        decision = decisions.before_looking(resolved, status, around, now)
        if decision is not None or isinstance(resolved, Unresolved):
            return decided(trial, decision or decisions.Decision(status))
        if resolved.target.key in moving:
            message = f"{resolved.target.key.partition('/')[2]} is declared by the same document"
            return unobserved(trial, Unreachable(f"{message}: what is there is seen once it is connected", reason="TargetNotConnected"))
        if backend is None:
            down = link.down if link is not None else None
            return unobserved(trial, Unreachable(*_why_down(down)) if False else _not_connected(resolved.target, down))
        return _Look(trial, resolved, status, around.unmet, waits_for)

    # --- the observation -----------------------------------------------------------------------------------------------

    async def _look(self, target: TargetId, looks: Sequence[_Look]) -> list[Foreseen]:
        wanted: dict[ExternalId, Any] = {}
        for look in looks:  # of two that look at one thing, one gives it up: what the other wants counts
            for thing, value in look.wanted().items():
                if wanted.get(thing) is None:
                    wanted[thing] = value
        try:
            observed = await self._observe(target, wanted)
        except BackendError as exc:
            return [unobserved(look.trial, exc) for look in looks]
        found = []
        for index, look in enumerate(looks):
            found.append(self._decided(look, observed))
            if index % YIELD_EVERY == YIELD_EVERY - 1:
                await asyncio.sleep(0)
        return found
