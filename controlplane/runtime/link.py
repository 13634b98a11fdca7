"""The connection to one target: opened, watched, given up, opened again; and what is said of the target itself.

Theory of operation. `run` opens the backend that the target's setting declares and stays with it until it is lost, or is
declared otherwise. Whoever got no answer from a backend reports it with that backend: a pass that still held an older one
says nothing about the newer. Between two tries there is a growing pause, also when the connection was open for a moment
each time; only a change of the target's setting ends the pause.

The connection alone writes the status of the target's own key as long as that isn't retiring: a pass decides on what it
saw when it began.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import structlog

from controlplane.config import RuntimeConfig
from controlplane.domain import status as statuses
from controlplane.domain.events import Fact, Subject, transitions
from controlplane.domain.status import KeyStatus
from controlplane.runtime import decisions, places
from controlplane.runtime.attribution import ACTOR, material
from controlplane.runtime.backoff import Backoff
from controlplane.runtime.catalogue import Declared, TargetId
from controlplane.runtime.clock import Clock
from controlplane.runtime.desired import DesiredState
from controlplane.runtime.secrets import TenantSecrets, check_permitted
from controlplane.runtime.shards import Shard
from controlplane.telemetry.metrics import Metrics
from reconcilers.contract import (
    Backend,
    BackendError,
    Connection,
    Hint,
    SecretNotFound,
    Service,
    TerminalError,
    Unreachable,
)
from schemas.event import EventStatus, EventType

_log = structlog.get_logger()

CLOSE_S: Final = 5.0
"""A backend that isn't closed by then is dropped."""

KNOWN_S: Final = 5.0
"""The view of the statuses follows the journal; should it not by then, claims follow with it."""

CONNECTING: Final = Unreachable("not connected yet", reason="Connecting")


@dataclass(frozen=True, slots=True)
class Surrounded:
    """What a target's loop and its parts work with."""

    desired: DesiredState
    secrets: TenantSecrets
    clock: Clock
    metrics: Metrics
    config: RuntimeConfig
    reserved: frozenset[str] = frozenset()
    """See `reconcilers.contract.Connection`."""


