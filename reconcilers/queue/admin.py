"""Kafka's administration client in a thread of its own, with deadlines, replaced when it is stuck.

Theory of operation. kafka-python's client is synchronous. Calls are queued (QUEUED at most) and carried out one after the
other by one thread, which opens the client with the first call. A caller waits until its deadline and no longer: what
hadn't begun by then isn't begun any more; what had is given up together with its thread and client, and what waits behind it
gets new ones. The thread ends as soon as it comes back. STUCK threads that don't are too many: nothing is begun then.

Replies are read raw (`send`): the client's own helpers raise for the first of many errors, or hide them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any, Final, TypeVar

from reconcilers.contract import (
    BackendError,
    NotSent,
    Outcome,
    Step,
    TerminalError,
    TransientError,
    Unreachable,
    failed,
)

T = TypeVar("T")
StepT = TypeVar("StepT", bound=Step)

QUEUED: Final = 256
STUCK: Final = 4
REQUEST_MS: Final = 8_000
OUTDATED: Final = "UnknownBrokerIdError"
"""What the client says of a broker that came, or came back, since it looked at the cluster: for minutes (3.0.12), so it is
opened anew."""
BOOTSTRAP_MS: Final = 4_000

Work = Callable[[Any], Any]
"""Given the client; runs in the thread."""


@dataclass(slots=True)
class _Job:
    work: Work
    answer: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    begun: bool = False
    given_up: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> bool:
        """True unless the caller went away."""
        with self.lock:
            self.begun = not self.given_up
            return self.begun

    def give_up(self) -> bool:
        """True when it was under way."""
        with self.lock:
            self.given_up = True
            return self.begun

    def end(self, result: Any, error: BaseException | None) -> None:
        """Hand the result to the loop; nobody may be there any more."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the daemon has ended
            self.loop.call_soon_threadsafe(self._settle, result, error)

    def _settle(self, result: Any, error: BaseException | None) -> None:
        if self.answer.done():
            return
        if error is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(result)


class _Worker:
    """One thread with one client."""

    def __init__(self, open_client: Callable[[], Any]) -> None:
        self._open = open_client
        self.jobs: queue.Queue[_Job | None] = queue.Queue(QUEUED)
        self.dismissed = threading.Event()
        self.thread = threading.Thread(target=self._run, name="kafka-admin", daemon=True)
        self.thread.start()

    def dismiss(self) -> list[_Job]:
        """End as soon as the call under way comes back. What hadn't begun is handed back."""
        self.dismissed.set()
        waiting = []
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.append(self.jobs.get_nowait())
        self.jobs.put_nowait(None)
        return [job for job in waiting if job is not None]

    def _run(self) -> None:
        client: Any = None
        try:
            while not self.dismissed.is_set():
                job = self.jobs.get()
                if job is None or not job.begin():
                    continue
                try:
                    if client is None:
                        client = self._open()
                    job.end(job.work(client), None)
                except BaseException as exc:  # noqa: BLE001 - whatever it is, it is the caller's
                    job.end(None, exc)
                    if client is None:
                        continue
                    _forget_coordinators(client)
                    if type(exc).__name__ == OUTDATED:
                        _close(client)
                        client = None
        finally:
            if client is not None:
                _close(client)


def _forget_coordinators(client: Any) -> None:
    """The client keeps for ever which broker has a group, also when that one is gone or the group has moved (3.0.12)."""
    client._manager.cluster._coordinators.clear()  # noqa: SLF001 - there is no public way


def _close(client: Any) -> None:
    with contextlib.suppress(Exception):  # it may be why it is closed
        client.close()


