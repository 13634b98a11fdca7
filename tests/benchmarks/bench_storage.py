"""Two hundred buckets of a MinIO: declared, swept, changed by hand, changed by their owner; and objects streamed.

Run by `all.py`. The bare client is minio-py in 16 threads, and for a look at everything one export, unpacked. Streams go
through the daemon and, bare, straight to the server.
"""

from __future__ import annotations

import asyncio
import io
import time
import zipfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import psutil
import urllib3
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from minio.versioningconfig import SUSPENDED, VersioningConfig

from controlplane.client.http import CoreplaneClient
from controlplane.devstack import minio, secrets
from controlplane.devstack.guardian import Guardian
from controlplane.devstack.minio import MINIO
from reconcilers.contract import ExternalId
from reconcilers.registry import SERVICES
from reconcilers.storage.policies import public
from tests.benchmarks.figures import Figures, median, percentile, spread
from tests.integration.storage_world import world as backend_of
from tests.servers import DaemonProcess, program_of, started

BUCKETS = 200
THREADS = 16
TRIALS = 10
SWEEPS = 15
STREAMED_MB = 256
STREAMS = 5
CHUNK = bytes(range(256)) * 4096
KIND = next(kind for kind in SERVICES["storage"].kinds if kind.setting_type == "storage.bucket")


async def run(figures: Figures) -> None:
    figures.group(f"storage: {BUCKETS} buckets with versioning, lifecycle and policy")
    async with world() as one:
        await _declared(one, figures)
        await _swept(one, figures)
        await _changed(one, figures)
        await _by_hand(one, figures)
        figures.group(f"storage: {STREAMED_MB} MB streamed")
        await _streamed(one, figures)


@dataclass(slots=True)
class World:
    """One daemon, one MinIO, their clients."""

    daemon: DaemonProcess
    client: CoreplaneClient
    bare: Minio
    server: Any


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    with TemporaryDirectory(prefix="coreplane-bench-") as folder, Guardian() as guardian:
        server = await started(MINIO, Path(folder), await program_of(MINIO), guardian)
        password = secrets.ensure(server.place.data_dir, minio.ADMIN_SECRET)
        daemon = DaemonProcess(Path(folder) / "coreplane", {})
        await daemon.start(BENCH_NAME=minio.ADMIN, BENCH_PASSWORD=password)
        bare = Minio(server.url.partition("//")[2], minio.ADMIN, password, secure=False, region="us-east-1")
        value = {
            "endpoint": server.url,
            "access_key": {"from_env": "BENCH_NAME"},
            "secret_key": {"from_env": "BENCH_PASSWORD"},
        }
        try:
            async with daemon.client() as client:
                await client.put_setting("storage.target", "main", {"value": value}, wait="Ready", wait_s=60)
                yield World(daemon, client, bare, server)
        finally:
            await daemon.clean_up()
            await server.kill()


def declaration(number: int, days: int = 30) -> dict[str, Any]:
    value = {
        "target": "main",
        "versioning": "enabled",
        "lifecycle": [{"id": "tmp", "prefix": "tmp/", "expire_days": days}],
        "access": "public-read",
    }
    return {"type": "storage.bucket", "name": f"ours-{number:04d}", "value": value}


async def _declared(one: World, figures: Figures) -> None:
    begun = time.perf_counter()
    await asyncio.to_thread(_bare_create, one.bare)
    bare_s = time.perf_counter() - begun
    begun = time.perf_counter()
    await one.client.apply([declaration(number) for number in range(BUCKETS)])
    async with asyncio.timeout(300):
        while await _unready(one.client):
            await asyncio.sleep(0.02)
    took = time.perf_counter() - begun
    note = "bare: minio-py, 16 threads; OpenTofu 63 to 84 s"
    figures.add("declared → all Ready", took, "s", bare=bare_s, most=10.0, note=note)
    figures.add("the same, as a ratio", took, "s", bare=bare_s, most_ratio=4.0)


async def _unready(client: CoreplaneClient) -> bool:
    for phase in ("Pending", "Unknown", "Reconciling", "Stalled"):
        async for _ in client.list_settings(phase=phase):
            return True
    return False


def _bare_create(bare: Minio) -> None:
    rule = Rule(ENABLED, rule_filter=Filter(prefix="tmp/"), rule_id="tmp", expiration=Expiration(days=30))

    def create(number: int) -> None:
        name = f"bare-{number:04d}"
        bare.make_bucket(name)
        bare.set_bucket_versioning(name, VersioningConfig(ENABLED))
        bare.set_bucket_lifecycle(name, LifecycleConfig([rule]))
        bare.set_bucket_policy(name, public(name, write=False).text())

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(create, range(BUCKETS)))


