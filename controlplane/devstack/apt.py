"""Debian's packages: installed by root, or downloaded and unpacked into a directory by anybody.

Without root, apt works on lists and archives of our own under the cache directory and reads the system's package status
only to know what is there: `install --download-only` then fetches exactly the packages and libraries that are missing.
Nothing of them is configured; no maintainer script runs and no service starts. With root, a package may start a service of
its own on the usual port; it is left alone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controlplane.devstack.commands import Ran, run

FRESH_S: Final = 86_400.0
"""Lists of packages that are older name versions that the mirror may have dropped."""
UPDATE_S: Final = 180.0
INSTALL_S: Final = 300.0
UNPACK_S: Final = 60.0
SYSTEM_LISTS: Final = Path("/var/lib/apt/lists")
SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""apt and dpkg start programs of the system by their names, some of them where only root looks."""
NETWORK: Final = ("-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20")
LEFT_OUT: Final = ("libc6_", "libc-bin_", "base-files_")
"""The C library goes with the system's loader: another version of it beside would break every program."""


class AptFailed(Exception):
    """A step of apt failed; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Apt:
    """The package client found on PATH."""

    program: Path
    unpacker: Path
    env: Mapping[str, str]

    async def install(self, packages: Sequence[str]) -> None:
        """Install into the system, as root. Waits for another apt that runs. Raises `AptFailed`."""
        await self._update(SYSTEM_LISTS, ())
        options = ("-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Options::=--force-confold")
        await self._run("install", "-y", "--no-install-recommends", *options, *NETWORK, *packages)

    async def unpack(self, packages: Sequence[str], scratch: Path, into: Path) -> None:
        """Download the packages and what they need and the system lacks; unpack all into `into`, which is complete or
        isn't there. `scratch` keeps lists between calls. Raises `AptFailed`.
        """
        state = _private_state(scratch)
        await self._update(scratch / "lists", state)
        with tempfile.TemporaryDirectory(dir=scratch, prefix="unpack-") as folder:
            archives, root = Path(folder) / "archives", Path(folder) / "root"
            (archives / "partial").mkdir(parents=True)
            root.mkdir()
            place = ("-o", f"Dir::Cache::archives={archives}")
            options = ("-y", "--download-only", "--reinstall", "--no-install-recommends")
            await self._run("install", *options, *state, *place, *NETWORK, *packages)
            found = [path for path in sorted(archives.glob("*.deb")) if not path.name.startswith(LEFT_OUT)]
            for archive in found:
                _checked(await run([self.unpacker, "-x", archive, root], env=self.env, timeout_s=UNPACK_S))
            shutil.rmtree(into, ignore_errors=True)
            into.parent.mkdir(parents=True, exist_ok=True)
            root.rename(into)

    async def _update(self, lists: Path, state: Sequence[str]) -> None:
        """Fetch the lists of packages when they are missing or old. One dead mirror of several is no error to apt."""
        if not _are_fresh(lists):
            await self._run("update", *state, *NETWORK, timeout_s=UPDATE_S)

    async def _run(self, *arguments: str, timeout_s: float = INSTALL_S) -> None:
        try:
            _checked(await run([self.program, "-q", *arguments], env=self.env, timeout_s=timeout_s))
        except TimeoutError as exc:
            msg = f"apt-get {arguments[0]} took longer than {timeout_s:g} s"
            raise AptFailed(msg) from exc


def find(env: Mapping[str, str]) -> Apt | None:
    """The package client, None on a system without it."""
    program, unpacker = (shutil.which(name, path=env.get("PATH")) for name in ("apt-get", "dpkg-deb"))
    if program is None or unpacker is None:
        return None
    path = os.pathsep.join(part for part in (env.get("PATH"), SYSTEM_PATH) if part)
    return Apt(Path(program), Path(unpacker), {**env, "PATH": path, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"})


def _private_state(scratch: Path) -> tuple[str, ...]:
    (scratch / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    settings = (
        f"Dir::State::lists={scratch / 'lists'}",
        f"Dir::State::extended_states={scratch / 'extended_states'}",
        f"Dir::Cache={scratch}",
        "Debug::NoLocking=true",  # the lock of the system's packages, which aren't touched
        "APT::Sandbox::User=root",  # apt's own user can't reach into a private directory (of root's)
    )
    return tuple(part for setting in settings for part in ("-o", setting))


def _are_fresh(lists: Path) -> bool:
    # The lists' own times are the mirror's; apt touches the folder of unfinished downloads at each update.
    present = any(lists.glob("*_Packages*")) if os.access(lists, os.R_OK | os.X_OK) else False
    return present and time.time() - (lists / "partial").stat().st_mtime < FRESH_S


def _checked(ran: Ran) -> None:
    if ran.code != 0:
        complaints = [line for line in ran.output.splitlines() if line.startswith(("E:", "dpkg-deb: error"))]
        raise AptFailed("; ".join(complaints) or ran.told)
