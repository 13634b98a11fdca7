"""Servers for somebody without root: downloaded and unpacked for real, with the libraries that the system lacks."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from controlplane.devstack import provision
from controlplane.devstack.backend import Backend, Place
from controlplane.devstack.guardian import Guardian
from controlplane.devstack.memcached import MEMCACHED
from controlplane.devstack.ports import any_free
from controlplane.devstack.process import Server
from controlplane.devstack.progress import silent
from controlplane.devstack.provision import Machine
from controlplane.devstack.redis import REDIS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

STATUS = Path("/var/lib/dpkg/status")
ABSENT = {"redis-server", "redis-tools", "liblzf1", "memcached"}
"""Nothing else of a usual system needs them."""


@pytest.fixture
def bare_machine(tmp_path: Path) -> Machine:
    """This machine as it would be without our packages, for somebody who isn't root."""
    stanzas = STATUS.read_text(encoding="utf-8").split("\n\n")
    kept = [stanza for stanza in stanzas if stanza.partition("\n")[0].removeprefix("Package: ") not in ABSENT]
    (tmp_path / "status").write_text("\n\n".join(kept), encoding="utf-8")
    (tmp_path / "apt.conf").write_text(f'Dir::State::status "{tmp_path / "status"}";\n', encoding="utf-8")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("apt-get", "dpkg-deb"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    environment = {"PATH": str(tools), "HOME": str(tmp_path), "APT_CONFIG": str(tmp_path / "apt.conf")}
    return Machine(environment, tmp_path / "cache", privileged=False)


@pytest.mark.parametrize(("backend", "library"), [(REDIS, "liblzf.so.1"), (MEMCACHED, "")], ids=["redis", "memcached"])
async def test_a_downloaded_server_runs_with_what_was_downloaded(
    tmp_path: Path, bare_machine: Machine, guardian: Guardian, backend: Backend, library: str
):
    program = await provision.provision(backend.recipe, bare_machine, silent)
    assert isinstance(program, provision.Program)
    root = bare_machine.cache_dir / backend.name
    assert program.path.is_relative_to(root)
    server = Server(backend, Place(tmp_path / "data", backend.name, any_free()), program, guardian)
    await server.start()
    mapped = [mapping.path for mapping in psutil.Process(server.pid).memory_maps()]
    await server.kill()
    assert [path for path in mapped if Path(path).name.startswith(library) and path.startswith(str(root))]
    assert await provision.provision(backend.recipe, bare_machine, silent) == program
