"""How fast the journal becomes searchable, beside a bare insert of the same records; and how fast questions are answered.

python tests/benchmarks/bench_projection.py [EVENTS]
"""

import asyncio
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

from controlplane.log import codec
from controlplane.log.ports import Entry, Place, Stream
from controlplane.projection.documents import documents, positions_after
from controlplane.projection.queries import Aggregate, EventFilter, MetricFilter
from controlplane.projection.sqlite import SqliteStore
from schemas.names import event_id, timestamp

T0 = 1_767_225_600.0
BATCH = 500
TYPES = ("ActionStarted", "ActionSucceeded", "Converged", "DriftDetected", "SettingAccepted")


def event(number):
    return {
        "id": event_id("bench", number),
        "event_type": TYPES[number % 5],
        "timestamp": timestamp(T0 + number * 0.5),
        "service_name": ("cache", "queue", "storage")[number % 3],
        "details": {"step": "SetUser", "external": f"user-{number % 1000}", "plan": f"{number:016x}", "attempt": 1},
        "status": ("started", "succeeded", "failed")[number % 3],
        "tenant": "default",
        "setting": f"default/cache.redis_user/user-{number % 1000}",
        "generation": 3,
        "revision": number,
        "actor": "ann",
        "correlation_id": event_id("cause", number // 3),
        "causation_id": None,
        "shard": number % 16,
    }


def metric(number):
    return {
        "id": event_id("sample", number),
        "metric_type": f"metric_{number % 40}_bytes",
        "timestamp": timestamp(T0 + number // 40 * 15),
        "service_name": "cache",
        "value": float(number % 977),
        "tags": {"target": "main", "node": "a"},
        "tenant": "default",
    }


def journal(stream, make, count):
    encoded = (codec.encode(make(n)) for n in range(count))
    return [Entry(stream, n % 16, n // 16, "key", data) for n, data in enumerate(encoded)]


def bare(entries, path):
    """The least that could be done: decode, and one indexed row each."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("CREATE TABLE t (id TEXT PRIMARY KEY, type TEXT, at TEXT, body TEXT)")
    begun = time.perf_counter()
    for i in range(0, len(entries), BATCH):
        records = [codec.decode(entry.data) for entry in entries[i : i + BATCH]]
        connection.execute("BEGIN")
        rows = [(r["id"], r.get("event_type"), r["timestamp"], json.dumps(r)) for r in records]
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
        connection.execute("COMMIT")
    elapsed = time.perf_counter() - begun
    connection.close()
    return elapsed


async def project(store, entries):
    begun = time.perf_counter()
    for i in range(0, len(entries), BATCH):
        some = entries[i : i + BATCH]
        await store.write(await asyncio.to_thread(documents, some), positions_after(some))
    return time.perf_counter() - begun


async def ask(name, question, times=20):
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        await question()
        took.append((time.perf_counter() - begun) * 1000)
    print(f"  {name:<44} p50 {statistics.median(took):8.2f} ms   max {max(took):8.2f} ms")


async def questions(store, count):
    def events(**wanted):
        return lambda: store.events(EventFilter("default", **wanted))

    def metrics(**wanted):
        return lambda: store.metrics(MetricFilter("default", **wanted))

    middle = T0 + count / 4
    print(f"questions at {count:,} events and as many points")
    await ask("newest 100", events())
    await ask("newest 1000", events(limit=1000))
    await ask("type, until the middle", events(event_type="DriftDetected", until=middle))
    await ask("service + status", events(service_name="queue", status="failed"))
    await ask("setting", events(setting="default/cache.redis_user/user-7"))
    await ask("text, rare", events(text=f"{77:016x}"))
    await ask("text, 0.1 % of all", events(text="user-77"))
    await ask("text, every event", events(text="SetUser"))
    await ask("text, every event, until the middle", events(text="SetUser", until=middle))
    await ask("points, newest 100 of 40 series", metrics())
    await ask("one series, avg per hour", metrics(metric_type="metric_7_bytes", interval_s=3600))
    await ask("40 series, avg per 5 min", metrics(interval_s=300, since=T0), 5)
    await ask(
        "one series, p95 per hour", metrics(metric_type="metric_7_bytes", interval_s=3600, aggregate=Aggregate.P95)
    )
    await ask("evidence of everything, thinned", lambda: store.evidence("default", "cache", T0, T0 + 86_400 * 7), 5)


async def main(count):
    with tempfile.TemporaryDirectory() as directory:
        store = SqliteStore(Path(directory) / "projection.db")
        for stream, make in ((Stream.EVENTS, event), (Stream.METRICS, metric)):
            entries = journal(stream, make, count)
            least = bare(entries, Path(directory) / f"bare-{stream}.db")
            took = await project(store, entries)
            print(
                f"{stream}: {count / took:,.0f}/s projected; bare decode + insert {count / least:,.0f}/s;"
                f" ratio {took / least:.1f}"
            )
        assert (await store.positions())[Place(Stream.EVENTS, 0)] == -(-count // 16)
        size = sum(file.stat().st_size for file in Path(directory).glob("projection.db*"))  # noqa: ASYNC240
        print(f"file: {size / 2 / count:,.0f} bytes/record (half events, half points)")
        await questions(store, count)
        await store.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000))
