"""One-shot requests, under the same fence and with the same record as every other effect.

OperationStarted is committed before the operation runs, together with a mark in the shard's status, and its end after it;
a takeover ends what it finds marked. A repeated request_id gets the first answer, as long as this process remembers it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Final

import structlog
from pydantic import BaseModel, ValidationError

from controlplane.domain.errors import Elsewhere, Reason, Refused
from controlplane.domain.events import Fact, Subject
from controlplane.domain.fold import State
from controlplane.domain.validation import value_faults
from controlplane.log.ports import LogUnavailable
from controlplane.runtime.catalogue import Catalogue, Resolved, place
from controlplane.runtime.controller import Controller
from controlplane.runtime.shards import Shard, ShardLost
from controlplane.telemetry.metrics import Metrics
from reconcilers.contract import BackendError, ExternalId, Operation, SecretNotFound, TerminalError, Unreachable
from schemas.event import EventStatus, EventType
from schemas.names import Key, event_id

_log = structlog.get_logger()

MOST_AT_ONCE = 64
REMEMBERED = 1_000
TIMEOUT_S = 60.0
CLOSE_S = 10.0
"""At shutdown, operations under way get so long to end."""

_Answer = dict[str, Any]


class _Context:
    """What an operation may use (`reconcilers.contract.OperationContext`)."""

    def __init__(
        self, tenant: str, service: str, state: State, catalogue: Catalogue, controller: Controller, *, confined: bool
    ) -> None:
        self.tenant = tenant
        self.revision = 0
        self._service = service
        self._state = state
        self._catalogue = catalogue
        self._controller = controller
        self._confined = confined

    def setting(self, setting_type: str, name: str) -> Any:
        entry = self._state.entries.get(str(Key(self.tenant, setting_type, name)))
        resolved = None if entry is None else self._catalogue.resolve(entry)
        if not isinstance(resolved, Resolved):
            msg = f"{setting_type}/{name} is not declared"
            raise TerminalError(msg, reason="SettingNotFound")
        for trespass in self._catalogue.trespasses(resolved):
            msg = f"{setting_type}/{name}: {trespass.message}"
            raise TerminalError(msg, reason="NotShared")
        return resolved.value

    def settings(self, setting_type: str) -> Mapping[str, Any]:
        first = str(Key(self.tenant, setting_type, ""))
        found = [self._catalogue.resolve(entry) for key, entry in self._state.entries.items() if key.startswith(first)]
        for one in found:
            if not isinstance(one, Resolved):
                raise TerminalError(f"{one.entry.key}: {one.message}", reason=one.reason)
        return {one.key.name: one.value for one in found if isinstance(one, Resolved)}

    async def backend(self, target: str) -> Any:
        where = place(self.tenant, self._service, target)
        self.prefix(target)
        if where.tenant != self.tenant and not self._confined:
            msg = f"it can't be confined to a prefix, so it needs a target that {self.tenant} has for itself, not {target}"
            raise TerminalError(msg, reason="NotShared")
        if where.key not in self._state.entries:
            msg = f"there is no {self._service}.target/{target}: declare it first"
            raise TerminalError(msg, reason="SettingNotFound")
        loop = self._controller.loop(where)
        if loop is None or loop.backend is None:
            why = "" if loop is None or loop.down is None else f": {loop.down.message}"
            msg = f"{self._service}.target/{target} is not connected{why}"
            raise Unreachable(msg)
        return loop.backend

    def prefix(self, target: str) -> str:
        found = self._catalogue.prefix(self.tenant, place(self.tenant, self._service, target))
        if found is None:
            msg = f"{target} is not shared with tenant {self.tenant}"
            raise TerminalError(msg, reason="NotShared")
        return found

    def allowed(self, target: str, external: ExternalId) -> frozenset[str] | None:
        policy = self._controller.policy_of(place(self.tenant, self._service, target), external)
        return None if policy is None else frozenset(policy.get("allow", ()))


class Operations:
    """Runs operations of the services this daemon knows."""

    def __init__(self, catalogue: Catalogue, controller: Controller, state: State, metrics: Metrics) -> None:
        self._catalogue = catalogue
        self._controller = controller
        self._state = state
        self._metrics = metrics
        self._running: set[asyncio.Task[_Answer]] = set()
        self._answers: dict[str, asyncio.Task[_Answer]] = {}
        self._operations = {
            f"{service.name}.{operation.name}": operation
            for service in catalogue.services.values()
            for operation in service.operations
        }

    def known(self, name: str) -> bool:
        """True when there is such an operation."""
        return name in self._operations

    def requests(self) -> dict[str, type[BaseModel]]:
        """Operation → model of its request."""
        return {name: operation.request for name, operation in self._operations.items()}

    async def run(
        self, tenant: str, name: str, body: Mapping[str, Any], *, actor: str, request_id: str
    ) -> dict[str, Any]:
        """`{"operation_id", "result"}`. Raises `Refused`."""
        operation = self._operations.get(name)
        if operation is None:
            known = ", ".join(sorted(self._operations))
            raise Refused(Reason.NOT_FOUND, f"there is no operation {name}; there are: {known}")
        faults = value_faults(body, operation.request)
        if faults:
            raise Refused(Reason.INVALID, f"{name}: the request is not valid", faults)
        answer = self._answers.get(request_id)
        if answer is not None and answer.get_name() != name:
            raise Refused(Reason.CONFLICT, "this Idempotency-Key was used for another operation: choose a new one")
        if answer is None:
            if len(self._running) >= MOST_AT_ONCE:
                raise Refused(Reason.TOO_MANY_REQUESTS, f"{MOST_AT_ONCE} operations are under way", retry_after_s=1.0)
            answer = self._begin(
                self._run(tenant, name, operation, body, actor=actor, request_id=request_id), request_id, name
            )
        return await asyncio.shield(answer)

    async def close(self) -> None:
        """Wait for what is under way; call after requests are no longer taken. What isn't done in time ends unknown."""
        if self._running:
            await asyncio.wait(self._running, timeout=CLOSE_S)
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    def _begin(self, run: Coroutine[Any, Any, _Answer], request_id: str, name: str) -> asyncio.Task[_Answer]:
        """Run it in a task of its own: a caller that goes away doesn't cut it in two."""
        answer = asyncio.create_task(run, name=name)
        self._running.add(answer)
        self._answers[request_id] = answer
        answer.add_done_callback(lambda task: self._ended(request_id, task))
        if len(self._answers) > REMEMBERED:
            del self._answers[next(id_ for id_, task in self._answers.items() if task.done())]
        return answer

    def _ended(self, request_id: str, answer: asyncio.Task[_Answer]) -> None:
        """Only what was done is remembered: what was refused may be asked again, and what only reads holds much."""
        self._running.discard(answer)
        is_effect = self._operations[answer.get_name()].effect
        if not is_effect or answer.cancelled() or answer.exception() is not None:
            self._answers.pop(request_id, None)

    async def _run(
        self,
        tenant: str,
        name: str,
        operation: Operation,
        body: Mapping[str, Any],
        *,
        actor: str,
        request_id: str,
    ) -> dict[str, Any]:
        service = name.partition(".")[0]
        context = _Context(tenant, service, self._state, self._catalogue, self._controller, confined=operation.confined)
        operation_id = event_id(f"operation:{request_id}", 0)
        try:
            request = operation.request.model_validate(body)
            target = operation.target(context, request)
        except (BackendError, ValidationError) as exc:
            raise _refusal(exc, name) from exc
        home = place(tenant, service, target)
        if (index := self._controller.elsewhere(home)) is not None:
            raise Elsewhere(index, f"{service}.target/{target}")
        shard = self._controller.shard(home)
        if shard is None:
            raise Refused(Reason.BACKEND_UNREACHABLE, f"no owner for {service}.target/{target} yet", retry_after_s=1.0)
        details = {"operation": name, "operation_id": operation_id, "request": operation.announce(request)}
        subject = Subject(tenant, service, actor=actor, correlation_id=request_id)
        record = _Record(shard, subject, details)
        if operation.effect:
            context.revision = await record.begin() + 1
        try:
            async with asyncio.timeout(TIMEOUT_S):
                result = await operation.run(context, request)
        except asyncio.CancelledError:
            raise  # the process ends: the next owner of the shard finds the mark
        except Exception as exc:
            refusal = self._failed(exc, name)
            if operation.effect:
                ended = {"reason": str(refusal.reason), "message": refusal.detail}
                await record.end(EventType.OPERATION_FAILED, ended, revision=context.revision)
            raise refusal from exc
        if operation.effect:
            await record.end(
                EventType.OPERATION_SUCCEEDED, {"result": operation.record(result)}, revision=context.revision
            )
        return {"operation_id": operation_id, "result": result}

    def _failed(self, exc: Exception, name: str) -> Refused:
        if not isinstance(exc, BackendError | SecretNotFound | TimeoutError):
            self._metrics.bug("operation")
            _log.exception("operation failed", operation=name, error=repr(exc))
        return _refusal(exc, name)


