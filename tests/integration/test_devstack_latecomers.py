"""Backends that come later: nobody waits for them, their targets are known at once, and one that never comes harms no other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil
import pytest

from controlplane.devstack import stack as stacks
from controlplane.devstack.memcached import MEMCACHED
from controlplane.devstack.progress import DevstackError
from controlplane.devstack.provision import Machine, Program, provision, this_machine
from controlplane.devstack.redis import REDIS
from controlplane.devstack.stack import Stack

pytestmark = pytest.mark.integration

DEADLINE_S = 60.0
LATE = replace(MEMCACHED, later=True, target_name="main")


class Told:
    """What the stack said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.changed = asyncio.Event()

    def __call__(self, part: str, message: str, *, done: bool = False) -> None:
        self.lines.append(f"{part}: {message}")
        self.changed.set()

    async def until(self, holds: Callable[[str], bool]) -> str:
        async with asyncio.timeout(DEADLINE_S):
            while not (found := [line for line in self.lines if holds(line)]):
                self.changed.clear()
                await self.changed.wait()
        return found[0]


@pytest.fixture
def machine(programs: Any) -> Machine:
    real = this_machine()
    environment = {name: text for name, text in real.environment.items() if not name.endswith("_URL")}
    return Machine(environment, real.cache_dir, real.privileged)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Memcached comes when the gate is opened."""
    opened = asyncio.Event()

    async def provide(machine: Machine, progress: Any) -> Any:
        await opened.wait()
        return await provision(LATE.recipe, machine, progress)

    monkeypatch.setattr(stacks, "BACKENDS", MappingProxyType({"cache": (REDIS, LATE)}))
    monkeypatch.setattr(stacks, "PROVIDERS", {"memcached": provide})
    return opened


@contextlib.asynccontextmanager
async def next_of(arrivals: AsyncIterator[str]) -> AsyncIterator[str]:
    async with asyncio.timeout(DEADLINE_S):
        yield await anext(arrivals)


async def test_nobody_waits_for_it_and_its_target_is_known_from_the_start(
    tmp_path: Path, machine: Machine, gate: asyncio.Event
):
    told = Told()
    async with Stack(tmp_path, (), told, machine) as stack:
        before = {target["name"]: target["value"] for target in stack.targets()}
        assert before["main"]["url"] == stack.url("memcached")
        told_of = {backend["name"]: ("pid" in backend, backend.get("awaited_by")) for backend in stack.backends()}
        assert told_of == {"redis": (True, None), "memcached": (False, ["cache"])}
        assert stack.targets_of("memcached") == ["cache.target/main"]
        gate.set()
        async with next_of(stack.arrivals()) as name:
            assert name == "memcached"
        assert {target["name"]: target["value"] for target in stack.targets()} == before
        pid = next(backend["pid"] for backend in stack.backends() if backend["name"] == "memcached")
        psutil.Process(pid).kill()
        await told.until(lambda line: line.startswith("memcached: runs again"))


async def test_one_that_cannot_be_had_says_so_and_everything_else_runs(
    tmp_path: Path, machine: Machine, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
):
    async def provide(_machine: Machine, _progress: Any) -> Program:
        msg = "can't build it: no network"
        raise DevstackError(msg, "set COREPLANE_MEMCACHED_URL")

    monkeypatch.setattr(stacks, "PROVIDERS", {"memcached": provide})
    told = Told()
    async with Stack(tmp_path, (), told, machine) as stack:
        line = await told.until(lambda line: line.startswith("memcached"))
        assert "everything else runs" in line
        assert "no network (set COREPLANE_MEMCACHED_URL)" in line
        assert psutil.pid_exists(next(b["pid"] for b in stack.backends() if b["name"] == "redis"))
        assert len(stack.targets()) == 2
        assert not any("awaited_by" in one for one in stack.backends()), "nobody waits for it any more"


async def test_the_end_of_the_stack_ends_the_waiting_for_it(tmp_path: Path, machine: Machine, gate: asyncio.Event):
    async with Stack(tmp_path, (), Told(), machine) as stack:
        assert "pid" not in stack.backends()[1]
    assert not gate.is_set()


async def test_one_that_somebody_else_runs_is_declared_at_once(tmp_path: Path, machine: Machine, gate: asyncio.Event):
    environment = {**machine.environment, "COREPLANE_MEMCACHED_URL": "memcached://cache.example:11211"}
    given = Machine(environment, machine.cache_dir, machine.privileged)
    async with Stack(tmp_path, (), Told(), given) as stack:
        values = {target["name"]: target["value"] for target in stack.targets()}
        assert values["main"]["url"] == "memcached://cache.example:11211"
