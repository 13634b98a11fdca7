"""References to secrets. A secret itself never enters the log, an event, a log line or a metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

Place = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class SecretRef(BaseModel):
    """Where a secret is found: exactly one of an environment variable or a file of the daemon."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    from_env: Place | None = None
    from_file: Place | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> SecretRef:
        if (self.from_env is None) == (self.from_file is None):
            msg = "give exactly one of from_env or from_file"
            raise ValueError(msg)
        return self

    def __str__(self) -> str:
        return f"from_env: {self.from_env}" if self.from_env is not None else f"from_file: {self.from_file}"


def references_in(value: Any) -> Iterator[SecretRef]:
    """Every secret reference inside a model or JSON value, in document order."""
    if isinstance(value, SecretRef):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from references_in(getattr(value, name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from references_in(inner)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for inner in value:
            yield from references_in(inner)
