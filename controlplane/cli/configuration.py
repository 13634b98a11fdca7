"""The daemon's configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from controlplane.cli import upfile
from controlplane.cli.documents import JsonLoader
from controlplane.cli.failure import Failure
from controlplane.config import Config


def load(path: Path | None, overrides: dict[str, Any] | None = None) -> Config:
    """The configuration in a YAML file (None: all defaults), under what the command line says."""
    content = {} if path is None else _read(path)
    return checked(merged(content, overrides or {}), "the configuration" if path is None else str(path))


def of_running(path: Path | None, data: Path, overrides: dict[str, Any] | None = None) -> Config:
    """The configuration in a file; without one that of the `coreplane up` on the data directory, if there is one."""
    running = upfile.alive(data) if path is None else None
    known = {} if running is None else {"data_dir": str(data.resolve()), **running.parts}
    return load(path, merged(known, overrides or {}))


def checked(content: dict[str, Any], source: str) -> Config:
    """The content as a Config; Failure with every path at fault."""
    try:
        return Config.model_validate(content)
    except ValidationError as exc:
        faults = tuple(
            (".".join(str(part) for part in error["loc"]), error["msg"]) for error in exc.errors(include_url=False)
        )
        msg = f"{source} isn't a configuration"
        raise Failure(msg, faults=faults) from exc


def merged(content: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The content with the overrides in it; None overrides nothing."""
    result = dict(content)
    for name, value in overrides.items():
        if isinstance(value, dict):
            inner = result.get(name)
            result[name] = merged(inner if isinstance(inner, dict) else {}, value)
        elif value is not None:
            result[name] = value
    return result


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), JsonLoader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        msg = f"can't read {path}: {getattr(exc, 'strerror', None) or exc}"
        raise Failure(msg) from exc
    if content is not None and not isinstance(content, dict):
        msg = f"{path}: a configuration is a map"
        raise Failure(msg)
    return content or {}
