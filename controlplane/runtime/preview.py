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
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypeVar

import structlog

from controlplane.domain.changes import identical
from controlplane.domain.errors import Reason, Refused
from controlplane.domain.fold import Entry, State
from controlplane.domain.status import KeyStatus
from controlplane.domain.writes import Change, Trial, trials
from controlplane.runtime import decisions
from controlplane.runtime.catalogue import Catalogue, Resolved, TargetId, Unresolved
from controlplane.runtime.clock import Clock
from controlplane.runtime.decisions import Decision, Surroundings
from controlplane.runtime.desired import DesiredState
from controlplane.runtime.foreseen import Foreseen, Previewed, decided, previewed, unobserved
from controlplane.runtime.observing import observe
from controlplane.runtime.secrets import TenantSecrets
from controlplane.runtime.statuses import StatusView
from controlplane.telemetry.metrics import Metrics
from reconcilers.contract import Backend, BackendError, ExternalId, Plan, TerminalError, Unreachable, Weighing

_log = structlog.get_logger()

T = TypeVar("T")

MOST_AT_ONCE: Final = 8
WEIGHING_S: Final = 5.0
"""To tell how much the steps touch."""
YIELD_EVERY: Final = 100
"""Settings dealt with between two moments in which other tasks may run."""


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

    def elsewhere(self, target: TargetId) -> int | None:
        """The target's shard, when another replica drives it."""


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
        if self.prune is not None:
            return [declared, dict(self.prune)]
        return [declared, sorted(c["key"] for c in self.changes if c["op"] == "retire")]


@dataclass(frozen=True, slots=True)
class _Look:
    """A setting that needs its backend."""

    trial: Trial
    resolved: Resolved
    status: KeyStatus
    backend: Backend
    missing: tuple[str, ...]
    """Keys it stands on that won't become ready."""
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
        super().__init__(known.services, known.clock, known.shares)
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
        secrets: TenantSecrets,
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
            entries = {key: entry for key, entry in self._state.entries.items() if self._matters(key, prefix)}
            revisions = {key: entry.revision for key, entry in entries.items()}
            desired = await self._arranged(entries | {trial.key: trial.after for trial in tried})
            settings = await self._foreseen(tried, desired)
            concerned = {
                key: revisions.get(key, 0) async for trial in _with_pauses(tried) for key in _concerned(trial, desired)
            }
            return await asyncio.to_thread(previewed, position, proposal.asked(), concerned, settings)

    def _matters(self, key: str, prefix: str) -> bool:
        """True for the tenant's own, and for targets that others may share with it."""
        return key.startswith(prefix) or (".target/" in key and bool(self._catalogue.shares.prefixes(key)))

    async def _arranged(self, entries: dict[str, Entry]) -> DesiredState:
        """The tenant's settings as they would be, with their dependencies and claims."""
        catalogue = _Overlaid(self._catalogue, self._state.entries)
        desired = DesiredState(State(entries=entries), catalogue, self._statuses, self._secrets)
        async for key in _with_pauses(entries):
            desired.update(key)
        return desired

    async def _foreseen(self, tried: Sequence[Trial], desired: DesiredState) -> list[Foreseen]:
        moving = {trial.key for trial in tried if _moves(trial)}
        found: dict[str, Foreseen] = {}
        looks: defaultdict[TargetId, list[_Look]] = defaultdict(list)
        async for trial in _with_pauses(tried):
            one = self._before_looking(trial, desired, moving)
            if isinstance(one, Foreseen):
                found[trial.key] = one
            else:
                looks[one.resolved.target].append(one)
        for seen in await asyncio.gather(*(self._look(some) for some in looks.values())):
            found |= {one.trial.key: one for one in seen}
        return [found[trial.key] for trial in tried]

    def _before_looking(self, trial: Trial, desired: DesiredState, moving: AbstractSet[str]) -> Foreseen | _Look:
        """What needs no observation, or what to look at. The status begins anew: the conditions of old aren't foreseen."""
        resolved, now = desired.resolve(trial.after), self._clock.now()
        if isinstance(resolved, Resolved) and (resolved.kind is None or self._catalogue.is_own(resolved.key.service)):
            return Foreseen(trial)  # a target only says where a backend is; what has none takes no steps
        known = self._statuses.get(trial.key) or KeyStatus(trial.key)
        status = replace(decisions.taken_up(trial.after, known, now), conditions=(), drift=())
        link = self._links.loop(resolved.target)
        backend = None if link is None else link.backend
        unsupported = None if backend is None else backend.unsupported(resolved.key.setting_type)
        around = desired.surroundings(resolved, status.external, unsupported)
        around, waits_for = _in_turn(around, desired)
        decision = decisions.before_looking(resolved, status, around, now)
        if decision is not None or isinstance(resolved, Unresolved):
            return decided(trial, decision or Decision(status), waits_for=waits_for)
        if resolved.target.key in moving:
            message = f"{_reference(resolved.target)} is declared by the same document: first it must be connected"
            return unobserved(trial, Unreachable(message, reason="TargetNotConnected"))
        if backend is None:
            shard = self._links.elsewhere(resolved.target)
            unseen = unobserved(trial, _not_connected(resolved.target, link))
            return unseen if shard is None else replace(unseen, elsewhere=shard)
        return _Look(trial, resolved, status, backend, around.unmet, waits_for)

    async def _look(self, looks: Sequence[_Look]) -> list[Foreseen]:
        """One observation for all that is to be seen at one target."""
        wanted: dict[ExternalId, Any] = {}
        for look in looks:  # of two that look at one thing, one gives it up: what the other wants counts
            for thing, value in look.wanted().items():
                if wanted.get(thing) is None:
                    wanted[thing] = value
        service = self._catalogue.services[looks[0].resolved.target.service]
        try:
            observed = await observe(looks[0].backend, wanted, service, self._metrics)
        except BackendError as exc:
            return [unobserved(look.trial, exc) for look in looks]
        foreseen = [self._after_looking(look, observed) async for look in _with_pauses(looks)]
        return await self._weighed(looks[0].backend, foreseen)

    async def _weighed(self, backend: Backend, foreseen: list[Foreseen]) -> list[Foreseen]:
        """With how much the steps touch, where the backend can tell in time: a plan is no worse without."""
        steps = [step for one in foreseen for step in one.steps]
        if not steps or not isinstance(backend, Weighing):
            return foreseen
        try:
            async with asyncio.timeout(WEIGHING_S):
                affected = iter(await backend.weigh(steps))
        except (BackendError, TimeoutError) as exc:
            _log.info("steps not weighed", error=str(exc))
            return foreseen
        except Exception:  # noqa: BLE001 - a bug: counted, and the plan is answered without
            self._metrics.bug("weigh")
            _log.exception("weighing failed")
            return foreseen
        return [replace(one, affected=tuple(next(affected) for _ in one.steps)) for one in foreseen]

    def _after_looking(self, look: _Look, observed: Mapping[ExternalId, Any]) -> Foreseen:
        seen, now = observed.get(look.thing), self._clock.now()
        if look.renamed and seen is None:  # nothing is left to be renamed: what is declared now counts
            look = replace(look, status=replace(look.status, external=None, remembered=()))
            seen = observed.get(look.thing)
        if isinstance(seen, BackendError):
            return unobserved(look.trial, seen)
        plan = self._planned(look, seen, now)
        decision = decisions.after_looking(look.resolved, look.status, look.missing, seen, plan, now=now)
        return decided(look.trial, decision, plan, look.waits_for)

    def _planned(self, look: _Look, seen: Any, now: float) -> Plan:
        if look.resolved.kind is None:
            return Plan()
        try:
            recalled = look.resolved.kind.recall(seen, dict(look.status.remembered))
            return look.resolved.kind.plan(look.thing, look.desired, recalled, now)
        except Exception as exc:  # noqa: BLE001 - a bug: counted, said in the plan
            self._metrics.bug("plan")
            _log.exception("plan failed", setting=look.trial.key)
            return Plan(blocked=TerminalError(f"plan: {exc!r}", reason="InternalError"))


