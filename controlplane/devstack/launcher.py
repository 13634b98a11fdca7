"""Launchers: small scripts in the cache that know where their runtime and their program are."""

from __future__ import annotations

import hashlib
from pathlib import Path


def written(folder: Path, text: str) -> Path:
    """The script, made if it isn't there: one for each text, so that stacks with different ones don't overwrite each other's."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"launch-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if not path.exists():
        draft = path.with_suffix(".draft")
        draft.write_text(text, encoding="utf-8")
        draft.chmod(0o755)
        draft.rename(path)
    return path
