"""Kafka's topics: made, changed, deleted, swept, beside kafka-python's admin client doing the same. Run by `all.py`.

The bare client sends the requests and looks once that what it did is there. It keeps no log, plans nothing, takes no part
in what happens afterwards.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from controlplane.client.http import CoreplaneClient
from controlplane.devstack.guardian import Guardian
from controlplane.devstack.kafka import KAFKA
from tests.benchmarks.figures import Figures, Stopwatch, median, spread
from tests.servers import DaemonProcess, program_of, started

TOPICS = 250
MANY = 1_000
TRIALS = 5
CONFIG = {"retention.ms": "3600000", "segment.ms": "600000", "max.message.bytes": "500000", "cleanup.policy": "delete"}
WATCHED_S = 15.0


async def run(figures: Figures) -> None:
    async with world() as one:
        figures.console.print(f"[dim]{TOPICS} topics …")
        await _round(one, figures)
        figures.console.print(f"[dim]{MANY:,} topics …")
        await _many(one, figures)


@dataclass(slots=True)
class World:
    """One daemon, one broker, their clients."""

    daemon: DaemonProcess
    client: CoreplaneClient
    admin: Any

    def cpu_s(self) -> float:
        times = psutil.Process(self.daemon.pid).cpu_times()
        return times.user + times.system

    async def all_ready(self) -> None:
        async with asyncio.timeout(300):
            for phase in ("Pending", "Unknown", "Reconciling", "Drifted"):
                while await self._some(phase):
                    await asyncio.sleep(0.02)

    async def _some(self, phase: str) -> bool:
        async for _ in self.client.list_settings(phase=phase, page=1):
            return True
        return False

    async def bare(self, work: Callable[[Any], Any]) -> Any:
        return await asyncio.to_thread(work, self.admin)

    async def swept(self) -> tuple[float, float]:
        """(number, seconds) of the daemon's sweeps."""
        text = await asyncio.to_thread(_fetched, f"{self.daemon.url}/metrics")
        found = {"count": 0.0, "sum": 0.0}
        for line in text.splitlines():
            for name in found:
                if line.startswith(f"coreplane_sweep_seconds_{name}") and 'service="queue"' in line:
                    found[name] += float(line.split()[-1])
        return found["count"], found["sum"]


def _fetched(url: str) -> str:
    from urllib.request import urlopen

    with urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        guardian = stack.enter_context(Guardian())
        server = await started(KAFKA, folder, await program_of(KAFKA), guardian)
        stack.push_async_callback(server.kill)
        daemon = DaemonProcess(
            folder / "coreplane", {"telemetry": {"log_level": "warning"}, "runtime": {"sweep_s": 3600}}
        )
        await daemon.start()
        stack.push_async_callback(daemon.clean_up)
        servers = server.url.removeprefix("kafka://")
        admin = await asyncio.to_thread(KafkaAdminClient, bootstrap_servers=servers)
        stack.callback(admin.close)
        one = World(daemon, daemon.client(), admin)
        await one.client.apply([{"type": "queue.target", "name": "main", "value": {"bootstrap_servers": servers}}])
        await one.all_ready()
        try:
            yield one
        finally:
            await one.client.close()


def declarations(count: int, **config: str) -> list[dict[str, Any]]:
    value = {"target": "main", "partitions": 1, "replication_factor": 1, "config": {**CONFIG, **config}}
    return [
        {"type": "queue.topic", "name": f"t-{number:04d}", "value": value, "labels": {"app": "bench"}}
        for number in range(count)
    ]


# --- 250 topics ----------------------------------------------------------------------------------------------------------


async def _round(one: World, figures: Figures) -> None:
    bare_create, bare_change, bare_delete = await one.bare(_bare_round)
    figures.group(f"{TOPICS} topics with {len(CONFIG)} configurations each")
    cpu_s = one.cpu_s()
    took = []
    for declared in (declarations(TOPICS), declarations(TOPICS, **{"retention.ms": "7200000"})):
        with Stopwatch() as watch:
            await one.client.apply(declared)
            await one.all_ready()
        took.append(watch.wall_s)
    bare_took = bare_create + bare_change + bare_delete
    with Stopwatch() as deleting:
        await asyncio.gather(
            *(one.client.delete_setting("queue.topic", f"t-{n:04d}", deletion="delete") for n in range(TOPICS))
        )
        async with asyncio.timeout(300):
            while [s async for s in one.client.list_settings(setting_type="queue.topic", page=1)]:
                await asyncio.sleep(0.05)
    create_s, change_s = took
    figures.add("declared → all Ready", create_s, "s", bare=bare_create)
    figures.add("changed → all Ready", change_s, "s", bare=bare_change)
    figures.add("retired → all deletions accepted, all forgotten", deleting.wall_s, "s", bare=bare_delete)
    total = create_s + change_s + deleting.wall_s
    figures.add("  all three", total, "s", bare=bare_took, most=6)
    figures.add("  all three, ratio", total, "s", bare=bare_took, most_ratio=4)
    figures.add("  the daemon's CPU for it", one.cpu_s() - cpu_s, "s")


