"""Messages: published, looked at, sent back. With aiokafka; the client's types and errors end here."""

from __future__ import annotations

import asyncio
import json
from codecs import getincrementaldecoder
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from reconcilers.contract import BackendError, TerminalError, TransientError, Unreachable
from reconcilers.queue import routing
from schemas.queue_operations import Outgoing, Peek, Redrive

POLL_MS: Final = 200
QUIET_S: Final = 2.0
"""A partition that gives nothing for so long has nothing more to give."""


@asynccontextmanager
async def _errors(what: str) -> AsyncIterator[None]:
    from aiokafka.errors import KafkaConnectionError, KafkaError  # noqa: PLC0415 - loaded with the first message

    try:
        yield
    except BackendError:
        raise
    except (KafkaConnectionError, OSError, TimeoutError) as exc:
        msg = f"{what}: {exc!r}"
        raise Unreachable(msg) from exc
    except KafkaError as exc:
        reason = type(exc).__name__.removesuffix("Error")
        error = TransientError if exc.retriable else TerminalError
        raise error(f"{what}: {exc}", reason=reason) from exc


@asynccontextmanager
async def _producer(options: Mapping[str, Any], **more: Any) -> AsyncIterator[Any]:
    from aiokafka import AIOKafkaProducer  # noqa: PLC0415 - loaded with the first message

    producer = AIOKafkaProducer(acks="all", enable_idempotence=True, **options, **more)
    try:
        await producer.start()
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def _consumer(options: Mapping[str, Any], **more: Any) -> AsyncIterator[Any]:
    from aiokafka import AIOKafkaConsumer  # noqa: PLC0415 - loaded with the first message

    consumer = AIOKafkaConsumer(
        enable_auto_commit=False, isolation_level="read_committed", auto_offset_reset="earliest", **options, **more
    )
    try:
        await consumer.start()
        await asyncio.sleep(0)  # aiokafka 0.14: stopped before its tasks have begun, it raises their cancellation
        yield consumer
    finally:
        await consumer.stop()


async def publish(options: Mapping[str, Any], topic: str, messages: Sequence[Outgoing]) -> list[dict[str, int]]:
    """→ partition and offset of each, in the order."""
    async with _errors(f"topic {topic}"), _producer(options) as producer:
        sent = [
            await producer.send(
                topic,
                _bytes(one.value),
                None if one.key is None else one.key.encode(),
                partition=one.partition,
                headers=[(name, text.encode()) for name, text in one.headers.items()],
            )
            for one in messages
        ]
        places = await asyncio.gather(*sent)
    return [{"partition": place.partition, "offset": place.offset} for place in places]


def _bytes(value: Any) -> bytes | None:
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


async def peek(
    options: Mapping[str, Any], request: Peek, begin: Mapping[int, int], end: Mapping[int, int]
) -> list[Any]:
    """Messages from `begin` to `end` (partition → offset), decoded, at most `limit`."""
    found: list[Any] = []
    if not begin:
        return found
    async with _errors(f"topic {request.topic}"), _consumer(options) as consumer:
        async for record in _records(consumer, request.topic, begin, end):
            if request.key is None or record.key == request.key.encode():
                found.append(shown(record, request.max_bytes))
            if len(found) >= request.limit:
                break
    return found


async def _records(
    consumer: Any, topic: str, begin: Mapping[int, int], end: Mapping[int, int]
) -> AsyncGenerator[Any, None]:
    from aiokafka import TopicPartition  # noqa: PLC0415 - loaded already

    loop = asyncio.get_running_loop()
    for number in sorted(begin):
        place = TopicPartition(topic, number)
        consumer.assign([place])
        consumer.seek(place, begin[number])
        heard = loop.time()
        while await consumer.position(place) < end[number] and loop.time() - heard < QUIET_S:
            records = (await consumer.getmany(place, timeout_ms=POLL_MS)).get(place, [])
            heard = loop.time() if records else heard
            for record in records:
                if record.offset < end[number]:
                    yield record


def shown(record: Any, max_bytes: int) -> dict[str, Any]:
    """As the API answers it."""
    value, kind = _decoded(record.value, max_bytes)
    return {
        "partition": record.partition,
        "offset": record.offset,
        "time_ms": record.timestamp,
        "key": None if record.key is None else record.key.decode("utf-8", "replace"),
        "headers": {name: text.decode("utf-8", "replace") for name, text in record.headers},
        "value": value,
        "format": kind,
        "size_bytes": len(record.value or b""),
    }


def _decoded(value: bytes | None, max_bytes: int) -> tuple[Any, str]:
    if value is None:
        return None, "none"
    if len(value) <= max_bytes:
        try:
            return json.loads(value), "json"
        except ValueError:
            pass
    text = getincrementaldecoder("utf-8")()
    try:
        return text.decode(
            value[:max_bytes], final=len(value) <= max_bytes
        ), "text"  # a letter that is cut through is left out
    except UnicodeDecodeError:
        return value[:max_bytes].hex(), "hex"


async def redrive(
    options: Mapping[str, Any], group: str, request: Redrive, end: Mapping[int, int], *, own: Callable[[str], bool]
) -> dict[str, int]:
    """Letters up to `end` go back, or, when the filter doesn't mean them, to the end of their topic again: one
    transaction with the offset of the group that remembers how far it came, so that none is lost and none goes twice.
    `own` tells topics that nothing goes to. Whoever may write letters may write into their headers what he likes."""
    from aiokafka import TopicPartition  # noqa: PLC0415 - loaded already

    counted = {"redriven": 0, "kept": 0}
    topic = request.dead_letter
    async with (
        _errors(f"topic {topic}"),
        _producer(options, transactional_id=group) as producer,
        _consumer(options, group_id=group) as consumer,
    ):
        places = [TopicPartition(topic, number) for number in end]
        consumer.assign(places)
        begin = {place.partition: await consumer.committed(place) or 0 for place in places}
        first = await consumer.beginning_offsets(places)
        begin = {number: max(at, first[TopicPartition(topic, number)]) for number, at in begin.items()}
        letters = _records(consumer, topic, begin, end)
        async with producer.transaction():
            offsets: dict[Any, int] = {}
            async for record in letters:
                back = _back(record, request)
                back = None if back is None or own(back) else back
                headers = record.headers if back is None else routing.living(record.headers)
                await producer.send(back or topic, record.value, record.key, headers=list(headers))
                counted["kept" if back is None else "redriven"] += 1
                offsets[TopicPartition(topic, record.partition)] = record.offset + 1
                if sum(counted.values()) >= request.limit:
                    break
            if offsets:
                await producer.send_offsets_to_transaction(offsets, group)
        await letters.aclose()
    return counted


def _back(record: Any, request: Redrive) -> str | None:
    """Where a letter came from; None when the filter doesn't mean it, or it is none of ours."""
    told = {
        name.removeprefix(routing.DEAD): value.decode("utf-8", "replace")
        for name, value in record.headers
        if name.startswith(routing.DEAD)
    }
    meant = (
        request.route in (None, told.get("route"))
        and request.topic in (None, told.get("topic"))
        and (request.cause or "") in told.get("cause", "")
    )
    return told.get("topic") if meant else None
