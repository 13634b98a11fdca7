"""All backends of some services, started together and stopped together.

Some backends come later: MinIO is built from source once per machine, Elasticsearch takes its time to start. Nobody waits
for them. Their address is chosen at once, so that their targets can be declared with the others'; `arrivals` says when one
has come, and then its target is declared again, since its port may have been taken meanwhile. One that can't be had says
why, and everything else runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

from controlplane.devstack import elasticsearch_program, kafka_program, minio_program, shop
from controlplane.devstack.backend import Backend, Place
from controlplane.devstack.elasticsearch import ELASTICSEARCH
from controlplane.devstack.guardian import Guardian
from controlplane.devstack.kafka import KAFKA
from controlplane.devstack.memcached import MEMCACHED
from controlplane.devstack.minio import MINIO
from controlplane.devstack.ports import PortBook
from controlplane.devstack.process import PortTaken, Server
from controlplane.devstack.progress import DevstackError, Progress
from controlplane.devstack.provision import Given, Machine, Program, provision, this_machine
from controlplane.devstack.redis import REDIS

BACKENDS: Final[Mapping[str, tuple[Backend, ...]]] = MappingProxyType(
    {
        "cache": (REDIS, MEMCACHED),
        "queue": (KAFKA,),
        "storage": (MINIO,),
        "search": (ELASTICSEARCH,),
    }
)
"""Service → what it runs on."""
PROVIDERS: Final[Mapping[str, Callable[[Machine, Progress], Awaitable[Program | Given]]]] = MappingProxyType(
    {"elasticsearch": elasticsearch_program.provide, "kafka": kafka_program.provide, "minio": minio_program.provide}
)
"""Backends whose program isn't a package of the system."""
PORT_TRIES: Final = 5
"""A port that was free a moment ago may be taken by the time the server binds it."""


