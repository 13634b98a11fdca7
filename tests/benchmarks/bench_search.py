"""Elasticsearch: a hundred indices, queries on 200,000 documents, 100,000 migrated under load. Run by `all.py search`.

One fresh node and one fresh daemon in processes of their own. The bare client is elasticsearch-py, eight requests at once.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from elasticsearch import AsyncElasticsearch

from controlplane.client.http import CoreplaneClient
from controlplane.devstack.elasticsearch import ELASTICSEARCH, credentials
from controlplane.devstack.guardian import Guardian
from reconcilers.contract import ExternalId
from tests.benchmarks.figures import Figures, Stopwatch, median, percentile, spread
from tests.e2e.conditions import phase
from tests.integration.backend_world import KINDS
from tests.integration.search_load import load, settled
from tests.integration.search_world import INDEX, SearchWorld, opened
from tests.servers import DaemonProcess, program_of, started

INDICES = 100
DOCUMENTS = 200_000
MIGRATED = 100_000
QUERIES = 400
SWEEPS = 10
AT_ONCE = 8
PAGE = 5_000


@dataclass
class World:
    """A server, a daemon with it as its target, and a bare client."""

    server: Any
    client: CoreplaneClient
    bare: AsyncElasticsearch
    auth: tuple[str, str]


async def run(figures: Figures) -> None:
    async with world() as one:
        figures.group(f"Elasticsearch: {INDICES} indices, {DOCUMENTS:,} documents")
        await _indices(one, figures)
        await _queries(one, figures)
        await _migration(one, figures)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    with TemporaryDirectory() as folder, Guardian() as guardian:
        server = await started(ELASTICSEARCH, Path(folder), await program_of(ELASTICSEARCH), guardian)
        auth = credentials(server.place)
        daemon = DaemonProcess(Path(folder) / "coreplane", {})
        await daemon.start(ES_PASSWORD=auth[1])
        bare = AsyncElasticsearch(server.url, basic_auth=auth, request_timeout=60)
        try:
            async with daemon.client() as client:
                target = {"url": server.url, "username": auth[0], "password": {"from_env": "ES_PASSWORD"}}
                await client.put_setting("search.target", "main", {"value": target})
                yield World(server, client, bare, auth)
        finally:
            await bare.close()
            await daemon.clean_up()
            await server.kill()


def value(number: int, kind: str = "integer") -> dict[str, Any]:
    return {
        "settings": {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "1s"},
        "mappings": {
            "properties": {
                "title": {"type": "text", "fields": {"raw": {"type": "keyword"}}},
                "n": {"type": kind},
                "brand": {"type": "keyword"},
                "number": {"type": "long", "meta": {"of": str(number)}},
            }
        },
    }


async def _indices(one: World, figures: Figures) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def create(number: int) -> None:
        async with gate:
            body = value(number)
            await one.bare.indices.create(index=f"bare-{number}", settings=body["settings"], mappings=body["mappings"])

    with Stopwatch() as bare:
        await asyncio.gather(*(create(number) for number in range(INDICES)))
    names = [f"many-{number}" for number in range(INDICES)]
    declared = [
        {"type": INDEX, "name": name, "value": {"target": "main", **value(number)}} for number, name in enumerate(names)
    ]
    with Stopwatch() as ours:
        await one.client.apply(declared)
        await _ready(one.client, names)
    figures.add(f"{INDICES} indices with mappings declared → all Ready", ours.wall_s, "s", bare=bare.wall_s, most=15.0)
    await _sweep(one, figures, names)


async def _ready(client: CoreplaneClient, names: list[str]) -> None:
    """Looked at four times a second: looking takes the daemon's time too."""
    async with asyncio.timeout(300):
        while True:
            ready = {one["name"] async for one in client.list_settings(setting_type=INDEX, phase="Ready")}
            if ready.issuperset(names):
                return
            await asyncio.sleep(0.25)