class Link:
    """The connection to one target. `backend` is None while it is down, `down` says why."""

    def __init__(
        self,
        target: TargetId,
        service: Service,
        shard: Shard,
        around: Surrounded,
        *,
        turned: Callable[[], None],
        heard: Callable[[Hint], None],
    ) -> None:
        """`turned` is called after each change between up and down, `heard` with each hint; neither may block."""
        self.backend: Backend | None = None
        self.down: BackendError | None = CONNECTING
        self.since = around.clock.now()
        self.incarnation: str | None = None
        self._id = target
        self._service = service
        self._shard = shard
        self._around = around
        self._turned = turned
        self._heard = heard
        self._backoff = Backoff(around.config.backoff_initial_s, around.config.backoff_cap_s)
        self._declared = asyncio.Event()
        self._disturbed = asyncio.Event()
        self._error: BackendError | None = None

    def declared(self) -> None:
        """The target's setting may have changed, or somebody wants it tried now."""
        self._declared.set()
        self._disturbed.set()

    def lost(self, backend: Backend, error: BackendError) -> None:
        """A backend gave no answer: if it is still the one in use, it is given up."""
        if backend is self.backend:
            self._error = error
            self._disturbed.set()

    async def run(self) -> None:
        """Keep the target connected until cancelled or the shard is lost."""
        failures = 0
        while True:
            self._declared.clear()
            setting = self._around.desired.target_setting(self._id)
            if setting is None:
                self._undeclared()
                await self._declared.wait()
                continue
            began = self._around.clock.monotonic()
            error = await self._open(setting) or await self._stay(setting)
            if error is None:
                failures = 0
                continue
            steady = self._around.clock.monotonic() - began > self._around.config.backoff_cap_s
            failures = 1 if steady else failures + 1
            await self._went_down(error)
            await self._pause(self._backoff.pause_s(failures, random.random()))  # noqa: S311

    async def close(self) -> None:
        """Give the connection up. Safe to call twice."""
        backend, self.backend = self.backend, None
        if backend is not None:
            await self._close(backend)

    # --- one connection ------------------------------------------------------------------------------------------------

    async def _open(self, setting: Declared) -> BackendError | None:
        around = self._around
        connection = Connection(self._id.tenant, self._id.target, setting.value, around.secrets, around.reserved)
        try:
            check_permitted(around.secrets, self._id.tenant, setting.value)
            async with asyncio.timeout(self._service.observe_timeout_s):
                self.backend = await self._service.connect(connection)
        except SecretNotFound as exc:
            self._around.metrics.secret_unresolved(self._id.service)
            return TerminalError(str(exc), reason="SecretNotFound")
        except TimeoutError:
            return Unreachable("no answer in time", reason="Timeout")
        except BackendError as exc:
            return exc
        except Exception as exc:  # noqa: BLE001 - a bug: counted, said in the status, tried again
            return self._of_bug("connect", exc)
        return None

    async def _stay(self, setting: Declared) -> BackendError | None:
        """Until the connection is lost (the error) or the setting declares another one (None)."""
        backend = self.backend
        if backend is None:
            return CONNECTING
        self.down = self._error = None
        self.since, self.incarnation = self._around.clock.now(), backend.incarnation
        self._around.metrics.target_up(self._id.service, str(self._id), up=True)
        hints = asyncio.create_task(self._take_hints(backend))
        hints.add_done_callback(lambda _: self._disturbed.set())
        try:
            await self._say_up(setting, backend)
            self._turned()
            return await self._until_disturbed(setting, backend, hints)
        finally:
            hints.cancel()
            await asyncio.wait({hints}, timeout=CLOSE_S)
            self.down = self._error or CONNECTING
            await self.close()

    async def _until_disturbed(
        self, setting: Declared, backend: Backend, hints: asyncio.Task[BackendError]
    ) -> BackendError | None:
        while True:
            self._disturbed.clear()
            self._declared.clear()
            if self._error is not None:
                return self._error
            if hints.done():
                return hints.result()
            now = self._around.desired.target_setting(self._id)
            if now is None or now.value != setting.value:
                return None
            await self._say_up(setting, backend)  # of a newer generation with the same value
            await self._disturbed.wait()

    async def _take_hints(self, backend: Backend) -> BackendError:
        try:
            async for hint in backend.hints():
                self._around.metrics.hinted(self._id.service)
                if backend.incarnation != self.incarnation:
                    self.incarnation = backend.incarnation
                    self._disturbed.set()  # what is said of it names its incarnation
                    self._around.metrics.incarnation_changed(self._id.service, str(self._id))
                    _log.info("target restarted", target=str(self._id), incarnation=self.incarnation)
                _log.info("hint", target=str(self._id), reason=hint.reason)
                self._heard(hint)
        except BackendError as exc:
            return exc
        except Exception as exc:  # noqa: BLE001 - a bug: counted, said in the status, connected anew
            return self._of_bug("hints", exc)
        return Unreachable("the backend closed its stream of hints")

    async def _close(self, backend: Backend) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await backend.close()
        except Exception as exc:  # noqa: BLE001 - it is dropped all the same
            self._of_bug("close", exc)

    def _of_bug(self, where: str, exc: Exception) -> BackendError:
        self._around.metrics.bug(where)
        _log.exception("backend failed", target=str(self._id), call=where, error=repr(exc))
        return TerminalError(f"{where}: {exc!r}", reason="InternalError")

    async def _pause(self, pause_s: float) -> None:
        metrics, service, target = self._around.metrics, self._id.service, str(self._id)
        metrics.connect_failed(service, target)
        metrics.backed_off(service, pause_s)
        metrics.circuit(service, target, is_open=True)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._declared.wait()
        finally:
            metrics.circuit(service, target, is_open=False)

    # --- what is said --------------------------------------------------------------------------------------------------

    def _undeclared(self) -> None:
        self.down = Unreachable(f"declare {self._id.service}.target/{self._id.target}", reason="TargetNotFound")
        self._around.metrics.target_up(self._id.service, str(self._id), up=False)
        self._turned()

    async def _say_up(self, setting: Declared, backend: Backend) -> None:
        """And which server it is: nothing is done there before it is known who else leads to it."""
        fact = Fact(EventType.TARGET_UP, {"target": self._id.target, "incarnation": backend.incarnation})
        address = self._around.desired.address(self._id.service, setting.value)
        identity = backend.incarnation if self._service.identified else None
        remembered = () if address is None or identity is None else places.told(address, identity)

        def up(status: KeyStatus, now: float) -> KeyStatus:
            return replace(statuses.converged(status, now, self._id.target), remembered=remembered)

        await self._say(fact, up)
        entry = self._around.desired.entry(self._id.key)
        if remembered and entry is not None and not entry.retiring:
            await self._around.desired.knows(KeyStatus(self._id.key, remembered=remembered), KNOWN_S)

    async def _went_down(self, error: BackendError) -> None:
        self.down = error
        self._around.metrics.target_up(self._id.service, str(self._id), up=False)

        def downed(status: KeyStatus, now: float) -> KeyStatus:
            change = statuses.stalled if isinstance(error, TerminalError) else statuses.unanswered
            return change(status, now, error.reason, error.message)

        details = {"target": self._id.target, "reason": error.reason, "message": error.message}
        if await self._say(Fact(EventType.TARGET_DOWN, details, EventStatus.FAILED), downed):
            self.since = self._around.clock.now()
            _log.warning("target down", target=str(self._id), reason=error.reason, message=error.message)
        self._turned()

    async def _say(self, fact: Fact, change: Callable[[KeyStatus, float], KeyStatus]) -> bool:
        """Commit the target's own status; the fact goes with it when it turned, and then the answer is True."""
        entry = self._around.desired.entry(self._id.key)
        if entry is None or entry.retiring:
            return False
        now = self._around.clock.now()
        before = self._shard.statuses.get(entry.key) or KeyStatus(entry.key)
        after = change(decisions.taken_up(entry, before, now), now)
        turned = before.condition("Ready") is None or before.holds("Ready") != after.holds("Ready")
        if turned or material(before) != material(after):
            subject = Subject(self._id.tenant, self._id.service, entry.key, entry.generation, entry.revision, ACTOR)
            facts = [*([fact] if turned else []), *transitions(before, after)]
            await self._shard.commit_surely([self._shard.record(fact, subject) for fact in facts], [after])
        return turned
