"""What the simulated server holds, and the planner of its service."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from reconcilers.contract import Difference, ExternalId, Plan, Step


class Item(BaseModel):
    model_config = ConfigDict(extra="forbid")
    target: str
    size: int
    item: str | None = None
    needs: tuple[str, ...] = ()


class ItemTarget(BaseModel):
    model_config = ConfigDict(extra="forbid")
    url: str


@dataclass(frozen=True, slots=True)
class CreateItem(Step):
    size: int


@dataclass(frozen=True, slots=True)
class ResizeItem(Step):
    size: int


@dataclass(frozen=True, slots=True)
class DropItem(Step):
    pass


@dataclass(frozen=True, slots=True)
class EmptyItem(Step, irreversible=True):
    pass


def plan(external: ExternalId, desired: int | None, observed: int | None, now: float) -> Plan:
    if desired is None:
        return Plan() if observed is None else Plan((DropItem(external),))
    if observed is None:
        return Plan((CreateItem(external, desired),), (Difference("", desired, None),))
    if desired == observed:
        return Plan()
    difference = (Difference("/size", desired, observed),)
    if desired == 0:
        return Plan((EmptyItem(external), ResizeItem(external, 0)), difference)
    return Plan((ResizeItem(external, desired),), difference)
