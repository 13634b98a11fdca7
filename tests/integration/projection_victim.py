"""Projects a journal that is the same in every process into a store, until it is killed or has caught up."""

import asyncio
import sys
from pathlib import Path

from controlplane.domain.status import KeyStatus, converged, to_wire
from controlplane.log import codec
from controlplane.log.memory import MemoryLog
from controlplane.log.ports import Commit, Outgoing
from controlplane.projection.projector import Projector, Retention
from controlplane.projection.sqlite import SqliteStore
from controlplane.telemetry.metrics import Metrics
from schemas.names import event_id, timestamp

SHARDS = 4
STATUSES = 651 * SHARDS
"""Records of the status stream that a journal begins with."""
SETTINGS = 500 * SHARDS
"""Settings that these are of."""
FOR_EVER = Retention(events_days=100_000, metrics_days=100_000)
POISON = b"\xc1 not msgpack"


def event(number, shard=0, **fields):
    return {
        "id": event_id(f"shard-{shard}", number),
        "event_type": ("ActionStarted", "ActionSucceeded", "Converged")[number % 3],
        "timestamp": timestamp(1_767_225_600 + number // 5),
        "service_name": "cache",
        "details": {"number": number, "words": f"word{number % 97} shard{shard}"},
        "status": ("started", "succeeded", "info")[number % 3],
        "tenant": "acme",
        "setting": f"acme/cache.redis_user/user-{number % 50}",
        **fields,
    }


def metric(number, shard=0, **fields):
    return {
        "id": event_id(f"metric-{shard}", number),
        "metric_type": ("keys", "hits")[number % 2],
        "timestamp": timestamp(1_767_225_600 + number),
        "service_name": "cache",
        "value": float(number),
        "tags": {"target": "main", "shard": str(shard)},
        "tenant": "acme",
        **fields,
    }


def status(number, shard=0, **fields):
    known = KeyStatus(f"acme/cache.redis_user/s{shard}-{number}", **{"revision": number + 1, **fields})
    return converged(known, 1_767_225_600.0, f"user-{number}")


def stated(status):
    return Outgoing(status.key, codec.encode(to_wire(status)))


def statuses(shard):
    """Each setting has a first status; some have another, of a few nothing is left. `STATUSES` in all."""
    firsts = [status(n, shard) for n in range(500)]
    seconds = [status(n, shard, observed_generation=7) for n in range(0, 500, 5)]
    tombstones = [Outgoing(status(n, shard).key, None) for n in range(0, 500, 10)]
    mark = Outgoing("#settings", codec.encode({"settings_position": 3}))
    return [*map(stated, firsts), mark, *map(stated, seconds), *tombstones]


def outgoing(record):
    return Outgoing("some/key", record if isinstance(record, bytes) else codec.encode(record))


async def journal_with(events, metrics):
    """A log whose journal holds so many of each, spread over the shards, every 500th a poisoned one."""
    log = MemoryLog(shards=SHARDS)
    for shard in range(SHARDS):
        writer = await log.journal.open_shard(shard)
        some = [POISON if n % 500 == 7 else event(n, shard) for n in range(events // SHARDS)]
        values = [metric(n, shard) for n in range(metrics // SHARDS)]
        await writer.commit(Commit([*map(outgoing, some)], statuses(shard), [*map(outgoing, values)]))
    return log


async def main(path, events, metrics):
    log = await journal_with(events, metrics)
    store = SqliteStore(Path(path))
    projector = Projector(log.journal, store, Metrics(), retention=FOR_EVER)
    following = asyncio.create_task(projector.run())
    total = events // SHARDS * SHARDS + metrics // SHARDS * SHARDS + STATUSES
    while sum((await store.positions()).values()) < total:
        await asyncio.sleep(0.01)
    await log.close()
    await following
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
