"""A world for simulations: a server that can fail in every way, a service that drives it, and a process that can die.

Time is virtual (looptime): an hour of backoff costs milliseconds. Everything random comes from one seed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import looptime

from controlplane.config import RuntimeConfig
from controlplane.domain.fold import Verdict
from controlplane.domain.status import KeyStatus
from controlplane.log import codec
from controlplane.log.memory import MemoryLog
from controlplane.log.ports import Commit, Indeterminate, LogUnavailable, Place, Stream
from controlplane.runtime.catalogue import Catalogue
from controlplane.runtime.controller import Controller
from controlplane.runtime.ownership import always
from controlplane.runtime.replica import Replica
from controlplane.runtime.secrets import EnvironmentSecrets
from controlplane.runtime.statuses import StatusView
from controlplane.runtime.supervisor import Supervisor
from controlplane.telemetry.metrics import Metrics
from reconcilers.contract import (
    NOTHING_TOLD,
    SUCCEEDED,
    Affected,
    BackendError,
    Connection,
    Discovered,
    ExternalId,
    Fence,
    Hint,
    Kind,
    Measurement,
    NotSent,
    Operation,
    Outcome,
    Plan,
    Result,
    Service,
    Step,
    TransientError,
    Unreachable,
    failed,
    unknown,
)
from reconcilers.discovery import matches
from tests.simulation.items import CreateItem, DropItem, EmptyItem, Item, ItemTarget, ResizeItem, plan

LANDING_S = 4.0
"""Longest time the server takes to land a request nobody waits for any more."""

CONFIG = RuntimeConfig(backoff_cap_s=30.0, sweep_s=60.0, sample_s=60.0)


@dataclass
class Faults:
    """Probabilities, per call."""

    unreachable: float = 0.0
    silent: float = 0.0
    refused: float = 0.0
    lost_reply: float = 0.0
    """The effect happens, late, and nobody hears of it."""
    slow_s: float = 0.0
    observing_s: float = 0.0
    """Every observation takes so long."""
    applying_s: float = 0.0
    """Every step takes so long after it was sent."""
    last_landing_s: float = 0.0
    """The last request of a step takes so long to land, and nobody hears of it."""


@dataclass
class Server:
    """The backend: objects, and everything that was ever done to them."""

    rng: random.Random
    faults: Faults = field(default_factory=Faults)
    objects: dict[str, int] = field(default_factory=dict)
    effects: list[tuple[float, str, str]] = field(default_factory=list)
    sent: list[tuple[float, str]] = field(default_factory=list)
    """When a request was written, and by which process."""
    second_creates: list[str] = field(default_factory=list)
    up: bool = True
    run_id: int = 0
    observations: int = 0
    landing: set[asyncio.Task[None]] = field(default_factory=set)
    hints: asyncio.Queue[Hint | BackendError] = field(default_factory=lambda: asyncio.Queue(100))
    closed: int = 0
    dead_urls: set[str] = field(default_factory=set)
    bugs: set[str] = field(default_factory=set)
    """Calls of the backend that raise what no backend may raise."""

    def bug(self, call: str) -> None:
        if call in self.bugs:
            msg = f"bug in {call}"
            raise ValueError(msg)

    def land(self, step: Step) -> None:
        name = step.external.name
        self.effects.append((asyncio.get_running_loop().time(), step.name, name))
        match step:
            case CreateItem(size=size):
                if name in self.objects:
                    self.second_creates.append(name)
                self.objects[name] = size
            case ResizeItem(size=size):
                if name in self.objects:
                    self.objects[name] = size
            case DropItem():
                self.objects.pop(name, None)
            case EmptyItem():
                pass

    def land_later(self, step: Step, delay_s: float) -> None:
        async def landing() -> None:
            await asyncio.sleep(delay_s)
            self.land(step)

        task = asyncio.get_running_loop().create_task(landing())
        self.landing.add(task)
        task.add_done_callback(self.landing.discard)

    def restart(self, *, empty: bool) -> None:
        self.run_id += 1
        if empty:
            self.objects.clear()

    async def trouble(self) -> None:
        if not self.up or self.rng.random() < self.faults.unreachable:
            raise Unreachable("connection refused")
        if self.rng.random() < self.faults.silent:
            await asyncio.Event().wait()
        if self.faults.slow_s:
            await asyncio.sleep(self.rng.random() * self.faults.slow_s)


class SimBackend:
    """The service's only I/O, on the server above."""

    def __init__(self, server: Server, process: str = "") -> None:
        self._server = server
        self._process = process
        self._closed = False

    @property
    def incarnation(self) -> str:
        self._server.bug("incarnation")
        return str(self._server.run_id)

    def unsupported(self, setting_type: str) -> str | None:
        return None

    async def observe(self, wanted: Mapping[ExternalId, Any]) -> Mapping[ExternalId, Any]:
        await self._server.trouble()
        self._server.bug("observe")
        await asyncio.sleep(self._server.faults.observing_s)
        if self._closed:
            msg = "closed"
            raise Unreachable(msg)
        self._server.observations += 1
        return {x: self._server.objects[x.name] for x in wanted if x.name in self._server.objects}

    async def apply(self, steps: Sequence[Step], fence: Fence) -> Sequence[Outcome]:
        outcomes = [await self._apply(step, fence) for step in steps]
        return outcomes[1:] if "outcomes" in self._server.bugs else outcomes

    async def _apply(self, step: Step, fence: Fence) -> Outcome:
        server = self._server
        try:
            await server.trouble()
        except Unreachable as exc:
            return failed(exc)
        if server.rng.random() < server.faults.refused:
            return failed(TransientError("busy"))
        try:
            fence.check()
        except NotSent:
            return Outcome(Result.NOT_SENT)
        server.sent.append((asyncio.get_running_loop().time(), self._process))
        if server.rng.random() < server.faults.lost_reply:
            server.land_later(step, server.rng.random() * LANDING_S)
            return unknown(Unreachable("no reply"))
        await asyncio.sleep(server.faults.applying_s)
        if server.faults.last_landing_s:
            server.land_later(step, server.faults.last_landing_s)
            await asyncio.Event().wait()
        server.land(step)
        return SUCCEEDED

    async def weigh(self, steps: Sequence[Step]) -> Sequence[Affected]:
        await self._server.trouble()
        self._server.bug("weigh")
        held = [self._server.objects.get(step.external.name) for step in steps]
        return [NOTHING_TOLD if size is None else Affected({"units": size}, at_least=size > 100) for size in held]

    async def discover(self, setting_type: str, match: str) -> Sequence[Discovered]:
        await self._server.trouble()
        self._server.bug("discover")
        meant = [name for name in self._server.objects if matches(name, match)]
        return [Discovered(name, {"size": self._server.objects[name]}) for name in meant]

    async def sample(self) -> Sequence[Measurement]:
        await self._server.trouble()
        self._server.bug("sample")
        return [Measurement("objects", len(self._server.objects))]

    async def hints(self) -> AsyncIterator[Hint]:
        while True:
            self._server.bug("hints")
            hint = await self._server.hints.get()
            if isinstance(hint, BackendError):
                raise hint
            yield hint

    async def close(self) -> None:
        self._closed = True
        self._server.closed += 1


