"""The example: settings of a small online shop, a file for each service, and the passwords that they refer to."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import yaml

from controlplane.devstack import secrets
from schemas.secret import SecretRef, references_in

EXAMPLES: Final = tuple(sorted((Path(__file__).parent / "example").glob("*.yaml")))


def declarations(services: Collection[str] | None = None) -> list[dict[str, Any]]:
    """What the files declare, in their order; of these services only, if they are named."""
    texts = [path.read_text(encoding="utf-8") for path in EXAMPLES]
    found = [content for text in texts for content in yaml.safe_load_all(text)]
    return [content for content in found if services is None or content["type"].partition(".")[0] in services]


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
