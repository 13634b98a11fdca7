"""Where a setting is carried out, as the log says.

Note [The log places]. The target of a setting decides its shard, and so who may act on it. Which part of a value names the target
is knowledge of the registry, which two versions of this program may hold differently: each would then take the setting for
one of another shard, and both, or neither, would drive it. So whoever validates a declaration writes the target into the
body that is stored, and everybody who reads it believes that. Settings stored before are placed by what their value says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from schemas.names import Key

TARGET: Final = "target"
"""Field of the stored body; never of a declaration."""
_PLACED_BY: Final = ("target",)


def placed(body: Mapping[str, Any], key: Key, model: Any) -> dict[str, Any]:
    """The body with its target recorded; as it is when its value names none. `model`: of its value, None when unknown."""
    target = key.name if key.setting_type == f"{key.service}.target" else at(body["value"], place_of(model))
    return {**body, TARGET: target} if isinstance(target, str) else dict(body)


def recorded(body: Mapping[str, Any]) -> str | None:
    """The target that the log says; None in a body that was stored without."""
    target = body.get(TARGET)
    return target if isinstance(target, str) else None


def declared(body: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a user declared: the body without what was recorded about it."""
    return None if body is None else {name: part for name, part in body.items() if name != TARGET}


def place_of(model: Any) -> Sequence[str | int]:
    """The part of a value that names its target."""
    place: Sequence[str | int] = getattr(model, "placed_by", _PLACED_BY)
    return place


def at(value: Any, place: Sequence[str | int]) -> Any:
    """What stands at a place of a value that its model accepted once; None where that was another model."""
    for part in place:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value