def service(server: Server, planner: Callable[..., Plan] = plan, more: Mapping[str, Any] | None = None) -> Service:
    async def connect(connection: Connection) -> SimBackend:
        await server.trouble()
        return SimBackend(server)

    kind: Kind[Item, int, int] = Kind(
        "mesh.item",
        Item,
        identify=lambda name, value: value.item or name,
        desired=lambda name, value: value.size,
        plan=planner,
        requires=lambda value: value.needs,
    )
    return Service(
        "mesh",
        (replace(kind, **(more or {})),),
        ItemTarget,
        connect,
        landing_s=LANDING_S,
        observe_timeout_s=5.0,
        effect_timeout_s=5.0,
        batch=50,
    )


class VirtualClock:
    """The loop's virtual time, as wall clock too; `jump_s` makes the wall clock jump."""

    def __init__(self) -> None:
        self.jump_s = 0.0

    def now(self) -> float:
        return 1_800_000_000.0 + self.jump_s + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Mortal:
    """A shard writer whose process can be dead: then nothing it does has an effect, and no call returns."""

    def __init__(self, writer: Any, life: Life) -> None:
        self._writer = writer
        self._life = life

    async def commit(self, commit: Commit) -> Any:
        await self._life.call("commit")
        faults = self._life.log_faults
        if faults.rng.random() < faults.unavailable:
            raise LogUnavailable("disk full")
        stored = await self._writer.commit(commit)
        await asyncio.sleep(faults.rng.random() * faults.answer_s)
        if self._life.silent_after in {event.headers["type"] for event in commit.events}:
            self._life.answered.clear()
        await self._life.answered.wait()
        if faults.rng.random() < faults.indeterminate:
            raise Indeterminate("no reply")
        await self._life.call("committed")
        return stored

    async def close(self) -> None:
        await self._writer.close()


@dataclass
class LogFaults:
    rng: random.Random
    unavailable: float = 0.0
    indeterminate: float = 0.0
    answer_s: float = 0.0
    """Answers take up to so long."""