async def _swept(one: World, figures: Figures) -> None:
    """In this process: what the daemon does for a sweep of settings that are as declared."""
    async with backend_of(one.server) as backend:
        wanted = {}
        for number in range(BUCKETS):
            content = declaration(number)
            value = KIND.value.model_validate(content["value"])
            wanted[ExternalId(KIND.setting_type, content["name"])] = KIND.desired(content["name"], value)

        async def sweep() -> None:
            observed = await backend.backend.observe(wanted)
            plans = [KIND.plan(external, desired, observed.get(external), 0.0) for external, desired in wanted.items()]
            assert all(plan.converged for plan in plans)

        async def export() -> None:
            body = await backend.client.admin("GET", "export-bucket-metadata")
            with zipfile.ZipFile(io.BytesIO(body)) as archive:
                assert len([archive.read(entry) for entry in archive.infolist()]) > BUCKETS

        await sweep()
        ours, bare = await _timed(sweep), await _timed(export)
    note = f"bare: one export of all, unpacked; {spread(ours, 'ms')}; OpenTofu 10 to 14 s"
    figures.add("look at all, nothing to do", median(ours), "ms", bare=median(bare), most_ratio=3.0, note=note)


async def _timed(work: Callable[[], Any]) -> list[float]:
    found = []
    for _ in range(SWEEPS):
        begun = time.perf_counter()
        await work()
        found.append((time.perf_counter() - begun) * 1000)
    return found


async def _changed(one: World, figures: Figures) -> None:
    took = []
    for trial in range(TRIALS):
        content = declaration(trial, days=trial + 31)
        begun = time.perf_counter()
        found = await one.client.put_setting(
            content["type"], content["name"], {"value": content["value"]}, wait="Ready", wait_s=30
        )
        assert found["status"]["phase"] == "Ready"
        took.append(time.perf_counter() - begun)
    figures.add("one changed → Ready, longest", max(took), "s", most=0.5, note=spread(took, "s"))


async def _by_hand(one: World, figures: Figures) -> None:
    took = []
    for trial in range(TRIALS):
        name = f"ours-{trial + 20:04d}"
        await asyncio.to_thread(one.bare.set_bucket_versioning, name, VersioningConfig(SUSPENDED))
        begun = time.perf_counter()
        async with asyncio.timeout(60):
            while (await asyncio.to_thread(one.bare.get_bucket_versioning, name)).status != ENABLED:
                await asyncio.sleep(0.01)
        took.append(time.perf_counter() - begun)
    note = spread(took, "s")
    figures.add("versioning off by hand → on again, p90", percentile(took, 90), "s", most=2.0, note=note)


async def _streamed(one: World, figures: Figures) -> None:
    size = STREAMED_MB * 2**20
    one.bare.make_bucket("streams")
    url = f"{one.daemon.url}/v1/tenants/default/objects/main/streams/"
    process = psutil.Process(one.daemon.pid)
    async with aiohttp.ClientSession(url) as http:
        await _up(http, "warm", 32 * 2**20)
        before = process.memory_info().rss
        took: dict[str, tuple[list[float], list[float]]] = {"up": ([], []), "down": ([], [])}
        for _ in range(STREAMS):  # in turns: what else the machine does meets both
            took["up"][0].append(await _up(http, "ours", size))
            took["up"][1].append(await asyncio.to_thread(_bare_up, one.bare, size))
            took["down"][0].append(await asyncio.to_thread(_down, f"{url}ours"))
            took["down"][1].append(await asyncio.to_thread(_bare_down, one.bare))
        grown = (process.memory_info().rss - before) / 1e6
    for what, (ours, bare) in took.items():
        note = f"{STREAMED_MB / median(ours):,.0f} MB/s, bare {STREAMED_MB / median(bare):,.0f} MB/s (minio-py)"
        figures.add(f"{what}", median(ours), "s", bare=median(bare), most_ratio=1 / 0.6, note=note)
    figures.add("memory of the daemon, grown by", grown, "MB", most=64.0)


async def _up(http: aiohttp.ClientSession, key: str, size: int) -> float:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(size // len(CHUNK)):
            yield CHUNK

    begun = time.perf_counter()
    async with http.put(key, data=body(), headers={"Content-Length": str(size)}) as put:
        assert put.status == 200, await put.text()
    return time.perf_counter() - begun


def _down(url: str) -> float:
    """With the library that minio-py reads with."""
    begun = time.perf_counter()
    with urllib3.PoolManager() as pool, pool.request("GET", url, preload_content=False) as response:
        assert response.status == 200
        for _ in response.stream(256 * 1024):
            pass
    return time.perf_counter() - begun


class _Source(io.RawIOBase):
    """So many bytes, made as they are read."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int = -1) -> bytes:
        part = min(self._left, len(CHUNK), size if size >= 0 else self._left)
        self._left -= part
        return CHUNK[:part]


def _bare_up(bare: Minio, size: int) -> float:
    begun = time.perf_counter()
    bare.put_object("streams", "bare", _Source(size), size, part_size=16 * 2**20)  # type: ignore[arg-type]
    return time.perf_counter() - begun


def _bare_down(bare: Minio) -> float:
    begun = time.perf_counter()
    response = bare.get_object("streams", "bare")
    for _ in response.stream(256 * 1024):
        pass
    response.release_conn()
    return time.perf_counter() - begun
