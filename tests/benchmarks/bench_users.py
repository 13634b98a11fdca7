"""A thousand Redis users: declared, swept, changed by hand, changed by their owner. Run by `all.py`.

Each round has a fresh Redis and a fresh daemon in processes of their own. The bare client does the same work with redis-py
and nothing else: it lets the server canonicalise the rules, compares, sets what differs and reads it back.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

import psutil
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from controlplane.client.http import CoreplaneClient
from controlplane.devstack.guardian import Guardian
from controlplane.devstack.redis import REDIS
from schemas.names import parse_timestamp
from tests.benchmarks.figures import Figures, Stopwatch, median, percentile, spread
from tests.servers import DaemonProcess, program_of, started

USERS = 1_000
ROUNDS = 3
TRIALS = 12
WATCHED_S = 15.0
"""For so long idle sweeps are watched."""
INVALIDATIONS = 100
TARGET = {"type": "cache.target", "name": "redis"}
SCRATCH = "scratch"
ADMINISTERING = {"acl|setuser", "acl|deluser", "acl|load", "acl|save", "client|kill"}
ADMINISTERING |= {"config|set", "config|rewrite", "config|resetstat", "eval", "evalsha", "fcall"}
"""Commands that may have an effect and that Redis does not count among those that write."""
WATCHED_DAEMON = (str(Path(__file__).with_name("watched_daemon.py")),)


async def run(figures: Figures) -> None:
    rounds: list[dict[str, Any]] = []
    for number in range(ROUNDS):
        async with world() as one:
            figures.console.print(f"[dim]{USERS:,} Redis users, round {number + 1} …")
            rounds.append(await _declared(one))
            if number == ROUNDS - 1:
                _tell_declared(figures, rounds)
                await _by_hand(one, figures)
                await _invalidated(one, figures)
                await _swept(one, figures)
                await _changed_meanwhile(one, figures)


def users(commands: list[str]) -> list[dict[str, Any]]:
    return [declaration(number, commands) for number in range(USERS)]


def declaration(number: int, commands: list[str]) -> dict[str, Any]:
    value = {
        "target": "redis",
        "passwords": [{"from_env": "BENCH_PASSWORD"}],
        "commands": commands,
        "keys": [f"shop:{number}:*", f"%R~shared:{number % 10}:*"],
        "channels": [f"news:{number}"],
    }
    return {"type": "cache.redis_user", "name": user(number), "value": value, "labels": {"team": "shop"}}


def user(number: int) -> str:
    return f"user-{number:04d}"


# --- the world -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class World:
    """One daemon, one Redis, their clients."""

    daemon: DaemonProcess
    client: CoreplaneClient
    redis: Redis
    at_start_mb: float = 0.0

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.daemon.pid)

    def rss_mb(self) -> float:
        return self.process.memory_info().rss / 1e6

    def cpu_s(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system

    async def again(self, **runtime: float) -> None:
        """Start the daemon anew, with other settings."""
        await self.client.close()
        await self.daemon.stop()
        self.daemon.content["runtime"] = runtime
        await self.daemon.start(BENCH_PASSWORD="storefront")
        self.client = self.daemon.client()
        await self.all_ready()

    async def all_ready(self) -> None:
        """Until none has another phase; then all are looked at."""
        async with asyncio.timeout(120):
            for phase in ("Pending", "Unknown", "Reconciling"):
                while await self._some(phase):
                    await asyncio.sleep(0.02)
        phases = [s["status"]["phase"] async for s in self.client.list_settings()]
        assert set(phases) == {"Ready"}, set(phases)

    async def _some(self, phase: str) -> bool:
        async for _ in self.client.list_settings(phase=phase, page=1):
            return True
        return False

    async def metrics(self, *names: str) -> list[float]:
        """The daemon's own, summed over their labels."""
        text = await asyncio.to_thread(lambda: urlopen(f"{self.daemon.url}/metrics", timeout=10).read().decode())
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        return [sum(s.value for s in samples if s.name == name) for name in names]

    async def blocked(self) -> list[dict[str, Any]]:
        """The longest callbacks of the daemon's event loop since this was asked last."""
        path = self.daemon.data_dir / "blocked.json"
        path.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(10):
            while not path.exists():
                await asyncio.sleep(0.01)
        return list(json.loads(path.read_text()))


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        guardian = stack.enter_context(Guardian())
        server = await started(REDIS, folder, await program_of(REDIS), guardian)
        stack.push_async_callback(server.kill)
        content = {"telemetry": {"log_level": "info"}, "runtime": {}}
        daemon = DaemonProcess(folder / "coreplane", content, WATCHED_DAEMON)
        await daemon.start(BENCH_PASSWORD="storefront")
        stack.push_async_callback(daemon.clean_up)
        one = World(daemon, daemon.client(), Redis.from_url(server.url, decode_responses=True))
        one.at_start_mb = one.rss_mb()
        await one.client.apply([{**TARGET, "value": {"kind": "redis", "url": server.url}}])
        await one.all_ready()
        try:
            yield one
        finally:
            await one.client.close()
            one.redis.close()