@dataclass
class Life:
    """One life of the process: it dies at its `dies_at`-th call of a port."""

    log_faults: LogFaults
    dies_at: int | None = None
    calls: int = 0
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """Not set: nothing passes between the process and the log, and nobody says so."""

    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Not set: commits land, but the process isn't told yet."""
    silent_after: str = ""
    """Type of the event after whose commit nothing is answered any more."""

    def __post_init__(self) -> None:
        self.heard.set()
        self.answered.set()

    async def call(self, what: str) -> None:
        self.calls += 1
        await self.heard.wait()
        if self.dies_at is not None and self.calls >= self.dies_at:
            self.dead.set()
        if self.dead.is_set():
            await asyncio.Event().wait()


class MortalJournal:
    """The journal, as one life of the process sees it."""

    def __init__(self, journal: Any, life: Life, taken: Callable[[int], None]) -> None:
        self._journal = journal
        self._life = life
        self._taken = taken
        self.shards = journal.shards

    async def open_shard(self, shard: int) -> Mortal:
        await self._life.call("open")
        writer = await self._journal.open_shard(shard)
        self._taken(shard)
        return Mortal(writer, self._life)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)


class MortalServer(SimBackend):
    """The backend, as one life of the process sees it: dying before or after the effect are both possible."""

    def __init__(self, server: Server, life: Life, process: str) -> None:
        super().__init__(server, process)
        self._life = life

    async def apply(self, steps: Sequence[Step], fence: Fence) -> Sequence[Outcome]:
        await self._life.call("apply")
        outcomes = await super().apply(steps, fence)
        await self._life.call("applied")
        return outcomes


