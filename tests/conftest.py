"""Fixtures for all tests: real servers by the devstack, the order of the suites, and what fails a run."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.client.http import CoreplaneClient
from controlplane.devstack import kafka_program, provision, stack
from controlplane.devstack.backend import Backend, Place
from controlplane.devstack.guardian import Guardian
from controlplane.devstack.kafka import KAFKA
from controlplane.devstack.memcached import MEMCACHED
from controlplane.devstack.ports import LOOPBACK, any_free
from controlplane.devstack.process import PortTaken, Server
from controlplane.devstack.progress import silent
from controlplane.devstack.redis import REDIS

SUITES = ("unit", "architecture", "contract", "simulation", "integration", "e2e")
"""Fast ones first: a mistake shows early."""


# --- what a run is -----------------------------------------------------------------------------------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        suite = item.path.relative_to(Path(__file__).parent).parts[0]
        return SUITES.index(suite) if suite in SUITES else len(SUITES)

    items.sort(key=rank)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """A test that doesn't run proves nothing: leaving one out fails the run."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"left out, which counts as failed: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
async def no_task_is_left_behind() -> AsyncIterator[None]:
    """Every background task of a test has ended with it."""
    before = asyncio.all_tasks()
    yield
    left = [task for task in asyncio.all_tasks() - before if not task.done() and task is not asyncio.current_task()]
    assert left == [], "tasks were left behind"


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
    """The program of every backend, found or installed once per run."""

    async def find(backend: Backend) -> provision.Program:
        machine = provision.this_machine()
        environment = {k: v for k, v in machine.environment.items() if k != backend.recipe.url_variable}
        ours = provision.Machine(environment, machine.cache_dir, machine.privileged)
        found = await provision.provision(backend.recipe, ours, tell)
        assert isinstance(found, provision.Program)
        return found

    def tell(part: str, message: str, *, done: bool = False) -> None:
        print(f"{part}: {message}")

    async def find_all() -> dict[str, provision.Program]:
        backends = [backend for chosen in stack.BACKENDS.values() for backend in chosen]
        return {backend.name: await find(backend) for backend in backends}

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


@pytest.fixture
async def memcached_server(
    tmp_path: Path, programs: dict[str, provision.Program], guardian: Guardian
) -> AsyncIterator[RealServer]:
    """A fresh Memcached of 64 MB."""
    server = await started(MEMCACHED, tmp_path, programs["memcached"], guardian)
    yield RealServer(server)
    await server.kill()  # nothing of it is kept


class SharedServer:
    """A server for the whole run, shared by tests that keep out of each other's way. Whoever stops it starts it again.

    It lives in an event loop of its own, in a thread: those of the tests come and go.
    """

    def __init__(self, start: Callable[[], Awaitable[Server]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: Server = self.wait(start())
        self.url = self._server.url
        self.place = self._server.place

    @property
    def pid(self) -> int:
        return self._server.pid

    def wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def kill(self) -> None:
        """SIGKILL."""
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._server.kill(), self._loop))

    async def stop(self) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop))

    async def start(self) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._server.start(), self._loop))

    def end(self) -> None:
        self.wait(self._server.kill())  # nothing of it is kept
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory, guardian: Guardian) -> Iterator[SharedServer]:
    """One broker for the run; every test has topics under a prefix of its own."""
    folder = tmp_path_factory.mktemp("kafka")

    async def start() -> Server:
        machine = provision.this_machine()
        environment = {k: v for k, v in machine.environment.items() if k != kafka_program.URL_VARIABLE}
        ours = provision.Machine(environment, machine.cache_dir, machine.privileged)
        program = await kafka_program.provide(ours, silent)
        assert isinstance(program, provision.Program)
        return await started(KAFKA, folder, program, guardian)

    server = SharedServer(start)
    yield server
    server.end()


async def started(
    backend: Backend, folder: Path, program: provision.Program, guardian: Guardian, *extra: str
) -> Server:
    """On a free port; on another one when somebody is faster."""
    while True:
        place = Place(folder / "devstack", backend.name, any_free())
        server = Server(backend, place, program, guardian, extra=extra)
        try:
            await server.start()
        except PortTaken:
            continue
        return server


# --- the daemon (fixtures of the whole system) -----------------------------------------------------------------------------


class DaemonProcess:
    """A `coreplane serve` of its own. `restart` and `start` go on with the same data directory and port."""

    def __init__(self, data_dir: Path, content: dict[str, Any]) -> None:
        self.data_dir = data_dir
        self.url = ""
        self._content = content
        self._process: asyncio.subprocess.Process | None = None
        data_dir.mkdir(parents=True, exist_ok=True)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self, **environment: str) -> None:
        """Start it and wait until it is ready; what it says before that is the failure's message."""
        config = self.data_dir / "coreplane.yaml"
        http = {"http": {"port": int(self.url.rpartition(":")[2]) if self.url else 0}}
        config.write_text(yaml.safe_dump({"data_dir": str(self.data_dir), **http, **self._content}))
        log = self.data_dir / "daemon.log"
        with log.open("ab") as sink:
            begun = sink.tell()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "controlplane", "serve", "--config", str(config)),
                stdout=sink,
                stderr=sink,
                env={**os.environ, **environment},
            )
        async with asyncio.timeout(60):
            while not (found := re.search(rb"is ready at (\S+)", log.read_bytes()[begun:])):
                assert self._process.returncode is None, log.read_text()[-4000:]
                await asyncio.sleep(0.02)
        self.url = found[1].decode()

    async def kill(self) -> None:
        """SIGKILL."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM; its exit code must be 0."""
        if self._process is not None:
            assert await self._end(signal.SIGTERM) == 0, (self.data_dir / "daemon.log").read_text()[-4000:]

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    def client(self, **options: Any) -> CoreplaneClient:
        """A client of it; use it as a context."""
        return CoreplaneClient(self.url, **options)

    async def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        assert process is not None
        if process.returncode is None:
            process.send_signal(number)
        async with asyncio.timeout(30):
            return await process.wait()

    async def clean_up(self) -> None:
        if self._process is not None:
            await self.stop()


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[DaemonProcess]:
    """The whole daemon on the embedded log, with nothing declared."""
    process = DaemonProcess(tmp_path / "coreplane", {"runtime": {"backoff_cap_s": 2.0}})
    await process.start()
    yield process
    await process.clean_up()