# --- declared ------------------------------------------------------------------------------------------------------------


async def _declared(one: World) -> dict[str, Any]:
    declarations = users(["+@read", "+@write", "-@dangerous"])
    bare_names = [f"bare-{user(number)}" for number in range(USERS)]
    with Stopwatch() as bare:
        bare_converge(one.redis, dict(zip(bare_names, map(rules, declarations), strict=True)))
    with Stopwatch() as bare_again:
        differing = bare_converge(one.redis, dict(zip(bare_names, map(rules, declarations), strict=True)))
    assert not differing
    one.redis.acl_deluser(*bare_names)
    await asyncio.sleep(2)  # the daemon notices the bare client's changes; not now
    await one.blocked()
    cpu_s, begun = one.cpu_s(), time.perf_counter()
    await one.client.apply(declarations)
    answered = time.perf_counter() - begun
    await one.all_ready()
    took, cpu_s = time.perf_counter() - begun, one.cpu_s() - cpu_s
    longest = (await one.blocked())[0]
    assert len(one.redis.acl_users()) == USERS + 2
    return {
        "ready_s": took,
        "answered_s": answered,
        "cpu_s": cpu_s,
        "bare_s": bare.wall_s,
        "bare_sweep_ms": bare_again.wall_s * 1000,
        "bare_sweep_cpu_ms": bare_again.cpu_s * 1000,
        "blocked_ms": longest["wall_ms"],
        "blocked_cpu_ms": longest["cpu_ms"],
        "start_mb": one.at_start_mb,
        "rss_mb": one.rss_mb(),
        "blocked_by": longest["what"],
    }


def rules(declared: dict[str, Any]) -> list[str]:
    value = declared["value"]
    keys = [key if key.startswith("%") else f"~{key}" for key in value["keys"]]
    return [*value["commands"], *keys, *(f"&{channel}" for channel in value["channels"])]


def bare_converge(redis: Redis, wanted: dict[str, list[str]]) -> list[str]:
    """The least that makes it so: who differs after canonicalising by the server is set, and read back."""
    listed = {line.split(" ", 2)[1]: line for line in redis.acl_list()}
    pipe = redis.pipeline(transaction=False)
    for asked in wanted.values():
        pipe.execute_command("ACL", "SETUSER", SCRATCH, "reset", *asked, "off")
        pipe.execute_command("ACL", "GETUSER", SCRATCH)
    pipe.execute_command("ACL", "DELUSER", SCRATCH)
    canonical = pipe.execute()[1::2]
    differing = [
        name for name, form in zip(wanted, canonical, strict=True) if str(form["commands"]) not in listed.get(name, "")
    ]
    if differing:
        for name in differing:
            pipe.execute_command("ACL", "SETUSER", name, "reset", *wanted[name], ">storefront", "on")
        pipe.execute()
        redis.acl_list()
    return differing


