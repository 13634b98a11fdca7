"""How much steps on indices would touch, for plans. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconcilers.contract import NOTHING_TOLD, Affected, Step
from reconcilers.search.steps import (
    BackfillFields,
    CreateGeneration,
    DropGeneration,
    DropIndex,
    PointAlias,
    ReopenIndex,
)
from reconcilers.search.wire import Wire


async def weigh(wire: Wire, steps: Sequence[Step]) -> list[Affected]:
    """Documents and bytes of the indices that are removed, copied, rewritten, or out of reach for a moment."""
    touched = [_indices(step) for step in steps]
    if not any(touched):
        return [NOTHING_TOLD] * len(steps)
    stats = await wire.ask("GET", "/_stats/docs,store", params={"filter_path": _FIELDS})
    return [_counted(names, stats.get("indices", {})) if names else NOTHING_TOLD for names in touched]


_FIELDS = "indices.*.primaries.docs.count,indices.*.primaries.store.size_in_bytes"


def _indices(step: Step) -> tuple[str, ...]:
    if isinstance(step, DropIndex):
        return step.indices
    if isinstance(step, CreateGeneration):
        return (step.source,)
    return (step.index,) if isinstance(step, ReopenIndex | BackfillFields | DropGeneration | PointAlias) else ()


def _counted(names: Sequence[str], stats: Mapping[str, Any]) -> Affected:
    found = [stats[name]["primaries"] for name in names if name in stats]
    if not found:
        return NOTHING_TOLD  # closed, or gone
    documents = sum(one["docs"]["count"] for one in found)
    return Affected({"documents": documents, "size_bytes": sum(one["store"]["size_in_bytes"] for one in found)})
