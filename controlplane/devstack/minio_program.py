"""Where MinIO comes from: a given server, a given home, PATH, the cache, its source.

MinIO publishes no binaries and has no package in Debian; its source is a Go module. It is built once, at a pinned version,
into the cache: some minutes and 310 CPU seconds, with a toolchain that is found or fetched. Whoever needs it doesn't hold
up others: the build runs at low priority.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from controlplane.devstack.commands import run
from controlplane.devstack.golang import find_go
from controlplane.devstack.progress import DevstackError, Progress
from controlplane.devstack.provision import ANSWER_S, Given, Machine, Missing, Program, exclusively

NAME: Final = "minio"
VERSION: Final = "v0.0.0-20260212201848-7aac2a2c5b7c"
MODULE: Final = "github.com/minio/minio"
URL_VARIABLE: Final = "COREPLANE_MINIO_URL"
HOME_VARIABLE: Final = "COREPLANE_MINIO_HOME"
BUILD_S: Final = 3600.0
TELL_EVERY: Final = 250
"""Packages compiled between two lines of progress; there are some 1,200."""
_VERSION = re.compile(r"^minio version (\S+)", re.MULTILINE)


async def provide(machine: Machine, progress: Progress) -> Program | Given:
    """A server's URL, or a program. DevstackError with instructions when there is no way."""
    url = machine.environment.get(URL_VARIABLE)
    if url:
        return Given(url)
    home = machine.environment.get(HOME_VARIABLE)
    try:
        if home:
            return await _from_home(Path(home), machine)
        found = shutil.which(NAME, path=machine.path)
        if found is not None:
            return await working(Path(found), "PATH", machine)
    except Missing as exc:
        msg = f"can't use the minio that is there: {exc}"
        raise DevstackError(
            msg, f"correct or unset {HOME_VARIABLE}" if home else "mend it, or take it from PATH"
        ) from exc
    path = built_path(machine)
    async with exclusively(path.parents[1] / "build.lock", BUILD_S):
        return await _from_cache(path, machine, progress)


def built_path(machine: Machine) -> Path:
    """Where the program lies once it is built."""
    return machine.cache_dir / NAME / VERSION / NAME


async def working(path: Path, origin: str, machine: Machine) -> Program:
    """The program, if it answers."""
    try:
        ran = await run([path, "--version"], env=machine.environment, timeout_s=ANSWER_S)
    except OSError as exc:  # TimeoutError is one
        msg = f"{path} doesn't run: {str(exc) or type(exc).__name__}"
        raise Missing(msg) from exc
    version = _VERSION.search(ran.output)
    if ran.code != 0 or version is None:
        msg = f"{path} doesn't tell its version: {ran.told}"
        raise Missing(msg)
    return Program(path, version[1], origin)


async def _from_home(home: Path, machine: Machine) -> Program:
    for path in (home / "bin" / NAME, home / NAME):
        if os.access(path, os.X_OK) and path.is_file():
            return await working(path, HOME_VARIABLE, machine)
    msg = f"{home} holds no {NAME}"
    raise Missing(msg)


async def _from_cache(path: Path, machine: Machine, progress: Progress) -> Program:
    try:
        return await working(path, str(path.parent), machine)
    except Missing:
        await _build(path, machine, progress)
    try:
        return await working(path, str(path.parent), machine)
    except Missing as exc:
        raise _instructed(str(exc)) from exc


async def _build(path: Path, machine: Machine, progress: Progress) -> None:
    go = await find_go(machine, progress)
    progress(NAME, f"building MinIO from source with {go}: once on this machine, it takes some minutes")
    with tempfile.TemporaryDirectory(dir=path.parent.parent, prefix="draft-") as draft:
        environment = {"HOME": str(Path.home()), **machine.environment, "GOBIN": draft}
        nice = shutil.which("nice", path=machine.path)
        command: list[str | Path] = [*([nice] if nice else []), go, "install", "-v", f"{MODULE}@{VERSION}"]
        try:
            ran = await run(command, env=environment, timeout_s=BUILD_S, line=_counted(progress))
        except OSError as exc:  # TimeoutError is one
            raise _instructed(str(exc) or type(exc).__name__) from exc
        if ran.code != 0:
            raise _instructed(ran.told)
        _put(Path(draft, NAME), path)


def _put(built: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    built.rename(path)


def _counted(progress: Progress) -> Callable[[str], None]:
    """Tells how far the build is; `go install -v` names each package that it has compiled."""
    compiled = 0

    def line(text: str) -> None:
        nonlocal compiled
        if text.startswith("go: "):
            return
        compiled += 1
        if compiled % TELL_EVERY == 0:
            progress(NAME, f"building: {compiled} packages compiled")

    return line


def _instructed(reason: str) -> DevstackError:
    hint = (
        f"build it yourself (go install {MODULE}@{VERSION}) and set {HOME_VARIABLE} to the directory that holds it, or "
        f"{URL_VARIABLE} to a server that runs already (http://host:port)"
    )
    return DevstackError(f"can't build MinIO: {reason}", hint)
