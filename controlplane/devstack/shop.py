"""The example: settings of a small online shop's cache, and the passwords that they refer to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from controlplane.devstack import secrets
from schemas.secret import SecretRef, references_in

EXAMPLE: Final = Path(__file__).parent / "example" / "shop.yaml"


def declarations() -> list[dict[str, Any]]:
    """What the file declares, in its order."""
    return list(yaml.safe_load_all(EXAMPLE.read_text(encoding="utf-8")))


def make_secrets(data_dir: Path) -> None:
    """Make every password that the example refers to and that isn't there yet."""
    for reference in _references(declarations()):
        folder, _, name = str(reference.from_file).rpartition("/")
        if folder == secrets.FOLDER:
            secrets.ensure(data_dir, name)


def _references(value: Any) -> list[SecretRef]:
    """References are recognised by their shape: which fields hold them is the affair of each kind."""
    if isinstance(value, dict) and value.keys() <= {"from_file", "from_env"} and len(value) == 1:
        return list(references_in(SecretRef.model_validate(value)))
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [reference for part in inner for reference in _references(part)]
