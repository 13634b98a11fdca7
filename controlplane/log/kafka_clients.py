"""aiokafka's clients, made and ended the way this log needs them. The only module that knows their traps (aiokafka 0.14).

    T4  `consumer.stop()` may raise CancelledError into a caller nobody cancelled, and leave tasks behind
    T5  `producer.stop()` may wait for ever for a broker that is away
    T8  illegal states are asserts: under `python -O` an abort after fencing hangs instead of failing

Therefore every end here has a deadline, after which whatever the client still runs is ended by force. That takes private
attributes; `check` refuses an aiokafka that hasn't got them.

Note [The pause between transactions]. While the markers of a transaction aren't written the coordinator refuses the next one,
and aiokafka asks again after `BACKOFF_OVERRIDE` = 20 ms, which is read at each call and no option. 2 ms doubles what a
shard commits in a second.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import __version__ as aiokafka_version
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.producer import sender

from controlplane.log.kafka_address import PASSWORD_VARIABLE, Address
from controlplane.log.ports import LogUnavailable
from reconcilers import certificates
from reconcilers.contract import TerminalError
from reconcilers.queue import handshakes

_log = structlog.get_logger()

KNOWN_VERSION: Final = "0.14."
SAID_AGAIN_S: Final = 30.0
TALKATIVE: Final = ("aiokafka", "aiokafka.conn", "aiokafka.consumer.fetcher", "aiokafka.producer.sender")
PAUSE_BETWEEN_TRANSACTIONS_S: Final = 0.002
START_S: Final = 20.0
"""A broker that has just started makes its internal topics first. Nobody listening is told at once."""
STOP_S: Final = 5.0
FORCE_S: Final = 0.2
ASK_MS: Final = 3000
"""Longest wait for the answer to a question about offsets or topics."""
REQUEST_MS: Final = 40_000
"""Of the settings producer: a partition without leader for longer breaks it (T1)."""
MOST_BYTES: Final = 16 << 20
"""Largest record and request; the topics are made to take it."""
BATCH_BYTES: Final = 1 << 20
TRANSACTION_MS: Final = 10_000
"""After that the broker aborts what a dead writer left open; readers wait for it so long."""
READ_COMMITTED: Final = "read_committed"
READ_UNCOMMITTED: Final = "read_uncommitted"
CA_FILE: Final = "ca_file in log.url"
DENIED: Final = (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
_ADVICE: Final = {
    certificates.UNTRUSTED: certificates.advice(CA_FILE),
    handshakes.NO_TLS: "name a listener with TLS, or leave tls=true out of log.url",
    handshakes.TLS_EXPECTED: "add tls=true to log.url",
    handshakes.LOGIN_UNEXPECTED: "name another, or leave the user out of log.url",
    handshakes.OTHER_MECHANISM: "log.url must have a mechanism that it has enabled",
    handshakes.LOGIN_REFUSED: f"log.url must have the right user and mechanism, and {PASSWORD_VARIABLE} the password",
}


class _Startable(Protocol):
    async def start(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Knowing:
    """A producer that knows its topics when it has started: else the first send would wait to be told about them."""

    producer: AIOKafkaProducer
    topics: Sequence[str]

    async def start(self) -> None:
        await self.producer.start()
        for topic in self.topics:
            await self.producer.partitions_for(topic)


class _Sparing(logging.Filter):
    """Lets a message of aiokafka through once in a while: without its broker a daemon's clients say a hundred a second."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now, message = time.monotonic(), str(record.msg)
        if now - self._said.get(message, -math.inf) < SAID_AGAIN_S:
            return False
        self._said[message] = now
        return True


_sparing: Final = _Sparing()


