"""Artifacts of Maven's central repository, fetched by Maven: it knows mirrors and settings, and checks what it fetches."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from controlplane.devstack.commands import run
from controlplane.devstack.progress import Progress
from controlplane.devstack.provision import Machine, Missing, installed

MAVEN_S = 600.0


async def find_maven(machine: Machine, part: str, progress: Progress) -> Path:
    """The program, installed when we may. Raises `Missing` or `AptFailed`."""
    found = shutil.which("mvn", path=machine.path)
    if found is None:
        try:
            await installed(machine, part, ["maven"], progress)
        except Missing as exc:
            msg = f"no mvn on PATH, and {exc}"
            raise Missing(msg) from exc
        found = shutil.which("mvn", path=machine.path)
    if found is None:
        msg = "apt-get installed no mvn"
        raise Missing(msg)
    return Path(found)


async def run_goal(maven: Path, arguments: Sequence[str | Path], machine: Machine) -> None:
    """One run of Maven. Raises `Missing` with what it complained about, OSError when it can't be started or takes too long."""
    ran = await run([maven, "-q", "-B", *arguments], env=machine.environment, timeout_s=MAVEN_S)
    if ran.code != 0:
        raise Missing(f"Maven: {_complaint(ran.output) or ran.told}")


def _complaint(output: str) -> str:
    """Maven's first error; the last lines of its output are advice."""
    return next((line for line in output.splitlines() if line.startswith("[ERROR]")), "")