class _Record:
    """Start and end of one operation in the journal."""

    def __init__(self, shard: Shard, subject: Subject, details: dict[str, Any]) -> None:
        self._shard = shard
        self._subject = subject
        self._details = details
        self._started = shard.effect_id(details["operation_id"], shard.next_batch())

    async def begin(self) -> int:
        """Commit the start; its offset."""
        fact = Fact(
            EventType.OPERATION_STARTED,
            self._details,
            EventStatus.STARTED,
            causation_id=self._subject.correlation_id,
            id=self._started,
        )
        mark = {
            "details": self._details,
            "event_id": self._started,
            "tenant": self._subject.tenant,
            "service": self._subject.service,
            "actor": self._subject.actor,
            "correlation_id": self._subject.correlation_id,
        }
        try:
            offsets = await self._shard.commit(
                [self._shard.record(fact, self._subject)], operations={self._details["operation_id"]: mark}
            )
        except (LogUnavailable, ShardLost) as exc:
            raise Refused(Reason.LOG_UNAVAILABLE, f"nothing was done: {exc}", retry_after_s=1.0) from exc
        return offsets[0]

    async def end(self, event_type: EventType, details: Mapping[str, Any], *, revision: int) -> None:
        """Commit the end, however long that takes; when the shard is lost, its next owner does."""
        status = EventStatus.SUCCEEDED if event_type is EventType.OPERATION_SUCCEEDED else EventStatus.FAILED
        if details.get("reason") in _UNCERTAIN:
            status = EventStatus.UNKNOWN
        fact = Fact(event_type, {**self._details, **details}, status, causation_id=self._started)
        subject = Subject(
            self._subject.tenant,
            self._subject.service,
            revision=revision,
            actor=self._subject.actor,
            correlation_id=self._subject.correlation_id,
        )
        try:
            await self._shard.commit_surely(
                [self._shard.record(fact, subject)], operations={self._details["operation_id"]: None}
            )
        except ShardLost as exc:
            raise Refused(Reason.OUTCOME_UNKNOWN, f"done, but its end is not recorded: {exc}") from exc


def _refusal(exc: Exception, name: str) -> Refused:
    if isinstance(exc, TerminalError) and exc.reason == "SettingNotFound":
        return Refused(Reason.NOT_FOUND, exc.message)
    if isinstance(exc, Unreachable):
        return Refused(Reason.BACKEND_UNREACHABLE, f"{name}: {exc.message}", retry_after_s=1.0)
    if isinstance(exc, TimeoutError):
        return Refused(Reason.OUTCOME_UNKNOWN, f"{name}: not done within {TIMEOUT_S:g} s")
    if isinstance(exc, BackendError | SecretNotFound | ValidationError):
        return Refused(Reason.OPERATION_FAILED, f"{name}: {exc}")
    return Refused(Reason.INTERNAL, f"{name}: {exc!r}; it may have happened in part")


_UNCERTAIN: Final = (str(Reason.OUTCOME_UNKNOWN), str(Reason.INTERNAL))
"""Reasons that don't say whether it happened."""