def _tell_declared(figures: Figures, rounds: list[dict[str, Any]]) -> None:
    def of(name: str) -> Any:
        return [one[name] for one in rounds]

    figures.group(f"{USERS:,} Redis users, medians of {ROUNDS} rounds")
    bare = median(of("bare_s"))
    figures.add("declared → all Ready", median(of("ready_s")), "s", bare=bare, most=5, note=spread(of("ready_s"), "s"))
    figures.add("  the daemon's CPU for it", median(of("cpu_s")), "s")
    figures.add("  apply answered (own fold)", median(of("answered_s")), "s")
    worst = max(rounds, key=lambda one: one["blocked_ms"])
    note = f"CPU {worst['blocked_cpu_ms']:.0f} ms, {worst['blocked_by']}"
    figures.add("  longest callback of the event loop", median(of("blocked_ms")), "ms", most=100, note=note)
    figures.add("daemon's memory at its start", median(of("start_mb")), "MB")
    figures.add(f"daemon's memory with {USERS:,} settings", median(of("rss_mb")), "MB", most=120)


# --- idle sweeps ---------------------------------------------------------------------------------------------------------


async def _swept(one: World, figures: Figures) -> None:
    """CPU between two daemons, one that sweeps each second and one that never does."""
    await one.again(sweep_s=3600.0)
    await asyncio.sleep(3)
    idle_cpu_s = await _cpu_of_idling(one)
    await one.again(sweep_s=1.0)
    await asyncio.sleep(3)
    before = await one.metrics("coreplane_sweep_seconds_count", "coreplane_sweep_seconds_sum")
    calls = commands(one.redis)
    cpu_s = await _cpu_of_idling(one)
    after = await one.metrics("coreplane_sweep_seconds_count", "coreplane_sweep_seconds_sum")
    writes = {name: count - calls.get(name, 0) for name, count in commands(one.redis).items()}
    writes = {name: count for name, count in writes.items() if count and _writes(one.redis, name)}
    sweeps = after[0] - before[0]
    wanted = {user(n): rules(declaration(n, ["+@read", "+@write", "-@dangerous"])) for n in range(USERS)}
    bares = []
    for _ in range(5):
        with Stopwatch() as bare:
            assert not bare_converge(one.redis, wanted)
        bares.append(bare)
    figures.add(
        f"idle sweep, wall (of {sweeps:.0f})",
        (after[1] - before[1]) / sweeps * 1000,
        "ms",
        bare=median([bare.wall_s for bare in bares]) * 1000,
        most_ratio=3,
    )
    figures.add(
        "idle sweep, CPU",
        max(0.0, cpu_s - idle_cpu_s) / sweeps * 1000,
        "ms",
        bare=median([bare.cpu_s for bare in bares]) * 1000,
        most_ratio=3,
        note=f"beside {idle_cpu_s / WATCHED_S * 1000:.0f} ms/s of an idle daemon",
    )
    figures.add("  commands that write, meanwhile", sum(writes.values()), "", most=0, note=str(writes or ""))


def _writes(redis: Redis, command: str) -> bool:
    flags = redis.execute_command("COMMAND", "INFO", command)
    row = next(iter(flags.values())) if isinstance(flags, dict) else flags[0]
    found = {str(flag) for flag in row["flags"]}
    return command in ADMINISTERING or not found.isdisjoint({"write", "may_replicate"})


async def _cpu_of_idling(one: World) -> float:
    begun = one.cpu_s()
    await asyncio.sleep(WATCHED_S)
    return one.cpu_s() - begun


def commands(redis: Redis) -> dict[str, int]:
    found: dict[str, dict[str, Any]] = redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(row["calls"]) for name, row in found.items()}


# --- changes -------------------------------------------------------------------------------------------------------------


