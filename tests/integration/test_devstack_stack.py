"""The whole stack on real servers: start, stop, survive, and leave nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis.asyncio import Redis

from controlplane.devstack import memcached, redis
from controlplane.devstack.ports import LOOPBACK, is_free
from controlplane.devstack.progress import DevstackError, silent
from controlplane.devstack.provision import Machine, this_machine
from controlplane.devstack.stack import Stack

pytestmark = pytest.mark.integration

DEADLINE_S = 30.0
PARENT = """
import asyncio, json, signal, sys
from pathlib import Path
from controlplane.devstack.progress import silent
from controlplane.devstack.stack import Stack
async def main():
    async with Stack(Path(sys.argv[1]), ["cache"], silent) as stack:
        print(json.dumps(stack.backends()), flush=True)
        await asyncio.Event().wait()
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell runs in the background ignores it
asyncio.run(main())
"""


@pytest.fixture
def machine(programs: Any) -> Machine:
    """This machine, servers installed, none given."""
    real = this_machine()
    environment = {name: text for name, text in real.environment.items() if not name.endswith("_URL")}
    return Machine(environment, real.cache_dir, real.privileged)


async def eventually(holds: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0.02)
    assert holds(), what


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def by_name(stack: Stack) -> dict[str, dict[str, Any]]:
    return {backend["name"]: backend for backend in stack.backends()}


async def parent_of_a_stack(data_dir: Path) -> tuple[asyncio.subprocess.Process, dict[str, dict[str, Any]]]:
    """Another process with a stack, and what it runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(data_dir), stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        backends = json.loads(await process.stdout.readline())
    return process, {backend["name"]: backend for backend in backends}


async def test_the_backends_answer_inside_the_context_and_are_gone_after_it(tmp_path: Path, machine: Machine):
    async with Stack(tmp_path, ("cache",), silent, machine) as stack:
        running = by_name(stack)
        ports = {name: int(backend["url"].rpartition(":")[2]) for name, backend in running.items()}
        assert await redis.probe(ports["redis"]) == running["redis"]["pid"]
        assert await memcached.probe(ports["memcached"]) == running["memcached"]["pid"]
        assert "Ready to accept connections" in (tmp_path / "logs/redis.log").read_text()
    assert not any(lives(backend["pid"]) for backend in running.values())


async def test_the_target_of_redis_names_a_user_and_a_password_that_work(tmp_path: Path, machine: Machine):
    async with Stack(tmp_path, ("cache",), silent, machine) as stack:
        declared = {declaration["name"]: declaration for declaration in stack.targets()}
        assert {declaration["type"] for declaration in declared.values()} == {"cache.target"}
        value = declared["redis"]["value"]
        password = (tmp_path / value["password"]["from_file"]).read_text().strip()
        async with Redis.from_url(value["url"], username=value["username"], password=password) as client:
            assert await client.acl_whoami() == "coreplane"
            assert await client.config_rewrite()
            assert await client.acl_save()
        assert password not in json.dumps(stack.targets())


async def test_the_next_run_has_the_same_ports_and_the_same_password(tmp_path: Path, machine: Machine):
    async with Stack(tmp_path, ("cache",), silent, machine) as stack:
        first = stack.targets()
        secret = (tmp_path / "secrets/redis-admin").read_text()
    async with Stack(tmp_path, ("cache",), silent, machine) as stack:
        assert stack.targets() == first
        assert (tmp_path / "secrets/redis-admin").read_text() == secret


async def test_a_taken_port_is_left_to_its_owner(tmp_path: Path, machine: Machine):
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        taken = other.getsockname()[1]
        (tmp_path / "devstack.json").write_text(json.dumps({"ports": {"redis": taken}}))
        async with Stack(tmp_path, ("cache",), silent, machine) as stack:
            chosen = int(by_name(stack)["redis"]["url"].rpartition(":")[2])
            assert chosen != taken
            assert await redis.probe(chosen) == by_name(stack)["redis"]["pid"]


