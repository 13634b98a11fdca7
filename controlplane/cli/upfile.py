"""`<data>/up.json`: what a running `coreplane up` tells the other verbs, `{pid, started_at, url, backends: […]}`.

A pid alone proves nothing, since systems use them again: the time the process began (as the system knows it) stands
beside it, and both must fit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from controlplane.cli.failure import Failure

NAME = "up.json"
SAME_START_S = 1.5
"""The system's start times are this precise at worst."""


@dataclass(frozen=True, slots=True)
class Running:
    """A `coreplane up`. `started_at`: Unix seconds, when the process began."""

    pid: int
    started_at: float
    url: str
    backends: tuple[dict[str, Any], ...] = ()
    parts: dict[str, Any] = field(default_factory=dict)
    """`log` and `projection`, as the daemon's configuration has them."""


def this_process(
    url: str, backends: Sequence[dict[str, Any]], parts: Mapping[str, Any] = MappingProxyType({})
) -> Running:
    """What to record about ourselves."""
    return Running(os.getpid(), psutil.Process().create_time(), url, tuple(backends), dict(parts))


def write(data_dir: Path, running: Running) -> None:
    """Record it; a reader sees the old content or the new, never half."""
    path = data_dir / NAME
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(running), indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def remove(data_dir: Path) -> None:
    """Forget it, if it is there."""
    (data_dir / NAME).unlink(missing_ok=True)


def read(data_dir: Path) -> Running | None:
    """What is recorded, running or not; None when nothing is. Failure when the file isn't ours."""
    path = data_dir / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        more = (tuple(content.get("backends", ())), content.get("parts", {}))
        return Running(content["pid"], content["started_at"], content["url"], *more)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        msg = f"can't make sense of {path}: {exc}"
        raise Failure(msg, hint="remove it if no coreplane runs there") from exc


def process(running: Running) -> psutil.Process | None:
    """The process, None when it has ended (and another may have its pid)."""
    try:
        found = psutil.Process(running.pid)
        same = abs(found.create_time() - running.started_at) < SAME_START_S
        return found if same and found.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def alive(data_dir: Path) -> Running | None:
    """The `coreplane up` that runs on this directory now."""
    running = read(data_dir)
    return running if running is not None and process(running) is not None else None