async def _with_pauses(items: Iterable[T]) -> AsyncIterator[T]:
    """The items, with moments in between in which other tasks may run."""
    for index, item in enumerate(items):
        if index % YIELD_EVERY == YIELD_EVERY - 1:
            await asyncio.sleep(0)
        yield item


def _in_turn(around: Surroundings, desired: DesiredState) -> tuple[Surroundings, tuple[str, ...]]:
    """Surroundings as when its turn has come, and what comes before: dependencies that are declared become ready, and
    dependents that are retiring go. What isn't declared or is retiring itself, and what stays, holds it up for good."""
    entries = {key: desired.entry(key) for key in (*around.unmet, *around.dependents)}
    lasting = {key for key, entry in entries.items() if entry is not None and not entry.retiring}
    missing = tuple(key for key in around.unmet if key not in lasting)
    staying = tuple(key for key in around.dependents if key in lasting)
    before = [key for key in around.unmet if key not in missing]
    going = [key for key in around.dependents if key not in staying]
    return replace(around, unmet=missing, dependents=staying), (*before, *going)


def _moves(trial: Trial) -> bool:
    """True when what was declared isn't what would be: of a target, that another connection is made."""
    before, after = trial
    return (
        before is None or before.retiring != after.retiring or not identical(before.body["value"], after.body["value"])
    )


def _concerned(trial: Trial, desired: DesiredState) -> list[str]:
    """The setting and all that it stands on, its target included."""
    return [trial.key, *desired.needs(trial.key)]


def _not_connected(target: TargetId, link: Link | None) -> BackendError:
    if link is not None and link.down is not None:
        return Unreachable(f"{_reference(target)}: {link.down.message}", reason=link.down.reason)
    return Unreachable(f"{_reference(target)} isn't connected", reason="TargetNotConnected")


def _reference(target: TargetId) -> str:
    return target.key.partition("/")[2]
