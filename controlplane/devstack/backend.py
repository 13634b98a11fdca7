"""What the module of a backend describes, and where one instance of it lives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.devstack.ports import LOOPBACK


@dataclass(frozen=True, slots=True)
class Place:
    """One instance on this machine."""

    data_dir: Path
    name: str
    port: int

    @property
    def home(self) -> Path:
        """Its own directory."""
        return self.data_dir / self.name

    @property
    def log_path(self) -> Path:
        """What it prints."""
        return self.data_dir / "logs" / f"{self.name}.log"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the program of a backend is had."""

    name: str
    executable: str
    packages: tuple[str, ...]
    """Of Debian: those that hold the program itself. What they need is found out."""

    @property
    def url_variable(self) -> str:
        """Environment variable naming a server that runs already."""
        return f"COREPLANE_{self.name.upper()}_URL"

    @property
    def home_variable(self) -> str:
        """Environment variable naming a directory that holds the program, or holds `bin/` with it."""
        return f"COREPLANE_{self.name.upper()}_HOME"


def nothing_more(_place: Place) -> Mapping[str, str]:
    """No environment variables of its own."""
    return {}


@dataclass(frozen=True, slots=True)
class Backend:
    """A kind of server: everything the devstack must know to run one."""

    recipe: Recipe
    scheme: str
    preferred_port: int
    prepare: Callable[[Place], None]
    """Make its files under `place.home`; called before every start, keeps what is there."""
    command: Callable[[Place, Path], Sequence[str]]
    """(place, program) → argument vector that stays in the foreground."""
    probe: Callable[[int], Awaitable[int]]
    """(port) → the pid of the server that answers there. OSError, EOFError or ValueError while none does."""
    target: Callable[[str], dict[str, Any]]
    """(url) → value of the target setting for the server of ours at this URL."""
    given_target: Callable[[str], dict[str, Any]]
    """(url) → the same for a server that a person names by `url_variable`."""
    ready_s: float = 30.0
    stop_s: float = 10.0
    environment: Callable[[Place], Mapping[str, str]] = nothing_more
    """Variables that it is started with, beside those that every program needs."""
    target_name: str | None = None
    """Of the setting that says where it is; None: the name of the backend."""
    later: bool = False
    """It may take minutes until it is there (built, downloaded, slow to start), so nobody waits for it: its target is
    declared from the start, and what is declared there converges when it has come."""

    @property
    def name(self) -> str:
        """Of the backend and its folder."""
        return self.recipe.name

    @property
    def declared_as(self) -> str:
        """Name of its target."""
        return self.target_name or self.name

    def url(self, port: int) -> str:
        """Of an instance of ours."""
        return f"{self.scheme}://{LOOPBACK}:{port}"
