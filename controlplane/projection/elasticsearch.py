"""The store on Elasticsearch: for projections that several replicas share, and that other people search, too.

Theory of operation. Documents are created under their ids (`create`: 409 means that it is there), statuses put in the place of
older ones (external versions: 409 means that one as new is there), so writing them again is harmless; positions are written after
them. One request of many documents has one answer for each: those that the server had no room for (429, 5xx) are sent again,
those that it refuses for good are told by `DocumentRefused` or by `put`, and all others are written. What is written is found a
second later, when the index is refreshed.

An outage is an outage: every call raises `StoreUnavailable`, nothing is kept for later here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import structlog

from controlplane.log.ports import Place, Stream
from controlplane.projection.documents import Batch
from controlplane.projection.elasticsearch_address import Address
from controlplane.projection.elasticsearch_generations import Generations
from controlplane.projection.elasticsearch_layout import (
    VERSION,
    Action,
    Names,
    day_of,
    dead_letter_action,
    event_action,
    metric_action,
    status_action,
)
from controlplane.projection.elasticsearch_reading import Reader
from controlplane.projection.elasticsearch_wire import Login, Refusal, Wire
from controlplane.projection.ports import DocumentRefused, StoreUnavailable, Trimmed
from controlplane.projection.queries import (
    EventFilter,
    EvidenceRows,
    MetricFilter,
    MetricType,
    Page,
    StatusFilter,
    micros,
)

_log = structlog.get_logger()

BULK_BYTES: Final = 1_000_000
"""Of one request; what is larger alone goes alone. Larger ones aren't faster, and hold up the event loop."""
HEAD_BYTES: Final = 100
"""Of a line, about, beside the id and the document."""
TRIES: Final = 4
PAUSE_S: Final = 0.2
"""Before documents that the server had no room for are sent again; doubled each time."""
BULK_S: Final = 60.0
TOLD: Final = {"filter_path": "items.*.status,items.*.error"}
"""Of a bulk's answer: the rest is twenty times as long."""
TRIM_S: Final = 120.0
MOST_KNOWN: Final = 2000
_BUSY: Final = frozenset({404, 429, 500, 502, 503, 504})
"""404: the index has just been dropped by retention or by a person; it is made again."""


class Refused(NamedTuple):
    """A document that the server will never take."""

    id: str
    reason: str