class Stack:
    """A context: inside it the backends run, and are started again when they end by themselves.

    `services` empty means all. `infrastructure`: what runs for the daemon itself and is no service's target; it is always
    waited for. Entering raises DevstackError (with a hint) when a backend can't be had, unless it comes later; nothing
    runs then.
    """

    def __init__(
        self,
        data_dir: Path,
        services: Sequence[str],
        progress: Progress,
        machine: Machine | None = None,
        *,
        infrastructure: Sequence[Backend] = (),
    ) -> None:
        self._data_dir = data_dir.resolve()
        self._chosen = _chosen(services)
        self._all = {backend.name: backend for backend in (*infrastructure, *(b for _, b in self._chosen))}
        self._later = [b for _, b in self._chosen if b.later and b not in infrastructure]
        self._progress = progress
        self._machine = machine if machine is not None else this_machine()
        self._ports = PortBook(self._data_dir)
        self._guardian = Guardian()
        self._servers: dict[str, Server] = {}
        self._given: dict[str, str] = {}
        self._expected: dict[str, str] = {}
        self._awaited: set[str] = set()
        self._arrived: asyncio.Queue[str] = asyncio.Queue(len(self._all) or 1)
        self._keepers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        shop.make_secrets(self._data_dir)
        self._guardian.__enter__()
        try:
            async with asyncio.TaskGroup() as group:
                for backend in self._all.values():
                    if backend not in self._later:
                        group.create_task(self._bring_up(backend), name=f"start {backend.name}")
        except ExceptionGroup as failed:
            await self._close()
            raise failed.exceptions[0] from failed
        except BaseException:
            await self._close()
            raise
        for name, server in self._servers.items():
            self._attend(server.keep(self._progress), name)
        for backend in self._expect(self._later):
            self._attend(self._bring_up_later(backend), backend.name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    @property
    def services(self) -> frozenset[str]:
        """Those whose backends it runs."""
        return frozenset(service for service, _ in self._chosen)

    def targets(self) -> list[dict[str, Any]]:
        """Declarations of the targets, for the tenant `default`."""
        return [
            {"type": f"{service}.target", "name": backend.declared_as, "value": self._target(backend)}
            for service, backend in self._chosen
        ]

    def targets_of(self, name: str) -> list[str]:
        """The targets, as `type/name`, that are the backend of this name."""
        return [f"{service}.target/{backend.declared_as}" for service, backend in self._chosen if backend.name == name]

    def backends(self) -> list[dict[str, Any]]:
        """What runs where: `{name, url, pid, log}`; without pid and log when it isn't ours or isn't there yet.

        What still comes has `awaited_by` instead, the services that wait for it.
        """
        return [self._told(name) for name in self._all]

    def url(self, name: str) -> str:
        """Where a backend is, or will be."""
        return self._given.get(name) or (self._servers[name].url if name in self._servers else self._expected[name])

    def is_given(self, name: str) -> bool:
        """Whether somebody else runs it."""
        return name in self._given

    async def arrivals(self) -> AsyncIterator[str]:
        """Names of the backends that come later, as they come; without an end."""
        while True:
            yield await self._arrived.get()

    def _told(self, name: str) -> dict[str, Any]:
        server = self._servers.get(name)
        if name in self._awaited:
            return {"name": name, "url": self.url(name), "awaited_by": [s for s, b in self._chosen if b.name == name]}
        if server is None:
            return {"name": name, "url": self.url(name)}
        return {"name": name, "url": server.url, "pid": server.pid, "log": str(server.place.log_path)}

    def _target(self, backend: Backend) -> dict[str, Any]:
        if backend.name in self._given:
            return backend.given_target(self._given[backend.name])
        return backend.target(self.url(backend.name))

    def _expect(self, later: Iterable[Backend]) -> list[Backend]:
        """Choose where they will be; those that somebody else runs are there already."""
        expected = []
        for backend in later:
            given = self._machine.environment.get(backend.recipe.url_variable)
            if given:
                self._take_given(backend, given)
                continue
            port = self._ports.choose(backend.name, backend.preferred_port)
            self._expected[backend.name] = backend.url(port)
            backend.prepare(Place(self._data_dir, backend.name, port))
            self._awaited.add(backend.name)
            expected.append(backend)
        return expected

    async def _bring_up_later(self, backend: Backend) -> None:
        try:
            await self._bring_up(backend)
        except DevstackError as exc:
            hint = f" ({exc.hint})" if exc.hint else ""
            message = f"isn't there, everything else runs: {exc.message}{hint}"
            self._progress(backend.name, message)
            return
        finally:
            self._awaited.discard(backend.name)
        self._arrived.put_nowait(backend.name)
        server = self._servers.get(backend.name)
        if server is not None:
            await server.keep(self._progress)

    def _take_given(self, backend: Backend, url: str) -> None:
        self._given[backend.name] = url
        self._progress(backend.name, f"given: {url}", done=True)

    def _attend(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Have it done in the background, until the end."""
        keeper = asyncio.create_task(work, name=f"keep {name}")
        keeper.add_done_callback(self._tell_bug)
        self._keepers.append(keeper)

    async def _bring_up(self, backend: Backend) -> None:
        begun = time.monotonic()
        found = await provided(backend, self._machine, self._progress)
        if isinstance(found, Given):
            self._take_given(backend, found.url)
            return
        provided_s = time.monotonic() - begun
        self._progress(backend.name, f"starting (program found in {provided_s:.1f} s)")
        server = await self._start(backend, found)
        self._progress(backend.name, f"ready at {server.url} (pid {server.pid})", done=True)

    async def _start(self, backend: Backend, program: Program) -> Server:
        for _ in range(PORT_TRIES):
            port = self._ports.choose(backend.name, backend.preferred_port)
            server = Server(backend, Place(self._data_dir, backend.name, port), program, self._guardian)
            try:
                await server.start()
            except PortTaken as exc:
                self._progress(backend.name, f"port {port} was taken meanwhile: {exc.message.splitlines()[0]}")
            else:
                self._servers[backend.name] = server
                return server
        msg = f"{backend.name} found no port that stayed free in {PORT_TRIES} tries"
        raise DevstackError(msg, "something else on this machine takes ports very quickly")

    async def _close(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        if self._keepers:
            await asyncio.wait(self._keepers)
        await asyncio.gather(*(server.stop() for server in self._servers.values()))
        await asyncio.to_thread(self._guardian.__exit__, None, None, None)

    def _tell_bug(self, keeper: asyncio.Task[None]) -> None:
        if not keeper.cancelled() and keeper.exception() is not None:
            self._progress(keeper.get_name().split()[-1], f"isn't watched any more: {keeper.exception()!r}")


async def provided(backend: Backend, machine: Machine, progress: Progress) -> Program | Given:
    """The backend's program, or the server that a person names. DevstackError with instructions when there is no way."""
    if backend.name in PROVIDERS:
        return await PROVIDERS[backend.name](machine, progress)
    return await provision(backend.recipe, machine, progress)


def _chosen(services: Sequence[str]) -> list[tuple[str, Backend]]:
    unknown = sorted(set(services) - BACKENDS.keys())
    if unknown:
        msg = f"no backends for {', '.join(unknown)}"
        raise DevstackError(msg, f"there are some for {', '.join(sorted(BACKENDS))}")
    return [
        (service, backend)
        for service in BACKENDS
        if not services or service in services
        for backend in BACKENDS[service]
    ]
