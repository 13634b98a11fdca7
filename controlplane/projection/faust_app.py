"""A Faust app that reads the journal's topics in a consumer group: one run of it. I/O.

Theory of operation. One agent with one stream takes batches of all the partitions that the group gives us. While one is handed
on, the next ones are read, a few at most, and go together; what was handed on is acknowledged when that has returned, and Faust
commits what is acknowledged twice a second. What was read and not committed is handed on again after a crash or a rebalance: at
least once.

Note [Whatever happens, the body goes on]. After an exception Faust starts its agent again, but the stream doesn't: the process
lives and nothing is read any more. And `take()` acknowledges also what was interrupted. So the batches come by `noack_take`,
and the function that is given them never raises; only cancellation leaves it.

Note [Markers are no records]. Each transaction leaves an offset without a record. Faust takes the record after one for a part
of the gap, and so commits no further than to the next marker, twice a second: what many transactions wrote would be committed
for hours, and projected again after a crash. Here one stream acknowledges in the order of reading, so that everything before
what is acknowledged is done, gaps or not. Compaction leaves gaps, too, of any size; Faust would make a list of their offsets.

Note [Read committed]. Faust reads uncommitted records unless it writes transactions itself, so that what a fenced owner began
and never committed would be projected. The isolation of its consumer is set before it starts.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Self

import structlog

from controlplane.log.kafka_address import Address
from controlplane.log.kafka_clients import READ_COMMITTED, trust
from controlplane.log.ports import Entry, Place, Stream

_log = structlog.get_logger()

MOST: Final = 1000
"""Records in one batch."""
AHEAD: Final = 2
"""Batches that are read while one is handed on."""
WITHIN_S: Final = 0.2
"""A batch isn't held back for longer."""
SESSION_S: Final = 30.0
COMMIT_S: Final = 0.5
POLL_S: Final = 86_400.0
"""An outage of the store holds up a batch for as long as it lasts; that is no reason to be put out of the group."""
START_S: Final = 60.0
STOP_S: Final = 15.0
Take = Callable[[Sequence[Entry]], Awaitable[None]]


class FaustApp:
    """A context: reads inside it. Entering raises whatever keeps Faust from starting, LogUnavailable included."""

    def __init__(self, address: Address, group: str, take: Take, *, member: str = "") -> None:
        self._address = address
        self._group = group
        self._member = member
        self._take = take
        self._places = {address.topic(stream): stream for stream in Stream}
        self._folder = tempfile.TemporaryDirectory(prefix="coreplane-faust-")
        self._app: Any = None

    @property
    def trouble(self) -> str | None:
        """Why it reads no more; None while it does."""
        reason = self._app.crash_reason
        return None if reason is None and not self._app.should_stop else f"Faust ended: {reason!r}"

    @property
    def rebalances(self) -> int:
        """How many there were."""
        return int(self._app.rebalancing_count)

    async def __aenter__(self) -> Self:
        self._app = self._made()
        try:
            async with asyncio.timeout(START_S):
                await self._app.start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def _stop(self) -> None:
        try:
            async with asyncio.timeout(STOP_S):
                await self._app.stop()
        except Exception as exc:  # noqa: BLE001 - it is given up: what wasn't committed is read again
            _log.warning("faust app didn't stop in order", error=repr(exc))
        finally:
            self._folder.cleanup()

    def _made(self) -> Any:
        import faust  # noqa: PLC0415 - loaded with the first projection that needs it

        logging.getLogger("faust").setLevel(logging.WARNING)
        logging.getLogger("mode").setLevel(logging.WARNING)
        app = faust.App(
            self._group,
            broker=[f"kafka://{server}" for server in self._address.servers],
            broker_credentials=_credentials(self._address),
            store="memory://",
            datadir=self._folder.name,
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            broker_session_timeout=SESSION_S,
            broker_heartbeat_interval=SESSION_S / 4,
            broker_commit_interval=COMMIT_S,
            broker_max_poll_interval=POLL_S,
            consumer_auto_offset_reset="earliest",
            consumer_group_instance_id=self._member or None,
            stream_wait_empty=False,
        )
        app.transport = _transport(app)
        raw: dict[str, Any] = {
            "key_type": bytes,
            "value_type": bytes,
            "key_serializer": "raw",
            "value_serializer": "raw",
        }
        topic = app.topic(*self._places, **raw)
        app.agent(topic, concurrency=1, name="projection")(self._project)
        app.finalize()
        return app

    async def _project(self, stream: Any) -> None:
        """See [Whatever happens, the body goes on]."""
        batches: asyncio.Queue[list[Any]] = asyncio.Queue(AHEAD)
        handing = asyncio.create_task(self._hand_on(stream, batches))
        try:
            async for events in stream.noack_take(MOST, within=WITHIN_S):
                await batches.put(events)
        finally:
            handing.cancel()
            await asyncio.wait({handing})

    async def _hand_on(self, stream: Any, batches: asyncio.Queue[list[Any]]) -> None:
        """Until cancelled. In order, and one at a time."""
        while True:
            events = await batches.get()
            while not batches.empty():
                events += batches.get_nowait()
            await self._take([self._entry(event.message) for event in events])
            for event in events:
                await stream.ack(event)

    def _entry(self, message: Any) -> Entry:
        place = Place(self._places[message.topic], message.partition)
        return Entry(*place, message.offset, (message.key or b"").decode(errors="replace"), message.value)


def _transport(app: Any) -> Any:
    """See [Read committed] and [Markers are no records]."""
    from faust.transport.drivers import aiokafka  # noqa: PLC0415 - see above

    class CommittedThread(aiokafka.AIOKafkaConsumerThread):
        logger = logging.getLogger("faust")

        def _create_worker_consumer(self, transport: Any) -> Any:
            consumer = super()._create_worker_consumer(transport)
            consumer._isolation_level = READ_COMMITTED  # noqa: SLF001 - Faust has no option for it
            return consumer

    class CommittedConsumer(aiokafka.Consumer):
        logger = logging.getLogger("faust")

        def _new_consumer_thread(self) -> Any:
            return CommittedThread(self, loop=self.loop, beacon=self.beacon)

        def _new_offset(self, tp: Any) -> int | None:
            """Where to go on after a crash; None when nothing is to be committed. See [Markers are no records]."""
            acknowledged = self._acked[tp]
            if not acknowledged:
                return None
            newest = max(acknowledged)
            acknowledged.clear()
            self._acked_index[tp].clear()
            return int(newest) + 1

        async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
            """Nobody asks for them. See [Markers are no records]."""

    class CommittedTransport(aiokafka.Transport):
        Consumer = CommittedConsumer

    return CommittedTransport(app.conf.broker_consumer, app, loop=app.loop)


def _credentials(address: Address) -> Any:
    import faust  # noqa: PLC0415 - see above

    context = trust(address)
    if address.user:
        return faust.SASLCredentials(
            username=address.user, password=address.password, ssl_context=context, mechanism=address.mechanism
        )
    return faust.SSLCredentials(context) if context is not None else None