class ElasticsearchStore:
    """See `Store`. Connected by the first call.

    `generation` None: the live one, whichever that is. `immediate`: what is written is found at once, and nothing of a
    batch before all of it, as tests want it and nobody else can pay for.
    """

    def __init__(
        self,
        address: Address,
        *,
        login: Login = lambda: None,
        generation: int | None = None,
        immediate: bool = False,
    ) -> None:
        self._wire = Wire(address, login)
        self.generations = Generations(self._wire, address.prefix, generation)
        self._prefix = address.prefix
        self._immediate = immediate
        self._made: set[str] = set()
        self._positions: tuple[Names, dict[Place, int]] | None = None

    # --- writing -------------------------------------------------------------------------------------------------------

    async def write(self, batch: Batch, positions: Mapping[Place, int]) -> None:
        """See the port. When one document is refused, the others are written all the same; positions aren't moved."""
        refused = await self.put(batch)
        if refused:
            raise DocumentRefused(refused[0].reason)
        if positions:
            await self._move(positions)

    async def put(self, batch: Batch) -> list[Refused]:
        """Write documents, without positions; those that the server will never take, by their ids."""
        names = await self.generations.current()
        try:
            actions = await asyncio.to_thread(_actions, names, batch)
        except UnicodeEncodeError as exc:
            raise DocumentRefused(str(exc)) from exc
        for index in sorted({action.index for action in actions} - self._made):
            await self._make(index)
        refused = [one for chunk in _chunks(actions) for one in await self._accept(chunk)]
        if self._immediate and actions:
            await self._wire.ask("POST", f"/{','.join(sorted({action.index for action in actions}))}/_refresh")
        return refused

    async def positions(self) -> Mapping[Place, int]:
        """See the port."""
        names = await self.generations.current()
        try:
            found = await self._wire.ask("GET", f"/{names.meta}/_doc/positions")
        except Refusal as exc:
            if exc.status != 404:
                raise
            return {}
        rows = found["_source"]["positions"]["places"] if found.get("found") else ()
        return {Place(Stream(stream), shard): position for stream, shard, position in rows}

    async def trim(self, events_before: float, metrics_before: float) -> Trimmed:
        """See the port. Whole days go as indices; only of the day that is cut by the time, documents are deleted."""
        names = await self.generations.current()
        live = await self.generations.live()
        if live is not None and names.generation == live:
            for index in await self.generations.drop(below=live):
                _log.info("index of an earlier generation dropped", index=index)
        events = await self._trim(names, "events", micros(events_before))
        return Trimmed(events, await self._trim(names, "metrics", micros(metrics_before)))

    async def refresh(self) -> None:
        """Let everything that is written be found now."""
        names = await self.generations.current()
        there = [index for index, number in (await self.generations.there()).items() if number == names.generation]
        await self._wire.ask("POST", f"/{','.join(there)}/_refresh")

    async def complaint(self) -> str | None:
        """What is wrong with its indices, for people; None when nothing is. Changes nothing. Raises `StoreUnavailable`."""
        if await self.generations.live() is None:
            return "nothing is projected there yet"
        version = await self.generations.outdated()
        if version is not None:
            return f"its mappings are version {version}, not {VERSION}: what is asked may not be found"
        return None

    async def reset(self) -> None:
        """See the port."""
        names = await self.generations.current()
        self._made.clear()
        self._positions = None
        await self.generations.forget(names.generation)
        await self.generations.current()

    async def close(self) -> None:
        """See the port."""
        await self._wire.close()

    # --- questions -----------------------------------------------------------------------------------------------------

    async def events(self, wanted: EventFilter) -> Page:
        """See the port."""
        return await (await self._reader()).events(wanted)

    async def statuses(self, wanted: StatusFilter) -> Page:
        """See the port."""
        return await (await self._reader()).statuses(wanted)

    async def metrics(self, wanted: MetricFilter) -> Page:
        """See the port."""
        reader = await self._reader()
        return await (reader.points(wanted) if wanted.interval_s is None else reader.series(wanted))

    async def metric_types(self, tenant: str, service_name: str | None = None) -> Sequence[MetricType]:
        """See the port."""
        return await (await self._reader()).metric_types(tenant, service_name)

    async def evidence(self, tenant: str, service_name: str, since: float, until: float) -> EvidenceRows:
        """See the port."""
        wanted = EventFilter(tenant, service_name, since=since, until=until)
        measured = MetricFilter(tenant, service_name, since=since, until=until)
        return await (await self._reader()).evidence(wanted, measured)

    async def dead_letters(self, limit: int = 100) -> Sequence[dict[str, Any]]:
        """See the port."""
        return await (await self._reader()).dead_letters(limit)

    async def _reader(self) -> Reader:
        return Reader(self._wire, await self.generations.current())

    # --- parts of writing ----------------------------------------------------------------------------------------------

    async def _make(self, index: str) -> None:
        if len(self._made) > MOST_KNOWN:
            self._made.clear()
        await self.generations.add(index, {"refresh_interval": "-1"} if self._immediate else {})
        self._made.add(index)

    async def _accept(self, actions: Sequence[Action]) -> list[Refused]:
        """Send them until each is there or refused."""
        refused: list[Refused] = []
        trouble = ""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(PAUSE_S * 2.0**attempt)
            body = b"".join(action.line for action in actions)
            answer = await self._wire.ask("POST", "/_bulk", body, params=TOLD, timeout_s=BULK_S)
            again: list[Action] = []
            for action, item in zip(actions, answer["items"], strict=True):
                (told,) = item.values()
                if "error" not in told or told["status"] == 409:
                    continue  # it is there, or was deleted already
                if told["status"] in _BUSY:
                    again.append(action)
                    trouble = _reason(told)
                else:
                    refused.append(Refused(action.id, _reason(told)))
            if not again:
                return refused
            actions = again
            for index in {action.index for action in actions}:
                await self._make(index)
        msg = f"{len(actions)} documents weren't taken: {trouble}"
        raise StoreUnavailable(msg)

    async def _move(self, positions: Mapping[Place, int]) -> None:
        names = await self.generations.current()
        if self._positions is None or self._positions[0] != names:
            self._positions = names, dict(await self.positions())
        merged = self._positions[1] | dict(positions)
        places = [[str(place.stream), place.shard, position] for place, position in merged.items()]
        await self._wire.ask("PUT", f"/{names.meta}/_doc/positions", {"positions": {"places": places}})
        self._positions = names, merged

    async def _trim(self, names: Names, kind: str, before_us: int) -> int:
        gone = 0
        for index, number in (await self.generations.there()).items():
            days = day_of(index)
            if number != names.generation or days is None or not index.startswith(f"{self._prefix}-{kind}-"):
                continue
            begin, end = days
            if end <= before_us:
                gone += (await self._wire.ask("GET", f"/{index}/_count"))["count"]
                await self.generations.delete(index)
                self._made.discard(index)
            elif begin < before_us:
                gone += await self._trim_day(index, before_us)
        return gone

    async def _trim_day(self, index: str, before_us: int) -> int:
        query = {"query": {"range": {"at_us": {"lt": before_us}}}}
        options = {"conflicts": "proceed", "refresh": "true"}
        answer = await self._wire.ask("POST", f"/{index}/_delete_by_query", query, params=options, timeout_s=TRIM_S)
        return int(answer["deleted"])


def _actions(names: Names, batch: Batch) -> list[Action]:
    return [
        *(event_action(names, event) for event in batch.events),
        *(metric_action(names, metric) for metric in batch.metrics),
        *(status_action(names, status) for status in batch.statuses),
        *(dead_letter_action(names, letter) for letter in batch.dead_letters),
    ]


def _chunks(actions: Iterable[Action]) -> Iterator[list[Action]]:
    chunk: list[Action] = []
    size = 0
    for action in actions:
        length = len(action.source) + len(action.id) + HEAD_BYTES
        if chunk and size + length > BULK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(action)
        size += length
    if chunk:
        yield chunk


def _reason(told: Mapping[str, Any]) -> str:
    error = told["error"]
    cause = error.get("caused_by", {}).get("reason")
    return f"{error.get('reason', told['status'])}" + (f": {cause}" if cause else "")
