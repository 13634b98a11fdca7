"""Where MinIO comes from: which provider is asked, and what is said when there is none.

Go and MinIO are small shell scripts; the real ones are driven by the integration tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controlplane.devstack import golang, minio_program
from controlplane.devstack.minio_program import MODULE, VERSION, built_path, provide
from controlplane.devstack.progress import DevstackError
from controlplane.devstack.provision import Given, Machine, Program

SERVER = 'echo "minio version DEVELOPMENT.GOGET (commit-id=x)"; echo "Runtime: go1.26.8"'


@dataclass
class World:
    """A machine with nothing on it but the usual programs of a shell, and a Go."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    @property
    def machine(self) -> Machine:
        goroot = {"GOROOT": str(self.root / "go")}
        path = {"PATH": f"{self.root / 'bin'}:/usr/bin:/bin"}
        return Machine({**path, **goroot, **self.environment}, self.root / "cache", privileged=False)

    def program(self, path: Path, body: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    def go(self, version: str = "go1.26.8", build: str = "") -> None:
        """Puts a MinIO where it is told to, and writes down what it was asked for."""
        script = f"""\
if [ "$1" = version ]; then echo "go version {version} linux/amd64"; exit 0; fi
echo "$@" >> {self.root}/asked
i=0; while [ $i -lt 260 ]; do echo "example.org/package/$i"; i=$((i+1)); done
{build}
printf '#!/bin/sh\\n%s\\n' '{SERVER}' > "$GOBIN/minio" && chmod +x "$GOBIN/minio" """
        self.program(self.root / "go" / "bin" / "go", script)

    def tell(self, part: str, message: str, *, done: bool = False) -> None:
        self.told.append(message)

    async def provide(self) -> Program | Given:
        return await provide(self.machine, self.tell)


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World(tmp_path)
    found.go()
    return found


async def test_a_given_url_is_taken_as_it_is(world: World):
    world.environment["COREPLANE_MINIO_URL"] = "https://s3.example"
    assert await world.provide() == Given("https://s3.example")


async def test_a_minio_on_the_path_is_taken_and_nothing_is_built(world: World):
    own = world.program(world.root / "bin" / "minio", SERVER)
    assert await world.provide() == Program(own, "DEVELOPMENT.GOGET", "PATH")
    assert not (world.root / "asked").exists()


async def test_a_home_that_holds_none_is_refused_by_its_variable(world: World):
    world.environment["COREPLANE_MINIO_HOME"] = str(world.root / "nowhere")
    with pytest.raises(DevstackError, match="holds no minio") as caught:
        await world.provide()
    assert "COREPLANE_MINIO_HOME" in caught.value.hint


async def test_it_is_built_once_at_the_pinned_version_and_then_found(world: World):
    first = await world.provide()
    second = await world.provide()
    assert (
        first
        == second
        == Program(built_path(world.machine), "DEVELOPMENT.GOGET", str(built_path(world.machine).parent))
    )
    assert (world.root / "asked").read_text() == f"install -v {MODULE}@{VERSION}\n"
    assert "building: 250 packages compiled" in world.told
    assert [path.name for path in built_path(world.machine).parents[1].iterdir() if path.is_dir()] == [VERSION]


async def test_a_broken_one_in_the_cache_is_built_anew(world: World):
    world.program(built_path(world.machine), "exit 1")
    assert isinstance(await world.provide(), Program)
    assert (world.root / "asked").exists()


async def test_a_build_that_fails_says_why_and_what_to_do_and_leaves_nothing(world: World):
    world.go(build="echo 'no space left on device'; exit 1")
    with pytest.raises(DevstackError, match="no space left on device") as caught:
        await world.provide()
    assert "go install" in caught.value.hint
    assert "COREPLANE_MINIO_URL" in caught.value.hint
    assert [path.name for path in built_path(world.machine).parents[1].iterdir() if path.is_dir()] == []


async def test_a_go_that_is_too_old_is_passed_over_for_the_next_provider(world: World, monkeypatch: pytest.MonkeyPatch):
    world.go(version="go1.19.8")
    monkeypatch.setattr(golang, "CHAIN", golang.CHAIN[:1])
    with pytest.raises(DevstackError, match=r"is version 1\.19, older than 1\.24"):
        await world.provide()


async def test_a_go_that_is_named_is_preferred(world: World):
    assert await golang.find_go(world.machine, world.tell) == world.root / "go" / "bin" / "go"
    assert minio_program.NAME not in world.told
