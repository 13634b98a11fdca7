"""Three Kafka nodes as one cluster, each broker and controller: for what one broker can't show.

As with the one of the devstack the plain listener may do everything, and the one with SASL asks who one is. The latter is
advertised at another port than it listens at, so that a test can stand in between (`proxy_ports`).
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from controlplane.devstack import kafka
from controlplane.devstack.backend import Backend, Place
from controlplane.devstack.guardian import Guardian
from controlplane.devstack.ports import LOOPBACK, any_free
from controlplane.devstack.process import PortTaken, Server
from controlplane.devstack.provision import Program
from tests.servers import SharedServer, program_of

NODES = (1, 2, 3)
CLUSTER_ID = "Y29yZXBsYW5lLXRlc3RzMQ"
HEAP = ("-Xms128m -Xmx384m", "-Xms96m -Xmx192m")


class KafkaCluster(SharedServer):
    """All three for the whole run. `url` is that of the first; `bootstrap` names all of them."""

    def __init__(self, folder: Path, guardian: Guardian) -> None:
        self.nodes: dict[int, Server] = {}
        self.proxy_ports: dict[int, int] = {}
        """Node → where clients of its SASL listener are sent."""
        super().__init__(partial(self._all, folder, guardian))

    @property
    def bootstrap(self) -> str:
        """Of the listeners that let everybody in."""
        return ",".join(f"{LOOPBACK}:{node.place.port}" for node in self.nodes.values())

    def sasl_port(self, node: int) -> int:
        """Where its SASL listener really is."""
        return kafka.sasl_port(self.nodes[node].place)

    async def kill_node(self, node: int) -> None:
        """SIGKILL."""
        await asyncio.to_thread(self.do, self.nodes[node].kill())

    async def start_node(self, node: int) -> None:
        """It goes on with its directory and port."""
        await asyncio.to_thread(self.do, self.nodes[node].start())

    def end(self) -> None:
        for node in NODES[1:]:
            self.do(self.nodes[node].kill())
        super().end()

    async def _all(self, folder: Path, guardian: Guardian) -> Server:
        """None of them answers before there are enough: they start together, and anew when a port was lost."""
        program = await program_of(kafka.KAFKA)
        while True:
            self.nodes = dict(zip(NODES, _servers(folder, program, guardian, self.proxy_ports), strict=True))
            starting = [asyncio.ensure_future(node.start()) for node in self.nodes.values()]
            outcomes = await asyncio.gather(*starting, return_exceptions=True)
            lost = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
            if not lost:
                return self.nodes[1]
            await asyncio.gather(*(node.kill() for node in self.nodes.values()))
            if not isinstance(lost[0], PortTaken):
                raise lost[0]


def _servers(folder: Path, program: Program, guardian: Guardian, proxy_ports: dict[int, int]) -> list[Server]:
    controllers = {node: any_free() for node in NODES}
    proxy_ports |= {node: any_free() for node in NODES}
    found = []
    for node in NODES:
        prepare = partial(_prepare, node=node, controllers=controllers, proxy_port=proxy_ports[node])
        backend: Backend = replace(kafka.KAFKA, prepare=prepare, command=_command)
        found.append(Server(backend, Place(folder, f"kafka-{node}", any_free()), program, guardian))
    return found


def _prepare(place: Place, *, node: int, controllers: dict[int, int], proxy_port: int) -> None:
    kafka.prepare(place)
    voters = ",".join(f"{number}@{LOOPBACK}:{port}" for number, port in controllers.items())
    text = (place.home / kafka.PROPERTIES).read_text()
    text = re.sub(r"^node.id=.*$", f"node.id={node}", text, flags=re.MULTILINE)
    text = re.sub(r"^controller.quorum.voters=.*$", f"controller.quorum.voters={voters}", text, flags=re.MULTILINE)
    text = re.sub(rf",CONTROLLER://{LOOPBACK}:\d+$", f",CONTROLLER://{LOOPBACK}:{controllers[node]}", text, flags=re.M)
    text = re.sub(r"(replication\.factor)=1$", r"\1=3", text, flags=re.MULTILINE)
    text = re.sub(r"(state\.log\.min\.isr)=1$", r"\1=2", text, flags=re.MULTILINE)
    advertised = f"PLAINTEXT://{LOOPBACK}:{place.port},SASL_PLAINTEXT://{LOOPBACK}:{proxy_port}"
    text = re.sub(r"^advertised.listeners=.*$", f"advertised.listeners={advertised}", text, flags=re.MULTILINE)
    (place.home / kafka.PROPERTIES).write_text(text)
    arguments = place.home / kafka.FORMAT
    if arguments.exists():
        arguments.write_text(re.sub(r"--cluster-id=[^\"]+", f"--cluster-id={CLUSTER_ID}", arguments.read_text()))


def _command(place: Place, program: Path) -> list[str]:
    return [part.replace(*HEAP) for part in kafka.command(place, program)]


class FailingNetwork:
    """Stands before the SASL listeners of a cluster, reads the requests that pass, and fails at the one that is chosen.

    `fail(key, when)`: at the next request of this kind every connection ends, before the brokers have got it or after they
    have answered it, and nobody gets in any more until `open` is set.
    """

    def __init__(self, cluster: KafkaCluster) -> None:
        self._cluster = cluster
        self._listeners: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._chosen: tuple[int, str] | None = None
        self.passed: list[int] = []
        """Kinds of the requests that the brokers got."""
        self.failed = asyncio.Event()
        self.refused = asyncio.Event()
        """Somebody came while it was closed."""
        self.open = asyncio.Event()
        self.open.set()

    def fail(self, key: int, when: str) -> None:
        """Arm it."""
        self._chosen = (key, when)

    async def __aenter__(self) -> Self:
        for node, port in self._cluster.proxy_ports.items():
            serve = partial(self._serve, self._cluster.sasl_port(node))
            self._listeners.append(await asyncio.start_server(serve, LOOPBACK, port))
        return self

    async def __aexit__(self, *_: object) -> None:
        for listener in self._listeners:
            listener.close()
        connections = set(self._connections)
        for connection in connections:
            connection.cancel()
        if connections:
            await asyncio.wait(connections)
        for listener in self._listeners:
            await listener.wait_closed()

    async def _serve(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: Any = asyncio.current_task()
        self._connections.add(task)
        try:
            if not self.open.is_set():
                self.refused.set()
                return
            await self._joined(port, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            """One of the two sides is gone, or the test has ended."""
        finally:
            self._connections.discard(task)
            writer.close()

    async def _joined(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests one after the other, as a client sends them that waits for its answers."""
        server, to_server = await asyncio.open_connection(LOOPBACK, port)
        try:
            while True:
                request = await _frame(reader)
                key = int.from_bytes(request[4:6], "big")
                chosen = self._chosen if self._chosen is not None and self._chosen[0] == key else None
                if not self.open.is_set() or (chosen is not None and chosen[1] == "before"):
                    break
                to_server.write(request)
                answer = await _frame(server)
                self.passed.append(key)
                if chosen is not None or not self.open.is_set():
                    break
                writer.write(answer)
            if chosen is not None:
                self._chosen = None
                self.open.clear()
                self.failed.set()
                for connection in self._connections - {asyncio.current_task()}:
                    connection.cancel()
        finally:
            to_server.close()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size, "big"))