class AdminThread:
    """The client of one target. `call` raises `BackendError`s only, and `NotSent` from a fence."""

    def __init__(self, options: dict[str, Any], servers: str) -> None:
        self._options = options
        self._servers = servers
        self._worker: _Worker | None = None
        self._dismissed: list[_Worker] = []
        self._closed = False

    @property
    def stuck(self) -> int:
        """Threads that were given up and haven't come back."""
        self._dismissed = [worker for worker in self._dismissed if worker.thread.is_alive()]
        return len(self._dismissed)

    async def call(self, work: Callable[[Any], T], timeout_s: float) -> T:
        """The result of the work, carried out in the thread. `Unreachable` at the deadline."""
        job = self._queued(work)
        try:
            async with asyncio.timeout(timeout_s):
                return await job.answer  # type: ignore[no-any-return]
        except TimeoutError as exc:
            msg = f"{self._servers} gave no answer within {timeout_s:g} s"
            raise Unreachable(msg, reason="Timeout") from exc
        except (BackendError, NotSent):
            raise
        except Exception as exc:
            raise translated(exc, self._servers) from exc
        finally:
            if not job.answer.done() or job.answer.cancelled():
                self._given_up(job)

    def close(self) -> None:
        """Begin nothing more. A call that is stuck keeps its thread, and nobody waits for it."""
        self._closed = True
        if self._worker is not None:
            self._queue_anew(self._worker.dismiss())

    async def closed(self, timeout_s: float) -> None:
        """Wait until the thread has ended, but no longer than that."""
        if self._worker is not None:
            await asyncio.to_thread(self._worker.thread.join, timeout_s)

    def _queued(self, work: Work) -> _Job:
        loop = asyncio.get_running_loop()
        job = _Job(work, loop.create_future(), loop)
        self._queue(job)
        return job

    def _queue(self, job: _Job) -> None:
        if self._closed:
            msg = "closed"
            raise Unreachable(msg, reason="Closed")
        if self._worker is None:
            if self.stuck >= STUCK:
                msg = f"{STUCK} calls to {self._servers} are stuck"
                raise Unreachable(msg, reason="Stuck")
            self._worker = _Worker(self._client)
        try:
            self._worker.jobs.put_nowait(job)
        except queue.Full as exc:
            msg = f"{QUEUED} requests are waiting for {self._servers}"
            raise TransientError(msg, reason="Busy") from exc

    def _given_up(self, job: _Job) -> None:
        if not job.give_up() or self._worker is None:
            return
        waiting = self._worker.dismiss()
        self._dismissed.append(self._worker)
        self._worker = None
        self._queue_anew(waiting)

    def _queue_anew(self, waiting: Sequence[_Job]) -> None:
        for job in waiting:
            try:
                self._queue(job)
            except BackendError as exc:
                job.end(None, exc)

    def _client(self) -> Any:
        from kafka.admin import KafkaAdminClient  # noqa: PLC0415 - loaded with the first target

        logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what it has to say is said by whoever called it
        return KafkaAdminClient(
            request_timeout_ms=REQUEST_MS,
            bootstrap_timeout_ms=BOOTSTRAP_MS,
            reconnect_backoff_max_ms=1_000,
            **self._options,
        )


def send(client: Any, request: Any) -> Any:
    """The raw reply to a request, from any broker: what only the controller may do is passed on to it."""
    return client._manager.run(client._manager.send, request)  # noqa: SLF001 - there is no public way


@cache
def messages() -> SimpleNamespace:
    """The messages of Kafka's protocol."""
    from kafka.protocol import admin, consumer, metadata  # noqa: PLC0415 - loaded with the first target

    return SimpleNamespace(**{**vars(consumer), **vars(metadata), **vars(admin)})


def scram() -> Any:
    """The client's module that makes salted passwords."""
    from kafka import admin  # noqa: PLC0415 - loaded with the first target

    return admin


def partition(topic: str, number: int) -> Any:
    """How the client names a partition."""
    from kafka.structs import TopicPartition  # noqa: PLC0415 - loaded with the first target

    return TopicPartition(topic, number)


# --- errors ------------------------------------------------------------------------------------------------------------

_REFUSED: Final = frozenset(
    {
        "InvalidTopic",
        "InvalidPartitions",
        "InvalidReplicationFactor",
        "InvalidReplicationAssignment",
        "InvalidReplicaAssignment",
        "InvalidConfig",
        "InvalidConfiguration",
        "InvalidRequest",
        "PolicyViolation",
        "TopicAuthorizationFailed",
        "GroupAuthorizationFailed",
        "ClusterAuthorizationFailed",
        "TransactionalIdAuthorizationFailed",
        "DelegationTokenAuthorizationFailed",
        "SaslAuthenticationFailed",
        "UnsupportedVersion",
        "UnsupportedSaslMechanism",
        "SecurityDisabled",
        "InvalidPrincipalType",
        "UnacceptableCredential",
        "TopicDeletionDisabled",
        "NonEmptyGroup",
        "GroupIdNotFound",
        "OffsetOutOfRange",
        "InvalidGroupId",
    }
)
"""What a broker will go on refusing until the declaration or the cluster changes."""


def refusal(code: int, message: str | None, what: str) -> BackendError | None:
    """What an error code in a reply means; None for success. `what` it is about."""
    if code == 0:
        return None
    from kafka import errors  # noqa: PLC0415 - loaded already

    kind = errors.for_code(code)
    reason = kind.__name__.removesuffix("Error")
    text = f"{what}: {message or getattr(kind, 'description', '') or reason}"
    if reason in _REFUSED:
        return TerminalError(text, reason=reason)
    return TransientError(text, reason=reason)


def ended(
    steps: Sequence[StepT], error_of: Callable[[StepT], BackendError | None], done: Callable[[StepT], Outcome]
) -> list[Outcome]:
    """How the steps of one request ended, each by what the reply says of it."""
    return [done(step) if (error := error_of(step)) is None else failed(error) for step in steps]


def translated(exc: Exception, servers: str) -> BackendError | Exception:
    """An error of the client as ours; one that isn't the client's is a bug and stays what it is."""
    from kafka import errors  # noqa: PLC0415 - loaded already

    if isinstance(exc, OSError):
        return Unreachable(f"{servers}: {exc}")
    if not isinstance(exc, errors.KafkaError):
        return exc
    reason = type(exc).__name__.removesuffix("Error")
    if reason in _REFUSED:
        return TerminalError(f"{servers}: {exc}", reason=reason)
    if isinstance(exc, errors.BrokerResponseError) or type(exc).__name__ == OUTDATED:  # it did answer
        return TransientError(f"{servers}: {exc}", reason=reason)
    return Unreachable(f"{servers}: {exc}", reason=reason)
