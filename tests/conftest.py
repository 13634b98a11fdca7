"""Fixtures for all tests: real servers by the devstack, the order of the suites, and what fails a run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from controlplane.devstack import provision, stack
from controlplane.devstack.elasticsearch import ELASTICSEARCH
from controlplane.devstack.guardian import Guardian
from controlplane.devstack.kafka import KAFKA
from controlplane.devstack.memcached import MEMCACHED
from controlplane.devstack.minio import MINIO
from controlplane.devstack.ports import LOOPBACK
from controlplane.devstack.process import Server
from controlplane.devstack.redis import REDIS
from tests.kafka_cluster import KafkaCluster
from tests.secured_servers import SecuredElasticsearch, SecuredKafka, secured_elasticsearch_in, secured_kafka_in
from tests.servers import DaemonProcess, SharedServer, elasticsearch_in, kafka_in, minio_in, program_of, started

SUITES = ("unit", "architecture", "contract", "simulation", "integration", "e2e")
"""Fast ones first: a mistake shows early."""


settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

SHARED = {
    "kafka_broker": KAFKA,
    "kafka_cluster": KAFKA,
    "secured_kafka": KAFKA,
    "secured_elasticsearch": ELASTICSEARCH,
    "elasticsearch_server": ELASTICSEARCH,
    "minio_server": MINIO,
    "minio_program": MINIO,
}
"""Fixture → the server that it starts."""

CLOSING_S = 5.0
"""Until a server has closed what a client has: by TLS that ends when both have."""

# --- what a run is -----------------------------------------------------------------------------------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        suite = item.path.relative_to(Path(__file__).parent).parts[0]
        return SUITES.index(suite) if suite in SUITES else len(SUITES)

    items.sort(key=rank)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have what the tests need before the first begins: building a server takes longer than a test may."""
    if session.config.option.collectonly:
        return
    used = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    for fixture, backend in SHARED.items():
        if fixture in used:
            asyncio.run(program_of(backend))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """A test that doesn't run proves nothing: leaving one out fails the run."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"left out, which counts as failed: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
async def nothing_is_left_behind() -> AsyncIterator[None]:
    """Every background task of a test has ended with it, and every connection is closed, or is within `CLOSING_S`."""
    before = asyncio.all_tasks()
    yield
    left = [task for task in asyncio.all_tasks() - before if not task.done() and task is not asyncio.current_task()]
    assert left == [], "tasks were left behind"
    deadline = time.monotonic() + CLOSING_S
    while (still := connections()) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert still == [], "connections were left open"


def connections() -> list[str]:
    """Those of this loop that are open: asyncio says so only when they are collected, which may be in another test."""
    transports: Mapping[int, asyncio.Transport] = asyncio.get_running_loop()._transports
    return [
        f"{one.get_extra_info('sockname')} to {one.get_extra_info('peername')}: {one.get_protocol()}"
        for one in list(transports.values())
        if one is not None and not one.is_closing()
    ]


# --- backends ------------------------------------------------------------------------------------------------------------


class RealServer:
    """A server for one test. `restart` comes back on the same port, with the same directory."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.host = LOOPBACK
        self.port = server.place.port
        self.url = server.url

    @property
    def pid(self) -> int:
        return self._server.pid

    async def kill(self) -> None:
        """SIGKILL."""
        await self._server.kill()

    async def stop(self) -> None:
        await self._server.stop()

    async def restart(self) -> None:
        await self._server.restart()


@pytest.fixture(scope="session")
def guardian() -> Iterator[Guardian]:
    """Ends the servers even when the test run is killed."""
    with Guardian() as guardian:
        yield guardian


@pytest.fixture(scope="session")
def programs() -> dict[str, provision.Program]:
    """The program of every backend, found or installed once per run; not of those that come later."""

    async def find_all() -> dict[str, provision.Program]:
        backends = [backend for chosen in stack.BACKENDS.values() for backend in chosen if not backend.later]
        return {backend.name: await program_of(backend) for backend in backends}

    return asyncio.run(find_all())