def _bare_round(admin: KafkaAdminClient) -> tuple[float, float, float]:
    names = [f"bare-{number:04d}" for number in range(TOPICS)]
    begun = time.perf_counter()
    admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1, "configs": CONFIG} for name in names})
    while not all(row["error_code"] == 0 for row in admin.describe_topics(names)):
        time.sleep(0.05)
    created = time.perf_counter()
    changes = [ConfigResource(ConfigResourceType.TOPIC, name, {"retention.ms": "7200000"}) for name in names]
    admin.alter_configs(changes, raise_on_unknown=False)
    asked = [ConfigResource(ConfigResourceType.TOPIC, name, ["retention.ms"]) for name in names]
    while any(rows["retention.ms"]["value"] != "7200000" for rows in _described(admin, asked).values()):
        time.sleep(0.05)
    changed = time.perf_counter()
    admin.delete_topics(names)
    return created - begun, changed - created, time.perf_counter() - changed


def _described(admin: KafkaAdminClient, asked: list[ConfigResource]) -> dict[str, Any]:
    return dict(admin.describe_configs(asked, config_filter="all")["topic"])


# --- 1,000 topics --------------------------------------------------------------------------------------------------------


async def _many(one: World, figures: Figures) -> None:
    declared = declarations(MANY)
    with Stopwatch() as creating:
        await one.client.apply(declared)
        await one.all_ready()
    figures.group(f"{MANY:,} topics")
    figures.add("declared → all Ready", creating.wall_s, "s")
    changed = []
    for trial in range(TRIALS):
        number = random.randrange(MANY)
        value = {**declared[number]["value"], "config": {**CONFIG, "retention.ms": str(1_000_000 + trial)}}
        begun = time.perf_counter()
        await one.client.put_setting("queue.topic", f"t-{number:04d}", {"value": value, "labels": {"app": "bench"}})
        asked = [ConfigResource(ConfigResourceType.TOPIC, f"t-{number:04d}", ["retention.ms"])]
        async with asyncio.timeout(30):
            while True:
                (rows,) = (await one.bare(lambda admin, asked=asked: _described(admin, asked))).values()  # type: ignore[misc]
                if rows["retention.ms"]["value"] == str(1_000_000 + trial):
                    break
        changed.append(time.perf_counter() - begun)
    figures.add("one changed of them → in effect, p50", median(changed), "s", most=0.5, note=spread(changed, "s"))
    await one.all_ready()
    await _idle(one, figures)


async def _idle(one: World, figures: Figures) -> None:
    await one.client.close()
    await one.daemon.stop()
    one.daemon.content["runtime"] = {"sweep_s": 1.0}
    await one.daemon.start()
    one.client = one.daemon.client()
    await one.all_ready()
    await asyncio.sleep(3)
    before, cpu_s = await one.swept(), one.cpu_s()
    await asyncio.sleep(WATCHED_S)
    after, cpu_s = await one.swept(), one.cpu_s() - cpu_s
    names = [f"t-{number:04d}" for number in range(MANY)]
    asked = [ConfigResource(ConfigResourceType.TOPIC, name, list(CONFIG)) for name in names]
    bares = []
    for _ in range(5):
        with Stopwatch() as bare:
            await one.bare(lambda admin: _described(admin, asked))
        bares.append(bare.wall_s)
    sweeps = after[0] - before[0]
    figures.add(
        f"idle sweep (of {sweeps:.0f})",
        (after[1] - before[1]) / max(1, sweeps),
        "s",
        bare=median(bares),
        most_ratio=2,
        note="bare: one describe of the owned keys",
    )
    figures.add("  the daemon's CPU for one, with all else that it does", cpu_s / max(1, sweeps), "s")


if __name__ == "__main__":
    from rich.console import Console

    console = Console()
    found = Figures(console)
    asyncio.run(run(found))
    console.print(found.table())
