"""A Faust app that reads the journal's topics in a consumer group: one run of it. I/O.

Theory of operation. One agent with one stream takes batches of all the partitions that the group gives us. While one is handed
on, the next ones are read, a few at most, and go together; what was handed on is acknowledged when that has returned, and Faust
commits what is acknowledged twice a second. What was read and not committed is handed on again after a crash or a rebalance: at
least once.

Note [Whatever happens, the body goes on]. After an exception Faust starts its agent again, but the stream doesn't: the process
lives and nothing is read any more. And `take()` acknowledges also what was interrupted. So the batches come by `noack_take`,
and the function that is given them never raises; only cancellation leaves it.

Note [Read committed]. Faust reads uncommitted records unless it writes transactions itself, so that what a fenced owner began
and never committed would be projected. The isolation of its consumer is set before it starts.

Note [Gaps of millions]. Between two records of a compacted topic any number of offsets may be gone. To commit past such a gap
Faust makes a list of all its numbers: 60 MB and a third of a second for a million, in the event loop. So how far its consumer has
come is found out here, from where the gaps begin and end.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import tempfile
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Self

import structlog

from controlplane.log.kafka_address import Address
from controlplane.log.kafka_clients import READ_COMMITTED
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


def reached(acked: Sequence[int], gaps: Sequence[tuple[int, int]], committed: int | None) -> int | None:
    """One past the last offset of those acknowledged or in a gap (first, one past the last) that follow the committed
    position without a hole; None when they don't. Both in ascending order."""
    before = [gap for gap in gaps if acked and gap[0] < acked[-1]]
    spans = sorted([*before, *((offset, offset + 1) for offset in acked)])
    if not spans or (committed and spans[0][0] - committed > 1):
        return None
    position = spans[0][0]
    for first, end in spans:
        if first > position:
            break
        position = max(position, end)
    return position


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
    """See [Read committed]."""
    from faust.transport.drivers import aiokafka  # noqa: PLC0415 - see above

    class CommittedThread(aiokafka.AIOKafkaConsumerThread):
        def _create_worker_consumer(self, transport: Any) -> Any:
            consumer = super()._create_worker_consumer(transport)
            consumer._isolation_level = READ_COMMITTED  # noqa: SLF001 - Faust has no option for it
            return consumer

    class CommittedConsumer(aiokafka.Consumer):
        def _new_consumer_thread(self) -> Any:
            return CommittedThread(self, loop=self.loop, beacon=self.beacon)

        def _new_offset(self, tp: Any) -> int | None:
            """See [Gaps of millions]."""
            acked, gaps = self._acked[tp], self._gap[tp]
            acked.sort()
            position = reached(acked, sorted((gap.begin, gap.end) for gap in gaps), self._committed_offset[tp])
            if position is not None:
                done = bisect_left(acked, position)
                self._acked_index[tp].difference_update(acked[:done])
                del acked[:done]
                gaps.chop(0, position)
            return position

    class CommittedTransport(aiokafka.Transport):
        Consumer = CommittedConsumer

    return CommittedTransport(app.conf.broker_consumer, app, loop=app.loop)


def _credentials(address: Address) -> Any:
    import faust  # noqa: PLC0415 - see above

    context = ssl.create_default_context() if address.tls else None
    if address.user:
        return faust.SASLCredentials(
            username=address.user, password=address.password, ssl_context=context, mechanism=address.mechanism
        )
    return faust.SSLCredentials(context) if context is not None else None