async def _sweep(one: World, figures: Figures, names: list[str]) -> None:
    """As the daemon's sweep does it: one observation, a plan of each."""
    async with opened(one.server) as looking:
        kind = KINDS[INDEX]
        models = [kind.value.model_validate({"target": "main", **value(number)}) for number in range(INDICES)]
        wanted = {ExternalId(INDEX, name): kind.desired(name, model) for name, model in zip(names, models, strict=True)}
        await looking.backend.observe(wanted)  # from then on the server's forms are known
        calls = _counted(looking)
        times, bare = [], []
        for _ in range(SWEEPS):
            started_at = time.perf_counter()
            observed = await looking.backend.observe(wanted)
            plans = [kind.plan(id_, desired, observed.get(id_), time.time()) for id_, desired in wanted.items()]
            times.append(time.perf_counter() - started_at)
            assert all(plan.converged for plan in plans)
            started_at = time.perf_counter()
            await one.bare.indices.get(index="many-*", flat_settings=True)
            bare.append(time.perf_counter() - started_at)
        note = f"{len(calls) // SWEEPS} requests each; {spread(times, 's')}"
        figures.add(f"idle sweep of {INDICES} indices", median(times), "s", bare=median(bare), most=1.0, note=note)


def _counted(looking: SearchWorld) -> list[str]:
    calls: list[str] = []
    call = looking.wire.call

    async def counting(method: str, path: str, *args: Any, **more: Any) -> Any:
        calls.append(f"{method} {path}")
        return await call(method, path, *args, **more)

    looking.wire.call = counting  # type: ignore[method-assign]
    return calls


async def _queries(one: World, figures: Figures) -> None:
    await _filled(one, "big", DOCUMENTS)
    queries = [
        {"bool": {"must": [{"match": {"title": f"word{n % 97}"}}], "filter": [{"term": {"brand": f"b{n % 13}"}}]}}
        for n in range(QUERIES)
    ]
    for query in queries[:20]:
        await one.bare.search(index="big", query=query, size=10)
        await one.client.operate("search.query", {"index": "big", "query": query})
    ours, bare = [], []
    for query in queries:
        started_at = time.perf_counter()
        await one.bare.search(index="big", query=query, size=10)
        bare.append((time.perf_counter() - started_at) * 1e3)
        started_at = time.perf_counter()
        await one.client.operate("search.query", {"index": "big", "query": query, "size": 10})
        ours.append((time.perf_counter() - started_at) * 1e3)
    added = median(ours) - median(bare)
    figures.add("search.query, p50", median(ours), "ms", bare=median(bare))
    figures.add("added by the operation, p50", added, "ms", most=3.0)
    figures.add("search.query, p99", percentile(ours, 99), "ms", bare=percentile(bare, 99), most=200.0)


async def _filled(one: World, index: str, documents: int) -> None:
    await one.client.put_setting(INDEX, index, {"value": {"target": "main", **value(0)}})
    await phase(one.client, INDEX, index, "Ready", 60)
    for begin in range(0, documents, PAGE):
        rows: list[dict[str, Any]] = []
        for n in range(begin, begin + PAGE):
            rows += [
                {"index": {"_id": f"s{n}"}},
                {"n": n, "brand": f"b{n % 13}", "title": f"word{n % 97} word{n % 89}"},
            ]
        await one.bare.bulk(index=index, operations=rows)
    await one.bare.indices.refresh(index=index)


async def _migration(one: World, figures: Figures) -> None:
    await _filled(one, "moved", MIGRATED)
    async with load(one.server.url, one.auth, "moved", writers=4) as people:
        people.expected |= {f"s{n}": n for n in range(MIGRATED)}
        with Stopwatch() as ours:
            await one.client.put_setting(INDEX, "moved", {"value": {"target": "main", **value(0, "long")}})
            await phase(one.client, INDEX, "moved", "Ready", 300)
    wrong = await settled(one.server.url, one.auth, people)
    assert people.failures == []
    assert not any(wrong.values()), wrong
    page = await one.client.events(setting=f"default/{INDEX}/moved", event_type="ActionSucceeded", limit=200)
    (switch,) = [event for event in page["items"] if event["details"]["step"] == "SwitchAlias"]
    note = f"{people.requests} requests meanwhile, none failed; {json.dumps(wrong)}"
    figures.add(f"{MIGRATED:,} documents migrated under load", ours.wall_s, "s", most=60.0, note=note)
    figures.add("writers held at the switch", float(switch["details"]["held_s"]), "s")
