"""Passwords made for this machine: `<data>/secrets/NAME`, readable by their owner alone.

Declarations refer to them by `{from_file: secrets/NAME}`; the daemon finds relative names under its data directory.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

FOLDER: Final = "secrets"
BYTES: Final = 24


def ensure(data_dir: Path, name: str) -> str:
    """The secret, made on first use."""
    return keep(data_dir, name, secrets.token_urlsafe(BYTES))


def keep(data_dir: Path, name: str, secret: str) -> str:
    """The secret of this name: what is kept already, else this one."""
    folder = data_dir / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / name
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="utf-8").strip()
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(secret + "\n")
    return secret


def reference(name: str) -> dict[str, str]:
    """How a declaration refers to it."""
    return {"from_file": f"{FOLDER}/{name}"}