@pytest.mark.parametrize("name", ["redis", "memcached"])
async def test_a_server_that_dies_comes_back_at_its_url(tmp_path: Path, machine: Machine, name: str):
    told: list[str] = []

    def tell(part: str, message: str, *, done: bool = False) -> None:
        told.append(f"{part}: {message}")

    async with Stack(tmp_path, ("cache",), tell, machine) as stack:
        before = by_name(stack)[name]
        os.kill(before["pid"], signal.SIGKILL)
        await eventually(lambda: any("runs again" in line for line in told), f"{name} came back")
        after = by_name(stack)[name]
        assert after["url"] == before["url"]
        assert after["pid"] != before["pid"]
        assert any(line.startswith(name) and "SIGKILL" in line for line in told)


async def test_nothing_outlives_a_parent_that_is_killed(tmp_path: Path, programs: Any):
    process, running = await parent_of_a_stack(tmp_path)
    children = psutil.Process(process.pid).children(recursive=True)
    assert {backend["pid"] for backend in running.values()} < {child.pid for child in children}
    process.kill()
    await process.wait()
    await eventually(lambda: not any(lives(child.pid) for child in children), "servers and guardian ended")
    ports = [int(backend["url"].rpartition(":")[2]) for backend in running.values()]
    await eventually(lambda: all(map(is_free, ports)), "their ports are free again")


async def test_nothing_outlives_a_parent_whose_start_is_killed_at_any_moment(tmp_path: Path, programs: Any):
    for round_number in range(6):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PARENT, str(tmp_path), stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        log = tmp_path / "logs" / ("redis.log" if round_number % 2 else "memcached.log")
        log.unlink(missing_ok=True)
        # The log is made directly before its server is started.
        await eventually(log.exists, "the start of a server")
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        await process.wait()
        await eventually(lambda found=children: not any(lives(child.pid) for child in found), "all ended")
        await eventually(lambda: not running_in(tmp_path), "nothing runs in the data directory")


def running_in(folder: Path) -> list[int]:
    """Servers whose working directory is below this one."""
    processes = [process for process in psutil.process_iter(["cwd"]) if lives(process.pid)]
    return [process.pid for process in processes if (process.info["cwd"] or "").startswith(str(folder))]


async def test_ctrl_c_for_the_whole_group_is_left_to_the_parent(tmp_path: Path, programs: Any):
    process, running = await parent_of_a_stack(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    async with asyncio.timeout(DEADLINE_S):
        await process.wait()
    assert not any(lives(backend["pid"]) for backend in running.values())
    assert "bye bye" in (tmp_path / "logs/redis.log").read_text()


async def test_a_given_server_is_declared_but_not_started(tmp_path: Path, machine: Machine):
    environment = {**machine.environment, "COREPLANE_MEMCACHED_URL": "memcached://cache.example:11211"}
    given = Machine(environment, machine.cache_dir, machine.privileged)
    async with Stack(tmp_path, ("cache",), silent, given) as stack:
        targets = {declaration["name"]: declaration["value"] for declaration in stack.targets()}
        assert targets["memcached"] == {"kind": "memcached", "url": "memcached://cache.example:11211"}
        assert "pid" not in by_name(stack)["memcached"]


async def test_an_unknown_service_is_refused_by_name(tmp_path: Path):
    with pytest.raises(DevstackError, match="no backends for kitchen"):
        Stack(tmp_path, ("kitchen",), silent)


async def test_when_one_backend_cannot_start_the_others_are_stopped_and_its_log_is_shown(
    tmp_path: Path, machine: Machine
):
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis/redis.conf").write_text("no-such-parameter 1\n")
    with pytest.raises(DevstackError, match="no-such-parameter"):
        async with Stack(tmp_path, ("cache",), silent, machine):
            pytest.fail("started all the same")
    assert not running_in(tmp_path)