class World:
    """One log, one server, and a process that is started, killed and started again."""

    def __init__(self, seed: int, *, shards: int = 4, beside: World | None = None, name: str = "a") -> None:
        """`beside`: another process over the same log and server."""
        self.rng = beside.rng if beside else random.Random(seed)
        self.log = beside.log if beside else MemoryLog(shards=shards)
        self.server = beside.server if beside else Server(self.rng)
        self.takes: list[tuple[float, int, str]] = beside.takes if beside else []
        """When a shard was taken, and by which process."""
        self.name = name
        self.clock = VirtualClock()
        self.log_faults = LogFaults(self.rng)
        self.planner: Callable[..., Plan] = plan
        self.kind: dict[str, Any] = {}
        self.operations: tuple[Operation, ...] = ()
        self.requests = 0
        self.may_take: Callable[[int], Awaitable[bool]] = always
        """Anything else makes this process one of several."""

    async def start(self, *, dies_at: int | None = None, own: Collection[int] | None = None) -> None:
        self.life = Life(self.log_faults, dies_at)
        self.metrics = Metrics()
        journal: Any = MortalJournal(self.log.journal, self.life, self._taken)
        spec = service(self.server, self.planner, self.kind)
        life, server, name = self.life, self.server, self.name

        async def connect(connection: Connection) -> MortalServer:
            await server.trouble()
            server.bug("connect")
            if connection.value.url in server.dead_urls:
                raise Unreachable("nothing there")
            return MortalServer(server, life, name)

        spec = Service(
            **{name: getattr(spec, name) for name in spec.__slots__}
            | {"connect": connect, "operations": self.operations}
        )
        self.replica = Replica(self.log.settings, self.clock, self.metrics)
        await self.replica.catch_up()
        self.statuses = StatusView(self.log.journal)
        self.supervisor = Supervisor(self.metrics)
        self.supervisor.start("replica", self.replica.run)
        self.supervisor.start("statuses", self.statuses.run)
        self.catalogue = Catalogue({"mesh": spec}, self.clock)
        self.controller = Controller(
            self.replica,
            journal,
            self.statuses,
            self.catalogue,
            secrets=EnvironmentSecrets(Path("/nonexistent"), b"key"),
            clock=self.clock,
            metrics=self.metrics,
            config=CONFIG,
            may_take=self.may_take,
        )
        await self.controller.start()
        await self.controller.own(range(journal.shards) if own is None else own)

    def _taken(self, shard: int) -> None:
        self.takes.append((self.clock.monotonic(), shard, self.name))

    async def stop(self) -> None:
        await self.controller.stop()
        await self.supervisor.stop()

    async def kill(self) -> None:
        """End the process without its having a say: from here on none of its calls has an effect."""
        self.life.dead.set()
        await self.controller._loop_supervisor.stop()
        await self.controller._supervisor.stop()
        await self.supervisor.stop()

    # --- what a user does ----------------------------------------------------------------------------------------------

    async def submit(self, *changes: dict[str, Any]) -> Verdict:
        self.requests += 1
        return await self.replica.submit(list(changes), actor="user", request_id=f"request-{self.name}-{self.requests}")

    async def declare_target(self, name: str = "main", url: str = "sim:") -> None:
        await self.submit(declare(f"default/mesh.target/{name}", {"url": url}))

    async def declare(self, name: str, size: int, target: str = "main", **more: Any) -> Verdict:
        body = {field_: more.pop(field_) for field_ in ("policy", "depends_on", "labels") if field_ in more}
        value = {"target": target, "size": size, **more}
        return await self.submit(declare(f"default/mesh.item/{name}", value, **body))

    async def retire_target(self, name: str = "main") -> None:
        await self.submit({"op": "retire", "key": f"default/mesh.target/{name}"})

    async def retire(self, name: str, deletion: str | None = None) -> Verdict:
        return await self.submit({"op": "retire", "key": f"default/mesh.item/{name}", "deletion": deletion})

    # --- what can be seen ----------------------------------------------------------------------------------------------

    def status(self, name: str) -> KeyStatus:
        found = self.statuses.get(f"default/mesh.item/{name}")
        assert found is not None, f"{name} has no status"
        return found

    async def types_of(self, name: str, since: int = 0) -> list[str]:
        """Event types of one item, from the so-manieth on."""
        key = f"default/mesh.item/{name}"
        return [e["event_type"] for e in await self.events() if e["setting"] == key][since:]

    def phase(self, name: str) -> str:
        status = self.statuses.get(f"default/mesh.item/{name}")
        return "" if status is None else str(status.phase)

    def reason(self, name: str) -> str:
        status = self.statuses.get(f"default/mesh.item/{name}")
        ready = None if status is None else status.condition("Ready")
        return "" if ready is None else ready.reason

    def declared(self) -> dict[str, int]:
        """External name → size of every declared, unretired item."""
        items = {}
        for key, entry in self.replica.state.entries.items():
            if "/mesh.item/" in key and not entry.retiring:
                value = entry.body["value"]
                items[value.get("item") or key.rpartition("/")[2]] = value["size"]
        return items

    def settled(self) -> bool:
        """Everything declared is Ready, the server holds exactly that, and nothing is under way."""
        entries = self.replica.state.entries
        for key, entry in entries.items():
            status = self.statuses.get(key)
            if entry.retiring or status is None or not status.holds("Ready"):
                return False
            if status.converged_generation != entry.generation or status.intent is not None:
                return False
        return self.server.objects == self.declared() and not self.server.landing

    async def until(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        deadline = self.clock.monotonic() + within_s
        while not condition():
            assert self.clock.monotonic() < deadline, f"not within {within_s} s: {what}\n{self.describe()}"
            await asyncio.sleep(0.05)

    async def until_settled(self, within_s: float = 600.0) -> None:
        await self.until(self.settled, within_s, "settled")

    def describe(self) -> str:
        lines = [f"server {self.server.objects}", f"declared {self.declared()}"]
        for key, entry in self.replica.state.entries.items():
            status = self.statuses.get(key)
            lines.append(f"{key} rev {entry.revision} retiring {entry.retiring} {status}")
        return "\n".join(lines)

    async def events(self) -> list[dict[str, Any]]:
        """Every event of the journal, shard by shard."""
        found = []
        for shard in range(self.log.journal.shards):
            position = 0
            while entries := await self.log.journal.read(Place(Stream.EVENTS, shard), position):
                found += [codec.decode(entry.data) for entry in entries if entry.data is not None]
                position = entries[-1].offset + 1
        return found


def declare(key: str, value: dict[str, Any], **body: Any) -> dict[str, Any]:
    """A declare change as the API makes it."""
    return {"op": "declare", "key": key, "body": {"value": value, "labels": {}, "depends_on": [], "policy": {}} | body}


def simulate(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario in virtual time; a crash of any task fails it."""
    loop = looptime.patch_event_loop(asyncio.new_event_loop(), start=0)
    problems: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))
    try:
        loop.run_until_complete(scenario())
    finally:
        rest = asyncio.all_tasks(loop)
        for task in rest:
            task.cancel()
        if rest:
            loop.run_until_complete(asyncio.wait(rest))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    assert not problems, problems


def check_intents(events: Sequence[Mapping[str, Any]], *, open_allowed: int = 0) -> None:
    """Every effect has its committed start and exactly one end, and what it is for was announced before; no event id
    appears twice."""
    ids = [event["id"] for event in events]
    assert len(ids) == len(set(ids)), "an event id appears twice"
    started = {e["id"] for e in events if e["event_type"] == "ActionStarted"}
    ends = [
        e["causation_id"] for e in events if e["event_type"] in ("ActionSucceeded", "ActionFailed", "ActionUnknown")
    ]
    assert len(ends) == len(set(ends)), "an action ended twice"
    assert set(ends) <= started, "an end without a start"
    assert len(started - set(ends)) <= open_allowed, f"actions without an end: {len(started - set(ends))}"
    announced: set[str] = set()
    for event in events:
        if event["event_type"] in ("SettingAccepted", "SettingRetired"):
            announced.add(event["id"])
        if event["event_type"] == "ActionStarted":
            assert event["causation_id"] in announced, f"acted before it was announced: {event}"