async def _by_hand(one: World, figures: Figures) -> None:
    """Somebody gives a user more rights: how long until the event says so, and until they are gone."""
    noticed, repaired = [], []
    events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    following = asyncio.create_task(_follow(one.client, events))
    await asyncio.sleep(0.5)
    for _ in range(TRIALS):
        await asyncio.sleep(random.uniform(1.0, 2.0))
        name = user(random.randrange(USERS))
        before = one.redis.acl_getuser(name)
        begun_at, begun = time.time(), time.perf_counter()
        one.redis.execute_command("ACL", "SETUSER", name, "+flushall")
        await _until(lambda name=name, before=before: one.redis.acl_getuser(name) == before)  # type: ignore[misc]
        repaired.append((time.perf_counter() - begun) * 1000)
        async with asyncio.timeout(10):
            while not (event := await events.get())["setting"].endswith(name):
                pass
        noticed.append((parse_timestamp(event["timestamp"]) - begun_at) * 1000)
    following.cancel()
    await asyncio.wait({following})
    for what, times in (("noticed", noticed), ("repaired", repaired)):
        most = 1500 if what == "noticed" else None
        figures.add(f"changed by hand → {what}, p50", median(times), "ms")
        figures.add(f"changed by hand → {what}, longest", max(times), "ms", most=most, note=spread(times, "ms"))


async def _follow(client: CoreplaneClient, events: asyncio.Queue[dict[str, Any]]) -> None:
    async for event in client.stream(event_type="DriftDetected"):
        events.put_nowait(event.data)


async def _changed_meanwhile(one: World, figures: Figures) -> None:
    """A user's change while the target is swept without pause."""
    await one.again(sweep_s=0.01)
    acted, ready = [], []
    for trial in range(TRIALS):
        await asyncio.sleep(random.uniform(0.1, 0.4))
        changed = declaration(trial, ["+@read", "+@write", "-@dangerous", "+ping"])
        changed = {**changed, "value": {**changed["value"], "keys": [f"moved:{trial}:{time.time_ns()}:*"]}}
        before = one.redis.acl_getuser(user(trial))
        body = {name: changed[name] for name in ("value", "labels")}
        begun = time.perf_counter()
        put = asyncio.create_task(one.client.put_setting("cache.redis_user", user(trial), body, wait="Ready"))
        await _until(lambda trial=trial, before=before: one.redis.acl_getuser(user(trial)) != before)  # type: ignore[misc]
        acted.append((time.perf_counter() - begun) * 1000)
        assert (await put)["status"]["phase"] == "Ready"
        ready.append((time.perf_counter() - begun) * 1000)
    figures.add("a user's change during a sweep → acted, p50", median(acted), "ms")
    figures.add(
        "a user's change during a sweep → acted, longest", max(acted), "ms", most=1000, note=spread(acted, "ms")
    )
    figures.add("a user's change during a sweep → Ready, p50", median(ready), "ms")


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.002)


# --- operations ----------------------------------------------------------------------------------------------------------


async def _invalidated(one: World, figures: Figures) -> None:
    """One key of a namespace; beside two commits and an UNLINK, which is what is recorded and done."""
    value = {"prefix": "shop:", "layers": [{"target": "redis", "ttl_s": 60}]}
    await one.client.put_setting("cache.namespace", "shop", {"value": value}, wait="Ready")
    body = {"namespace": "shop", "keys": ["one"]}
    times = await _timed(lambda: one.client.operate("cache.invalidate", body))
    with TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, body TEXT)")

        async def bare() -> None:
            connection.execute("INSERT INTO events (body) VALUES ('started')")
            one.redis.unlink("shop:one")
            connection.execute("INSERT INTO events (body) VALUES ('succeeded')")

        bares = await _timed(bare)
        connection.close()
    figures.add(
        "cache.invalidate over HTTP, p50", median(times), "ms", bare=median(bares), note="bare: 2 commits, UNLINK"
    )
    figures.add("cache.invalidate over HTTP, p99", percentile(times, 99), "ms", bare=percentile(bares, 99))


async def _timed(call: Callable[[], Awaitable[object]]) -> list[float]:
    times = []
    for _ in range(INVALIDATIONS):
        begun = time.perf_counter()
        await call()
        times.append((time.perf_counter() - begun) * 1000)
    return times
