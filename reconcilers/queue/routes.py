"""Routes of a target: the table is written and read, and the routers' progress looked at. See `routing` and `router`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from reconcilers.contract import (
    SUCCEEDED,
    BackendError,
    Fence,
    NotSent,
    Outcome,
    Result,
    TransientError,
    Unreachable,
    failed,
    unknown,
)
from reconcilers.queue import routing
from reconcilers.queue.admin import AdminThread
from reconcilers.queue.kafka_groups import committed, members_of, offsets_at
from reconcilers.queue.kafka_topics import ensure, partitions_of
from reconcilers.queue.route_plan import InstallRoute, ObservedRoute, RemoveRoute
from reconcilers.queue.route_table import TableReader
from reconcilers.queue.routing import Installed, Table
from reconcilers.queue.settling import Settling

CALL_S: Final = 10.0
COMPACTED: Final = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1", "segment.ms": "3600000"}


class Routes:
    """The routes of one target."""

    def __init__(self, admin: AdminThread, options: dict[str, Any], place: tuple[str, str], settling: Settling) -> None:
        """`options`: for aiokafka. `place`: (tenant, target)."""
        self._admin = admin
        self._options = options
        self._topic = routing.table_topic(*place)
        self._group = routing.router_group(*place)
        self._reader = TableReader(options, self._topic)
        self._settling = settling

    async def observe(self, wanted: Mapping[str, Any]) -> dict[str, ObservedRoute]:
        """Route → what is in the table, and how far it is gone by."""
        table = await self._read()
        going = await self._admin.call(partial(_progress, group=self._group), CALL_S)
        sources = sorted(table.sources)
        partitions = await self._admin.call(partial(partitions_of, topics=sources), CALL_S) if sources else {}
        routers = await self._admin.call(partial(members_of, group=self._group), CALL_S)
        found = {}
        for name, desired in wanted.items():
            one = table.routes.get(name)
            digest = one.digest if one is not None else routing.digest(desired) if desired is not None else ""
            seen = ObservedRoute(
                None if one is None else one.text,
                partitions.get(one.route.source, 0) if one is not None else 0,
                _going(going, one, digest) if routers else 0,
                routers,
            )
            settling = self._settling.look(routing.ROUTE, name, seen if routers else None)
            if one is not None or settling is not None:
                found[name] = seen
        return found

    async def apply(self, steps: Sequence[InstallRoute | RemoveRoute], fence: Fence) -> list[Outcome]:
        """Each by itself; a record replaces the one before."""
        return [await self._apply(step, fence) for step in steps]

    async def counted(self) -> list[tuple[str, routing.Count]]:
        """(route, what its routers counted since it was installed)."""
        table = await self._read()
        if not table.routes:
            return []
        progress = await self._admin.call(partial(_progress, group=self._group), CALL_S)
        found = []
        for one in table.routes.values():
            counts = [counts[one.digest] for counts in progress.values() if one.digest in counts]
            found.append((one.name, routing.Count(*map(sum, zip(routing.Count(), *counts, strict=True)))))
        return found

    async def close(self) -> None:
        """Safe to call twice."""
        with suppress(TimeoutError):
            await self._reader.close()

    async def _read(self) -> Table:
        there = await self._admin.call(partial(partitions_of, topics=[self._topic]), CALL_S)
        if self._topic not in there:
            return Table()
        table: Table = await self._asked(self._reader.read())
        return table

    async def _asked(self, answer: Any) -> Any:
        """Aiokafka's errors as ours; the reader begins anew after one."""
        from aiokafka.errors import KafkaError  # noqa: PLC0415 - loaded already

        try:
            return await answer
        except (KafkaError, OSError, TimeoutError) as exc:
            await self.close()
            msg = f"the table of routes: {exc!r}"
            raise Unreachable(msg) from exc

    async def _apply(self, step: InstallRoute | RemoveRoute, fence: Fence) -> Outcome:
        sent = False
        try:
            content = await self._content(step) if isinstance(step, InstallRoute) else None
            fence.check()
            sent = True
            await self._asked(self._write(step.external.name, content))
        except NotSent:
            return Outcome(Result.NOT_SENT)
        except BackendError as exc:
            return unknown(exc) if sent else failed(exc)
        if content is None:
            self._settling.expect(
                routing.ROUTE, step.external.name, "removed", lambda seen: seen is None or not seen.going
            )
        return SUCCEEDED

    async def _content(self, step: InstallRoute) -> bytes:
        """The record. A route whose source stays begins where it began; else where its source ends now."""
        await self._admin.call(partial(ensure, name=self._topic, config=COMPACTED), CALL_S)
        one = routing.installed(step.external.name, routing.record(step.definition, {}))
        before = (await self._read()).routes.get(step.external.name)
        if one is None:
            msg = f"{step.external.name}: this version doesn't understand its own definition"
            raise TransientError(msg)
        if before is not None and before.route.source == one.route.source:
            return routing.record(step.definition, before.start)
        earliest = one.route.start == "earliest"
        at = await self._admin.call(partial(offsets_at, topic=one.route.source, earliest=earliest), CALL_S)
        return routing.record(step.definition, at)

    async def _write(self, name: str, content: bytes | None) -> None:
        from aiokafka import AIOKafkaProducer  # noqa: PLC0415 - loaded with the first route

        producer = AIOKafkaProducer(enable_idempotence=True, **self._options)
        try:
            await producer.start()
            await producer.send_and_wait(self._topic, content, name.encode(), partition=0)
        finally:
            await producer.stop()


def _progress(client: Any, group: str) -> dict[Any, Mapping[str, routing.Count]]:
    return {place: routing.progress_in(metadata).counts for place, (_, metadata) in committed(client, group).items()}


def _going(progress: Mapping[Any, Mapping[str, Any]], one: Installed | None, digest: str) -> int:
    return sum(
        1 for place, counts in progress.items() if digest in counts and (one is None or place.topic == one.route.source)
    )