@pytest.fixture
async def redis_server(
    tmp_path: Path, programs: dict[str, provision.Program], guardian: Guardian
) -> AsyncIterator[RealServer]:
    """A fresh Redis: `default` may do everything without a password, CONFIG REWRITE and ACL SAVE work, DEBUG is allowed."""
    server = await started(REDIS, tmp_path, programs["redis"], guardian, "--enable-debug-command", "local")
    yield RealServer(server)
    await server.kill()  # nothing of it is kept


@pytest.fixture
async def second_redis_server(
    tmp_path: Path, programs: dict[str, provision.Program], guardian: Guardian
) -> AsyncIterator[RealServer]:
    """Another one, for targets of several nodes."""
    server = await started(REDIS, tmp_path / "second", programs["redis"], guardian)
    yield RealServer(server)
    await server.kill()


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory, guardian: Guardian) -> Iterator[SharedServer]:
    """One broker for the run; every test has topics under a prefix of its own. Whoever stops it starts it again."""
    server = kafka_in(tmp_path_factory.mktemp("kafka"), guardian)
    yield server
    server.end()


@pytest.fixture(scope="session")
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory, guardian: Guardian) -> Iterator[KafkaCluster]:
    """Three brokers for the run. Whoever stops one starts it again."""
    cluster = KafkaCluster(tmp_path_factory.mktemp("kafka-cluster"), guardian)
    yield cluster
    cluster.end()


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory, guardian: Guardian) -> Iterator[SecuredKafka]:
    """One broker for the run that is reached by TLS, too. Nobody stops it."""
    secured = secured_kafka_in(tmp_path_factory.mktemp("secured-kafka"), guardian)
    yield secured
    secured.server.end()


@pytest.fixture(scope="session")
def secured_elasticsearch(
    tmp_path_factory: pytest.TempPathFactory, guardian: Guardian
) -> Iterator[SecuredElasticsearch]:
    """One node for the run that speaks TLS only; as `elasticsearch_server` else. Nobody stops it."""
    secured = secured_elasticsearch_in(tmp_path_factory.mktemp("secured-elasticsearch"), guardian)
    yield secured
    secured.server.end()


@pytest.fixture(scope="session")
def elasticsearch_server(tmp_path_factory: pytest.TempPathFactory, guardian: Guardian) -> Iterator[SharedServer]:
    """One node for the run, with security on: `devstack.elasticsearch.credentials(server.place)` log in. Every test has
    indices, users and roles under a prefix of its own. Whoever stops it starts it again."""
    server = elasticsearch_in(tmp_path_factory.mktemp("elasticsearch"), guardian)
    yield server
    server.end()


@pytest.fixture(scope="session")
def minio_program() -> provision.Program:
    """MinIO, for tests that start one of their own."""
    return asyncio.run(program_of(MINIO))


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory, guardian: Guardian) -> Iterator[SharedServer]:
    """One MinIO for the run; every test has buckets and users under a prefix of its own."""
    server = minio_in(tmp_path_factory.mktemp("minio"), guardian)
    yield server
    server.end()


@pytest.fixture
async def own_minio(tmp_path: Path, guardian: Guardian, minio_program: provision.Program) -> AsyncIterator[Server]:
    """A MinIO for one test, which may kill it and start it again."""
    server = await started(MINIO, tmp_path / "own", minio_program, guardian)
    yield server
    await server.kill()


@pytest.fixture
async def memcached_server(
    tmp_path: Path, programs: dict[str, provision.Program], guardian: Guardian
) -> AsyncIterator[RealServer]:
    """A fresh Memcached of 64 MB."""
    server = await started(MEMCACHED, tmp_path, programs["memcached"], guardian)
    yield RealServer(server)
    await server.kill()  # nothing of it is kept


# --- the daemon (fixtures of the whole system) -----------------------------------------------------------------------------


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[DaemonProcess]:
    """The whole daemon on the embedded log, with nothing declared."""
    process = DaemonProcess(tmp_path / "coreplane", {"runtime": {"backoff_cap_s": 2.0}})
    await process.start()
    yield process
    await process.clean_up()
