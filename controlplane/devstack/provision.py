"""Where a backend's program comes from: the chain of providers, first that has a working one.

    given URL      COREPLANE_<NAME>_URL: a server that runs already; nothing is started
    given home     COREPLANE_<NAME>_HOME: a directory with the program; it must be there
    PATH           the program as the system has it
    cache          what an earlier run downloaded
    installation   apt-get as root, else (or when that fails) download and unpack into the cache

A program that doesn't answer `--version` isn't there: a cache that a system's upgrade has broken is fetched anew.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import platformdirs

from controlplane.devstack import apt
from controlplane.devstack.backend import Recipe
from controlplane.devstack.commands import run
from controlplane.devstack.progress import DevstackError, Progress

ANSWER_S: Final = 20.0
LOCK_S: Final = 600.0
LOCK_LOOK_S: Final = 0.2
_VERSION = re.compile(r"\d+\.\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Machine:
    """What the providers look at. `privileged`: may install packages into the system."""

    environment: Mapping[str, str]
    cache_dir: Path
    privileged: bool

    @property
    def path(self) -> str:
        """Where programs are searched; servers often lie where only root looks."""
        return os.pathsep.join([self.environment.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])


@dataclass(frozen=True, slots=True)
class Program:
    """A program that answers. `libraries`: directories it needs beside the system's."""

    path: Path
    version: str
    origin: str
    libraries: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Given:
    """A server that somebody else runs."""

    url: str


@dataclass(frozen=True, slots=True)
class Search:
    """One program, to be found on one machine."""

    recipe: Recipe
    machine: Machine
    progress: Progress


class Missing(Exception):
    """A provider hasn't got it; the text says why, for the instructions."""


Provider = Callable[[Search], Awaitable[Program]]


def this_machine() -> Machine:
    """The real one."""
    return Machine(os.environ, platformdirs.user_cache_path("coreplane") / "backends", os.geteuid() == 0)


async def provision(recipe: Recipe, machine: Machine, progress: Progress) -> Program | Given:
    """A server's URL, or a program to run one. DevstackError with instructions when there is no way."""
    url = machine.environment.get(recipe.url_variable)
    if url:
        return Given(url)
    search = Search(recipe, machine, progress)
    if machine.environment.get(recipe.home_variable):
        return await _insisted(search)
    async with exclusively(machine.cache_dir / f"{recipe.name}.lock"):
        return await _first(search)


async def from_home(search: Search) -> Program:
    """From the directory that a person names."""
    home = Path(search.machine.environment[search.recipe.home_variable])
    for path in (home / "bin" / search.recipe.executable, home / search.recipe.executable):
        if os.access(path, os.X_OK) and path.is_file():
            return await _working(path, search.recipe.home_variable)
    msg = f"{home} holds no {search.recipe.executable}"
    raise Missing(msg)


async def from_path(search: Search) -> Program:
    """As the system has it."""
    found = shutil.which(search.recipe.executable, path=search.machine.path)
    if found is None:
        msg = f"no {search.recipe.executable} on PATH"
        raise Missing(msg)
    return await _working(Path(found), "PATH")


async def from_cache(search: Search) -> Program:
    """Unpacked by an earlier run."""
    root = search.machine.cache_dir / search.recipe.name
    for folder in ("usr/bin", "usr/sbin", "bin"):
        path = root / folder / search.recipe.executable
        if path.exists():
            libraries = sorted({library.parent for library in root.rglob("*.so*")})
            return await _working(path, str(root), tuple(libraries))
    msg = f"nothing downloaded in {root}"
    raise Missing(msg)


async def from_installation(search: Search) -> Program:
    """apt-get install, as root."""
    await installed(search.machine, search.recipe.name, search.recipe.packages, search.progress)
    return await from_path(search)


async def from_download(search: Search) -> Program:
    """Downloaded by apt-get and unpacked into the cache, as anybody."""
    client = apt.find(search.machine.environment)
    if client is None:
        msg = "no apt-get here"
        raise Missing(msg)
    cache_dir, packages = search.machine.cache_dir, search.recipe.packages
    root = cache_dir / search.recipe.name
    search.progress(search.recipe.name, f"downloading {' '.join(packages)} into {root}")
    async with exclusively(cache_dir / "apt.lock"):
        await client.unpack(packages, cache_dir / "apt", root)
    return await from_cache(search)


CHAIN: Final[tuple[Provider, ...]] = (from_path, from_cache, from_installation, from_download)


async def _first(search: Search) -> Program:
    recipe = search.recipe
    reasons: list[str] = []
    for provider in CHAIN:
        try:
            program = await provider(search)
        except (Missing, apt.AptFailed) as exc:
            reasons.append(str(exc))
        else:
            search.progress(recipe.name, f"{program.version} from {program.origin}")
            return program
    told = "; ".join(dict.fromkeys(reasons))
    raise DevstackError(f"can't find or install {recipe.name}: {told}", _instructions(recipe))


async def _insisted(search: Search) -> Program:
    try:
        return await from_home(search)
    except Missing as exc:
        msg = f"can't use {search.recipe.home_variable}: {exc}"
        raise DevstackError(msg, "correct or unset it") from exc


def _instructions(recipe: Recipe) -> str:
    return (
        f"install it (Debian, Ubuntu: sudo apt-get install {' '.join(recipe.packages)}), or set {recipe.home_variable} to a "
        f"directory that holds {recipe.executable}, or {recipe.url_variable} to a server that runs already"
    )


async def _working(path: Path, origin: str, libraries: tuple[Path, ...] = ()) -> Program:
    env = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
    if libraries:
        env["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, libraries))
    try:
        ran = await run([path, "--version"], env=env, timeout_s=ANSWER_S)
    except OSError as exc:  # TimeoutError is one
        msg = f"{path} doesn't run: {exc}"
        raise Missing(msg) from exc
    version = _VERSION.search(ran.output)
    if ran.code != 0 or version is None:
        msg = f"{path} doesn't tell its version: {ran.told}"
        raise Missing(msg)
    return Program(path, version[0], origin, libraries)


async def installed(machine: Machine, part: str, packages: Sequence[str], progress: Progress) -> None:
    """Packages of the system, by apt-get. Raises `Missing` when we may not, `AptFailed`."""
    client = apt.find(machine.environment)
    if client is None or not machine.privileged:
        raise Missing("no apt-get here" if client is None else "not root, so nothing is installed into the system")
    progress(part, f"installing {' '.join(packages)} with apt-get")
    async with exclusively(machine.cache_dir / "apt.lock"):
        await client.install(packages)


@asynccontextmanager
async def exclusively(path: Path, wait_s: float = LOCK_S) -> AsyncIterator[None]:
    """One at a time, over all processes: whoever waited finds what the other one fetched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            async with asyncio.timeout(wait_s):
                while not _locked(lock.fileno()):  # noqa: ASYNC110 - held by another process
                    await asyncio.sleep(LOCK_LOOK_S)
        except TimeoutError as exc:
            msg = f"another process has held {path} for {wait_s:g} s"
            raise DevstackError(msg, "look for a coreplane that installs something, and end it") from exc
        yield


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
