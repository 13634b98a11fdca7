"""One-shot requests, under the same fence and with the same record as every other effect.

OperationStarted is committed before the operation runs, together with a mark in the shard's status, and its end after it;
a takeover ends what it finds marked. A repeated request_id gets the first answer, as long as this process remembers it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import structlog
from pydantic import BaseModel, ValidationError

from controlplane.domain.errors import Reason, Refused
from controlplane.domain.events import Fact, Subject
from controlplane.domain.fold import State
from controlplane.domain.validation import value_faults
from controlplane.log.ports import LogUnavailable
from controlplane.runtime.catalogue import Catalogue, Resolved, TargetId
from controlplane.runtime.controller import Controller
from controlplane.runtime.shards import Shard, ShardLost
from controlplane.telemetry.metrics import Metrics
from reconcilers.contract import BackendError, Operation, SecretNotFound, TerminalError, Unreachable
from schemas.event import EventStatus, EventType
from schemas.names import Key, event_id

_log = structlog.get_logger()

MOST_AT_ONCE = 64
REMEMBERED = 1_000
TIMEOUT_S = 60.0


class _Context:
    """What an operation may use (`reconcilers.contract.OperationContext`)."""

    def __init__(self, tenant: str, service: str, state: State, catalogue: Catalogue, controller: Controller) -> None:
        self.tenant = tenant
        self.revision = 0
        self._service = service
        self._state = state
        self._catalogue = catalogue
        self._controller = controller

    def setting(self, setting_type: str, name: str) -> Any:
        entry = self._state.entries.get(str(Key(self.tenant, setting_type, name)))
        resolved = None if entry is None else self._catalogue.resolve(entry)
        if not isinstance(resolved, Resolved):
            msg = f"{setting_type}/{name} is not declared"
            raise TerminalError(msg, reason="SettingNotFound")
        return resolved.value

    async def backend(self, target: str) -> Any:
        loop = self._controller.loop(TargetId(self.tenant, self._service, target))
        if loop is None or loop.backend is None:
            why = "" if loop is None or loop.down is None else f": {loop.down.message}"
            msg = f"{self._service}.target/{target} is not connected{why}"
            raise Unreachable(msg)
        return loop.backend


class Operations:
    """Runs operations of the services this daemon knows."""

    def __init__(self, catalogue: Catalogue, controller: Controller, state: State, metrics: Metrics) -> None:
        self._catalogue = catalogue
        self._controller = controller
        self._state = state
        self._metrics = metrics
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._answers: OrderedDict[str, asyncio.Future[dict[str, Any]]] = OrderedDict()
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
        first = self._answers.get(request_id)
        if first is not None:
            return await asyncio.shield(first)
        if self._slots.locked():
            raise Refused(Reason.TOO_MANY_REQUESTS, f"{MOST_AT_ONCE} operations are under way", retry_after_s=1.0)
        answer = self._remember(request_id)
        try:
            async with self._slots:
                result = await self._run(tenant, name, operation, body, actor=actor, request_id=request_id)
        except BaseException as exc:
            self._answers.pop(request_id, None)
            answer.set_exception(exc if isinstance(exc, Refused) else Refused(Reason.INTERNAL, repr(exc)))
            answer.exception()
            raise
        answer.set_result(result)
        return result

    def _remember(self, request_id: str) -> asyncio.Future[dict[str, Any]]:
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = answer
        while len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
        return answer

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
        context = _Context(tenant, service, self._state, self._catalogue, self._controller)
        operation_id = event_id(f"operation:{request_id}", 0)
        try:
            request = operation.request.model_validate(body)
            target = operation.target(context, request)
        except (BackendError, ValidationError) as exc:
            raise _refusal(exc, name) from exc
        shard = self._controller.shard(TargetId(tenant, service, target))
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
        except (BackendError, SecretNotFound, TimeoutError) as exc:
            refusal = _refusal(exc, name)
            if operation.effect:
                await record.end(EventType.OPERATION_FAILED, {"message": refusal.detail}, revision=context.revision)
            raise refusal from exc
        if operation.effect:
            await record.end(EventType.OPERATION_SUCCEEDED, {"result": result}, revision=context.revision)
        return {"operation_id": operation_id, "result": result}


class _Record:
    """Start and end of one operation in the journal."""

    def __init__(self, shard: Shard, subject: Subject, details: dict[str, Any]) -> None:
        self._shard = shard
        self._subject = subject
        self._details = details
        self._started = event_id(f"operation-started:{details['operation_id']}", shard.token)

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
    return Refused(Reason.OPERATION_FAILED, f"{name}: {exc}")
