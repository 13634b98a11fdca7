"""`python -m schemas.generate`: writes the JSON Schemas in `json/` from the models; `--check` only says what is stale.

The one module here that touches files; nothing imports it but its tests.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from schemas.access import ACCESS_KINDS
from schemas.event import InfrastructureEvent
from schemas.kinds import KINDS
from schemas.metric import InfrastructureMetric
from schemas.record import ChangeRequest
from schemas.setting import Declaration, InfrastructureSetting, Status

DIRECTORY: Final = Path(__file__).parent / "json"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

PUBLIC: Final[Mapping[str, type[BaseModel]]] = {
    "declaration": Declaration,
    "setting": InfrastructureSetting,
    "status": Status,
    "event": InfrastructureEvent,
    "metric": InfrastructureMetric,
    "record": ChangeRequest,
    **KINDS,
    **ACCESS_KINDS,
}
"""File name without suffix → model."""


def schema_of(name: str, model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of what may be written: fields with defaults aren't required."""
    return {"$schema": DIALECT, "$id": f"urn:coreplane:schema:{name}", **model.model_json_schema(mode="validation")}


def rendered() -> dict[str, str]:
    """File name → content, for all of them."""
    return {
        f"{name}.json": json.dumps(schema_of(name, model), indent=2, sort_keys=True) + "\n"
        for name, model in PUBLIC.items()
    }


def stale(directory: Path = DIRECTORY) -> list[str]:
    """Names of the files that are missing, differ from the models, or have no model any more."""
    wanted = rendered()
    there = {path.name: path.read_text(encoding="utf-8") for path in directory.glob("*.json")}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


def write(directory: Path = DIRECTORY) -> list[str]:
    """Bring the files up to date; the names of those that were stale."""
    wanted, changed = rendered(), stale(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name in changed:
        if name in wanted:
            (directory / name).write_text(wanted[name], encoding="utf-8")
        else:
            (directory / name).unlink()
    return changed


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 up to date or written, 1 stale under `--check`."""
    parser = argparse.ArgumentParser(
        prog="python -m schemas.generate", description="Write schemas/json from the models."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    options = parser.parse_args(argv)
    names = stale() if options.check else write()
    verb = "stale" if options.check else "written"
    sys.stdout.writelines(f"{verb}: {name}\n" for name in names)
    return 1 if options.check and names else 0


if __name__ == "__main__":
    sys.exit(main())