def check() -> None:
    """Prepare aiokafka. Raises `LogUnavailable` for an interpreter or a version on which a fence may not hold."""
    if not __debug__:
        msg = (
            "python -O (or PYTHONOPTIMIZE) switches off checks that aiokafka relies on after a takeover: run without it"
        )
        raise LogUnavailable(msg)
    if not aiokafka_version.startswith(KNOWN_VERSION) or not hasattr(sender, "BACKOFF_OVERRIDE"):
        msg = f"aiokafka {aiokafka_version} isn't known to this version: install aiokafka {KNOWN_VERSION}*"
        raise LogUnavailable(msg)
    logging.getLogger("aiokafka").setLevel(logging.WARNING)  # below that it tells of every topic and coordinator
    for name in TALKATIVE:
        logging.getLogger(name).addFilter(_sparing)
    sender.BACKOFF_OVERRIDE = PAUSE_BETWEEN_TRANSACTIONS_S


class Clients:
    """Makes the clients of one log, and sees to their end."""

    def __init__(self, address: Address, request_ms: int = REQUEST_MS) -> None:
        self.address = address
        self._common = options(address)
        self._request_ms = request_ms
        self._ending: set[asyncio.Task[None]] = set()

    async def producer(self, topic: str) -> AIOKafkaProducer:
        """Idempotent, for records of the topic that stand alone. Raises `LogUnavailable`."""
        producer = AIOKafkaProducer(
            **self._common,
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_request_size=MOST_BYTES,
            request_timeout_ms=self._request_ms,
        )
        await _started(_Knowing(producer, [topic]), lambda: stop_producer(producer), self.address)
        return producer

    async def transactional(self, shard: int, topics: Sequence[str]) -> AIOKafkaProducer:
        """The writer of a shard: from its start on the one before is fenced. Raises `LogUnavailable`."""
        producer = AIOKafkaProducer(
            **self._common,
            acks="all",
            transactional_id=self.address.transactional_id(shard),
            transaction_timeout_ms=TRANSACTION_MS,
            linger_ms=0,
            max_batch_size=BATCH_BYTES,
            max_request_size=MOST_BYTES,
        )
        await _started(_Knowing(producer, topics), lambda: stop_producer(producer), self.address)
        return producer

    async def consumer(self, isolation: str, **options: Any) -> AIOKafkaConsumer:
        """Of no group, with nothing assigned. Raises `LogUnavailable`."""
        defaults = {"group_id": None, "enable_auto_commit": False, "request_timeout_ms": 40_000}
        consumer = AIOKafkaConsumer(**{**self._common, **defaults, **options}, isolation_level=isolation)
        await _started(consumer, lambda: stop_consumer(consumer), self.address)
        return consumer

    async def admin(self) -> AIOKafkaAdminClient:
        """For topics. Raises `LogUnavailable`."""
        admin = AIOKafkaAdminClient(**self._common, request_timeout_ms=2 * ASK_MS)
        await _started(admin, lambda: stop_admin(admin), self.address)
        return admin

    def end(self, ending: Coroutine[Any, Any, None]) -> None:
        """Let a client end in the background."""
        task = asyncio.create_task(ending)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def ended(self) -> None:
        """Wait for the clients that are ending: each has a deadline."""
        while self._ending:
            await asyncio.wait(set(self._ending))


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Send what it holds, if that is possible in time, and end it (T5)."""
    try:
        async with asyncio.timeout(STOP_S):
            await producer.stop()
    except Exception as exc:  # noqa: BLE001 - whatever keeps it from ending, it ends now
        _log.info("kafka producer ended by force", error=repr(exc))
    finally:
        await _force_producer(producer)


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """End it, with all its tasks (T4)."""
    try:
        async with asyncio.timeout(STOP_S):
            await consumer.stop()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
    except Exception as exc:  # noqa: BLE001 - as above
        _log.info("kafka consumer ended by force", error=repr(exc))
    finally:
        await _force_consumer(consumer)


async def stop_admin(admin: AIOKafkaAdminClient) -> None:
    """End it, also when a broker that it speaks with is gone."""
    try:
        async with asyncio.timeout(STOP_S):
            await admin.close()
    except Exception as exc:  # noqa: BLE001 - whatever keeps it from ending, nobody waits for it
        _log.info("kafka admin client left behind", error=repr(exc))


async def _started(client: _Startable, stop: Callable[[], Coroutine[Any, Any, None]], address: Address) -> None:
    try:
        async with asyncio.timeout(START_S):
            await client.start()
    except (KafkaError, TimeoutError, OSError) as exc:
        await stop()
        raise failed(address, "doesn't answer", exc) from exc
    except BaseException:
        await stop()
        raise


async def _force_producer(producer: AIOKafkaProducer) -> None:
    """Nothing of it runs afterwards. Its open sends fail; a closed client retries in a loop, so cancel until it ends."""
    accumulator = producer._message_accumulator  # noqa: SLF001
    batches = [*chain.from_iterable(accumulator._batches.values()), *accumulator._pending_batches]  # noqa: SLF001
    accumulator.fail_all(KafkaError("the producer was given up"))
    for batch in batches:
        batch._drain_waiter.exception()  # noqa: SLF001 - seen: nobody waits for room in it any more
    manager = producer._txn_manager  # noqa: SLF001
    waiter = manager._transaction_waiter if manager is not None else None  # noqa: SLF001
    if waiter is not None and waiter.done() and not waiter.cancelled():
        waiter.exception()  # seen: a fence tells it, and nobody waits for the end of that transaction
    running = producer._sender.sender_task  # noqa: SLF001
    while running is not None and not running.done():
        running.cancel()
        await asyncio.wait({running}, timeout=FORCE_S)
    await producer.client.close()


async def _force_consumer(consumer: AIOKafkaConsumer) -> None:
    """Nothing of it runs afterwards: a stop that was cut short, by its own start even, leaves any of these behind."""
    fetcher = consumer._fetcher  # noqa: SLF001
    running = [*fetcher._pending_tasks, fetcher._fetch_task] if fetcher is not None else []  # noqa: SLF001
    left = [task for task in running if not task.done()]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=STOP_S)
    await consumer._client.close()  # noqa: SLF001


def options(address: Address) -> dict[str, Any]:
    """What every client is told: where, and how to log in. Raises `LogUnavailable` for a `ca_file` that can't be read."""
    return {"bootstrap_servers": list(address.servers), "client_id": address.prefix, **_security(address)}


