"""Where Kafka comes from: a given server, given libraries, the cache, Maven's repository.

Kafka has no package in Debian. Its libraries are artifacts of Maven's central repository, so Maven fetches them: 46 files,
44 MB, with their checksums. What is run is a launcher of ours, beside the libraries: it hands its arguments to Java with
the libraries on the class path.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Final

from controlplane.devstack import apt, launcher
from controlplane.devstack.java import find_java
from controlplane.devstack.maven import find_maven, run_goal
from controlplane.devstack.progress import DevstackError, Progress
from controlplane.devstack.provision import Given, Machine, Missing, Program, exclusively

NAME: Final = "kafka"
VERSION: Final = "4.3.1"
URL_VARIABLE: Final = "COREPLANE_KAFKA_URL"
HOME_VARIABLE: Final = "COREPLANE_KAFKA_HOME"
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
    draft = folder.with_suffix(".draft")
    try:
        maven = await find_maven(machine, NAME, progress)
        progress(NAME, f"downloading Kafka {VERSION} with Maven into {folder}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        pom = draft / "pom.xml"
        pom.write_text(POM, encoding="utf-8")
        libraries = draft / "libs"
        await run_goal(maven, ["-f", pom, "dependency:copy-dependencies", f"-DoutputDirectory={libraries}"], machine)
        if version_of(libraries) is None:
            raise Missing("Maven brought no Kafka")  # noqa: TRY301 - told below, with the others
    except (Missing, apt.AptFailed, OSError) as exc:
        msg = f"can't fetch Kafka {VERSION}: {str(exc) or type(exc).__name__}"
        hint = (
            f"install Maven (Debian, Ubuntu: sudo apt-get install maven), or set {HOME_VARIABLE} to an unpacked Kafka "
            f"(with libs/), or {URL_VARIABLE} to a server that runs already (kafka://host:port)"
        )
        raise DevstackError(msg, hint) from exc
    libraries.rename(folder)
    shutil.rmtree(draft)


def _launcher(folder: Path, java: Path, libraries: Path) -> Path:
    return launcher.written(
        folder, f'#!/bin/sh\nexec {shlex.quote(str(java))} -cp {shlex.quote(f"{libraries}/*")} "$@"\n'
    )
