"""Where Kafka and its Java come from: which provider is asked, and what is said when there is none.

Java and Maven are small shell scripts; the real ones are driven by the integration tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controlplane.devstack import kafka_program
from controlplane.devstack.commands import run
from controlplane.devstack.kafka_program import provide
from controlplane.devstack.progress import DevstackError
from controlplane.devstack.provision import Given, Machine, Program


@dataclass
class World:
    """A machine with nothing on it but the usual programs of a shell."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    def program(self, path: Path, body: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    def java(self, path: Path, version: str = "21.0.2") -> Path:
        return self.program(path, f'echo \'openjdk version "{version}"\' >&2; echo ran "$@"')

    def libraries(self, folder: Path, version: str) -> Path:
        folder.mkdir(parents=True)
        (folder / f"kafka_2.13-{version}.jar").touch()
        return folder

    def maven(self) -> None:
        """Puts a Kafka where it is told to."""
        script = f"""\
for a in "$@"; do case "$a" in -DoutputDirectory=*) d=${{a#*=}};; esac; done
mkdir -p "$d" && : > "$d/kafka_2.13-{kafka_program.VERSION}.jar"
echo run >> {self.root}/maven"""
        self.program(self.bin / "mvn", script)

    def tell(self, part: str, message: str, *, done: bool = False) -> None:
        self.told.append(message)

    async def provide(self) -> Program | Given:
        environment = {"PATH": f"{self.bin}:/usr/bin:/bin", "JAVA_HOME": str(self.root / "jdk"), **self.environment}
        return await provide(Machine(environment, self.root / "cache", privileged=False), self.tell)


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World(tmp_path)
    found.bin.mkdir()
    found.java(tmp_path / "jdk" / "bin" / "java")
    return found


async def test_a_given_url_is_taken_as_it_is(world: World):
    world.environment["COREPLANE_KAFKA_URL"] = "kafka://one:9092"
    assert await world.provide() == Given("kafka://one:9092")


async def test_given_libraries_are_run_by_the_java_of_java_home(world: World):
    libraries = world.libraries(world.root / "home" / "libs", "3.9.0")
    world.environment["COREPLANE_KAFKA_HOME"] = str(world.root / "home")
    found = await world.provide()
    assert isinstance(found, Program)
    assert found.version == "3.9.0"
    ran = await run([found.path, "kafka.Kafka", "a b"], env={}, timeout_s=5)
    assert ran.told == f"ran -cp {libraries}/* kafka.Kafka a b"


async def test_a_home_without_libraries_is_a_mistake(world: World):
    world.environment["COREPLANE_KAFKA_HOME"] = str(world.root / "nothing")
    with pytest.raises(DevstackError) as caught:
        await world.provide()
    assert "COREPLANE_KAFKA_HOME" in caught.value.hint


async def test_maven_fetches_it_once(world: World):
    world.maven()
    first, second = await world.provide(), await world.provide()
    assert first == second
    assert isinstance(first, Program)
    assert first.version == kafka_program.VERSION
    assert (world.root / "maven").read_text() == "run\n"


async def test_a_download_that_failed_leaves_nothing_that_passes_for_kafka(world: World):
    world.program(world.bin / "mvn", "echo '[ERROR] no such artifact'; exit 1")
    with pytest.raises(DevstackError, match="no such artifact") as caught:
        await world.provide()
    assert "COREPLANE_KAFKA_URL" in caught.value.hint
    world.maven()
    assert isinstance(await world.provide(), Program)


async def test_an_old_java_is_passed_over(world: World):
    world.java(world.root / "jdk" / "bin" / "java", "11.0.1")
    newer = world.java(world.bin / "java", "17.0.9")
    world.maven()
    found = await world.provide()
    assert isinstance(found, Program)
    assert str(newer) in found.path.read_text()
