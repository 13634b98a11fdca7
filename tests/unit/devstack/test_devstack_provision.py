"""Where a program comes from: which provider is asked, in which order, and what is said when there is none.

The programs are small shell scripts; the real package client is driven by the integration tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controlplane.devstack.backend import Recipe
from controlplane.devstack.progress import DevstackError
from controlplane.devstack.provision import Given, Machine, Program, provision

RECIPE = Recipe("redis", "coreplane-test-server", ("package-one", "package-two"))
UNPACKED = "mkdir -p $3/usr/bin && printf '#!/bin/sh\\necho v=7.0.1\\n' > $3/usr/bin/{0} && chmod +x $3/usr/bin/{0}"


@dataclass
class World:
    """A machine with nothing on it. `asked`: what the package client was asked for."""

    root: Path
    privileged: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    @property
    def asked(self) -> str:
        log = self.root / "asked"
        return log.read_text() if log.exists() else ""

    def program(self, path: Path, body: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    def server(self, path: Path, version: str = "7.2.5") -> Path:
        return self.program(path / RECIPE.executable, f"echo server v={version}")

    def package_client(self, install: str) -> None:
        """An apt-get whose `install` runs this; `$deb` is where a download puts an archive."""
        script = f'echo "$@" >> {self.root}/asked\ncase "$*" in *install*) {install};; esac'
        self.program(self.bin / "apt-get", script)
        self.program(self.bin / "dpkg-deb", UNPACKED.format(RECIPE.executable))

    def tell(self, part: str, message: str, *, done: bool = False) -> None:
        self.told.append(message)

    async def provision(self) -> Program | Given:
        environment = {"PATH": str(self.bin), **self.environment}
        return await provision(RECIPE, Machine(environment, self.root / "cache", self.privileged), self.tell)


# What a download leaves: `Dir::Cache::archives=DIR` is among the arguments.
DOWNLOADED = 'for a in "$@"; do case "$a" in Dir::Cache::archives=*) : > "${a#*=}/x_1_all.deb";; esac; done'


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "bin").mkdir()
    return World(tmp_path)


async def test_a_given_url_is_taken_as_it_is(world: World):
    world.server(world.bin)
    world.environment["COREPLANE_REDIS_URL"] = "redis://cache.example:6380"
    assert await world.provision() == Given("redis://cache.example:6380")


@pytest.mark.parametrize("inner", [".", "bin"])
async def test_a_given_home_goes_before_the_path(world: World, inner: str):
    world.server(world.bin, "7.0.0")
    wished = world.server(world.root / "home" / inner, "7.4.1")
    world.environment["COREPLANE_REDIS_HOME"] = str(world.root / "home")
    found = await world.provision()
    assert isinstance(found, Program)
    assert (found.path.resolve(), found.version) == (wished.resolve(), "7.4.1")
    assert found.origin == "COREPLANE_REDIS_HOME"


async def test_a_given_home_without_the_program_is_a_mistake_and_nothing_else_is_tried(world: World):
    world.server(world.bin)
    world.environment["COREPLANE_REDIS_HOME"] = str(world.root / "nowhere")
    with pytest.raises(DevstackError, match="COREPLANE_REDIS_HOME") as failed:
        await world.provision()
    assert "unset" in failed.value.hint


async def test_the_path_goes_before_the_cache_and_installs_nothing(world: World):
    world.package_client("exit 1")
    on_path = world.server(world.bin)
    world.server(world.root / "cache/redis/usr/bin")
    assert await world.provision() == Program(on_path, "7.2.5", "PATH")
    assert world.asked == ""


async def test_the_cache_goes_before_installing_and_brings_its_libraries(world: World):
    world.package_client("exit 1")
    cached = world.server(world.root / "cache/redis/usr/bin")
    library = world.root / "cache/redis/usr/lib/arch/libx.so.1"
    library.parent.mkdir(parents=True)
    library.touch()
    found = await world.provision()
    assert isinstance(found, Program)
    assert (found.path, found.libraries) == (cached, (library.parent,))
    assert world.asked == ""


async def test_root_installs_the_packages(world: World):
    world.privileged = True
    made = f"printf '#!/bin/sh\\necho v=7.0.9\\n' > {world.bin}/{RECIPE.executable}; chmod +x {world.bin}/{RECIPE.executable}"
    world.package_client(f"{made}; touch {world.root}/installed")
    found = await world.provision()
    assert isinstance(found, Program)
    assert (found.version, found.origin) == ("7.0.9", "PATH")
    assert "package-one package-two" in world.asked
    assert "--download-only" not in world.asked
    assert any("installing" in message for message in world.told)


async def test_anybody_else_downloads_and_unpacks_the_packages(world: World):
    world.package_client(DOWNLOADED)
    found = await world.provision()
    assert isinstance(found, Program)
    assert (found.version, found.path) == ("7.0.1", world.root / "cache/redis/usr/bin" / RECIPE.executable)
    assert "--download-only" in world.asked
    again = await world.provision()
    assert again == found
    assert world.asked.count("--download-only") == 1


async def test_root_falls_back_on_downloading_when_the_installation_fails(world: World):
    world.privileged = True
    world.package_client(
        f'case "$*" in *--download-only*) {DOWNLOADED};; *) echo "E: dpkg was interrupted"; exit 100;; esac'
    )
    found = await world.provision()
    assert isinstance(found, Program)
    assert found.version == "7.0.1"


async def test_a_cached_program_that_no_longer_runs_is_fetched_anew(world: World):
    world.package_client(DOWNLOADED)
    world.program(
        world.root / "cache/redis/usr/bin" / RECIPE.executable, "echo 'error while loading libx.so'; exit 127"
    )
    found = await world.provision()
    assert isinstance(found, Program)
    assert found.version == "7.0.1"


async def test_without_any_way_the_person_is_told_what_was_tried_and_what_to_do(world: World):
    with pytest.raises(DevstackError) as failed:
        await world.provision()
    assert "no coreplane-test-server on PATH" in failed.value.message
    assert "no apt-get here" in failed.value.message
    for way in ("apt-get install package-one package-two", "COREPLANE_REDIS_HOME", "COREPLANE_REDIS_URL"):
        assert way in failed.value.hint


async def test_what_the_package_client_says_reaches_the_person(world: World):
    world.package_client('echo "E: Unable to locate package package-one"; exit 100')
    with pytest.raises(DevstackError, match="E: Unable to locate package package-one"):
        await world.provision()
    assert not (world.root / "cache/redis").exists()
