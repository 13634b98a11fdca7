"""Real servers and daemons as processes, for tests and benchmarks alike."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from controlplane.client.http import CoreplaneClient
from controlplane.devstack import kafka, provision, stack
from controlplane.devstack.backend import Backend, Place
from controlplane.devstack.elasticsearch import ELASTICSEARCH
from controlplane.devstack.guardian import Guardian
from controlplane.devstack.minio import MINIO
from controlplane.devstack.ports import any_free
from controlplane.devstack.process import PortTaken, Server


async def program_of(backend: Backend) -> provision.Program:
    """The backend's program, found or installed; never somebody else's running server."""
    machine = provision.this_machine()
    environment = {k: v for k, v in machine.environment.items() if k != backend.recipe.url_variable}
    ours = provision.Machine(environment, machine.cache_dir, machine.privileged)
    found = await stack.provided(backend, ours, _tell)
    assert isinstance(found, provision.Program)
    return found


def _tell(part: str, message: str, *, done: bool = False) -> None:
    print(f"{part}: {message}", file=sys.stderr)


def with_environment(backend: Backend, **variables: str) -> Backend:
    """The same with more in the environment of its process."""
    return replace(backend, environment=lambda place: {**backend.environment(place), **variables})


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


SETTLED_S = 90.0
SERVE = ("-m", "controlplane", "serve", "--config")


class DaemonProcess:
    """A `coreplane serve` of its own. `restart` and `start` go on with the same data directory and port."""

    def __init__(self, data_dir: Path, content: dict[str, Any], command: Sequence[str] = SERVE) -> None:
        self.data_dir = data_dir
        self.content = content
        """Of the configuration; what is changed counts from the next start on."""
        self.url = ""
        self._command = command
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
        config.write_text(yaml.safe_dump({"data_dir": str(self.data_dir), **http, **self.content}))
        log = self.data_dir / "daemon.log"
        with log.open("ab") as sink:
            begun = sink.tell()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._command,
                str(config),
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


class SharedServer:
    """A server for the whole run, in an event loop of its own in a thread: those of the tests come and go."""

    def __init__(self, start: Callable[[], Awaitable[Server]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: Server = self._begin(start()).result()
        self.url = self._server.url
        self.place = self._server.place

    @property
    def pid(self) -> int:
        return self._server.pid

    async def kill(self) -> None:
        """SIGKILL."""
        await asyncio.wrap_future(self._begin(self._server.kill()))

    async def stop(self) -> None:
        """SIGTERM."""
        await asyncio.wrap_future(self._begin(self._server.stop()))

    async def start(self) -> None:
        await asyncio.wrap_future(self._begin(self._server.start()))

    async def settled(self, probe: Callable[[int], Awaitable[int]]) -> None:
        """Until it answers the probe: a broker that stood still may be out of its cluster for a while."""
        async with asyncio.timeout(SETTLED_S):
            while True:
                with contextlib.suppress(OSError, EOFError):
                    await probe(self.place.port)
                    return
                await asyncio.sleep(0.05)

    def do(self, work: Any) -> Any:
        """Anything, in the loop of the server, to its end."""
        return self._begin(work).result()

    def end(self) -> None:
        self._begin(self._server.kill()).result()  # nothing of it is kept
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _begin(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop)


def kafka_in(folder: Path, guardian: Guardian, *extra: str) -> SharedServer:
    """A broker that keeps its data in the folder. `extra`: arguments of Kafka itself."""

    async def start() -> Server:
        return await started(kafka.KAFKA, folder, await program_of(kafka.KAFKA), guardian, *extra)

    return SharedServer(start)


def minio_in(folder: Path, guardian: Guardian) -> SharedServer:
    """A MinIO that keeps its data in the folder."""

    async def start() -> Server:
        return await started(MINIO, folder, await program_of(MINIO), guardian)

    return SharedServer(start)


def elasticsearch_in(folder: Path, guardian: Guardian) -> SharedServer:
    """A node that keeps its data in the folder."""

    async def start() -> Server:
        return await started(ELASTICSEARCH, folder, await program_of(ELASTICSEARCH), guardian)

    return SharedServer(start)


@contextlib.asynccontextmanager
async def frozen(broker: SharedServer) -> AsyncIterator[None]:
    """Inside, the broker is stopped: connections stay open, nothing is answered. Afterwards it is one of its cluster again."""
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(broker.pid, signal.SIGCONT)
        await broker.settled(kafka.probe)