def trust(address: Address) -> ssl.SSLContext | None:
    """Whose certificates are trusted; None: no TLS. Raises `LogUnavailable`."""
    if not address.tls:
        return None
    try:
        return certificates.trusting(address.ca_file, CA_FILE)
    except TerminalError as exc:
        raise LogUnavailable(exc.message) from exc


def failed(address: Address, what: str, exc: Exception) -> LogUnavailable:
    """The error that says so, with the permissions that are needed when one is missing."""
    if isinstance(exc, DENIED):
        return LogUnavailable(f"{address} denies us something: {exc!r}; {address.needed}")
    return LogUnavailable(f"{address} {what}: {str(exc) or type(exc).__name__}")


async def explained(address: Address, trouble: LogUnavailable) -> LogUnavailable:
    """Why nobody was let in, which the clients don't say; else the trouble itself."""
    security = _security(address)
    if (context := security["ssl_context"]) is not None:
        rejection = await handshakes.of_tls(address.servers, context)
        if rejection is not None and rejection.reason != handshakes.SILENT:
            return _rejected(rejection)
    rejection = await handshakes.of_login(address.servers, security)
    return trouble if rejection is None else _rejected(rejection)


def _rejected(rejection: handshakes.Rejection) -> LogUnavailable:
    return LogUnavailable(f"Kafka at {rejection.fact}: {_ADVICE[rejection.reason]}")


def _security(address: Address) -> dict[str, Any]:
    told: dict[str, Any] = {
        "security_protocol": ("SASL_" if address.user else "") + ("SSL" if address.tls else "PLAINTEXT"),
        "ssl_context": trust(address),
    }
    if address.user:
        told |= {
            "sasl_mechanism": address.mechanism,
            "sasl_plain_username": address.user,
            "sasl_plain_password": address.password,
        }
    return told
