"""Where Kafka comes from: a given server, given libraries, the cache, Maven's repository.

Kafka has no package in Debian. Its libraries are artifacts of Maven's central repository, so Maven fetches them: 46 files,
44 MB, with their checksums. What is run is a launcher of ours, beside the libraries: it hands its arguments to Java with
the libraries on the class path.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
from pathlib import Path
from typing import Final

from controlplane.devstack import apt
from controlplane.devstack.commands import run
from controlplane.devstack.java import find_java
from controlplane.devstack.progress import DevstackError, Progress
from controlplane.devstack.provision import Given, Machine, Missing, Program, exclusively

NAME: Final = "kafka"
VERSION: Final = "4.3.1"
URL_VARIABLE: Final = "COREPLANE_KAFKA_URL"
HOME_VARIABLE: Final = "COREPLANE_KAFKA_HOME"
MAVEN_S: Final = 600.0
POM: Final = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>coreplane.devstack</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""
_SERVER = re.compile(r"kafka_2\.\d+-(\d+\.\d+\.\d+)\.jar")


async def provide(machine: Machine, progress: Progress) -> Program | Given:
    """A server's URL, or a launcher. DevstackError with instructions when there is no way."""
    url = machine.environment.get(URL_VARIABLE)
    if url:
        return Given(url)
    java = await find_java(machine, progress)
    libraries, origin = await _libraries(machine, progress)
    version = version_of(libraries)
    if version is None:
        msg = f"{libraries} holds no kafka_2.13-*.jar"
        raise DevstackError(msg, f"correct or unset {HOME_VARIABLE}")
    progress(NAME, f"{version} from {origin}, {java}")
    return Program(_launcher(machine.cache_dir / NAME, java, libraries), version, origin)


def version_of(libraries: Path) -> str | None:
    """Which Kafka this directory holds; None when it holds none."""
    found = [match[1] for path in libraries.glob("kafka_2.*.jar") if (match := _SERVER.fullmatch(path.name))]
    return found[0] if found else None


async def _libraries(machine: Machine, progress: Progress) -> tuple[Path, str]:
    home = machine.environment.get(HOME_VARIABLE)
    if home:
        return Path(home, "libs"), HOME_VARIABLE
    folder = machine.cache_dir / NAME / VERSION
    async with exclusively(machine.cache_dir / f"{NAME}.lock"):
        if version_of(folder) is None:
            await _download(folder, machine, progress)
    return folder, str(folder)


async def _download(folder: Path, machine: Machine, progress: Progress) -> None:
    try:
        maven = await _maven(machine, progress)
        progress(NAME, f"downloading Kafka {VERSION} with Maven into {folder}")
        draft = folder.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        pom = draft / "pom.xml"
        pom.write_text(POM, encoding="utf-8")
        libraries = draft / "libs"
        command: list[str | Path] = [
            maven,
            "-q",
            "-B",
            "-f",
            pom,
            "dependency:copy-dependencies",
            f"-DoutputDirectory={libraries}",
        ]
        ran = await run(command, env=machine.environment, timeout_s=MAVEN_S)
        if ran.code != 0 or version_of(libraries) is None:
            raise Missing(f"Maven: {_complaint(ran.output) or ran.told}")  # noqa: TRY301 - told below, with the others
    except (Missing, apt.AptFailed, OSError) as exc:
        msg = f"can't fetch Kafka {VERSION}: {exc or type(exc).__name__}"
        hint = (
            f"install Maven (Debian, Ubuntu: sudo apt-get install maven), or set {HOME_VARIABLE} to an unpacked Kafka "
            f"(with libs/), or {URL_VARIABLE} to a server that runs already (kafka://host:port)"
        )
        raise DevstackError(msg, hint) from exc
    libraries.rename(folder)
    shutil.rmtree(draft)


async def _maven(machine: Machine, progress: Progress) -> Path:
    found = shutil.which("mvn", path=machine.path)
    if found is None:
        client = apt.find(machine.environment)
        if client is None or not machine.privileged:
            msg = "no mvn on PATH, and " + ("no apt-get here" if client is None else "not root to install it")
            raise Missing(msg)
        progress(NAME, "installing maven with apt-get")
        async with exclusively(machine.cache_dir / "apt.lock"):
            await client.install(["maven"])
        found = shutil.which("mvn", path=machine.path)
    if found is None:
        msg = "apt-get installed no mvn"
        raise Missing(msg)
    return Path(found)


def _complaint(output: str) -> str:
    """Maven's first error; the last lines of its output are advice."""
    return next((line for line in output.splitlines() if line.startswith("[ERROR]")), "")


def _launcher(folder: Path, java: Path, libraries: Path) -> Path:
    """One for each pair of Java and libraries, so that stacks with different ones don't overwrite each other's."""
    text = f'#!/bin/sh\nexec {shlex.quote(str(java))} -cp {shlex.quote(f"{libraries}/*")} "$@"\n'
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"launch-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if not path.exists():
        draft = path.with_suffix(".draft")
        draft.write_text(text, encoding="utf-8")
        draft.chmod(0o755)
        draft.rename(path)
    return path
