"""What exists, as declarations: names that are free, values that are sound, and why some objects are left out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from controlplane.domain.validation import value_faults
from reconcilers.contract import Discovered, ExternalId, Kind
from schemas.names import Key


class Skipped(NamedTuple):
    """An object that can't be declared as it is."""

    setting_type: str
    name: str
    """The name that its setting would have."""
    reason: str


class FillIn(NamedTuple):
    """Something that a person has to say: where a secret is found."""

    key: str
    path: str
    message: str


@dataclass(slots=True)
class Imported:
    """The answer to an import. Nothing of it is stored."""

    declarations: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Key → declaration, fit for apply."""
    fill_in: list[FillIn] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    declared: list[tuple[ExternalId, str]] = field(default_factory=list)
    """Objects that are declared already, and the keys that do."""

    def drop(self, key: str, reason: str) -> None:
        """Leave out a declaration that turned out not to leave the object as it is."""
        declaration = self.declarations.pop(key)
        self.fill_in = [one for one in self.fill_in if one.key != key]
        self.skipped.append(Skipped(declaration["type"], declaration["name"], reason))

    def document(self) -> dict[str, Any]:
        """As the API answers it."""
        return {
            "settings": list(self.declarations.values()),
            "fill_in": [{"setting": one.key, "path": one.path, "message": one.message} for one in self.fill_in],
            "skipped": [{"type": one.setting_type, "name": one.name, "reason": one.reason} for one in self.skipped],
            "declared": [
                {"type": external.setting_type, "external": external.name, "setting": key}
                for external, key in self.declared
            ],
        }


@dataclass(frozen=True, slots=True)
class Known:
    """What is declared already at the target."""

    tenant: str
    target: str
    owners: Mapping[ExternalId, str]
    """Object → key of the setting that declares it."""
    keys: AbstractSet[str]
    """Names that are taken, at other targets too."""


def imported(found: Iterable[tuple[Kind[Any, Any, Any], Discovered]], known: Known) -> Imported:
    """The declarations of what was found."""
    answer = Imported()
    for kind, one in found:
        value = {**({"target": known.target} if "target" in kind.value.model_fields else {}), **one.value}
        why = one.undeclarable or _unsound(value, kind)
        if why is not None:
            answer.skipped.append(Skipped(kind.setting_type, one.name, why))
            continue
        external = ExternalId(kind.setting_type, kind.identify(one.name, kind.value.model_validate(value)))
        owner = known.owners.get(external)
        if owner is not None:
            answer.declared.append((external, owner))
            continue
        key = _free(Key(known.tenant, kind.setting_type, one.name), known.keys | answer.declarations.keys())
        named = _named(value, kind, external, key.name)
        if named is None:
            answer.skipped.append(
                Skipped(kind.setting_type, one.name, f"the name is taken: {key.setting_type}/{one.name}")
            )
            continue
        answer.declarations[str(key)] = {"type": kind.setting_type, "name": key.name, "value": named}
        answer.fill_in += [FillIn(str(key), f"/value{path}", text) for path, text in one.fill_in.items()]
    return answer


def _unsound(value: Mapping[str, Any], kind: Kind[Any, Any, Any]) -> str | None:
    """Why the value can't be declared; it may hold what a declaration has no word for."""
    faults = value_faults(value, kind.value)
    return "; ".join(f"{fault.path}: {fault.message}" for fault in faults) or None


def _free(key: Key, taken: AbstractSet[str]) -> Key:
    """The key, or the first of `name-2`, `name-3` … that nobody has."""
    found, number = key, 1
    while str(found) in taken:
        number += 1
        found = key._replace(name=f"{key.name[:120]}-{number}")
    return found


def _named(
    value: Mapping[str, Any], kind: Kind[Any, Any, Any], external: ExternalId, name: str
) -> Mapping[str, Any] | None:
    """The value, with the object's own name where the setting's doesn't give it; None when it can't be said."""
    if kind.identify(name, kind.value.model_validate(value)) == external.name:
        return value
    return None if kind.named_by is None else {**value, kind.named_by: external.name}


def selected(objects: Sequence[Discovered], kind: Kind[Any, Any, Any]) -> list[tuple[Kind[Any, Any, Any], Discovered]]:
    """The objects of one kind, by name."""
    return [(kind, one) for one in sorted(objects, key=lambda one: one.name)]
