"""Rebuild a projection in Elasticsearch while it is used: the next generation beside the live one, then all aliases at once.

Whatever ends it before the aliases move leaves a half filled generation that nobody reads; it goes with the next rebuild.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from controlplane.log.kafka import KafkaLog
from controlplane.projection.elasticsearch import ElasticsearchStore
from controlplane.projection.elasticsearch_generations import LIVE_S
from controlplane.projection.faust_projector import FaustProjector
from controlplane.projection.projector import Behind, Pace, Retention, ends_of
from controlplane.telemetry.metrics import Metrics

_log = structlog.get_logger()

LOOK_S: Final = 0.2
CLOSE_S: Final = 5.0
"""So short may be what is missing when the aliases move; the daemons have it a moment later."""
LEFT_ALONE_S: Final = 3 * LIVE_S + 2.0
"""Daemons ask again which generation is live before the one that was is dropped."""
Open = Callable[[int | None], ElasticsearchStore]
"""A generation (None: whichever is live) → its store."""
PACE: Final = Pace()


async def rebuild_beside(
    log: KafkaLog,
    open_store: Open,
    *,
    retention: Retention,
    pace: Pace = PACE,
    progress: Callable[[int], Awaitable[None]] | None = None,
) -> int:
    """The generation that is live now. `progress` is told how many records are still to come.

    Raises `StoreUnavailable` or `LogUnavailable` when either is away at the beginning or at the end; between, outages are
    outlived.
    """
    live = open_store(None)
    try:
        await live.generations.current()
        generation = await live.generations.next()
        await _fill(log, open_store(generation), retention, pace, progress)
        await live.generations.make_live(generation)
        _log.info("another generation is live", generation=generation)
        await asyncio.sleep(LEFT_ALONE_S)
        await live.generations.drop(below=generation)
    finally:
        await live.close()
    return generation


async def _fill(
    log: KafkaLog,
    store: ElasticsearchStore,
    retention: Retention,
    pace: Pace,
    progress: Callable[[int], Awaitable[None]] | None,
) -> None:
    """Project from the beginning until all that stood in the log a moment ago is there.

    Where records come without pause there is always one to come; the daemons go on from there, in the same group.
    """
    projector = FaustProjector(log, store, Metrics(), retention=retention, pace=pace)
    filling = asyncio.create_task(projector.run(), name="rebuild")
    try:
        loop, beyond = asyncio.get_running_loop(), Behind(log.journal)
        took_s = CLOSE_S
        while took_s >= CLOSE_S:
            begun = loop.time()
            ends = await ends_of(log.journal)
            while not projector.measured or await beyond.count(projector.position, ends):
                await asyncio.sleep(LOOK_S)
                if progress is not None and projector.measured:
                    await progress(projector.lag.records)
            took_s = loop.time() - begun
        await store.refresh()
    finally:
        filling.cancel()
        await asyncio.wait({filling})
        await store.close()
